"""The scorer as a LitServe API, see `benchmarks.serving.peer_servers`."""

from pathlib import Path
from typing import Any

import litserve
from fastapi import Request
from starlette.responses import Response

from benchmarks.serving.peer_servers import Scoring


class Rank(litserve.LitAPI):  # type: ignore[misc]
    """POST /rank; it travels to another process, so it stands in a module."""

    def __init__(self, bundle: Path) -> None:
        super().__init__(api_path="/rank")
        self._bundle = bundle

    def setup(self, device: str) -> None:
        """Load the model, in the worker."""
        self._ranker = Scoring(self._bundle)

    def decode_request(self, request: Request) -> Any:
        """The body, parsed."""
        return request

    def predict(self, body: Any) -> bytes:
        """The answer."""
        return self._ranker.answer(body)

    def encode_response(self, output: bytes) -> Response:
        """As it is."""
        return Response(output, media_type="application/json")


def run(bundle: Path, port: int, workers: int) -> None:
    """Serve until a signal comes."""
    server = litserve.LitServer(Rank(bundle), accelerator="cpu", workers_per_device=workers)
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)
