"""A ratio of two sums over rows, such as clicks by exposures, with its error by user.

The delta method: users are independent, rows of one user are not. A user's contribution is what
the user adds to the numerator, less the ratio times what is added to the denominator; the error of
the ratio is that of the contributions' sum. Source: Deng et al. 2018, arXiv 1803.06336.

Clicks are rare and weights uneven, so contributions are skewed, and the interval +- 1.96 errors
lies too low. The bounds here are those of the ABC method, the bootstrap's BCa interval without its
resamples. Source: DiCiccio & Efron, Bootstrap Confidence Intervals, Statistical Science 11 (1996)
189-228, section 4; for a mean its bias and acceleration constants are both skewness / (6 sqrt(G)).

Legend: R rows, G users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

#: `Ratio.effective_outcomes` that an interval needs. Cochran (Sampling Techniques, 1977, section
#: 2.15) asks the symmetric one for 25. For this one, 36 settings of 2,000 logs each (300 and 1,200
#: rows, clicks of equal and of lognormal weight): 92.7 to 96.5 % of the 95 % intervals hold the
#: truth where the median is at least 10, and 81.3 to 96.4 % where it is less or the weights are
#: worth fewer than 100 rows.
MIN_OUTCOMES = 10


@dataclass(frozen=True)
class Ratio:
    """A ratio of sums, and how surely it is known.

    Attributes:
        value: NaN where the denominator is 0.
        error: standard error by user; NaN with fewer than two users.
        skewness: of the users' contributions; NaN where they do not differ.
        num_users: G.
    """

    value: float
    error: float
    skewness: float
    num_users: int

    @property
    def effective_outcomes(self) -> float:
        """G / skewness^2, at most G: the number of clicks, if all are equal, rare and one a user.

        Fewer, where few of them carry most of the weight; 0 where no user differs from another.
        """
        if not np.isfinite(self.skewness):
            return 0.0
        return self.num_users / max(1.0, self.skewness**2)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The bounds of the two-sided interval, corrected for skewness; NaN if unknown.

        Args:
            confidence: e.g. 0.95.
        """
        if not np.isfinite(self.skewness):
            return float("nan"), float("nan")
        tail = (1 - confidence) / 2
        acceleration = self.skewness / (6 * np.sqrt(self.num_users))
        quantiles = acceleration + stdtrit(self.num_users - 1, np.array([tail, 1 - tail]))
        with np.errstate(divide="ignore"):  # of a handful of users: no bound
            quantiles /= np.maximum(0, 1 - acceleration * quantiles) ** 2
        low, high = self.value + quantiles * self.error
        return float(low), float(high)


def ratio(
    numerator: NDArray[np.floating[Any]],
    denominator: NDArray[np.floating[Any]],
    users: NDArray[Any],
) -> Ratio:
    """The sum of the numerators by that of the denominators.

    Args:
        numerator: [R] such as clicks.
        denominator: [R] such as exposures: 1 each.
        users: [R] int or str; the row's own number where the log knows no users.
    """
    assert len(numerator) == len(denominator) == len(users)
    distinct, user_of_row = np.unique(users, return_inverse=True)
    num_users = len(distinct)
    above_G = np.bincount(user_of_row, numerator, minlength=num_users)
    below_G = np.bincount(user_of_row, denominator, minlength=num_users)
    whole = below_G.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        value = above_G.sum() / whole
        part_G = above_G - value * below_G
        squares = np.square(part_G).sum()
        error = np.sqrt(squares * num_users / (num_users - 1)) / abs(whole)
    # Rounding alone is no spread.
    spread = num_users >= 2 and squares > 1e-24 * np.square(above_G).sum()
    skewness = (part_G**3).mean() / (squares / num_users) ** 1.5 if spread else np.nan
    return Ratio(float(value), float(error), float(skewness), num_users)
