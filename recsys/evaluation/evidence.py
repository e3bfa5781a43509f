"""What the gate decides on: the rule, the figures, and what speaks against the challenger.

`not_worse` is a test of non-inferiority: the lower bound of the interval lies above minus a margin
that was fixed before. The margin is a share of the champion's own metric, as that of two shops
differs tenfold.

Source: FDA, Non-Inferiority Clinical Trials to Establish Effectiveness, 2016; Piaggio et al.,
CONSORT extension for noninferiority trials, JAMA 308 (2012) 2594.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.arrays import Float64s
from recsys.evaluation.gate import MIN_USERS, Verdict, comparison, not_judged
from recsys.evaluation.report import METRIC

BETTER, NOT_WORSE = "better", "not_worse"


@dataclass(frozen=True)
class Rule:
    """What a challenger has to show against the champion.

    Attributes:
        name: `better` or `not_worse`.
        why: it is applied.
        margin: of `not_worse`, the share of the champion's metric that may be lost.
    """

    name: str
    why: str
    margin: float

    @staticmethod
    def of(name: str | None, margin: float, changed: Sequence[str]) -> Rule:
        """The rule that a recipe sets, else the one that fits what was changed.

        Args:
            name: `promote.rule`.
            margin: `promote.margin`.
            changed: keys in which the challenger's recipe differs from the champion's.
        """
        if name is not None:
            return Rule(name, "promote.rule is set", margin)
        if changed:
            return Rule(BETTER, f"the recipe was changed: {', '.join(changed)}", margin)
        return Rule(NOT_WORSE, "a refresh: the champion's recipe but for dates and places", margin)

    def bound(self, champion: Float64s) -> float:
        """What the interval of the difference must lie above.

        Args:
            champion: [Q] its metric; NaN: the row does not count.
        """
        return self.bound_of(float(np.nanmean(champion)))

    def bound_of(self, champion: float) -> float:
        """The same by what the champion is worth."""
        return 0.0 if self.name == BETTER else -self.margin * champion

    def __str__(self) -> str:
        return f"{self.name} ({self.why})"


@dataclass(frozen=True)
class Evidence:
    """What is known of a challenger.

    Attributes:
        challenger: its version.
        num_users: of the test window.
        confidence: of the intervals.
        champion: the version that it is compared with; None: there is none.
        rule: of that comparison.
        over_champion: the paired difference; None: not compared.
        bound: that its interval must lie above.
        baseline: the best of the evaluation; None: there was none.
        over_baseline: the paired difference to that; None: not compared.
        on: what challenger and champion are compared on.
        source: what that comparison rests on, in words; None: the questions of the evaluation.
        doubts: why no verdict may rest on it.
    """

    challenger: str
    num_users: int
    confidence: float
    champion: str | None = None
    rule: Rule | None = None
    over_champion: Verdict | None = None
    bound: float = 0.0
    baseline: str | None = None
    over_baseline: Verdict | None = None
    on: str = METRIC
    source: str | None = None
    doubts: tuple[str, ...] = ()

    @property
    def refusals(self) -> list[str]:
        """What speaks against a promotion, as far as is known."""
        found = []
        if self.over_baseline is not None and self.over_baseline.worse:
            found.append(
                f"{self.challenger} is worse than {self.baseline}, the best baseline, on {METRIC}: "
                f"{self._figures(self.over_baseline)}"
            )
        if self.rule is None:
            return found
        beside = f"{self.challenger} beside {self.champion}"
        if self.doubts:
            why = "; ".join(self.doubts)
            return [*found, f"{beside} on {self.on} is not judged, by {self.source}: {why}"]
        if self.on == METRIC and self.num_users < MIN_USERS:
            return [
                *found, f"{beside} is {not_judged(self.num_users)}"
            ]  # fmt: skip
        if self.over_champion is not None and not self.over_champion.above(self.bound):
            lost = f"may lose more than {self.rule.margin:.1%} of {self.champion}'s {self.on}"
            said = {BETTER: f"does not beat {self.champion} on {self.on}", NOT_WORSE: lost}
            source = "" if self.source is None else f", {self.source}"
            found.append(
                f"{self.challenger} {said[self.rule.name]}: {self._figures(self.over_champion)}, "
                f"not above {self.bound:+.5f}; by the rule {self.rule}{source}"
            )
        return found

    def _figures(self, verdict: Verdict) -> str:
        return (
            f"{verdict.difference:+.5f} [{verdict.low:+.5f}, {verdict.high:+.5f}] "
            f"at {self.confidence:.0%}"
        )

    def steps(self) -> list[str]:
        """What the gate would do, as far as it is not done."""
        if self.rule is None:
            few = f" ({not_judged(self.num_users)})" if self.num_users < MIN_USERS else ""
            lines = [f"promote it: there is no champion{few}"]
        else:
            asked = {BETTER: "zero", NOT_WORSE: f"-{self.rule.margin:.1%} of the champion's"}
            lines = [
                f"compare it with {self.champion} on {self.on} by the rule {self.rule}: the "
                f"{self.confidence:.0%} interval must lie above {asked[self.rule.name]}"
            ]
        if self.baseline is not None:
            lines.append(f"refuse it if it is surely worse than {self.baseline}, the best baseline")
        return lines

    def as_json(self) -> dict[str, Any]:
        """The same as JSON data; `refusals` were overridden by force."""
        verdicts = {"over_champion": self.over_champion, "over_baseline": self.over_baseline}
        return {
            "metric": self.on,
            "source": self.source,
            "confidence": self.confidence,
            "num_users": self.num_users,
            "champion": self.champion,
            "rule": self.rule and self.rule.name,
            "why": self.rule and self.rule.why,
            "bound": self.bound if self.over_champion else None,
            "baseline": self.baseline,
            **{name: verdict and verdict.as_json() for name, verdict in verdicts.items()},
            "forced": bool(self.refusals),
            "refusals": self.refusals,
        }


def told(evidence: dict[str, Any]) -> list[str]:
    """What a promotion was decided on, in words, from `Evidence.as_json`; nothing of nothing."""
    try:
        return _told(evidence) if evidence else []
    except (KeyError, TypeError, ValueError):  # a later release may note other things
        return ["decided on evidence that this release cannot read"]


def _told(evidence: dict[str, Any]) -> list[str]:
    lines = []
    if evidence["over_champion"] is not None:
        source = f", {evidence['source']}" if evidence.get("source") else ""
        lines.append(
            f"over {evidence['champion']} by the rule {evidence['rule']} ({evidence['why']})"
            f"{source}: {comparison(evidence['over_champion'])}, asked for above "
            f"{evidence['bound']:+.4f}"
        )
    elif evidence["num_users"] < MIN_USERS:
        lines.append(not_judged(evidence["num_users"]))
    if evidence["over_baseline"] is not None and evidence["num_users"] >= MIN_USERS:
        figures = comparison(evidence["over_baseline"])
        lines.append(f"over {evidence['baseline']}, the best baseline: {figures}")
    return lines + [f"forced, although {refusal}" for refusal in evidence["refusals"]]
