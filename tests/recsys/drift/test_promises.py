"""Clicks beside promised ones, on a log that stays what it is, and on one that does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from bundles import item_id, make_bundle, make_items, make_language_model, make_recipe
from drifting import of
from simulated_exposures import BEGIN, simulate

from recsys.artifacts.bundle import Bundle
from recsys.artifacts.run import HEADS_USERS, Run
from recsys.config import Drift, Heads
from recsys.data.histories import US_PER_DAY
from recsys.drift import promises
from recsys.drift.findings import findings, read_findings
from recsys.drift.measuring import Window, days_of
from recsys.drift.promises import clicks_by_promised
from recsys.drift.quantities import PROMISED
from recsys.drift.reference import Reference
from recsys.evaluation.metrics.ratio import Ratio
from recsys.outcome_heads.fitting import fit_heads
from recsys.outcomes.joining import EXPOSURES_DIR, SUMMARY_FILE
from recsys.schema import Col
from recsys.storage.outputs import write_json

FIRST, NUM_DAYS, FITTED = BEGIN // US_PER_DAY, 8, 6
LATER = Window(FIRST + FITTED, NUM_DAYS - FITTED)
DAYS = days_of(Window(FIRST, NUM_DAYS))
Change = Callable[[pl.DataFrame], pl.DataFrame]


class Promised:
    """A run with eight days of exposures, and a bundle whose heads know the first six."""

    def __init__(self, folder: Path) -> None:
        items = {f"i{row}": item_id(row) for row in range(60)}
        self.rows = simulate(40_000, num_days=NUM_DAYS).rows.with_columns(
            pl.col(Col.item).replace_strict(items)
        )
        recipe = make_recipe(folder, make_language_model(folder / "language"))
        self.run = Run.open(recipe)
        self.write(lambda rows: rows)
        torch.set_num_threads(1)
        fitted = [self.path(day) for day in DAYS[:FITTED]]
        self.heads = fit_heads(
            fitted, make_items(), Heads(epochs=6, learning_rate=4e-3, half_life_days=30), seed=0
        )
        self.heads.save(self.run.heads_folder, self.run.heads_folder / HEADS_USERS)
        self.bundle = make_bundle(folder / "bundle", recipe, seed=1, outcomes=self.heads)

    def path(self, day: str) -> Path:
        return self.run.root / EXPOSURES_DIR / f"{day}.parquet"

    def write(self, change: Change) -> None:
        """The log, whose last days are changed."""
        day = pl.col(Col.timestamp).dt.date().cast(pl.String)
        self.path(DAYS[0]).parent.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(DAYS):
            rows = self.rows.filter(day == name)
            (change(rows) if number >= FITTED else rows).write_parquet(self.path(name))
        days = {name: {"exposures": pl.read_parquet(self.path(name)).height} for name in DAYS}
        summary = {"counts": {}, "days": days}
        write_json(self.path(DAYS[0]).parent / SUMMARY_FILE, summary)

    def found(self, change: Change, window: Window = LATER) -> Ratio | None:
        self.write(change)
        return clicks_by_promised(self.bundle, self.run, window)


@pytest.fixture(scope="module")
def promised(tmp_path_factory: pytest.TempPathFactory) -> Promised:
    return Promised(tmp_path_factory.mktemp("promised"))


def unchanged(rows: pl.DataFrame) -> pl.DataFrame:
    return rows


def half_clicked(rows: pl.DataFrame) -> pl.DataFrame:
    """Every other click is lost, with what followed it."""
    kept = pl.Series(np.arange(rows.height) % 2 == 0)
    outcomes = (Col.clicked, Col.carted, Col.purchased)
    return rows.with_columns(pl.col(name) & kept for name in outcomes)


def test_a_log_that_stays_what_it_is_keeps_the_promise(promised: Promised) -> None:
    found = promised.found(unchanged)
    assert found is not None
    low, high = found.interval()
    assert low < 1 < high and high - low < 0.15
    told = of(findings("v", Reference(LATER, {}), LATER, {}, Drift(), found), PROMISED)
    assert told["verdict"] == "stable" and told["now"] == found.value


@pytest.mark.parametrize("places", [(1, 2), (5, 6)])
def test_a_promise_knows_its_places(promised: Promised, places: tuple[int, int]) -> None:
    """Of the first places alone more is clicked, and more was promised."""
    found = promised.found(lambda rows: rows.filter(pl.col(Col.position).is_in(places)))
    assert found is not None
    low, high = found.interval(0.99)
    assert low < 1 < high


def test_of_many_exposures_those_of_some_users_are_taken(
    promised: Promised, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = promised.found(unchanged)
    monkeypatch.setattr(promises, "MOST_ROWS", promised.rows.height // NUM_DAYS)
    some = promised.found(unchanged)
    assert every is not None and some is not None
    assert some.num_users == pytest.approx(every.num_users / 2, rel=0.2)
    assert some.value == pytest.approx(every.value, abs=0.08)


def test_half_of_the_clicks_are_missed(promised: Promised, tmp_path: Path) -> None:
    found = promised.found(half_clicked)
    assert found is not None
    drift = findings("v", Reference(LATER, {}), LATER, {}, Drift(), found)
    told = of(drift, PROMISED)
    assert told["now"] == pytest.approx(0.5, abs=0.06) and told["verdict"] == "drifted"
    assert told["interval"][1] < -0.4 and PROMISED not in drift["not_compared"]
    # Each night fits the heads anew: nothing that a full run would do better.
    assert drift["verdict"] == "drifted" and not drift["asks_full_run"]
    write_json(tmp_path / "drift.json", drift)
    assert read_findings(tmp_path / "drift.json")["quantities"] == drift["quantities"]


def test_what_the_heads_have_counted_is_no_promise(promised: Promised) -> None:
    later, every = (
        promised.found(half_clicked, window) for window in (LATER, Window(FIRST, NUM_DAYS))
    )
    assert later == every
    assert promised.found(unchanged, Window(FIRST, FITTED)) is None
    # The run's rates of users are of a later night than the bundle's heads.
    newer = replace(promised.heads.tables, as_of=(LATER.first + 1) * US_PER_DAY)
    users = promised.run.heads_folder / HEADS_USERS
    try:
        replace(promised.heads, tables=newer).save(promised.run.heads_folder, users)
        last = promised.found(half_clicked)
    finally:
        promised.heads.save(promised.run.heads_folder, users)
    assert last is not None and last == promised.found(half_clicked, Window(LATER.last, 1))
    assert last != later


def test_nothing_is_promised_without_heads_or_their_users(
    promised: Promised, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = promised.run
    plain = make_bundle(tmp_path / "plain", run.recipe, seed=1)
    assert clicks_by_promised(plain, run, LATER) is None
    drift = findings("v", Reference(LATER, {}), LATER, {}, Drift(), None)
    assert PROMISED in drift["not_compared"]
    away = run.heads_folder.with_name("away")
    run.heads_folder.rename(away)
    try:
        assert clicks_by_promised(Bundle.open(promised.bundle.folder), run, LATER) is None
    finally:
        away.rename(run.heads_folder)
    assert "no promised clicks" in capsys.readouterr().out


def test_few_users_break_no_promise() -> None:
    few = Ratio(0.3, 0.05, 0.5, 20)
    told = of(findings("v", Reference(LATER, {}), LATER, {}, Drift(), few), PROMISED)
    assert (told["verdict"], told["interval"]) == ("unknown", None)
