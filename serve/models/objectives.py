"""Whether a bundle can order lists by what the recipe asks for."""

from __future__ import annotations

from recsys.artifacts.bundle import Bundle
from recsys.config import Arm, Objective, Serve, weights_of
from recsys.errors import BundleError
from recsys.outcome_heads.served import ServedHeads
from recsys.recommender import Recommender
from recsys.storage.location import Place


def objectives_of(heads: ServedHeads | None) -> list[str]:
    """What lists can be ordered by."""
    return ["relevance", *sorted(heads.objectives if heads is not None else ())]


def check_objectives(limits: Serve, arm: Arm, place: Place, bundle: Bundle | Recommender) -> None:
    """Refuse an arm whose lists its bundle cannot order.

    Args:
        limits: the recipe's `serve`.
        arm: of the recipe; with an objective of its own the recipe's others are not the arm's.
        place: of the bundle.
        bundle: that it answers with; its heads are opened only if something asks for them.

    Raises:
        BundleError: as above.
    """
    asked: dict[str, Objective] = {"serve.objective": limits.objective}
    asked |= {f"serve.objectives.{name}": each for name, each in limits.objectives.items()}
    if arm.objective is not None:
        asked = {f"serve.arms, {arm.name}: objective": arm.objective}
    for key, objective in asked.items():
        if weights_of(objective).keys() == {"relevance"}:
            continue
        known = objectives_of(bundle.outcomes)
        if not weights_of(objective).keys() <= set(known):
            why = "its log does not tell so much" if bundle.outcomes else "it has no outcome heads"
            raise BundleError(
                f"the bundle cannot order lists so: {why}", where=place, field=key,
                value=objective,
                fix=f"use {' or '.join(known)}; or run `recsys exposures`, `train`, `embed` again",
            )  # fmt: skip
