"""A share that may have changed: the difference of two samples, with its interval.

Wilson's interval of each share, with the rows that the clustered ones are worth, and Newcombe's of
their difference (method 10 of Newcombe, Statistics in Medicine 17 (1998) 873-890).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from scipy.special import ndtri

from recsys.drift.counts import Counts, covariances


@dataclass(frozen=True)
class Change:
    """A share then and now.

    Attributes:
        reference, now: the shares.
        low, high: 95 % interval of `now - reference`.
    """

    reference: float
    now: float
    low: float
    high: float

    @property
    def surely(self) -> float:
        """The end of the interval that lies nearer to 0, as a part of the reference's share.

        0 where the interval holds 0.
        """
        nearer = max(self.low, 0.0) + min(self.high, 0.0)
        if nearer == 0:
            return 0.0
        return nearer / self.reference if self.reference else float("inf")


def change(reference: Counts, now: Counts, confidence: float = 0.95) -> Change:
    """How a share has changed.

    Args:
        reference: rows in two bins: without, with.
        now: the same, later.
        confidence: of the interval.
    """
    z = float(ndtri((1 + confidence) / 2))
    of_p, of_q = covariances(reference, now)
    p, p_low, p_high = _wilson(reference, float(of_p[1, 1]), z)
    q, q_low, q_high = _wilson(now, float(of_q[1, 1]), z)
    below = sqrt((q - q_low) ** 2 + (p_high - p) ** 2)
    above = sqrt((q_high - q) ** 2 + (p - p_low) ** 2)
    return Change(p, q, q - p - below, q - p + above)


def _wilson(counts: Counts, variance: float, z: float) -> tuple[float, float, float]:
    """A share and its bounds."""
    share, smooth = float(counts.values[1]) / counts.num_rows, float(counts.shares[1])
    rows = smooth * (1 - smooth) / variance if variance > 0 else counts.num_rows
    # Rows that all agree would be worth more than they are.
    rows = min(rows, counts.num_rows)
    centre = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * sqrt(share * (1 - share) / rows + (z / (2 * rows)) ** 2)
    return share, centre - half, centre + half
