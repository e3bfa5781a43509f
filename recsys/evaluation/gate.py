"""Paired comparison of two models on the same rows, with an interval by users."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DataError
from recsys.evaluation.metrics.intervals import bootstrap_mean

#: Users whose rows a comparison needs. A percentile interval of few users is too narrow: of two
#: models that are as good as each other, the upper one's 95 % interval should lie above zero in
#: 2.5 % of the cases. It does in 4 to 5 % with 20 users, 5 to 6 % with 8 and up to 12 % with 3, for
#: differences that are normal, Student's t or those of two nDCG@10 which are mostly 0; where a few
#: large losses stand against many small gains, in 10, 15 and 26 % (2,000 draws each).
MIN_USERS = 20


@dataclass(frozen=True)
class Verdict:
    """The mean difference, challenger less incumbent, and its interval.

    Attributes:
        difference: mean over the rows that count; NaN if there is none.
        low, high: bounds of the interval; NaN where fewer than two users have a row.
        num_users: users with a row that counts.
    """

    difference: float
    low: float
    high: float
    num_users: int = field(default=0, compare=False)

    @property
    def judged(self) -> bool:
        """Whether there are enough users for a comparison, see `MIN_USERS`."""
        return self.num_users >= MIN_USERS

    def above(self, bound: float) -> bool:
        """Whether the whole interval lies above a bound, with enough users."""
        return self.judged and self.low > bound

    @property
    def better(self) -> bool:
        """Whether the whole interval lies above zero, with enough users."""
        return self.above(0)

    @property
    def worse(self) -> bool:
        """Whether the whole interval lies below zero, with enough users."""
        return self.judged and self.high < 0

    def as_json(self) -> dict[str, Any]:
        """The same as JSON data; an unknown number is null."""
        numbers = {name: getattr(self, name) for name in ("difference", "low", "high")}
        known = {name: value if np.isfinite(value) else None for name, value in numbers.items()}
        return {**known, "num_users": self.num_users, "judged": self.judged}


def not_judged(num_users: int) -> str:
    """The text in place of a comparison with too few users."""
    have = "1 user has" if num_users == 1 else f"{num_users} users have"
    return f"not judged: {have} rows to compare, fewer than {MIN_USERS} prove nothing"


def comparison(verdict: dict[str, Any]) -> str:
    """A verdict in words, from `Verdict.as_json`."""
    if not verdict["judged"]:
        return not_judged(verdict["num_users"])
    return f"{verdict['difference']:+.4f} [{verdict['low']:+.4f}, {verdict['high']:+.4f}]"


def beats(
    challenger: NDArray[np.floating[Any]],
    incumbent: NDArray[np.floating[Any]],
    groups: NDArray[Any],
    confidence: float,
    num_bootstrap: int,
    seed: int,
) -> Verdict:
    """Compare two models on the same rows: paired differences, users resampled.

    Pairing takes out what makes a row hard for both, so a small real gain shows on few rows;
    resampling users instead of rows keeps one busy user from deciding (see
    `metrics.intervals`).

    Args:
        challenger: [R] the metric of each row, higher is better.
        incumbent: [R] likewise; a row that is NaN in both does not count.
        groups: [R] int or str, the user of each row.
        confidence: share of resampled differences between the bounds.
        num_bootstrap: resamples.
        seed: of the resamples.

    Raises:
        DataError: the two were not evaluated on the same rows.
    """
    same = challenger.shape == incumbent.shape == groups.shape
    if not same or not np.array_equal(np.isnan(challenger), np.isnan(incumbent)):
        raise DataError(
            f"challenger ({_num_rows(challenger)}) and incumbent ({_num_rows(incumbent)}) "
            f"were not evaluated on the same rows ({groups.size} users of rows given)",
            fix="evaluate both on the same test window with the same seed",
        )
    interval = bootstrap_mean(
        challenger - incumbent,
        groups,
        num_bootstrap=num_bootstrap,
        confidence=confidence,
        seed=seed,
    )
    num_users = len(np.unique(groups[~np.isnan(challenger)]))
    return Verdict(interval.mean, interval.low, interval.high, num_users)


def _num_rows(values: NDArray[np.floating[Any]]) -> str:
    return f"{np.count_nonzero(~np.isnan(values))} of {values.size} rows count"
