"""Live events come back in the next `prepare`."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from tiny import (
    KEY,
    KEY_ENV,
    day,
    prepare_here,
    tiny_events,
    tiny_items,
    tiny_log,
    tiny_recipe,
    write_log,
)

from ray_jobs import prepare
from recsys.artifacts.run import Run
from recsys.config import Recipe
from recsys.data.feedback import Feedback, events_table, new_file_name
from recsys.data.pseudonyms import pseudonym
from recsys.schema import EVENT_CODE, Col
from recsys.state import StateEvent, Tombstone
from recsys.state.tombstones import digest


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return tiny_recipe(tmp_path)


class TestPrepare:
    @pytest.fixture(autouse=True)
    def _key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(KEY_ENV, KEY)

    def live(self, recipe: Recipe, rows: list[tuple[str, str, dt.datetime]]) -> None:
        events = [
            StateEvent(
                pseudonym(user, KEY.encode()), "", item, EVENT_CODE["purchase"],
                int(moment.timestamp() * 1e6),
            )
            for user, item, moment in rows
        ]  # fmt: skip
        folder = Feedback.of(recipe.root).events
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(events_table(events), folder / new_file_name())

    def test_they_are_read_beside_the_log(self, recipe: Recipe, tmp_path: Path) -> None:
        tiny_log(tmp_path / "log")
        without = prepare_here(recipe).summary
        self.live(recipe, [("customer-001", "item-0003", day(80)), ("new", "item-0004", day(81))])
        plan = prepare.plan(Run.open(recipe))
        assert "read 2 live events" in plan[1] and str(recipe.root / "feedback") in plan[1]
        prepared = prepare_here(recipe)
        assert prepared.summary["counts"]["events"] == without["counts"]["events"] + 2
        assert prepared.summary["counts"]["live"] == 2
        assert pseudonym("new", KEY.encode()) in prepared.users().user_ids
        assert prepared.summary["data_fingerprint"] != without["data_fingerprint"]
        assert any("2 of the rows" in line for line in prepare.report(Run.open(recipe)))

    def test_what_the_next_log_holds_too_counts_once(self, recipe: Recipe, tmp_path: Path) -> None:
        tiny_log(tmp_path / "log")
        without = prepare_here(recipe).summary
        bought = tiny_events().filter(pl.col(Col.event_type) == "purchase").head(3)
        assert bought[Col.session].null_count() == 0, "the live event knows no session"
        again = list(bought.select(Col.user, Col.item, Col.timestamp).rows())
        self.live(recipe, again)
        self.live(recipe, again)
        prepared = prepare_here(recipe)
        assert prepared.summary["data_fingerprint"] == without["data_fingerprint"]
        assert prepared.summary["counts"]["duplicates"] == 6

    def test_they_are_checked_like_the_log(self, recipe: Recipe, tmp_path: Path) -> None:
        tiny_log(tmp_path / "log")
        future = dt.datetime(2999, 1, 1, tzinfo=dt.UTC)
        self.live(recipe, [("u", "gone", day(80)), ("u", "item-0001", future)])
        prepared = prepare_here(recipe)
        assert prepared.summary["quarantined"] == {"unknown_item": 1, "future_timestamp": 1}

    def test_erased_users_are_left_out_up_to_the_erasure(
        self, recipe: Recipe, tmp_path: Path
    ) -> None:
        events = tiny_events()
        spoilt = events.head(1).with_columns(
            pl.lit("customer-001").alias(Col.user), pl.lit("gone").alias(Col.item)
        )
        write_log(tmp_path / "log", pl.concat([events, spoilt]), tiny_items())
        user = pseudonym("customer-001", KEY.encode())
        ahead = ("customer-001", "item-0003", day(85))
        after = ("customer-001", "item-0004", day(84))
        self.live(recipe, [ahead, after, ("u", "item-0004", day(81))])
        at, until = (int(day(number).timestamp() * 1e6) for number in (60, 85))
        known = digest(user, until, EVENT_CODE["purchase"], "item-0003")
        Feedback.of(recipe.root).write_erased({user: Tombstone(at, until, frozenset([known]))})
        assert "leave out 1 erased users" in prepare.plan(Run.open(recipe))[2]
        prepared = prepare_here(recipe)
        users = prepared.users()
        mine = users.user_ids.index(user)
        times = users.timestamps[users.offsets[mine] : users.offsets[mine + 1]]
        own = events.filter(pl.col(Col.user) == "customer-001")
        assert len(times) == own.filter(pl.col(Col.timestamp) > day(60)).height + 1
        assert times.min() > day(60).timestamp() * 1e6
        early = own.filter(pl.col(Col.timestamp) <= day(60)).height
        assert prepared.summary["counts"]["erased"] == early + 2 > 2
        assert prepared.summary["quarantined"] == {}, "the spoilt row is of the erased time"
        assert any("erased users left out" in line for line in prepare.report(Run.open(recipe)))
