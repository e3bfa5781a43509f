"""Confidence intervals of means by the bootstrap, clustered by user.

Users are resampled, not rows: rows of one user are correlated. A resample
is a vector of user weights (how often each user was drawn), and a resampled mean is a ratio of
weighted sums, so all resamples of all metrics are two matrix products.

Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile
interval).

Legend: R rows, M metrics, G users, B resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.arrays import Float64s, Int64s

#: Weights made at a time, in all 32 MiB.
_CHUNK_WEIGHTS = 1 << 22


@dataclass(frozen=True)
class Interval:
    """A mean over rows, and the bounds that resampling the users gives it.

    Attributes:
        mean: over the rows that count; NaN if there is none.
        low, high: NaN where fewer than two users have a row, for their spread is unknown then.
        num_rows: rows that count.
    """

    mean: float
    low: float
    high: float
    num_rows: int


def bootstrap_mean(
    values: NDArray[np.floating[Any]],
    groups: NDArray[Any],
    *,
    num_bootstrap: int,
    confidence: float = 0.95,
    seed: int,
) -> Interval:
    """The mean of one metric with its interval; see `bootstrap_means`.

    Args:
        values: [R] the metric of each row; NaN: the row does not count.
        groups: [R] int or str, the user of each row.
        num_bootstrap: B.
        confidence: share of resampled means between the bounds.
        seed: of the resamples.
    """
    return bootstrap_means(
        values[:, None], groups, num_bootstrap=num_bootstrap, confidence=confidence, seed=seed
    )[0]


def bootstrap_means(
    values: NDArray[np.floating[Any]],
    groups: NDArray[Any],
    *,
    num_bootstrap: int,
    confidence: float = 0.95,
    seed: int,
) -> list[Interval]:
    """The means of M metrics with percentile intervals, all from the same resamples of the users.

    Args:
        values: [R, M] the metrics of each row; NaN: the row does not count for that metric.
        groups: [R] int or str, the user of each row.
        num_bootstrap: B.
        confidence: share of resampled means between the bounds.
        seed: of the resamples.

    Returns:
        M intervals. A resample without any row of a metric does not count for it.
    """
    assert values.ndim == 2 and len(values) == len(groups), (values.shape, groups.shape)
    assert 0 < confidence < 1 and num_bootstrap >= 1
    sums_GM, counts_GM = _per_group(values, groups)
    num_rows_M = counts_GM.sum(axis=0)
    with np.errstate(invalid="ignore"):
        mean_M = sums_GM.sum(axis=0) / num_rows_M
        resampled = [
            (weights @ sums_GM) / (weights @ counts_GM)
            for weights in _weights(len(sums_GM), num_bootstrap, seed)
        ]
    bounds_2M = np.full((2, values.shape[1]), np.nan)
    known_M = (counts_GM > 0).sum(axis=0) >= 2
    if known_M.any():
        tail = (1 - confidence) / 2
        means_BM = np.concatenate(resampled)[:, known_M]
        bounds_2M[:, known_M] = np.nanquantile(means_BM, [tail, 1 - tail], axis=0)
    return [
        Interval(float(mean), float(low), float(high), int(num_rows))
        for mean, low, high, num_rows in zip(mean_M, *bounds_2M, num_rows_M, strict=True)
    ]


def bootstrap_statistic(
    statistic: Callable[[Int64s], float],
    groups: NDArray[Any],
    *,
    num_bootstrap: int,
    confidence: float = 0.95,
    seed: int,
) -> Interval:
    """A figure of all rows that is no mean of theirs, such as AUC; see `bootstrap_mean`.

    Args:
        statistic: gives the figure of the rows at some positions [n]; a position may come up again.
        groups: [R] int or str, the user of each row.
        num_bootstrap: B; the resamples are those of `bootstrap_means` under the same seed.
        confidence: share of resampled figures between the bounds.
        seed: of the resamples.

    Returns:
        `mean` is the figure of all rows.
    """
    assert 0 < confidence < 1 and num_bootstrap >= 1
    distinct, group_of_row = np.unique(groups, return_inverse=True)
    rows = np.arange(len(groups))
    low = high = float("nan")
    if len(distinct) >= 2:
        found = [
            statistic(np.repeat(rows, weights[group_of_row]))
            for chunk in _weights(len(distinct), num_bootstrap, seed)
            for weights in chunk.astype(np.int64)
        ]
        tail = (1 - confidence) / 2
        low, high = (float(bound) for bound in np.nanquantile(found, [tail, 1 - tail]))
    return Interval(float(statistic(rows)), low, high, len(rows))


def _per_group(
    values: NDArray[np.floating[Any]], groups: NDArray[Any]
) -> tuple[Float64s, Float64s]:
    """[G, M] sums and numbers of the values that count."""
    distinct, group_of_row = np.unique(groups, return_inverse=True)
    shape = (len(distinct), values.shape[1])
    sums_GM, counts_GM = np.zeros(shape), np.zeros(shape)
    for metric, column in enumerate(values.T):
        counts = ~np.isnan(column)
        rows = group_of_row[counts]
        sums_GM[:, metric] = np.bincount(rows, column[counts], minlength=len(distinct))
        counts_GM[:, metric] = np.bincount(rows, minlength=len(distinct))
    return sums_GM, counts_GM


def _weights(num_groups: int, num_bootstrap: int, seed: int) -> Iterator[Float64s]:
    """B rows of G multinomial weights, a chunk of rows at a time: [b, G]."""
    rng = np.random.default_rng(seed)
    size = max(1, _CHUNK_WEIGHTS // max(1, num_groups))
    for start in range(0, num_bootstrap, size):
        rows = min(size, num_bootstrap - start)
        drawn = rng.integers(num_groups, size=(rows, num_groups)) if num_groups else _NONE
        drawn = drawn + np.arange(rows)[:, None] * num_groups
        counts = np.bincount(drawn.ravel(), minlength=rows * num_groups)
        yield counts.reshape(rows, num_groups).astype(np.float64)


_NONE = np.zeros((1, 0), dtype=np.int64)
