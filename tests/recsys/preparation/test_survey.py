"""The dry run of `prepare`: what it finds is what a run would meet."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from unittest.mock import patch

import polars as pl
import pyarrow.parquet as pq
import pytest
from tiny import (
    CUTS,
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

from recsys.config import Recipe
from recsys.data.adapters import Part
from recsys.data.feedback import Feedback, events_table
from recsys.data.pseudonyms import pseudonym
from recsys.errors import DataError
from recsys.preparation import survey as module
from recsys.preparation.coverage import Coverage
from recsys.preparation.prepared import PREPARED
from recsys.preparation.survey import Survey, spread, survey
from recsys.schema import EVENT_CODE, Col
from recsys.state import StateEvent, Tombstone


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)


def found(result: Survey, begin: str) -> str:
    (line,) = (each for each in result.found if each.startswith(begin))
    return line


def fields(result: Survey) -> list[str | None]:
    return [problem.field for problem in result.problems]


def cuts(**days: float) -> dict[str, dt.datetime]:
    return {name: day(number) for name, number in (CUTS | days).items()}


def recipe_of(folder: Path, **data: object) -> Recipe:
    defaults = {"source": str(folder / "log"), "cuts": cuts(), "max_tokens": 16}
    return tiny_recipe(folder, data={**defaults, "num_buckets": 4, **data})


class TestFound:
    def test_a_good_log_has_no_problem_and_nothing_is_written(self, tmp_path: Path) -> None:
        tiny_log(tmp_path / "log")
        recipe = recipe_of(tmp_path)
        result = survey(recipe)
        assert (result.problems, result.warnings) == ([], [])
        assert result.found[0] == "find 40 items"
        assert found(result, "fill") == "fill 4 of 4 user buckets"
        assert found(result, "quarantine").startswith("quarantine 0 of 6,185 events, 1.00%")
        assert not recipe.root.exists()

    def test_it_counts_what_a_run_counts(self, tmp_path: Path) -> None:
        """Bad rows, left out types, an end, an early user: all the same in both."""
        events = tiny_events().with_columns(
            pl.when(pl.int_range(pl.len()) < 7).then(pl.lit("nowhere")).otherwise(Col.item)
            .alias(Col.item)
        )  # fmt: skip
        write_log(tmp_path / "log", events, tiny_items())
        recipe = recipe_of(tmp_path, event_types={"view": None}, cuts=cuts(end=85))
        result = survey(recipe)
        summary = prepare_here(recipe).summary
        coverage = Coverage(*summary["log_us"], summary["event_types"])
        assert result.problems == []
        assert f"find {summary['counts']['users']} users; {coverage.range_text}" in result.found
        told = found(result, "quarantine")
        num_bad = sum(summary["quarantined"].values())
        assert told.startswith(f"quarantine {num_bad} of {summary['counts']['rows']:,} events")
        assert num_bad > 0 and told.endswith(f": {num_bad} x unknown_item")
        for name, count in summary["event_types"].items():
            assert f"{name} {count:,} -> " in found(result, "find the event types")

    def test_live_events_and_erased_users_count_as_in_a_run(self, tmp_path: Path) -> None:
        tiny_log(tmp_path / "log")
        recipe = recipe_of(tmp_path)
        feedback = Feedback.of(recipe.root)
        gone = pseudonym(tiny_events()[Col.user][0], KEY.encode())
        feedback.write_erased({gone: Tombstone(*(int(day(500).timestamp() * 1e6),) * 2)})
        moment = int(day(60).timestamp() * 1e6)
        live = events_table(
            [StateEvent(name * 32, name, "item-0001", EVENT_CODE["purchase"], moment)
             for name in "ab"]
        )  # fmt: skip
        feedback.events.mkdir(parents=True)
        pq.write_table(live, feedback.events / "2024-03-01-a.parquet")
        result = survey(recipe)
        counts = prepare_here(recipe).summary["counts"]
        assert counts["live"] == 2 and counts["erased"] > 0
        assert found(result, "find 61 users") and counts["users"] == 61

    def test_ids_of_two_kinds_are_a_warning(self, tmp_path: Path) -> None:
        tiny_log(tmp_path / "log", hive=True)
        path = next((tmp_path / "log" / "events").rglob("*.parquet"))
        frame = pl.read_parquet(path, hive_partitioning=False)
        frame.with_columns(pl.lit(7).alias(Col.user)).write_parquet(path)
        (line,) = survey(recipe_of(tmp_path)).warnings
        assert "integer in 1 file (" in line and "text in 3 files (" in line


class TestProblems:
    def test_all_are_in_one_list(self, tmp_path: Path) -> None:
        """No item_id, no items, cuts in years to come, a bad key: not one at a time."""
        write_log(tmp_path / "log", tiny_events().drop(Col.item), tiny_items())
        (tmp_path / "log" / "items.parquet").unlink()
        recipe = recipe_of(tmp_path, cuts={"valid": "2090-01-01", "test": "2090-02-01"},
                           max_tokens=65)  # fmt: skip
        with patch.dict("os.environ", {KEY_ENV: "short"}):
            result = survey(recipe)
        assert fields(result) == [
            Col.item, "data.source", "data.max_tokens", None, "data.cuts.head",
        ]  # fmt: skip
        assert "too few to withstand guessing" in str(result.problems[3])
        assert "the test window holds no purchase event" in result.problems[4].problem
        assert "unknown_item" not in str(result.problems)

    @pytest.mark.parametrize(
        ("column", "others"),
        [
            (Col.user, ["data.cuts.valid"]),
            (Col.item, ["data.cuts.valid"]),
            (Col.event_type, []),  # no targets without types, no windows without times
            (Col.timestamp, []),
        ],
    )
    def test_a_column_that_cannot_be_read_hides_no_more_than_it_must(
        self, column: str, others: list[str], tmp_path: Path
    ) -> None:
        spoilt = tiny_events().with_columns(pl.lit(1.5).alias(column))
        write_log(tmp_path / "log", spoilt, tiny_items())
        result = survey(recipe_of(tmp_path, cuts=cuts(valid=300, test=400)))
        assert fields(result) == [column, *others]

    @pytest.mark.parametrize(
        ("days", "problem"),
        [
            ({"head": 380, "valid": 400, "test": 420}, "the head window holds no"),
            ({"valid": 95, "test": 99}, "the valid window holds no"),
            ({"head": 0, "valid": 60, "test": 70}, "nothing to learn"),
        ],
    )
    def test_windows_fail_in_a_dry_run_as_in_a_run(
        self, days: dict[str, float], problem: str, tmp_path: Path
    ) -> None:
        tiny_log(tmp_path / "log")
        recipe = recipe_of(tmp_path, cuts=cuts(**days))
        (found,) = survey(recipe).problems
        assert problem in found.problem
        with pytest.raises(DataError) as error:
            prepare_here(recipe)
        assert str(error.value) == str(found)

    @pytest.mark.parametrize(
        "data",
        [
            {"event_types": {"view": None, "purchase": None}},
            {"event_types": {"purchase": "click"}},
            {"target_events": ["click"]},
        ],
    )
    def test_a_log_of_which_nothing_is_a_target(
        self, data: dict[str, object], tmp_path: Path
    ) -> None:
        tiny_log(tmp_path / "log")
        assert fields(survey(recipe_of(tmp_path, **data))) == ["data.target_events"]

    def test_where_every_row_is_bad_that_is_the_problem(self, tmp_path: Path) -> None:
        spoilt = tiny_events().with_columns(pl.lit("wink").alias(Col.event_type))
        write_log(tmp_path / "log", spoilt, tiny_items())
        assert fields(survey(recipe_of(tmp_path))) == [Col.event_type]

    def test_users_who_never_come_back_teach_nothing(self, tmp_path: Path) -> None:
        events = tiny_events().unique(Col.user, keep="first", maintain_order=True)
        every = [
            events.with_columns(
                pl.lit(f"u{number}-").add(pl.col(Col.user)).alias(Col.user),
                pl.lit(day(number)).alias(Col.timestamp), pl.lit("purchase").alias(Col.event_type),
            )
            for number in (3, 55, 66, 80)
        ]  # fmt: skip
        write_log(tmp_path / "log", pl.concat(every), tiny_items())
        (found,) = survey(recipe_of(tmp_path)).problems
        assert found.problem.startswith("nothing to learn")
        assert "that user ids repeat" in found.fix

    def test_the_quarantine_beyond_its_limit_is_told_as_in_a_run(self, tmp_path: Path) -> None:
        spoilt = tiny_events().with_columns(
            pl.when(pl.int_range(pl.len()) < 100).then(pl.lit("wink")).otherwise(Col.event_type)
            .alias(Col.event_type)
        )  # fmt: skip
        write_log(tmp_path / "log", spoilt, tiny_items())
        recipe = recipe_of(tmp_path)
        (found,) = survey(recipe).problems
        with pytest.raises(DataError) as error:
            prepare_here(recipe)
        kept = f"; all of them lie in {recipe.root}/quarantine"
        assert str(error.value).replace(kept, "") == str(found)

    def test_a_robot_is_counted(self, tmp_path: Path) -> None:
        tiny_log(tmp_path / "log")
        recipe = recipe_of(tmp_path, max_events_per_user=100)
        (found,) = survey(recipe).problems
        with pytest.raises(DataError) as error:
            prepare_here(recipe)
        told = re.compile(r"[0-9,]+ x too_many_events")
        assert found.field == Col.user
        assert told.findall(str(found)) == told.findall(str(error.value)) != []

    def test_too_many_bad_items(self, tmp_path: Path) -> None:
        write_log(tmp_path / "log", tiny_events(), pl.concat([tiny_items(), tiny_items()]))
        (found,) = survey(recipe_of(tmp_path)).problems
        assert "40 x duplicate_item_id" in found.problem

    def test_a_file_with_spoilt_pages_is_one_problem_and_the_rest_is_read(
        self, tmp_path: Path
    ) -> None:
        tiny_log(tmp_path / "log", hive=True)
        path = sorted((tmp_path / "log" / "events").rglob("*.parquet"))[0]
        content = bytearray(path.read_bytes())
        content[8 : len(content) // 2] = bytes(len(content) // 2 - 8)
        path.write_bytes(content)
        result = survey(recipe_of(tmp_path))
        assert [str(path) in str(problem) for problem in result.problems] == [True]
        assert found(result, "find 60 users")


class TestShards:
    def test_fewer_shards_than_workers(self, tmp_path: Path) -> None:
        write_log(tmp_path / "log", tiny_events(3), tiny_items())
        recipe = tiny_recipe(
            tmp_path, train={"num_workers": 4}, data={"num_buckets": 4, "cuts": cuts(head=20)}
        )
        (found,) = survey(recipe).problems
        assert (found.field, found.value) == ("train.num_workers", 4)
        assert re.match(r"3 users fill [123] of 4 buckets, fewer than", found.problem)
        shards = prepare_here(recipe).shards
        assert f"fill {len(shards)} of 4" in found.problem

    def test_without_a_key_the_buckets_are_a_guess(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv(KEY_ENV)
        tiny_log(tmp_path / "log")
        recipe = recipe_of(tmp_path)
        result = survey(recipe)
        assert result.problems == []
        assert found(result, "fill about 4 of 4 user buckets")
        assert not recipe.root.exists()


class TestLargeLogs:
    PARTS = [Part(str(number), 0, 1, 10) for number in range(10)]

    def test_parts_lie_evenly(self) -> None:
        def picked(most: int) -> list[int]:
            return [int(part.path) for part in spread(self.PARTS, most)]

        assert picked(100) == list(range(10))
        assert picked(50) == [1, 3, 5, 7, 9]
        assert picked(25) == [2, 7]
        assert picked(5) == [5]

    def test_what_is_not_seen_in_a_part_of_the_log_is_a_warning(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The log's first half holds nothing of the last windows."""
        tiny_log(tmp_path / "log")
        events = tiny_events().sort(Col.timestamp)
        (tmp_path / "log" / "events.parquet").unlink()
        (tmp_path / "log" / "events").mkdir()
        for number, part in enumerate(events.iter_slices(events.height // 8 + 1)):
            part.write_parquet(tmp_path / "log" / "events" / f"{number}.parquet")
        recipe = recipe_of(tmp_path)
        assert survey(recipe).problems == []
        monkeypatch.setattr(module, "MOST_ROWS", 2000)
        result = survey(recipe)
        assert result.problems == []
        assert found(result, "look into 2 of 8 parts, spread evenly (1,548 of 6,185 rows)")
        (line,) = result.warnings
        assert "in the parts looked into, the head window holds no purchase event" in line

    def test_bad_rows_that_break_the_limit_of_the_whole_log_are_a_problem(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MOST_ROWS", 1000)
        spoilt = tiny_events().with_columns(pl.lit("wink").alias(Col.event_type))
        write_log(tmp_path / "log", spoilt, tiny_items())
        assert fields(survey(recipe_of(tmp_path))) == [Col.event_type]


def test_a_survey_reads_the_needed_columns_alone(tmp_path: Path) -> None:
    """What another column holds is found when it is read; its type is known from the footer."""
    wide = tiny_events().with_columns(pl.lit(2**40).alias(Col.position))
    write_log(tmp_path / "log", wide, tiny_items())
    assert survey(recipe_of(tmp_path)).problems == []
    assert not (tmp_path / "run" / PREPARED).exists()
