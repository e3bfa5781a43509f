"""A circuit breaker: a dependency that failed is not asked again for a while."""

from __future__ import annotations

import time
from collections.abc import Callable


class CircuitBreaker:
    """Open for a cooldown after each failure, closed otherwise.

    Args:
        cooldown_s: seconds for which it stays open.
        clock: monotonic time, seconds.

    Attributes:
        cooldown_s: as above.
    """

    def __init__(self, cooldown_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.cooldown_s, self._clock = cooldown_s, clock
        self._open_until = float("-inf")

    @property
    def is_open(self) -> bool:
        """Whether the dependency should be left alone."""
        return self._clock() < self._open_until

    def record_failure(self) -> None:
        """Open it for a cooldown from now on."""
        self._open_until = self._clock() + self.cooldown_s
