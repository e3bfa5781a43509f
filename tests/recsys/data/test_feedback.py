"""Files of live events and shown lists: details, merging by day, tidying."""

from __future__ import annotations

import datetime as dt
import json
import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from live_feedback import event, write_segment

from recsys.data.feedback import erase_rows, events_table, finished, merge_days, read_rows, tidy
from recsys.errors import DataError
from recsys.schema import EVENTS, IMPRESSIONS, Col
from recsys.state import Tombstone

TODAY = dt.date(2026, 3, 5)


def test_a_detail_that_no_column_holds_costs_the_event_nothing_else() -> None:
    told = '{"position": 4294967296, "dwell_ms": 99999999999999999999, "price": 2.5}'
    (row,) = events_table([replace(event(1), details=told)]).to_pylist()
    assert (row[Col.position], row[Col.dwell_ms], row[Col.price]) == (None, None, 2.5)


def test_what_an_event_brought_and_where_it_was_shown() -> None:
    told = {"value": -2.5, "placement": "home/top", "context": '{"a":1}'}
    (row,) = events_table([replace(event(1), details=json.dumps(told))]).to_pylist()
    assert {name: row[name] for name in told} == told


def test_files_of_before_there_were_such_columns_are_read(tmp_path: Path) -> None:
    new = events_table([replace(event(1), details='{"value": 2.5, "price": 1.0}')])
    path = tmp_path / "2026-03-03-a.parquet"
    pq.write_table(new.drop_columns([Col.value, Col.placement]), path)
    (row,) = read_rows(str(path), 0, 1, EVENTS).to_dicts()
    assert (row[Col.price], row[Col.value], row[Col.placement]) == (1.0, None, None)
    pq.write_table(new, tmp_path / "2026-03-03-b.parquet")
    merge_days(tmp_path, TODAY)
    (merged,) = finished(tmp_path)
    assert read_rows(str(merged), 0, 2, EVENTS)[Col.value].to_list() == [None, 2.5]


class TestMerging:
    @pytest.mark.parametrize("is_old", [(True, False), (False, True)])
    def test_files_of_before_there_were_arms(
        self, tmp_path: Path, is_old: tuple[bool, bool]
    ) -> None:
        for number, old in enumerate(is_old):
            path = write_segment(tmp_path / str(number), ["u"], [number], "2026-03-03")
            if old:
                pq.write_table(pq.read_table(path).drop_columns([Col.arm, Col.placement]), path)
        merge_days(tmp_path, dt.date(2026, 3, 4))
        (merged,) = finished(tmp_path)
        table = pq.read_table(merged)
        assert table.schema.remove_metadata() == IMPRESSIONS
        arms = {row[Col.timestamp]: row[Col.arm] for row in table.to_pylist()}
        assert [arm is None for _, arm in sorted(arms.items())] == list(is_old)

    def test_a_day_becomes_one_file(self, tmp_path: Path) -> None:
        for replica, number in (("a", 1), ("a", 2), ("b", 3)):
            write_segment(tmp_path / replica, ["u"], [number], "2026-03-03")
        today = write_segment(tmp_path / "a", ["u"], [4], "2026-03-05")
        merge_days(tmp_path, TODAY)
        assert len(finished(tmp_path)) == 2 and today in finished(tmp_path)
        assert self.times(tmp_path) == [1, 2, 3, 4]
        late = write_segment(tmp_path / "b", ["u"], [5], "2026-03-03")
        merge_days(tmp_path, TODAY)
        assert len(finished(tmp_path)) == 2 and not late.exists()
        assert self.times(tmp_path) == [1, 2, 3, 4, 5]
        before = finished(tmp_path)
        merge_days(tmp_path, TODAY)
        assert finished(tmp_path) == before

    @pytest.mark.parametrize("left", range(4))
    def test_a_merge_that_broke_off_doubles_nothing(self, tmp_path: Path, left: int) -> None:
        files = [
            write_segment(tmp_path / "a", ["u"], [number], "2026-03-03") for number in range(3)
        ]
        copies = [path.read_bytes() for path in files]
        merge_days(tmp_path, TODAY)
        for path, content in zip(files[:left], copies, strict=False):
            path.write_bytes(content)
        assert self.times(tmp_path) == [0, 1, 2]
        erase_rows(finished(tmp_path), {"nobody": Tombstone(5, 5), "u": Tombstone(0, 0)})
        assert self.times(tmp_path) == [1, 2]
        tidy(tmp_path)
        assert len(list(tmp_path.rglob("*.parquet"))) == 1
        assert self.times(tmp_path) == [1, 2]

    def test_a_broken_file_is_named(self, tmp_path: Path) -> None:
        for number in range(2):
            path = write_segment(tmp_path / "a", ["u"], [number], "2026-03-03")
        path.write_bytes(b"no parquet")
        with pytest.raises(DataError, match=path.name):
            merge_days(tmp_path, TODAY)
        with pytest.raises(DataError, match=path.name):
            erase_rows([path], {"u": Tombstone(5, 5)})

    def test_what_a_killed_process_left_goes_in_time(self, tmp_path: Path) -> None:
        (tmp_path / "gone").mkdir()
        old, new = tmp_path / ".x.parquet.1.part", tmp_path / ".y.parquet.2.part"
        for path in (old, new):
            path.touch()
        for path in (old, tmp_path / "gone"):
            os.utime(path, (0, 0))
        tidy(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [new.name]

    def times(self, folder: Path) -> list[int]:
        tables = [pq.read_table(path) for path in finished(folder)]
        return sorted(pa.concat_tables(tables)[Col.timestamp].cast(pa.int64()).to_pylist())
