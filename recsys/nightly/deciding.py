"""What a night is run under: the recipe of its day, and whether it trains from nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recsys.config import Cuts, Recipe, Section, with_settings

FULL, WARM = "full", "warm"


@dataclass(frozen=True)
class Way:
    """How a night trains.

    Attributes:
        kind: `full`, from nothing, or `warm`, from the champion's weights.
        why: in words.
    """

    kind: str
    why: str


def recipe_of(recipe: Recipe, day: dt.date, today: dt.date) -> Recipe:
    """The recipe of the night of a day.

    The cuts are moved, see `nightly.test_days`; of a day that is over what came after it is left
    out.
    """
    data = recipe.data
    if recipe.nightly.test_days is not None:
        cuts = data.cuts
        test = _midnight(day) - dt.timedelta(days=recipe.nightly.test_days)
        valid = test - (cuts.test - cuts.valid)
        head = valid - (cuts.valid - cuts.head_at)
        end = _midnight(day + dt.timedelta(days=1)) if day < today else None
        data = data.model_copy(update={"cuts": Cuts(head=head, valid=valid, test=test, end=end)})
    return recipe.model_copy(update={"data": data})


def with_found(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with settings that a search found for the champion.

    Raises:
        RecipeError: it is none with them.
    """
    with_settings(recipe, settings)  # checks them
    sections: dict[str, Section] = {"model": recipe.model, "train": recipe.train}
    for name, value in settings.items():
        section, _, key = name.partition(".")
        # Of plain data some keys would be missing: those that outputs do not hold.
        given = dict(sections[section]) | {key: value}
        sections[section] = type(sections[section]).model_validate(given)
    return recipe.model_copy(update=sections)


def way_of(
    recipe: Recipe,
    day: dt.date,
    *,
    champion: str | None,
    refusal: str | None,
    last_full: dt.date | None,
    drift: str | None = None,
) -> Way:
    """Whether a night trains from nothing or from the champion's weights.

    Args:
        recipe: of the night.
        day: of the night.
        champion: its version; None: there is none.
        refusal: why its weights are no start; None: they are one.
        last_full: the last night that trained from nothing.
        drift: what asks for a full run; None: nothing.
    """
    every = recipe.nightly.full_every_days
    if champion is None:
        return Way(FULL, "there is no champion")
    if refusal is not None:
        return Way(FULL, refusal)
    if drift is not None:
        return Way(FULL, f"drift: {drift}")
    if last_full is None:
        return Way(FULL, "no night was full before")
    if (day - last_full).days >= every:
        return Way(FULL, f"the last full night was {last_full}, nightly.full_every_days is {every}")
    return Way(WARM, f"from {champion}; the last full night was {last_full}")


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC)
