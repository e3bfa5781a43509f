"""The scorer as a BentoML service, see `benchmarks.serving.peer_servers`."""

import os
from pathlib import Path
from typing import Any

import bentoml

from benchmarks.serving.peer_servers import BUNDLE, WORKERS, Scoring


@bentoml.service(workers=int(os.environ[WORKERS]))
class Rank:
    """POST /rank."""

    def __init__(self) -> None:
        self._ranker = Scoring(Path(os.environ[BUNDLE]))

    @bentoml.api(route="/rank")  # type: ignore[untyped-decorator]
    def rank(self, history: list[Any], candidates: list[Any], k: int) -> Any:
        """See `serve.http.routes`."""
        import json

        return json.loads(
            self._ranker.answer({"history": history, "candidates": candidates, "k": k})
        )
