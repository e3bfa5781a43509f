"""The recipe of a night's day, and whether it trains from nothing."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from small_recipe import changed

from recsys.config import Recipe, recipe_from_dict
from recsys.nightly import recipe_of, way_of
from recsys.nightly.deciding import with_found

DAY = dt.date(2026, 11, 30)


def recipe(dotted: str = "name", value: object = "shop") -> Recipe:
    return recipe_from_dict(changed(dotted, value))


def at(month: int, day: int) -> dt.datetime:
    return dt.datetime(2026, month, day, tzinfo=dt.UTC)


def test_the_cuts_follow_the_day_and_the_windows_keep_their_lengths() -> None:
    """The small recipe: 28 days of head, 31 of validation."""
    cuts = recipe_of(recipe(), DAY, today=DAY).data.cuts
    assert cuts.test == at(11, 23)
    assert cuts.valid == at(10, 23)
    assert cuts.head == at(9, 25)
    assert cuts.end is None


def test_of_a_day_that_is_over_what_came_later_is_left_out() -> None:
    cuts = recipe_of(recipe(), DAY, today=DAY + dt.timedelta(days=1)).data.cuts
    assert (cuts.test, cuts.end) == (at(11, 23), at(12, 1))


def test_without_test_days_the_cuts_stay() -> None:
    given = recipe("nightly.test_days", None)
    assert recipe_of(given, DAY, today=DAY).data == given.data


def test_what_is_no_part_of_outputs_stays_in_the_recipe_of_a_night() -> None:
    given = recipe("data.memory_gb", 3.5)
    given = given.model_copy(
        update={"train": given.train.model_copy(update={"warm_rate": 0.2})}
    )  # fmt: skip
    night = with_found(
        recipe_of(given, DAY, today=DAY), {"train.learning_rate": 0.004, "model.dim": 32}
    )
    assert night.data.memory_gb == 3.5 and night.train.warm_rate == 0.2
    assert night.train.learning_rate == 0.004 and night.model.dim == 32


def test_the_receiver_and_the_service_are_no_part_of_outputs() -> None:
    """A URL may be a password, and a bundle is handed around."""
    given = recipe("nightly.webhook", {"url": "https://chat.example/token"})
    assert given.nightly.webhook.url is not None
    assert "nightly" not in given.resolved() and given.fingerprint() == recipe().fingerprint()


KNOWN: dict[str, Any] = {
    "champion": "shop-1", "refusal": None, "last_full": dt.date(2026, 11, 24), "drift": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("found", "kind", "why"),
    [
        ({}, "warm", "from shop-1; the last full night was 2026-11-24"),
        ({"champion": None}, "full", "there is no champion"),
        ({"refusal": "the recipe was changed"}, "full", "the recipe was changed"),
        ({"drift": "new items"}, "full", "drift: new items"),
        ({"last_full": None}, "full", "no night was full before"),
        ({"last_full": dt.date(2026, 11, 23)}, "full", "the last full night was 2026-11-23"),
    ],
)
def test_the_way_of_training(found: dict[str, Any], kind: str, why: str) -> None:
    way = way_of(recipe(), DAY, **KNOWN | found)
    assert way.kind == kind and way.why.startswith(why)
