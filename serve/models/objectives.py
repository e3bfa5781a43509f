"""Whether a bundle can order lists by what the recipe asks for."""

from __future__ import annotations

from recsys.config import Arm, Objective, Serve, weights_of
from recsys.errors import BundleError
from recsys.storage.location import Place


def needs_heads(limits: Serve, arm: Arm) -> str | None:
    """Key of the recipe by which outcome heads order lists of an arm; None: none does.

    Args:
        limits: the recipe's `serve`.
        arm: of the recipe; with an objective of its own the recipe's others are not the arm's.
    """
    asked: dict[str, Objective] = {"serve.objective": limits.objective}
    asked |= {f"serve.objectives.{name}": each for name, each in limits.objectives.items()}
    if arm.objective is not None:
        asked = {f"serve.arms, {arm.name}: objective": arm.objective}
    needing = (key for key, each in asked.items() if weights_of(each).keys() != {"relevance"})
    return next(needing, None)


def check_objectives(limits: Serve, arm: Arm, bundle: Place) -> None:
    """Refuse an arm whose lists outcome heads would order; its bundle has none.

    Raises:
        BundleError: as above.
    """
    if key := needs_heads(limits, arm):
        raise BundleError(
            "the bundle has no outcome heads to order lists by", where=bundle, field=key,
            fix="set it to `relevance`; or run `recsys exposures`, `train` and `embed` once what "
            "was shown is logged",
        )  # fmt: skip
