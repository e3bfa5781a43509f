"""The arms of the recipe beside the champion's, on each rate; see `evaluation.arms`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from recsys.config import Arm, Outcomes
from recsys.evaluation.arms import Comparison, compare
from recsys.outcomes.rates import GROUP, RATES, UNIT, bounds, known, rate


def planned_shares(arms: Sequence[Arm]) -> dict[str, float]:
    """Share of the users that each arm should have, the incumbent first.

    That is the first that answers with the champion; if none does, the first with a share.
    """
    answering = [arm for arm in arms if arm.weight and not arm.shadow]
    whole = sum(arm.weight for arm in answering)
    ordered = sorted(answering, key=lambda arm: arm.bundle is not None)
    first = ordered[:1]
    return {arm.name: arm.weight / whole for arm in [*first, *answering]}


def compare_arms(
    sums: pl.DataFrame,
    shares: Mapping[str, float],
    settings: Outcomes,
    models: Mapping[str, Sequence[str]],
) -> list[dict[str, Any]]:
    """Each other arm beside the incumbent, as plain data.

    Units that more than one of these arms has answered are left out of both: they tell of neither.

    Args:
        sums: of arms, see `Tally.sums`.
        shares: of `planned_shares`.
        settings: of the recipe.
        models: arm -> versions of the models that it answered with.
    """
    names = list(shares)
    ours = sums.filter(pl.col(GROUP).is_in(names))
    alone = ours.filter(pl.len().over(UNIT) == 1)
    num_left_out = ours[UNIT].n_unique() - alone.height
    of_arm = {name: alone.filter(pl.col(GROUP) == name) for name in names}
    return [
        {
            "challenger": name,
            "incumbent": names[0],
            "models": [list(models.get(each, [])) for each in (name, names[0])],
            "users": [of_arm[name].height, of_arm[names[0]].height],
            "users_in_several_arms": num_left_out,
            "planned_share": (planned := shares[name] / (shares[name] + shares[names[0]])),
            **_rates(of_arm[name], of_arm[names[0]], planned, settings),
        }
        for name in names[1:]
    ]


def _rates(
    challenger: pl.DataFrame, incumbent: pl.DataFrame, planned_share: float, settings: Outcomes
) -> dict[str, Any]:
    """The p-value of the split, and the difference on each rate."""
    mismatch_p = 1.0
    rates: dict[str, Any] = {}
    for name in RATES:
        base = rate(incumbent, name, of_all=True)
        found = compare(
            rate(challenger, name, of_all=True), base,
            planned_share=planned_share, tuned_for=settings.tuned_for_users,
        )  # fmt: skip
        worth = min(rate(arm, name).effective_outcomes for arm in (challenger, incumbent))
        found = replace(found, effective_outcomes=worth)
        mismatch_p = found.mismatch_p
        rates[name] = {
            "difference": known(found.difference),
            "incumbent_value": known(base.value),
            "effective_outcomes": found.effective_outcomes,
            "refusals": found.refusals,
            **_verdict(found, settings.smallest_effect * base.value),
        }
    return {"mismatch_p": mismatch_p, "rates": rates}


def _verdict(found: Comparison, effect: float) -> dict[str, Any]:
    """Interval, what it says, and the users still needed: nothing where anything speaks against."""
    if found.refusals:
        return {"interval": None, "verdict": None, "users_needed": None}
    return {
        "interval": bounds(found.low, found.high),
        "verdict": "higher" if found.low > 0 else "lower" if found.high < 0 else "open",
        "users_needed": found.users_needed(effect) if effect > 0 else None,
    }
