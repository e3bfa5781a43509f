"""The service's scorer behind other servers, for `benchmarks.serving`.

    python -m benchmarks.serving.peer_servers fastapi|litserve|bentoml BUNDLE --port N

Each answers `POST /rank` with what the service answers: the request is checked by the same model,
scored and written by the same functions; only the server around them differs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import run_command

WAYS = ("fastapi", "litserve", "bentoml")
#: Environment variables that a server's workers read.
BUNDLE, WORKERS = "RANKED_BUNDLE", "RANKED_WORKERS"


class Scoring:
    """A loaded bundle that answers /rank for sessions."""

    def __init__(self, bundle: Path) -> None:
        import torch

        from recsys.recommender import Recommender
        from serve.ranking.queries import EventTypes

        torch.set_num_threads(1)
        self.model, self._types = Recommender.load(bundle), EventTypes({})

    def answer(self, body: Any) -> bytes:
        """The JSON answer to a body that is parsed already."""
        query, request = self.question(body)
        (encoded,) = self.model.encode([query.history], whole=False)
        return self.ranked(query, encoded, request)

    def question(self, body: Any) -> tuple[Any, Any]:
        """What a body asks: the query, and the request."""
        from recsys.state import clock_us
        from serve.ranking.queries import from_session
        from serve.schemas.requests import RankRequest

        request = RankRequest.model_validate(body)
        assert request.history is not None
        now = clock_us()
        query = from_session(self.model, request.history, self._types, clock_us=now, latest_us=now)
        return query, request

    def ranked(self, query: Any, encoded: Any, request: Any) -> bytes:
        """The JSON answer to a question whose history has been read."""
        from serve.core.serialization import to_json
        from serve.ranking.candidates import Candidates
        from serve.ranking.rankings import CandidateRanking
        from serve.ranking.verbs import verbs_of

        no_texts = np.zeros((0, 0), dtype=np.float32)
        candidates = Candidates.of(self.model, request)
        ranking = CandidateRanking(request, self.model, candidates, no_texts, verbs_of({}, {}))
        return to_json(ranking.answer(self.model, query, encoded).fields)


def fastapi(bundle: Path, port: int, workers: int) -> None:
    """FastAPI on uvicorn, with the thread that ranks for all who ask at once.

    A plain handler, of which each call runs in a thread of its own, is a fourth as fast.
    """
    import uvicorn

    os.environ[BUNDLE] = str(bundle)
    app = "benchmarks.serving.peer_servers:fastapi_app"
    uvicorn.run(
        app, factory=True, workers=workers, host="127.0.0.1", port=port, access_log=False,
        log_level="warning",
    )  # fmt: skip


def fastapi_app() -> Any:
    """What a worker of uvicorn runs."""
    from fastapi import Body, FastAPI
    from starlette.responses import Response

    from serve.observability.metrics import NoMetrics
    from serve.ranking.batches import Batches

    ranker, app, batches = Scoring(Path(os.environ[BUNDLE])), FastAPI(), Batches(NoMetrics())

    @app.post("/rank")
    async def rank(body: Any = Body()) -> Response:  # noqa: B008 - FastAPI's way
        query, request = ranker.question(body)
        answer = await batches.submit(
            ranker.model,
            lambda: query,
            lambda query, encoded: ranker.ranked(query, encoded, request),
            whole=False,
        )
        return Response(answer, media_type="application/json")

    return app


def litserve(bundle: Path, port: int, workers: int) -> None:
    """LitServe, its defaults but for the workers: no batches."""
    from benchmarks.serving.lit import run

    run(bundle, port, workers)


def bentoml(bundle: Path, port: int, workers: int) -> None:
    """BentoML, its defaults but for the workers."""
    os.environ |= {
        BUNDLE: str(bundle), WORKERS: str(workers), "BENTOML_DO_NOT_TRACK": "1",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "bentoml", "serve", "benchmarks.serving.bento:Rank",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    os.execv(sys.executable, command)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving.peer_servers",
        description="The scorer behind another server.",
    )
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1, help="processes that rank (default: 1)")
    return run_command(_run, parser.parse_args(argv))


def _run(options: argparse.Namespace) -> None:
    ways = {"fastapi": fastapi, "litserve": litserve, "bentoml": bentoml}
    ways[options.way](options.bundle.absolute(), options.port, options.workers)


if __name__ == "__main__":
    sys.exit(main())
