"""What `benchmarks.serving.freshness` counts, of a service whose answers know of an event late."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from benchmarks.serving.freshness import measure, render


@contextmanager
def service(late: int) -> Iterator[str]:
    """Its URL; of a purchase the first `late` answers after it do not know."""
    bought: dict[str, str] = {}
    answers: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            user, found = body["user_id"], {}
            if self.path == "/events":
                bought[user], found = body["item_id"], {"stored": 1}
            else:
                answers[user] += user in bought
                known = bought.get(user) if answers[user] > late else None
                found = {"items": [{"item_id": each} for each in ("a", "b") if each != known]}
            sent = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/recommend"
        finally:
            server.shutdown()


@pytest.mark.parametrize(("late", "at_once"), [(0, 1.0), (2, 0.0)])
def test_time_runs_from_the_event_to_the_answer_that_knows(late: int, at_once: float) -> None:
    with service(late) as url:
        found = measure(url, 0, 20)
    assert (found.rounds, found.at_once) == (20, at_once)
    assert 0 < found.posted_p50_ms < found.seen_p50_ms <= found.seen_p99_ms
    assert f"{at_once:.1%}" in render([found])[-1]
