"""Two arms of a running test: their difference at any time, and the split of users checked.

Whoever looks at a 95 % interval every day, and stops once it excludes zero, errs far more often
than in 5 % of the tests. A confidence sequence holds the truth at all times at once with that
probability, so one may look as often as one likes.

Source: Waudby-Smith et al., Time-uniform central limit theory and asymptotic confidence sequences,
arXiv 2103.06476, theorem 2.2 (Robbins' normal mixture, as in the mSPRT of Johari et al., arXiv
1512.04922, with estimated variances).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, ndtri

from recsys.errors import NotJudged
from recsys.evaluation.metrics.ratio import MIN_OUTCOMES, Ratio

#: A p-value below it says that users were not split as planned. Source: Kohavi, Tang & Xu,
#: Trustworthy Online Controlled Experiments, 2020, chapter 21.
MISMATCH_P = 0.001


@dataclass(frozen=True)
class Comparison:
    """A challenging arm beside the incumbent.

    Attributes:
        difference: challenger less incumbent.
        low, high: bounds that hold at all times at once; NaN if unknown.
        error: standard error of the difference.
        num_users: of both arms.
        effective_outcomes: of the arm that has fewer; see `Ratio`.
        mismatch_p: p-value of the split of users.
        tuned_for, confidence: of the interval.
    """

    difference: float
    low: float
    high: float
    error: float
    num_users: int
    effective_outcomes: float
    mismatch_p: float
    tuned_for: int
    confidence: float

    @property
    def refusals(self) -> list[str]:
        """Why no verdict may rest on it; empty: nothing speaks against it."""
        found = []
        if self.mismatch_p < MISMATCH_P:
            found.append(
                f"users are not split between the arms as planned (sample-ratio mismatch, p = "
                f"{self.mismatch_p:.1g})"
            )
        if not self.effective_outcomes >= MIN_OUTCOMES:
            found.append(
                f"one arm is worth {self.effective_outcomes:.1f} outcomes, fewer than "
                f"{MIN_OUTCOMES}"
            )
        return found

    def required(self) -> Comparison:
        """The same, if a verdict may rest on it.

        Raises:
            NotJudged: there are `refusals`.
        """
        if self.refusals:
            raise NotJudged(
                "; ".join(self.refusals),
                fix="find what loses users of one arm and start again, or wait for more outcomes",
            )
        return self

    def users_needed(self, effect: float, power: float = 0.8) -> int:
        """Users that both arms together still need to show an effect; 0: they have enough.

        Args:
            effect: the smallest difference that matters, fixed before the test. That which was
                found says nothing new.
            power: probability that the interval excludes zero by then, if the effect is true.
        """
        assert effect != 0 and 0 < power < 1

        def suffices(num_users: int) -> bool:
            error = self.error * np.sqrt(self.num_users / num_users)
            width = half_width(error, num_users, self.tuned_for, self.confidence)
            return bool(width + ndtri(power) * error <= abs(effect))

        assert np.isfinite(self.error)
        low, high = 0, max(1, self.num_users)
        while not suffices(high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if suffices(middle) else (middle, high)
        return max(0, high - self.num_users)


def compare(
    challenger: Ratio,
    incumbent: Ratio,
    *,
    planned_share: float,
    tuned_for: int,
    confidence: float = 0.95,
) -> Comparison:
    """Compare two arms on a ratio by user, such as clicks by exposures or revenue by user.

    The guarantee is asymptotic, and for users who are independent and in one arm each. Until both
    arms have `MIN_OUTCOMES` the comparison is refused.

    Args:
        challenger: of its users; see `ratio`.
        incumbent: likewise.
        planned_share: of the users of both arms that the challenger should have; in (0, 1).
        tuned_for: users of both arms at which the interval is tightest. Fixed before the test: the
            guarantee holds for any number, not for one that was chosen by the data.
        confidence: probability that the interval holds the true difference at all times.
    """
    assert 0 < planned_share < 1
    counts = [challenger.num_users, incumbent.num_users]
    difference = challenger.value - incumbent.value
    error = float(np.hypot(challenger.error, incumbent.error))
    width = float(half_width(error, max(1, sum(counts)), tuned_for, confidence))
    return Comparison(
        difference,
        difference - width,
        difference + width,
        error,
        sum(counts),
        min(challenger.effective_outcomes, incumbent.effective_outcomes),
        mismatch_p(counts, [planned_share, 1 - planned_share]),
        tuned_for,
        confidence,
    )


def half_width(
    error: NDArray[np.floating[Any]] | float,
    num_users: NDArray[np.integer[Any]] | int,
    tuned_for: int,
    confidence: float,
) -> NDArray[np.float64]:
    """[...] half the width of the confidence sequence.

    Args:
        error: [...] standard error of the estimate at that time.
        num_users: [...] that it rests on.
        tuned_for: users at which it is tightest.
        confidence: probability that the sequence never loses the truth.

    Source: arXiv 2103.06476, theorem 2.2; rho for `tuned_for` by its appendix on tuning.
    """
    rarity = -2 * np.log(1 - confidence)
    seen = num_users * (rarity + np.log(rarity + 1)) / tuned_for  # n rho^2
    return np.asarray(error * np.sqrt((seen + 1) / seen * (np.log(seen + 1) + rarity)))


def mismatch_p(counts: Sequence[int], shares: Sequence[float]) -> float:
    """The p-value of Pearson's chi-square test that users were split by some shares.

    It is for one look: the more often it is taken, the more often it errs. `MISMATCH_P` leaves
    room for some fifty.

    Args:
        counts: users of each arm.
        shares: planned for each; in all 1.
    """
    expected = np.array(shares) * sum(counts)
    if not sum(counts):
        return 1.0
    distance = np.sum((np.array(counts) - expected) ** 2 / expected)
    return float(chdtrc(len(counts) - 1, distance))
