"""Requests around a cut: which fail before the proxy takes the replica out, and which after."""

from __future__ import annotations

from benchmarks.rehearsal.asking import Asked
from benchmarks.serving.clients import Answer


def answer(sent: float, seconds: float, status: int = 200) -> Answer:
    return Answer(sent + seconds, seconds, status, False)


def test_a_request_counts_by_when_it_was_sent() -> None:
    """The one that was sent before the replica was taken out, and given up after, is no failure
    of the time after."""
    answers = [answer(1, 0.1), answer(11, 0.2), answer(14, 5, 0), answer(17, 0.1)]
    found = Asked(answers, cut=10, taken_out=16)
    assert found.failed_after == 0
    assert str(found) == (
        "before the cut 0 of 1 failed; in the 6.0 s until the health check 1 of 2 (slowest answer "
        "0.2 s); after it 0 of 1"
    )


def test_what_fails_after_the_health_check_is_counted() -> None:
    answers = [answer(17, 0.1, 503), answer(18, 5, 0), answer(19, 0.1)]
    assert Asked(answers, cut=10, taken_out=16).failed_after == 2
