from __future__ import annotations

from serve.core.circuit_breaker import CircuitBreaker


def test_it_is_open_for_the_cooldown_after_each_failure() -> None:
    now = [100.0]
    breaker = CircuitBreaker(2.0, clock=lambda: now[0])
    assert not breaker.is_open
    breaker.record_failure()
    for now[0], is_open in ((100.0, True), (101.9, True), (102.0, False)):
        assert breaker.is_open is is_open
    breaker.record_failure()
    assert breaker.is_open
