"""Foreign folders laid out in time: nothing of a later part may lie in an earlier window."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from benchmarks.quality.protocols.benchmark import Benchmark
from benchmarks.quality.protocols.canonical import NO_TEXT
from benchmarks.quality.protocols.folder import open_benchmark
from benchmarks.quality.protocols.leave_one_out import TEST_DAY
from benchmarks.quality.questions import questions_of
from recsys.data.histories import build_histories
from recsys.errors import DataError
from recsys.schema import Col

DAY = dt.timedelta(days=1)
START = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)


def write(
    folder: Path,
    events: list[tuple[Any, ...]],
    *,
    columns: tuple[str, ...] = ("user_id", "item_id", "timestamp"),
    items: pl.DataFrame | None = None,
    splits: list[tuple[Any, ...]] | None = None,
) -> Path:
    folder.mkdir(exist_ok=True)
    frame = pl.DataFrame(events, schema=list(columns), orient="row")
    frame.write_parquet(folder / "events.parquet")
    if items is None:
        ids = frame["item_id"].unique().sort()
        items = pl.DataFrame({"item_id": ids, "title": [f"thing {item}" for item in ids]})
    items.write_parquet(folder / "items.parquet")
    if splits is not None:
        names = ["split", "user_id", "history", "item_id", "timestamp"]
        pl.DataFrame(splits, schema=names, orient="row").write_parquet(folder / "splits.parquet")
    return folder


def times_of(benchmark: Benchmark, user: str) -> dict[str, dt.datetime]:
    mine = benchmark.events.filter(pl.col(Col.user) == user)
    return dict(zip(mine[Col.item], mine[Col.timestamp], strict=True))


class TestTime:
    def test_the_cuts_leave_four_windows_and_the_times_alone(self, tmp_path: Path) -> None:
        events = [("u", str(n % 7), START + n * DAY) for n in range(100)]
        benchmark = open_benchmark(write(tmp_path / "d", events))
        assert benchmark.protocol == "time"
        expected = {"head": 70, "valid": 80, "test": 90}
        assert benchmark.cuts == {name: START + n * DAY for name, n in expected.items()}
        assert benchmark.events[Col.timestamp].to_list() == [time for _, _, time in events]

    def test_given_cuts_win(self, tmp_path: Path) -> None:
        events = [("u", "a", START + n * DAY) for n in range(100)]
        benchmark = open_benchmark(
            write(tmp_path / "d", events), valid=START + 50 * DAY, test=START + 60 * DAY
        )
        assert benchmark.cuts["head"] == START + 40 * DAY

    def test_a_log_of_one_moment_has_no_cut(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "d", [("u", "a", START), ("v", "b", START)])
        with pytest.raises(DataError, match="no cut is possible"):
            open_benchmark(folder)

    def test_it_needs_timestamps(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "d", [("u", "a", None), ("u", "b", None)])
        with pytest.raises(DataError, match="--protocol leave_one_out"):
            open_benchmark(folder, protocol="time")

    def test_events_are_filtered_by_a_condition_over_both_tables(self, tmp_path: Path) -> None:
        rows = [("u", "ab"[n % 2], START + n * DAY, n % 3 == 0) for n in range(60)]
        items = pl.DataFrame({"item_id": ["a", "b"], "title": ["x", "y"], "sold": [True, False]})
        columns = ("user_id", "item_id", "timestamp", "guest")
        folder = write(tmp_path / "d", rows, columns=columns, items=items)
        kept = open_benchmark(folder, where="sold = true and guest = false").events
        assert kept.height == sum(n % 2 == 0 and n % 3 != 0 for n in range(60))
        with pytest.raises(DataError, match="not a condition"):
            open_benchmark(folder, where="sold == == true")
        with pytest.raises(DataError, match="no events are left"):
            open_benchmark(folder, where="item_id = 'z'")


class TestEvents:
    @pytest.mark.parametrize(
        ("kinds", "expected", "targets"),
        [
            (["view", "click", "ping"], ["view", "click"], ("click",)),
            (["review", "rating"], ["purchase", "purchase"], ("purchase",)),
        ],
    )
    def test_names(
        self, tmp_path: Path, kinds: list[str], expected: list[str], targets: tuple[str, ...]
    ) -> None:
        rows = [
            ("u", "a", START + (30 * n + k) * DAY, kind)
            for n in range(9)
            for k, kind in enumerate(kinds)
        ]
        columns = ("user_id", "item_id", "timestamp", "event_type")
        benchmark = open_benchmark(write(tmp_path / "d", rows, columns=columns))
        assert benchmark.events[Col.event_type].to_list() == expected * 9
        assert benchmark.targets == targets

    def test_labels(self, tmp_path: Path) -> None:
        rows = [("u", "a", START + n * DAY, float(n % 2)) for n in range(40)]
        columns = ("user_id", "item_id", "timestamp", "value")
        benchmark = open_benchmark(write(tmp_path / "d", rows, columns=columns))
        assert benchmark.events[Col.event_type].to_list() == ["view", "purchase"] * 20

    def test_every_item_has_a_text(self, tmp_path: Path) -> None:
        events = [("u", "ab"[n % 2], START + n * DAY) for n in range(50)]
        items = pl.DataFrame({"item_id": ["a", "c"], "title": [" ", "see"]})
        found = open_benchmark(write(tmp_path / "d", events, items=items)).items
        assert dict(zip(found[Col.item], found[Col.title], strict=True)) == {
            "a": NO_TEXT, "b": NO_TEXT, "c": "see",
        }  # fmt: skip


class TestLeaveOneOut:
    def test_a_log_without_times_is_read_row_by_row(self, tmp_path: Path) -> None:
        rows = [("u", item) for item in "abcde"] + [("v", item) for item in "xy"] + [("w", "z")]
        folder = write(tmp_path / "d", rows, columns=("user_id", "item_id"))
        benchmark = open_benchmark(folder)
        assert benchmark.protocol == "leave_one_out"
        u, v = times_of(benchmark, "u"), times_of(benchmark, "v")
        cuts = benchmark.cuts
        assert u["a"] < u["b"] < cuts["head"] <= u["c"] < cuts["valid"] <= u["d"] < cuts["test"]
        assert cuts["test"] <= u["e"]
        assert cuts["valid"] <= v["x"] < cuts["test"] <= v["y"]
        assert times_of(benchmark, "w")["z"] < cuts["head"]

    def test_a_moment_stays_one_and_views_lie_before_what_they_led_to(self, tmp_path: Path) -> None:
        rows = [
            ("u", "a", START, "purchase"),
            ("u", "b", START + DAY, "view"),
            ("u", "c", START + 2 * DAY, "purchase"),
            ("u", "d", START + 2 * DAY, "purchase"),
            ("u", "e", START + 3 * DAY, "view"),
        ]
        columns = ("user_id", "item_id", "timestamp", "event_type")
        folder = write(tmp_path / "d", rows, columns=columns)
        benchmark = open_benchmark(folder, protocol="leave_one_out")
        times = times_of(benchmark, "u")
        assert times["c"] == times["d"] >= TEST_DAY
        assert times["a"] < times["b"] < times["c"]
        assert "e" not in times


class TestSplits:
    ROWS = [
        ("train", "u", ["a"], "b", START + DAY),
        ("train", "v", ["a", "c"], "d", START + 2 * DAY),
        ("train", "w", [], "a", START + 3 * DAY),
        ("train", "w", ["a"], "c", START + 4 * DAY),
        ("valid", "u", ["a", "b"], "c", START + 4 * DAY),  # the day the training rows end on
        ("test", "v", ["c", "d"], "a", START + 6 * DAY),
        ("test", "u", ["b", "c"], "e", START + 6 * DAY),
        ("test", "new", ["f", "a"], "b", START + 7 * DAY),
    ]
    EVENTS = [
        ("u", "a", START), ("v", "a", START), ("v", "c", START + DAY),
        ("new", "f", START + 5 * DAY), ("new", "a", START + 5 * DAY),
    ]  # fmt: skip

    def folder(self, path: Path, rows: list[tuple[Any, ...]] | None = None) -> Path:
        return write(path / "d", self.EVENTS, splits=self.ROWS if rows is None else rows)

    def test_parts_lie_in_their_windows_in_the_published_order(self, tmp_path: Path) -> None:
        benchmark = open_benchmark(self.folder(tmp_path))
        cuts, u, v = benchmark.cuts, times_of(benchmark, "u"), times_of(benchmark, "v")
        assert benchmark.protocol == "splits"
        assert u["a"] < u["b"] < cuts["valid"] <= u["c"] < cuts["test"] <= u["e"]
        assert times_of(benchmark, "w")["c"] < cuts["valid"]
        assert v["c"] < v["d"] < cuts["valid"]
        for user in ("u", "v", "w", "new"):
            mine = benchmark.events.filter(pl.col(Col.user) == user)[Col.timestamp]
            assert mine.is_sorted() and mine.n_unique() == len(mine)

    def test_rows_are_asked_with_the_history_they_name(self, tmp_path: Path) -> None:
        benchmark = open_benchmark(self.folder(tmp_path))
        assert benchmark.rows is not None
        ids = sorted(benchmark.items[Col.item])
        questions = questions_of(benchmark.rows, ids)
        histories = questions.histories
        asked = [
            [ids[row] for row in histories.item_rows[low:high]]
            for low, high in zip(histories.offsets, histories.offsets[1:], strict=False)
        ]
        assert asked == [["c", "d"], ["b", "c"], ["f", "a"]]
        assert [ids[row] for row in questions.relevant] == ["a", "e", "b"]
        assert (histories.age_days > 0).all()
        # Each event of a published order is a moment of its own.
        for low, high in zip(histories.offsets, histories.offsets[1:], strict=False):
            assert len(set(histories.timestamps[low:high].tolist())) == high - low

    def test_splits_by_user_keep_the_order_alone(self, tmp_path: Path) -> None:
        rows = [
            (split, user, list(history), item, START + day * DAY)
            for user, day in (("u", 0), ("v", 50))
            for split, history, item, day in (
                ("train", "a", "b", day),
                ("valid", "ab", "c", day + 1),
                ("test", "abc", "d", day + 2),
            )
        ]  # fmt: skip
        benchmark = open_benchmark(self.folder(tmp_path, rows))
        for user in "uv":
            times, cuts = times_of(benchmark, user), benchmark.cuts
            assert times["a"] < cuts["head"] <= times["b"] < cuts["valid"] <= times["c"]
            assert times["c"] < cuts["test"] <= times["d"]
        assert any("only their order" in note for note in benchmark.notes)

    def test_no_timestamps_at_all(self, tmp_path: Path) -> None:
        rows = [(split, user, history, item, None) for split, user, history, item, _ in self.ROWS]
        folder = write(tmp_path / "d", [("u", "a")], columns=("user_id", "item_id"), splits=rows)
        benchmark = open_benchmark(folder)
        times = times_of(benchmark, "u")
        assert times["b"] < benchmark.cuts["valid"] <= times["c"] < TEST_DAY <= times["e"]

    def test_a_history_that_is_no_part_of_the_sequence(self, tmp_path: Path) -> None:
        rows = [*self.ROWS[:-1], ("test", "u", ["e", "z"], "b", START + 8 * DAY)]
        benchmark = open_benchmark(self.folder(tmp_path, rows))
        assert benchmark.rows is not None
        last = benchmark.rows.row(-1, named=True)
        assert last["history"] == ["e", "z"]
        assert all(time < last["now"] for time in last["times"])

    def test_wrong_parts_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="dev"):
            open_benchmark(self.folder(tmp_path, [("dev", *self.ROWS[0][1:]), *self.ROWS]))
        with pytest.raises(DataError, match="test part must be there"):
            open_benchmark(self.folder(tmp_path, self.ROWS[:5]))

    def test_without_a_validation_part_the_last_training_rows_validate(
        self, tmp_path: Path
    ) -> None:
        rows = [row for row in self.ROWS if row[0] != "valid"]
        benchmark = open_benchmark(self.folder(tmp_path, rows))
        assert benchmark.cuts["valid"] == START + 4 * DAY
        w = times_of(benchmark, "w")
        assert w["a"] < benchmark.cuts["valid"] <= w["c"] < benchmark.cuts["test"]
        assert "no validation part: the last 1 of 4 training rows" in benchmark.notes[0]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="events.parquet"):
        open_benchmark(tmp_path)
    folder = write(tmp_path / "d", [("u", START)], columns=("user_id", "timestamp"), items=ITEMS)
    with pytest.raises(DataError, match="missing column"):
        open_benchmark(folder)
    folder = write(tmp_path / "e", [("u", "a", START)])
    with pytest.raises(DataError, match="splits"):
        open_benchmark(folder, protocol="splits")


ITEMS = pl.DataFrame({"item_id": ["a"], "title": ["x"]})


def test_ties_of_the_time_protocol_stay_moments(tmp_path: Path) -> None:
    events = [("u", item, START + n * DAY) for n in range(30) for item in "abc"]
    laid = open_benchmark(write(tmp_path / "d", events)).events
    rows = laid.with_columns(
        pl.lit(None, pl.String).alias(Col.session), pl.lit(0).alias(Col.item_row)
    )
    times = build_histories(rows)[Col.timestamps][0].as_py()
    assert len(times) == 90 and len(set(times)) == 30
