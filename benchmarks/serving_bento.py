"""The scorer as a BentoML service, see `benchmarks.serving_peers`."""

import os
from pathlib import Path
from typing import Any

import bentoml

from benchmarks.serving_peers import Ranker


@bentoml.service(workers=1)
class Rank:
    """POST /rank."""

    def __init__(self) -> None:
        self._ranker = Ranker(Path(os.environ["RANKED_BUNDLE"]))

    @bentoml.api(route="/rank")
    def rank(self, history: list[Any], candidates: list[Any], k: int) -> Any:
        """See `serve.routes`."""
        import json

        return json.loads(
            self._ranker.answer({"history": history, "candidates": candidates, "k": k})
        )
