"""The generated shop drives the real service and its nights: two days, one of them with a fault."""

from __future__ import annotations

import os
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest

from benchmarks.shop.command import KEY, SMALL, Driven, drive
from benchmarks.shop.days import ARMS, EXPLORE, FROZEN, LOOP, POPULAR
from benchmarks.shop.replay import true_clicks
from benchmarks.shop.report import differences, rate_of, render
from benchmarks.shop.visits import K
from recsys.recommender.by_id import Recommender
from recsys.schema import Col

pytestmark = [pytest.mark.ray, pytest.mark.serve]


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> Driven:
    with patch.dict(os.environ, {KEY: "0123456789abcdef0123456789abcdef"}):
        return drive(tmp_path_factory.mktemp("shop"), SMALL, 2, 0)


def exposures(driven: Driven) -> pl.DataFrame:
    """What `recsys exposures` made of the days."""
    files = sorted((driven.run.root / "exposures").glob("*.parquet"))
    return pl.concat([pl.read_parquet(path) for path in files])


def test_a_broken_night_keeps_the_last_good_champion(driven: Driven) -> None:
    first, broken, last = driven.report["nights"]
    assert first["is_new"] and first["way"] == "full"
    assert not broken["is_new"] and "broken.parquet" in broken["refused"]
    assert broken["champion"] == first["champion"]
    assert last["is_new"] and last["refused"] is None
    assert driven.run.registry.champion() == last["champion"] != first["champion"]
    assert set(driven.shown[Col.model_version]) == {first["champion"]}


def test_every_list_is_joined_to_what_came_of_it(driven: Driven) -> None:
    ids = pl.Series(driven.shop.ids)
    shown = driven.shown.with_columns(ids.gather(driven.shown[Col.item_row]).alias(Col.item))
    both = shown.join(exposures(driven), on=[Col.request, Col.item], suffix="_joined")
    assert both.height == shown.height == exposures(driven).height
    for name in (Col.arm, Col.position, Col.timestamp, Col.model_version, Col.clicked):
        assert (both[name] == both[f"{name}_joined"]).all(), name
    # What is bought without a request, within a day, counts as well.
    for name in (Col.carted, Col.purchased):
        assert both.filter(pl.col(name))[f"{name}_joined"].all()


def test_arms_answer_as_they_should(driven: Driven) -> None:
    drawn = exposures(driven).group_by(Col.arm).agg(pl.col(Col.propensity).min())
    assert dict(drawn.iter_rows())[EXPLORE] < 0.5
    assert {arm: 1.0 for arm in (LOOP, FROZEN, POPULAR)}.items() <= dict(drawn.iter_rows()).items()
    sessions = exposures(driven).filter(pl.col(Col.user).is_null())
    assert set(sessions[Col.arm]) == {POPULAR}


def test_a_bundle_answers_offline_as_it_did_on_the_generated_day(driven: Driven) -> None:
    version = driven.report["nights"][0]["champion"]
    model = Recommender.load(driven.run.registry.path(version))
    today = driven.shown.filter(pl.col("day") == 0, pl.col(Col.arm) == LOOP)
    lists = today.group_by(Col.request, "shopper", Col.timestamp, maintain_order=True)
    for (_, user, at), places in lists:
        log = driven.shop.logs[user]  # type: ignore[index]
        events = [(driven.shop.ids[row], kind, then) for row, kind, then in log if then < at]
        answered = model.recommend_items(events, K, exclude_owned=True, now=at)  # type: ignore[arg-type]
        rows = [driven.shop.row_of[item.item_id] for item in answered]
        assert rows == places[Col.item_row].to_list()


def test_the_truth_about_lists_that_another_model_draws(driven: Driven) -> None:
    version = driven.report["nights"][-1]["champion"]
    model = Recommender.load(driven.run.registry.path(version))
    # Before tastes shift: the model knows nothing of that.
    lists = driven.shown.filter(pl.col(Col.arm) == EXPLORE, pl.col("day") == 0)
    shop = driven.shop
    keen, blind = (true_clicks(shop, model, lists, heat, 0) for heat in (1e-4, 1e4))
    again = true_clicks(shop, model, lists, 1e-4, 1)
    asked = lists.unique(Col.request, keep="first", maintain_order=True)
    assert len(keen) == len(blind) == asked.height
    # Cold draws are the sorted list, hot ones are of any items alike that the user has not opened.
    assert keen == pytest.approx(again)
    rows = np.array([shop.row_of[model.item_id(row)] for row in range(model.num_items)])
    alike = []
    for user, at in asked.select("shopper", Col.timestamp).iter_rows():
        opened = [
            item for item, kind, then in shop.logs[user] if kind in ("view", "click") and then < at
        ]
        items = np.repeat(np.setdiff1d(rows, opened)[:, None], K, axis=1)
        position = np.broadcast_to(np.arange(1, K + 1), items.shape)
        chances = shop.shoppers.chances(np.full_like(items, user), items, position, shop.tastes[0])
        alike.append(chances.click.mean(axis=0).sum())
    assert blind.mean() == pytest.approx(np.mean(alike), rel=0.15)


def test_the_night_of_the_shift_looks_for_drift(driven: Driven) -> None:
    assert driven.report["shift_day"] == 1
    # So few shoppers show none that is sure; the whole shop does.
    assert "drift" in driven.report["nights"][-1]["seconds"]


def test_policy_value_holds_the_truth(driven: Driven) -> None:
    for row in driven.report["judged"]:
        assert row["bundle"] == driven.report["nights"][-1]["champion"]
        assert row["refused"] or row["low"] < row["truth"] < row["high"]


def test_the_report_tells_rates_near_the_truth(driven: Driven) -> None:
    shown = driven.shown
    low, high = rate_of(shown, "ctr").interval(0.999)
    assert low < shown["click"].mean() < high  # type: ignore[operator]
    rows = driven.report["days"]
    assert [(row["day"], row["arm"]) for row in rows] == [
        (day, arm) for day in (0, 1, None) for arm in ARMS
    ]
    for row in rows:
        assert row["requests"] > 0 and 0 < row["coverage"] <= 1
        low, high = row["true_ctr"]["low"], row["true_ctr"]["high"]
        assert low < row["true_ctr"]["value"] < high
    assert len(differences(shown)) == 6
    text = "\n".join(render(driven.report))
    assert "A generated shop" in text and "night 0: no new champion" in text
