"""Rate limits: one token bucket for each API key, and for each user of user tokens."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

#: A caller may save up the requests of so many seconds.
BURST_S = 2.0
#: Buckets that are kept at most: each user of a token has one.
MAX_BUCKETS = 100_000


@dataclass
class TokenBucket:
    """A token bucket: `rate` requests a second, and `BURST_S` seconds' worth saved up.

    Attributes:
        rate: tokens a second.
        tokens: there now.
        at: when they were counted, seconds.
    """

    rate: float
    tokens: float
    at: float

    def take(self, now: float) -> float:
        """Take a token; the seconds to wait for one if there is none, else 0."""
        most = max(1.0, self.rate * BURST_S)
        self.tokens = min(most, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1:
            return (1 - self.tokens) / self.rate
        self.tokens -= 1
        return 0.0


class RateLimit:
    """The buckets of all callers of a replica.

    Args:
        rate: requests a second that each caller may ask.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def wait_s(self, caller: str) -> float:
        """Seconds until a caller may ask; 0: now, and it counts."""
        now = time.monotonic()
        fresh = TokenBucket(self._rate, self._rate * BURST_S, now)
        bucket = self._buckets.setdefault(caller, fresh)
        self._buckets.move_to_end(caller)
        while len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return bucket.take(now)

    def clear(self) -> None:
        """Forget all callers."""
        self._buckets.clear()
