"""Whether a bundle can order lists by what the recipe asks for."""

from __future__ import annotations

from recsys.config import Arm, Objective, Serve, weights_of
from recsys.errors import BundleError
from recsys.storage.location import Place


def check_objectives(limits: Serve, arm: Arm, bundle: Place) -> None:
    """Refuse an arm whose lists outcome heads would order; its bundle has none.

    Args:
        limits: the recipe's `serve`.
        arm: of the recipe; with an objective of its own the recipe's others are not the arm's.
        bundle: that it answers with.

    Raises:
        BundleError: as above.
    """
    asked: dict[str, Objective] = {"serve.objective": limits.objective}
    asked |= {f"serve.objectives.{name}": each for name, each in limits.objectives.items()}
    if arm.objective is not None:
        asked = {f"serve.arms, {arm.name}: objective": arm.objective}
    for key, objective in asked.items():
        if weights_of(objective).keys() != {"relevance"}:
            raise BundleError(
                "the bundle has no outcome heads to order lists by", where=bundle, field=key,
                value=objective,
                fix="use `relevance`; or run `recsys exposures`, `train` and `embed` once what was "
                "shown is logged",
            )  # fmt: skip
