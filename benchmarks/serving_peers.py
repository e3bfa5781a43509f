"""The service's scorer behind other servers, for `benchmarks.serving`.

    python -m benchmarks.serving_peers fastapi|litserve|bentoml BUNDLE --port N

Each answers `POST /rank` with what the service answers: the request is checked by the same model,
scored and written by the same functions; only the server around them differs. Each has one worker.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

WAYS = ("fastapi", "litserve", "bentoml")


class Ranker:
    """A loaded bundle that answers /rank for sessions."""

    def __init__(self, bundle: Path) -> None:
        import torch

        from recsys.recommender import Recommender
        from serve.queries import EventTypes

        torch.set_num_threads(1)
        self._model, self._types = Recommender.load(bundle), EventTypes({})

    def answer(self, body: Any) -> bytes:
        """The JSON answer to a body that is parsed already."""
        from recsys.state import clock_us
        from serve import answering
        from serve.api import RankRequest
        from serve.queries import from_session

        request = RankRequest.model_validate(body)
        assert request.history is not None
        now = clock_us()
        query = from_session(self._model, request.history, self._types, clock_us=now, latest_us=now)
        (encoded,) = self._model.encode([query.history], whole=False)
        no_texts = np.zeros((0, 0), dtype=np.float32)
        return answering.to_json(
            answering.rank(self._model, query, encoded, request, no_texts).fields
        )


def fastapi(bundle: Path, port: int) -> None:
    """FastAPI on one uvicorn worker: the handler is plain, so it runs in a thread."""
    import uvicorn
    from fastapi import Body, FastAPI
    from starlette.responses import Response

    ranker, app = Ranker(bundle), FastAPI()

    @app.post("/rank")
    def rank(body: Any = Body()) -> Response:  # noqa: B008 - FastAPI's way
        return Response(ranker.answer(body), media_type="application/json")

    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False, log_level="warning")


def litserve(bundle: Path, port: int) -> None:
    """LitServe, its defaults: no batches, one worker."""
    from benchmarks.serving_lit import run

    run(bundle, port)


def bentoml(bundle: Path, port: int) -> None:
    """BentoML, its defaults: one worker."""
    import os

    os.environ["RANKED_BUNDLE"] = str(bundle)
    os.environ["BENTOML_DO_NOT_TRACK"] = "1"
    command = [
        sys.executable, "-m", "bentoml", "serve", "benchmarks.serving_bento:Rank",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    os.execv(sys.executable, command)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving_peers", description="The scorer behind another server."
    )
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(argv)
    ways = {"fastapi": fastapi, "litserve": litserve, "bentoml": bentoml}
    ways[options.way](options.bundle.absolute(), options.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
