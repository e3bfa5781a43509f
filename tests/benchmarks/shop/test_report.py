"""What the shop tells of its days: rates by list and by shown item, differences, drift."""

from __future__ import annotations

import polars as pl
import pytest

from benchmarks.shop.catalogue import Catalogue
from benchmarks.shop.days import ARMS, FROZEN, LOOP, POPULAR, arm_of, arms
from benchmarks.shop.nights import Night
from benchmarks.shop.report import differences, noticed, rate_of, summary
from recsys.config import recipe_from_dict
from recsys.schema import Col


def shown(*lists: tuple[int, str, int, list[bool], float]) -> pl.DataFrame:
    """Lists of two items: day, arm, shopper, what was clicked, what was paid."""
    rows = [
        {"day": day, Col.request: f"r{number}", Col.arm: arm, "shopper": user, Col.item_row: place,
         Col.clicked: clicked, "click": 0.25, Col.value: paid * place}
        for number, (day, arm, user, clicks, paid) in enumerate(lists)
        for place, clicked in enumerate(clicks)
    ]  # fmt: skip
    return pl.DataFrame(rows)


LISTS = shown(
    (0, LOOP, 1, [True, True], 6.0), (0, LOOP, 2, [True, False], 0.0),
    (0, FROZEN, 3, [True, False], 2.0), (0, FROZEN, 4, [False, False], 0.0),
    (1, POPULAR, 5, [False, False], 1.0), (1, POPULAR, 6, [True, False], 1.0),
)  # fmt: skip


def test_rates_are_by_item_or_by_list_with_errors_by_shopper() -> None:
    loop = LISTS.filter(pl.col(Col.arm) == LOOP)
    assert rate_of(loop, "ctr").value == 3 / 4
    assert rate_of(loop, "true_ctr").value == 1 / 4
    assert rate_of(loop, "revenue_per_request").value == 3.0
    assert rate_of(loop, "ctr").num_users == 2


def test_rows_by_day_and_arm_and_of_all_days() -> None:
    catalogue = Catalogue.generate(4, {}, 0)
    rows = {(row["day"], row["arm"]): row for row in summary(LISTS, catalogue)}
    assert set(rows) == {(day, arm) for day in (0, 1, None) for arm in ARMS}
    assert rows[0, LOOP]["coverage"] == 2 / 4 and rows[1, LOOP]["coverage"] == 0
    assert rows[None, POPULAR]["ctr"]["value"] == 1 / 4
    assert rows[None, LOOP]["requests"] == 2


def test_the_loop_beside_the_others() -> None:
    told = {(row["over"], row["rate"]): row for row in differences(LISTS)}
    over_frozen = told[FROZEN, "ctr"]
    assert over_frozen["value"] == 3 / 4 - 1 / 4
    assert over_frozen["relative"] == 2.0
    assert over_frozen["low"] + over_frozen["high"] == pytest.approx(1.0)
    assert told[POPULAR, "revenue_per_request"]["value"] == 2.0


def test_what_drifts_surely_more_than_the_night_before_is_noticed() -> None:
    drifts: list[dict[str, tuple[float, float]]] = [
        {"events": (0.3, 0.5), "price": (0.0, 0.05), "text": (0.0, 0.05)},
        {},  # the night failed
        {"events": (0.4, 0.6), "price": (0.06, 0.3), "text": (0.04, 0.2), "new": (1.0, 2.0)},
    ]
    nights = [
        Night(day, None, False, None, None, {}, drift=drift) for day, drift in enumerate(drifts)
    ]
    assert noticed(nights, 2) == ["price"]


def test_the_arms_are_those_of_a_recipe_in_equal_parts() -> None:
    cuts = {"valid": "2024-01-01", "test": "2024-01-02"}
    serve = {"arms": arms("runs/first")}
    data = {"source": "log", "cuts": cuts}
    recipe = recipe_from_dict({"name": "shop", "data": data, "serve": serve})
    assert tuple(arm.name for arm in recipe.serve.arms) == ARMS
    counts = pl.Series([arm_of(f"{number:032x}") for number in range(4000)]).value_counts()
    assert counts["count"].to_list() == pytest.approx([1000] * 4, rel=0.1)
