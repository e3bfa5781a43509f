"""Whether a bundle can order lists by what the recipe asks for."""

from __future__ import annotations

from recsys.config import Arm, Objective, Serve, weights_of
from recsys.errors import BundleError
from recsys.outcome_heads.served import ServedHeads
from recsys.storage.location import Place


def objectives_of(heads: ServedHeads | None) -> list[str]:
    """What lists can be ordered by."""
    return ["relevance", *sorted(heads.objectives if heads is not None else ())]


def check_objectives(limits: Serve, arm: Arm, bundle: Place, heads: ServedHeads | None) -> None:
    """Refuse an arm whose lists its bundle cannot order.

    Args:
        limits: the recipe's `serve`.
        arm: of the recipe; with an objective of its own the recipe's others are not the arm's.
        bundle: that it answers with.
        heads: of the bundle.

    Raises:
        BundleError: as above.
    """
    asked: dict[str, Objective] = {"serve.objective": limits.objective}
    asked |= {f"serve.objectives.{name}": each for name, each in limits.objectives.items()}
    if arm.objective is not None:
        asked = {f"serve.arms, {arm.name}: objective": arm.objective}
    known = objectives_of(heads)
    for key, objective in asked.items():
        if not weights_of(objective).keys() <= set(known):
            why = "its log does not tell so much" if heads else "it has no outcome heads"
            raise BundleError(
                f"the bundle cannot order lists so: {why}", where=bundle, field=key,
                value=objective,
                fix=f"use {' or '.join(known)}; or run `recsys exposures`, `train`, `embed` again",
            )  # fmt: skip
