"""The population stability index (PSI) of two samples, with its sampling interval.

PSI = sum over bins of (q - p) ln(q / p), p and q being the shares of a bin: the symmetric
Kullback-Leibler divergence. Samples of one distribution do not have 0: their PSI is about a sum of
chi-squares, which for rows that are drawn one by one is (1/n + 1/m) times a chi-square with B - 1
degrees of freedom (Yurdakul, Statistical Properties of Population Stability Index, 2018). Here rows
come by user, so the weights of that sum are the eigenvalues of the shares' covariance by user. It
is approximated by one scaled chi-square of its mean and variance (Satterthwaite 1946; Rao & Scott
1984), and where there is a drift by a noncentral one, of the mean and variance that the delta
method gives. The interval holds the PSIs under which neither so large nor so small a one is rarer
than 2.5 %.

Legend: B bins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import chi2, ncx2

from recsys.arrays import Int64s
from recsys.drift.counts import Counts, covariances

#: Rows, less those that clustering costs, that a bin must be expected to have (Cochran 1954).
MIN_EXPECTED = 5


@dataclass(frozen=True)
class Psi:
    """The index.

    Attributes:
        value: of the two samples.
        by_chance: what samples of this size have on average without any drift.
        low, high: 95 % interval of the index of what was sampled.
    """

    value: float
    by_chance: float
    low: float
    high: float


def psi(reference: Counts, now: Counts, confidence: float = 0.95) -> Psi:
    """How far a distribution has moved.

    Bins that are too rare in both samples count as one.

    Args:
        reference: the expected distribution, of two users or more.
        now: in the same bins, of two users or more.
        confidence: of the interval.
    """
    groups = common_bins(reference, now)
    if groups.max() == 0:
        return Psi(0.0, 0.0, 0.0, 0.0)
    reference, now = reference.merged(groups), now.merged(groups)
    p, q = reference.shares, now.shares
    of_p, of_q = covariances(reference, now)
    value = float(((q - p) * np.log(q / p)).sum())
    # The mean of the error by the second derivatives, its variance by the first ones and, where
    # these are 0, by the second.
    chance = float(
        (np.diag(of_p) * (1 / p + q / p**2)).sum() + (np.diag(of_q) * (1 / q + p / q**2)).sum()
    )
    chance /= 2
    weighted = (of_p + of_q) / np.sqrt(np.outer(p + q, p + q) / 4)
    still = 2 * float((weighted**2).sum())
    slope_p, slope_q = np.log(p / q) + 1 - q / p, np.log(q / p) + 1 - p / q
    moving = float(slope_p @ of_p @ slope_p + slope_q @ of_q @ slope_q) / max(value, 1e-12)
    if not chance > 0 or not still > 0:  # every user is like every other
        return Psi(value, 0.0, value, value)

    def above(true: float) -> float:
        """The probability of a larger value."""
        scale = (still + moving * true) / (2 * chance + 4 * true)
        if not true:
            return float(chi2.sf(value / scale, chance / scale))
        return float(ncx2.sf(value / scale, chance / scale, true / scale))

    tail = (1 - confidence) / 2
    return Psi(value, chance, _root(above, tail, value), _root(above, 1 - tail, value))


def common_bins(reference: Counts, now: Counts) -> Int64s:
    """[B] the group of each bin: its own, or that of all bins that are rare in both samples."""
    smaller = min(_effective(reference), _effective(now))
    pooled = (reference.values + now.values) / (reference.num_rows + now.num_rows)
    rare = pooled * smaller < MIN_EXPECTED
    if rare.any() and pooled[rare].sum() * smaller < MIN_EXPECTED and not rare.all():
        rare[np.flatnonzero(~rare)[pooled[~rare].argmin()]] = True
    groups = np.cumsum(~rare) - 1
    groups[rare] = groups.max() + 1
    return np.asarray(groups, dtype=np.int64)


def _effective(counts: Counts) -> float:
    """Rows by the design effect: as many, drawn one by one, would tell as much."""
    filled = counts.values > 0
    variances = np.diag(counts.covariance)[filled] / counts.shares[filled]
    if filled.sum() < 2 or not variances.sum() > 0:
        return counts.num_rows
    return float((filled.sum() - 1) / variances.sum())


def _root(above: Callable[[float], float], wanted: float, value: float) -> float:
    """The index for which a larger value than this one has the wanted probability; at least 0."""
    if above(0.0) >= wanted:
        return 0.0
    high = max(value, 1e-6)
    while above(high) < wanted:
        high *= 2
    return float(brentq(lambda true: above(true) - wanted, 0.0, high, xtol=1e-9))
