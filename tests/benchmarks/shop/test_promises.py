"""Heads that are fitted on the generated shop, beside the truth; without a service or a cluster."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
import torch
from bundles import KEY, NUM_ITEMS, make_bundle, make_items, make_language_model, make_recipe

from benchmarks.shop.catalogue import Catalogue
from benchmarks.shop.nights import Night
from benchmarks.shop.objectives import by_objective
from benchmarks.shop.promises import Served, beside_truth, heads_by_day, keep_users, promises
from benchmarks.shop.report import render
from benchmarks.shop.shoppers import Shoppers
from benchmarks.shop.visits import FIRST_DAY, K, Shop, moment, user_id
from recsys.artifacts.run import HEADS_USERS, Run
from recsys.config import Heads
from recsys.data.pseudonyms import pseudonym
from recsys.outcome_heads.fitting import fit_heads
from recsys.outcomes.adapters.labelled import exposures_of
from recsys.schema import Col

NUM_DAYS, SHOPPERS, LISTS = 7, 150, 450
LAST = NUM_DAYS - 1


@dataclass(frozen=True)
class Promised:
    """A shop with random lists, and heads that know all days but the last."""

    run: Run
    shop: Shop
    shown: pl.DataFrame
    served: Served


def of_day(shop: Shop, day: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What was shown, with the truth, and the exposures."""
    rng = np.random.default_rng(day)
    shop.begin(day)
    users = rng.integers(SHOPPERS, size=LISTS)
    rows = np.stack([rng.choice(NUM_ITEMS, K, replace=False) for _ in range(LISTS)])
    seen = shop.look(users, [[shop.ids[row] for row in each] for each in rows])
    at = pl.Series([moment(day, 0)] * (LISTS * K), dtype=pl.Datetime("us", "UTC"))
    lists = np.repeat(np.arange(LISTS), K)
    shown = pl.DataFrame(
        {
            "day": np.full(len(lists), day),
            Col.request: [f"{day}-{number}" for number in lists],
            Col.arm: ["loop"] * len(lists),
            "shopper": np.repeat(users, K),
            Col.item_row: rows.ravel(),
            Col.timestamp: at,
            "click": seen.chances.click.ravel(),
        }
    )
    known = [pseudonym(user_id(user), KEY.encode()) for user in range(SHOPPERS)]
    exposures = exposures_of(
        shown.select(
            pl.format("{}-{}", Col.request, pl.int_range(pl.len())).alias(Col.exposure),
            Col.request, Col.timestamp, Col.arm,
            pl.Series(Col.user, [known[user] for user in shown["shopper"]]),
            pl.Series(Col.item, shop.ids).gather(shown[Col.item_row]),
            pl.Series(Col.position, np.tile(np.arange(1, K + 1), LISTS)),
            pl.when(pl.Series(seen.clicked.ravel())).then(Col.timestamp).alias(Col.clicked_ts),
        )
    )  # fmt: skip
    return shown, exposures


@pytest.fixture(scope="module")
def promised(tmp_path_factory: pytest.TempPathFactory) -> Promised:
    folder = tmp_path_factory.mktemp("promises")
    catalogue = Catalogue.generate(NUM_ITEMS, {}, 0)
    shop = Shop(Shoppers.generate(catalogue, SHOPPERS, 0), shift_day=99)
    items = make_items().with_columns(catalogue.table.get_columns())
    recipe = make_recipe(folder / "run", make_language_model(folder / "language"))
    run, shown, files = Run.open(recipe), [], []
    (run.root / "exposures").mkdir(parents=True)
    for day in range(NUM_DAYS):
        told, exposures = of_day(shop, day)
        date = (FIRST_DAY + dt.timedelta(days=day)).date()
        files.append(run.root / "exposures" / f"{date}.parquet")
        exposures.write_parquet(files[-1])
        shown.append(told)
    torch.set_num_threads(1)
    heads = fit_heads(files[:-1], items, Heads(epochs=6, learning_rate=4e-3), seed=0)
    heads.save(run.heads_folder, run.heads_folder / HEADS_USERS)
    bundle = make_bundle(folder / "bundle", recipe, seed=1, items=items, outcomes=heads)
    plain = make_bundle(folder / "plain", recipe, seed=2, items=items)
    for each in (bundle, plain):
        run.registry.add(each.folder, each.version)
    nights = [
        Night(day, version, True, "full", None, {})
        for day, version in ((LAST - 2, plain.version), (LAST - 1, bundle.version))
    ]
    for night in nights:
        keep_users(run, folder, night.day)
    served = heads_by_day(run, folder, nights)
    return Promised(run, shop, pl.concat(shown), served)


def test_only_days_of_a_champion_with_heads_are_told(promised: Promised) -> None:
    assert list(promised.served) == [LAST]
    _, heads = promised.served[LAST]
    assert len(heads.tables.users.keys) == SHOPPERS


def test_heads_are_nearer_the_truth_than_the_rate_of_the_item(promised: Promised) -> None:
    (row,) = promises(promised.run, promised.served, promised.shop, promised.shown)
    assert (row["day"], row["items"]) == (LAST, LISTS * K)
    heads, rate = row["heads"], row["item rate"]
    assert heads["correlation"] > rate["correlation"] + 0.1
    assert heads["absolute_error"] < rate["absolute_error"]
    assert heads["promised"] == pytest.approx(row["truth"], rel=0.15)
    assert heads["calibration_error"] < 0.2 * row["truth"]


def test_errors_are_those_of_the_truth_that_is_told(promised: Promised) -> None:
    """Twice the truth is further off, by the mean truth more."""
    version, heads = promised.served[LAST]
    path = max((promised.run.root / "exposures").glob("*.parquet"))
    rows = pl.read_parquet(path).sort(Col.exposure)
    own = heads.model.clicks_at_places(heads.shown(rows, version))
    told = beside_truth(heads, version, rows.with_columns(click=pl.Series(own)))["heads"]
    assert (told["absolute_error"], told["calibration_error"]) == (0, 0)
    assert told["correlation"] == pytest.approx(1)
    told = beside_truth(heads, version, rows.with_columns(click=pl.Series(own / 2)))["heads"]
    assert told["absolute_error"] == pytest.approx(own.mean() / 2)
    assert told["calibration_error"] == pytest.approx(own.mean() / 2)


def test_lists_by_clicks_are_truly_clicked_more(promised: Promised) -> None:
    """The model's weights are random, those of the heads are not."""
    found = by_objective(promised.run, promised.served, promised.shop, promised.shown, KEY.encode())
    assert found is not None and found["lists"] == LISTS
    assert found["click"] > 1.5 * found["relevance"]
    difference = found["difference"]
    assert difference["value"] == pytest.approx(found["click"] - found["relevance"])
    assert 0 < difference["low"] < difference["high"]
    before = promised.shown.filter(pl.col("day") < LAST)
    key = KEY.encode()
    assert by_objective(promised.run, promised.served, promised.shop, before, key) is None


def test_the_report_has_a_row_a_day_and_predictor(promised: Promised) -> None:
    rows = promises(promised.run, promised.served, promised.shop, promised.shown)
    report = {
        "days": [], "differences": [], "nights": [], "judged": [], "noticed": [], "shift_day": 0,
        "promises": rows, "by_objective": None,
    }  # fmt: skip
    text = "\n".join(render(report))
    assert f"{rows[0]['heads']['absolute_error']:.4f}" in text and "item rate" in text
    assert "no day's champion" in "\n".join(render(report | {"promises": []}))
