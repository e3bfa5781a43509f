"""What outcomes say of a challenger beside the champion: by two arms, or by the logged lists."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from recsys.evaluation.gate import Verdict
from recsys.outcomes.policy.values import over_other

#: Outcome of a list -> the rate of `outcomes.json` that arms are compared on.
RATE_OF: Final = {
    "clicks": "ctr", "carts": "cart_rate", "purchases": "cvr", "dwell_ms": "mean_dwell_ms",
    "revenue": "revenue_per_request",
}  # fmt: skip
#: Of the intervals that `recsys outcomes` tells.
CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class OutcomeEvidence:
    """A comparison of challenger and champion by what came of what was shown.

    Attributes:
        source: what was compared, in words.
        verdict: the difference of the two and its interval.
        champion: what the champion earns, in the same unit.
        doubts: why no verdict may rest on it; empty: nothing speaks against it.
    """

    source: str
    verdict: Verdict
    champion: float
    doubts: tuple[str, ...]


def of_arms(
    outcomes: dict[str, Any], challenger: str, champion: str, outcome: str, confidence: float
) -> OutcomeEvidence | None:
    """The test of two arms of which one answered with the challenger, the other with the champion.

    Args:
        outcomes: `outcomes.json`.
        challenger: its version; the arm answered with no other.
        champion: likewise.
        outcome: of `RATE_OF`.
        confidence: that is asked for; the intervals hold at `CONFIDENCE`.

    Returns:
        None if there was no such test.
    """
    for each in outcomes["comparisons"]:
        if each.get("models") == [[challenger], [champion]]:
            rate = each["rates"][RATE_OF[outcome]]
            low, high = (_number(end) for end in rate["interval"] or (None, None))
            doubts = list(rate["refusals"])
            if confidence > CONFIDENCE:
                doubts.append(f"its interval is at {CONFIDENCE:.0%}, not at {confidence:.1%}")
            return OutcomeEvidence(
                f"{RATE_OF[outcome]} of the arms {each['challenger']} and {each['incumbent']}",
                Verdict(_number(rate["difference"]), low, high, sum(each["users"])),
                _number(rate["incumbent_value"]), tuple(doubts),
            )  # fmt: skip
    return None


def of_lists(
    judged: pl.DataFrame, challenger: str, champion: str, outcome: str, confidence: float
) -> OutcomeEvidence:
    """The policy values of both on the same logged lists.

    Args:
        judged: rows of `Judging`.
        challenger: its name there.
        champion: likewise.
        outcome: of `policy.logged.OUTCOMES`.
        confidence: of the interval.
    """
    found = over_other(judged, challenger, champion, outcome, confidence)
    value = found.difference
    return OutcomeEvidence(
        f"policy value of {outcome} on {judged.height:,} logged lists",
        Verdict(value.value, value.low, value.high, value.num_users),
        found.beside, tuple(found.refusals),
    )  # fmt: skip


def _number(told: float | None) -> float:
    return math.nan if told is None else float(told)
