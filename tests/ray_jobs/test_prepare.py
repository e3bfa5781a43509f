"""`prepare` without a cluster: what it makes of a log, and how it refuses bad input."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from tiny import (
    CUTS,
    KEY,
    KEY_ENV,
    NUM_DAYS,
    day,
    prepare_here,
    prepared_in_process,
    tiny_events,
    tiny_items,
    tiny_log,
    tiny_recipe,
    tiny_recipe_file,
    user_id,
    write_log,
)

from ray_jobs import cli, prepare
from recsys.artifacts.run import Run
from recsys.config import Recipe
from recsys.data.pseudonyms import pseudonym
from recsys.preparation.prepared import PREPARED, QUARANTINE_DIR, Prepared
from recsys.schema import EVENT_CODE, Col


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class TestOutput:
    def test_two_runs_give_identical_bytes(self, tmp_path: Path) -> None:
        tiny_log(tmp_path / "log")
        recipe = tiny_recipe(tmp_path)
        prepare_here(recipe)
        first = hashes(recipe.root / PREPARED)
        prepare_here(recipe)
        assert hashes(recipe.root / PREPARED) == first
        assert len(first) > 8

    def test_the_order_of_rows_and_files_changes_nothing(self, tmp_path: Path) -> None:
        """File order inside a timestamp would be a leak."""
        events, items = tiny_events(), tiny_items()
        prints = []
        for name, log in {
            "plain": events,
            "shuffled": events.sample(fraction=1, shuffle=True, seed=3),
            "reversed": events.reverse(),
        }.items():
            write_log(tmp_path / name / "log", log, items)
            prepared = prepare_here(tiny_recipe(tmp_path / name))
            prints.append(prepared.summary["data_fingerprint"])
        assert len(set(prints)) == 1

    def test_hive_folders_give_the_same_histories(self, tmp_path: Path) -> None:
        for name, hive in (("plain", False), ("hive", True)):
            tiny_log(tmp_path / name / "log", hive=hive)
        plain, hive_ = (prepare_here(tiny_recipe(tmp_path / name)) for name in ("plain", "hive"))
        assert plain.summary["data_fingerprint"] == hive_.summary["data_fingerprint"]

    def test_every_event_is_in_one_history(self, tmp_path: Path) -> None:
        tiny_log(tmp_path / "log")
        prepared = prepare_here(tiny_recipe(tmp_path))
        users, events = prepared.users(), tiny_events()
        assert len(users.item_rows) == events.height == prepared.summary["counts"]["events"]
        assert set(users.user_ids) == {
            pseudonym(raw, KEY.encode()) for raw in events[Col.user].unique().to_list()
        }
        assert prepared.summary["quarantined"] == {}

    def test_no_raw_user_id_is_written(self, tmp_path: Path) -> None:
        events = tiny_events()
        spoilt = events.with_columns(
            pl.when(pl.int_range(pl.len()) == 5).then(pl.lit("gone")).otherwise(Col.item)
            .alias(Col.item)
        )  # fmt: skip
        write_log(tmp_path / "log", spoilt, tiny_items())
        recipe = tiny_recipe(tmp_path)
        prepare_here(recipe)
        bad = pl.read_parquet(recipe.root / QUARANTINE_DIR / "part-00000.parquet")
        assert bad[Col.reason].to_list() == ["unknown_item"]
        for path in recipe.root.rglob("*"):
            if path.is_file() and path.suffix in (".parquet", ".json"):
                frame = pl.read_parquet(path) if path.suffix == ".parquet" else None
                text = frame.write_json() if frame is not None else path.read_text()
                # Session ids of this log are made of the user's number: `visit-7-1`.
                assert "customer-" not in text and "visit-" not in text, path

    def test_windows_are_cut_at_one_moment_for_all(self, tmp_path: Path) -> None:
        tiny_log(tmp_path / "log")
        prepared = prepare_here(tiny_recipe(tmp_path))
        purchase = [EVENT_CODE["purchase"]]
        for window, (start, end) in {
            "head": (CUTS["head"], CUTS["valid"]),
            "valid": (CUTS["valid"], CUTS["test"]),
            "test": (CUTS["test"], NUM_DAYS + 10),
        }.items():
            _, questions = prepared.questions(window, purchase)
            assert len(questions) == prepared.summary["counts"][f"{window}_baskets"] > 0
            low, high = (int(day(number).timestamp() * 1e6) for number in (start, end))
            assert (questions.histories.now >= low).all()
            assert (questions.histories.now < high).all()
            before = np.repeat(questions.histories.now, questions.histories.lengths)
            assert (questions.histories.timestamps < before).all()

    def test_statistics_see_nothing_after_their_cut(self, tmp_path: Path) -> None:
        tiny_log(tmp_path / "log")
        prepared = prepare_here(tiny_recipe(tmp_path))
        events = tiny_events()
        for name, number in CUTS.items():
            early = events.filter(pl.col(Col.timestamp) < day(number))
            stats = prepared.stats(name)
            assert stats.num_events.sum() == early.height
            assert stats.num_targets.sum() == (early[Col.event_type] == "purchase").sum()

    def test_a_user_with_one_event_is_kept(self, tmp_path: Path) -> None:
        lone = pl.DataFrame(
            {
                Col.user: ["lone"], Col.item: ["item-0003"], Col.event_type: ["purchase"],
                Col.timestamp: [day(80)], Col.session: [None], Col.quantity: [1.0],
            },
            schema=tiny_events().schema,
        )  # fmt: skip
        write_log(tmp_path / "log", pl.concat([tiny_events(), lone]), tiny_items())
        prepared = prepare_here(tiny_recipe(tmp_path))
        users, questions = prepared.questions("test", [EVENT_CODE["purchase"]])
        mine = users.user_ids.index(pseudonym("lone", KEY.encode()))
        (asked,) = np.flatnonzero(questions.user_index == mine)
        assert questions.histories.lengths[asked] == 0

    def test_sending_the_log_twice_counts_events_once(self, tmp_path: Path) -> None:
        events = tiny_events()
        write_log(tmp_path / "log", pl.concat([events, events]), tiny_items())
        counts = prepare_here(tiny_recipe(tmp_path)).summary["counts"]
        assert counts["events"] == counts["duplicates"] == events.height

    def test_a_robot_is_quarantined_and_the_rest_goes_on(self, tmp_path: Path) -> None:
        """One user with 100,000 events beside a few hundred honest ones."""
        write_log(tmp_path / "log", _with_robot(100_000), tiny_items())
        recipe = tiny_recipe(tmp_path, data=_data(tmp_path, max_quarantine_fraction=0.999))
        prepared = prepare_here(recipe)
        assert prepared.summary["quarantined"] == {"too_many_events": 100_000}
        assert pseudonym("robot", KEY.encode()) not in prepared.users().user_ids

    def test_a_second_run_in_the_same_process_reads_its_own_catalogue(self, tmp_path: Path) -> None:
        tiny_log(tmp_path / "log")
        recipe = tiny_recipe(tmp_path)
        prepare_here(recipe)
        renamed = pl.col(Col.item).replace("item-0000", "zzz")
        events, items = (each.with_columns(renamed) for each in (tiny_events(), tiny_items()))
        write_log(tmp_path / "log", events, items)
        prepared = prepare_here(recipe)
        found = np.bincount(prepared.users().item_rows, minlength=40)
        counts = events[Col.item].value_counts().sort(Col.item)["count"].to_numpy()
        assert prepared.item_ids().tolist() == sorted(items[Col.item].to_list())
        assert found.tolist() == counts.tolist()

    def test_memory_does_not_grow_with_the_square_of_a_history(self, tmp_path: Path) -> None:
        """Without sessions each event is a basket with a history of its own."""
        one = pl.DataFrame(
            {
                Col.user: "u", Col.event_type: "purchase", Col.session: None, Col.quantity: 1.0,
                Col.item: [f"item-{number % 40:04d}" for number in range(15_000)],
                Col.timestamp: [day(number * NUM_DAYS / 15_000) for number in range(15_000)],
            },
            schema=tiny_events().select(
                Col.user, Col.event_type, Col.session, Col.quantity, Col.item, Col.timestamp
            ).schema,
        )  # fmt: skip
        events = tiny_events()
        write_log(tmp_path / "log", pl.concat([events, one.select(events.columns)]), tiny_items())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        prepared = prepare_here(tiny_recipe(tmp_path))
        _, questions = prepared.questions("test", [EVENT_CODE["purchase"]], most=50)
        grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        assert prepared.summary["counts"]["test_baskets"] > 2000
        assert len(questions) < 200
        assert grown_mb < 500, "15,000 histories of 13 bytes an event would be 1.5 GB"

    def test_rows_the_recipe_leaves_out_are_counted(self, tmp_path: Path) -> None:
        tiny_log(tmp_path / "log")
        data = _data(tmp_path, event_types={"view": None}, cuts=_cuts() | {"end": day(85)})
        prepared = prepare_here(tiny_recipe(tmp_path, data=data))
        counts = prepared.summary["counts"]
        assert counts["left_out"] + counts["events"] == counts["rows"] == tiny_events().height
        users = prepared.users()
        assert set(users.event_codes.tolist()) == {EVENT_CODE["purchase"]}
        assert users.timestamps.max() < int(day(85).timestamp() * 1e6)

    def test_a_log_named_by_uri(self, tmp_path: Path) -> None:
        tiny_log(tmp_path / "log")
        local = prepare_here(tiny_recipe(tmp_path))
        tiny_log(tmp_path / "other" / "log")
        data = _data(tmp_path / "other", source=(tmp_path / "other" / "log").as_uri())
        remote = prepare_here(tiny_recipe(tmp_path / "other", data=data))
        assert local.summary["data_fingerprint"] == remote.summary["data_fingerprint"]


def _cuts() -> dict[str, dt.datetime]:
    return {name: day(number) for name, number in CUTS.items()}


def _data(folder: Path, **more: object) -> dict[str, object]:
    return {"source": str(folder / "log"), "cuts": _cuts(), "max_tokens": 16, **more}


def _with_robot(num_events: int) -> pl.DataFrame:
    events = tiny_events()
    robot = pl.DataFrame(
        {
            Col.user: "robot",
            Col.item: [f"item-{number % 40:04d}" for number in range(num_events)],
            Col.event_type: "view",
            Col.timestamp: [day(0) + dt.timedelta(seconds=number) for number in range(num_events)],
            Col.session: None,
            Col.quantity: 1.0,
        },
        schema=events.schema,
    )
    return pl.concat([events, robot])


Change = Callable[[pl.DataFrame], Any]


def first_rows(column: str, value: object, share: float = 0.02) -> Change:
    """Put a value into the column of the first rows."""

    def change(events: pl.DataFrame) -> pl.DataFrame:
        at = pl.int_range(pl.len()) < max(1, int(share * events.height))
        kind = events.schema[column]
        return events.with_columns(
            pl.when(at).then(pl.lit(value, dtype=kind)).otherwise(column).alias(column)
        )

    return change


def same(frame: pl.DataFrame) -> pl.DataFrame:
    return frame


#: What is wrong with the log -> how, and what the message must name.
BAD_LOGS: dict[str, tuple[Change, Change, list[str]]] = {
    "missing column": (
        lambda events: events.drop(Col.item),
        same,
        ["events.parquet", "[item_id]", "missing column", "add a column `item_id`"],
    ),
    "wrong type": (
        lambda events: events.with_columns(pl.col(Col.timestamp).cast(pl.String)),
        same,
        ["events.parquet", "[timestamp]", "wrong type", "timestamp[us, tz=UTC]"],
    ),
    "unknown event type": (
        first_rows(Col.event_type, "stared_at"),
        same,
        ["events.parquet", "[event_type]", "stared_at", "data.event_types", "quarantine"],
    ),
    "null user": (
        first_rows(Col.user, None),
        same,
        ["events.parquet", "[user_id]", "null_user_id", "fill the column"],
    ),
    "a user that no request can name": (
        first_rows(Col.user, "x" * 300),
        same,
        ["events.parquet", "[user_id]", "unfit_user_id", "at most 256 characters"],
    ),
    "null item": (first_rows(Col.item, None), same, ["[item_id]", "null_item_id", "fill"]),
    "null time": (first_rows(Col.timestamp, None), same, ["[timestamp]", "null_timestamp"]),
    "future": (
        first_rows(Col.timestamp, dt.datetime(2999, 1, 1, tzinfo=dt.UTC)),
        same,
        ["[timestamp]", "2999", "future_timestamp", "correct the clock"],
    ),
    "unknown item": (
        first_rows(Col.item, "no-such-item"),
        same,
        ["[item_id]", "no-such-item", "add the item"],
    ),
    "robot": (
        lambda _: _with_robot(100_000),
        same,
        ["[user_id]", "too_many_events", "100,000", "data.max_events_per_user"],
    ),
    "items without text": (
        same,
        lambda items: items.with_columns(
            **{name: pl.lit(None, pl.String) for name in (Col.title, Col.brand, Col.category)}
        ),
        ["(items)", "[title]", "no_text", "give the item a title"],
    ),
    "an item twice": (
        same,
        lambda items: pl.concat([items, items]),
        ["(items)", "[item_id]", "duplicate_item_id", "one row an item"],
    ),
    "text that is no UTF-8": (
        lambda events: _spoilt_text(events),
        same,
        ["events.parquet", "[item_id]", "cannot be read as string"],
    ),
    "a time beyond all": (
        lambda events: _as_seconds(events),
        same,
        ["events.parquet", "[timestamp]", "cannot be read as timestamp"],
    ),
    "an id that no request can name": (
        same,
        lambda items: items.with_columns(pl.lit("x" * 300).alias(Col.item)),
        ["(items)", "[item_id]", "unfit_item_id", "at most 256 characters"],
    ),
    "no rows": (lambda events: events.clear(), same, ["events", "no rows"]),
    "no items": (same, lambda items: items.clear(), ["(items)", "no items"]),
}


@pytest.mark.parametrize("case", BAD_LOGS)
def test_a_bad_log_is_refused(case: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    spoil_events, spoil_items, named = BAD_LOGS[case]
    spoilt = spoil_events(tiny_events())
    write_log(tmp_path / "log", tiny_events(), spoil_items(tiny_items()))
    if isinstance(spoilt, pl.DataFrame):
        spoilt = spoilt.to_arrow()
    pq.write_table(spoilt, tmp_path / "log" / "events.parquet")
    message = refused(tmp_path, capsys, tiny_recipe_file(tmp_path))
    for part in named:
        assert part in message, message


def _spoilt_text(events: pl.DataFrame) -> pa.Table:
    table = events.to_arrow()
    spoilt = pa.array([b"\xff\xfe"] * table.num_rows, pa.binary()).view(pa.string())
    return table.set_column(table.column_names.index(Col.item), Col.item, spoilt)


def _as_seconds(events: pl.DataFrame) -> pa.Table:
    table = events.to_arrow()
    late = pa.array([10**13] * table.num_rows, pa.int64()).cast(pa.timestamp("s", tz="UTC"))
    return table.set_column(table.column_names.index(Col.timestamp), Col.timestamp, late)


def test_two_columns_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tiny_log(tmp_path / "log")
    path = tmp_path / "log" / "events.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column(Col.user, table[Col.user]), path)
    message = refused(tmp_path, capsys, tiny_recipe_file(tmp_path))
    assert str(path) in message and "[user_id] two columns of this name" in message


def test_more_tokens_than_the_language_model_reads_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tiny_log(tmp_path / "log")
    path = tiny_recipe_file(tmp_path, data=_data(tmp_path, max_tokens=65))
    message = refused(tmp_path, capsys, path)
    assert "[data.max_tokens]" in message and "at most 64" in message


def test_an_empty_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "log").mkdir()
    message = refused(tmp_path, capsys, tiny_recipe_file(tmp_path))
    assert "[data.source]" in message and str(tmp_path / "log") in message


def test_a_delta_table_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Its folder holds the rows of erased users too; only its log says that they are gone."""
    tiny_log(tmp_path / "log", hive=True)
    log = tmp_path / "log" / "events" / "_delta_log"
    log.mkdir()
    (log / "00000000000000000000.json").write_text("{}")
    message = refused(tmp_path, capsys, tiny_recipe_file(tmp_path))
    assert "a Delta table" in message and 'spark.read.format("delta")' in message
    assert str(tmp_path / "log" / "events") in message


def test_files_that_are_no_data_are_left_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    tiny_log(tmp_path / "log", hive=True)
    plain = prepare_here(tiny_recipe(tmp_path)).summary
    spark = tmp_path / "log" / "events"
    part = next(spark.rglob("*.parquet"))
    for name in ("_SUCCESS", "_temporary/0/part-9.parquet", ".ipynb_checkpoints/part.parquet"):
        (spark / name).parent.mkdir(parents=True, exist_ok=True)
        (spark / name).write_bytes(part.read_bytes() if "." in name else b"")
    (spark / "notes.csv").write_text("a,b")
    recipe = tiny_recipe(tmp_path)
    left_out = "in events: 3 files whose names, or their folders', begin with _ or ., 1 .csv file"
    assert f"leave out {left_out}" in prepare.plan(Run.open(recipe))
    summary = prepare_here(recipe).summary
    assert summary["data_fingerprint"] == plain["data_fingerprint"]
    assert summary["left_out_files"] == {"events": {".csv": 1, "hidden": 3}, "items": {}}
    assert f"left out {left_out}" in prepare.report(Run.open(recipe))


def test_a_log_in_capitals_is_read_through_the_mapping_that_the_error_proposes(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tiny_log(tmp_path / "plain" / "log")
    plain = prepare_here(tiny_recipe(tmp_path / "plain")).summary
    events, items = (
        frame.rename({name: name.upper() for name in frame.columns})
        for frame in (tiny_events(), tiny_items())
    )
    write_log(tmp_path / "log", events, items)
    message = refused(tmp_path, capsys, tiny_recipe_file(tmp_path))
    (mapping,) = re.findall(r"data\.(columns: {events: {.*?}})", message)
    columns = yaml.safe_load(mapping)["columns"]
    columns["items"] = {name: name.upper() for name in tiny_items().columns}
    data = _data(tmp_path, columns=columns)
    read = prepare_here(tiny_recipe(tmp_path, data=data)).summary
    assert read["data_fingerprint"] == plain["data_fingerprint"]


def test_ids_of_two_kinds_are_told_and_the_run_goes_on(tmp_path: Path) -> None:
    number = pl.col(Col.user).str.extract(r"-0*([0-9]+)$").cast(pl.Int64)
    events = tiny_events().with_columns(number.alias(Col.user))
    first, second = events[:400], events[400:]
    padded = second.with_columns(pl.format("0{}", Col.user).alias(Col.user))
    items = tiny_items().with_columns(pl.col(Col.item).cast(pl.Categorical))
    write_log(tmp_path / "log", events, items)
    (tmp_path / "log" / "events.parquet").unlink()
    (tmp_path / "log" / "events").mkdir()
    for name, frame in (("a", first), ("b", padded)):
        frame.write_parquet(tmp_path / "log" / "events" / f"{name}.parquet")
    recipe = tiny_recipe(tmp_path)
    prepare_here(recipe)
    (line,) = (each for each in prepare.report(Run.open(recipe)) if each.startswith("warning: "))
    folder = tmp_path / "log" / "events"
    assert line == (
        f"warning: user_id is integer in 1 file ({folder}/a.parquet), text in 1 file "
        f"({folder}/b.parquet); of the text ids {second[Col.user].n_unique()} are another spelling "
        "of an integer, such as '007' (distinct ids by part, added up), and count as other ids: "
        "write the column as one type"
    )


def test_of_daily_snapshots_the_newest_row_of_an_item_counts(tmp_path: Path) -> None:
    tiny_log(tmp_path / "log")
    (tmp_path / "log" / "items.parquet").unlink()
    for day_, price in (("2024-01-09", 1.0), ("2024-01-10", 2.0)):
        folder = tmp_path / "log" / "items" / f"dt={day_}"
        folder.mkdir(parents=True)
        tiny_items().with_columns(price=pl.lit(price)).write_parquet(folder / "0.parquet")
    prepared = prepare_here(tiny_recipe(tmp_path))
    assert set(prepared.catalogue.prices.tolist()) == {2.0}
    assert prepared.summary["counts"]["superseded"] == 40
    assert "40 rows of items superseded by newer ones" in prepare.report(
        Run.open(tiny_recipe(tmp_path))
    )


@pytest.mark.parametrize("keep", [0, 3, 0.5, 0.99])
def test_a_corrupt_file_is_refused(
    keep: float, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tiny_log(tmp_path / "log")
    path = tmp_path / "log" / "events.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    message = refused(tmp_path, capsys, tiny_recipe_file(tmp_path))
    assert str(path) in message and "write the file again" in message


def test_a_file_with_spoilt_pages_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The footer is whole, so that it fails only when a task reads the rows."""
    tiny_log(tmp_path / "log")
    path = tmp_path / "log" / "events.parquet"
    content = bytearray(path.read_bytes())
    content[8 : len(content) // 2] = bytes(len(content) // 2 - 8)
    path.write_bytes(content)
    message = refused(tmp_path, capsys, tiny_recipe_file(tmp_path))
    assert str(path) in message and "write the file again" in message


@pytest.mark.parametrize(
    ("days", "named"),
    [
        ((380, 400, 420), ["[data.cuts.head]", "the head window", "move data.cuts"]),
        ((50, 95, 99), ["[data.cuts.valid]", "the valid window holds no purchase event"]),
        ((50, 60, 95), ["[data.cuts.test]", "the test window holds no purchase event"]),
        ((0, 60, 70), ["[data.cuts.head]", "nothing to learn"]),
    ],
)
def test_an_empty_window_is_refused(
    days: tuple[int, int, int], named: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tiny_log(tmp_path / "log")
    cuts = {name: day(number) for name, number in zip(CUTS, days, strict=True)}
    path = tiny_recipe_file(tmp_path, data=_data(tmp_path, cuts=cuts))
    message = refused(tmp_path, capsys, path)
    for part in named:
        assert part in message, message


def refused(folder: Path, capsys: pytest.CaptureFixture[str], recipe: Path) -> str:
    """Run `recsys prepare`; it must end with one line on standard error and leave nothing."""
    capsys.readouterr()
    with prepared_in_process(), pytest.raises(SystemExit) as end:
        cli.main(["prepare", "--config", str(recipe)])
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("prepare: ") and message.count("\n") == 1, message
    assert "Fix: " in message
    left = (
        {path.name for path in (folder / "run").glob("*")} if (folder / "run").is_dir() else set()
    )
    # The key that was made, and the rows that were refused, are worth keeping.
    assert left <= {"pseudonym.key", QUARANTINE_DIR}
    return message


def test_a_refused_run_leaves_the_last_good_one(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tiny_log(tmp_path / "log")
    recipe = tiny_recipe(tmp_path)
    prepare_here(recipe)
    before = hashes(recipe.root / PREPARED)
    write_log(tmp_path / "log", first_rows(Col.user, None)(tiny_events()), tiny_items())
    with prepared_in_process(), pytest.raises(SystemExit):
        cli.main(["prepare", "--config", str(tiny_recipe_file(tmp_path))])
    assert "null_user_id" in capsys.readouterr().err
    assert hashes(recipe.root / PREPARED) == before


def test_quarantined_rows_are_kept_with_their_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_log(tmp_path / "log", first_rows(Col.event_type, "stare")(tiny_events()), tiny_items())
    refused(tmp_path, capsys, tiny_recipe_file(tmp_path))
    kept = pl.read_parquet(tmp_path / "run" / QUARANTINE_DIR / "part-00000.parquet")
    assert kept[Col.reason].unique().to_list() == ["unknown_event_type"]
    assert kept[Col.event_type].unique().to_list() == ["stare"]
    assert kept.height == int(0.02 * tiny_events().height)


def test_bytes_that_are_no_text_are_quarantined_and_no_user_s_bytes_are_shown(
    tmp_path: Path,
) -> None:
    events = tiny_events().with_columns(
        pl.when(pl.int_range(pl.len()) == row).then(pl.lit(b"\xff\xfe"))
        .otherwise(pl.col(name).cast(pl.Binary)).alias(name)
        for row, name in enumerate((Col.user, Col.item, Col.event_type, Col.session))
    )  # fmt: skip
    write_log(tmp_path / "log", events, tiny_items())
    recipe = tiny_recipe(tmp_path)
    prepare_here(recipe)
    bad = pl.read_parquet(recipe.root / PREPARED / QUARANTINE_DIR / "part-00000.parquet")
    assert bad.select(Col.reason, Col.unreadable).rows() == [
        ("unreadable_user_id", "user_id: a value cannot be read as string (UTF-8)"),
        ("unreadable_item_id", r"item_id: b'\xff\xfe' cannot be read as string (UTF-8)"),
        ("unreadable_event_type", r"event_type: b'\xff\xfe' cannot be read as string (UTF-8)"),
        ("unreadable_session_id", "session_id: a value cannot be read as string (UTF-8)"),
    ]


@pytest.mark.parametrize(
    ("seconds", "reason", "shown"),
    [
        (19_893_945_600, "future_timestamp", "2600-06-01"),
        (-62_135_596_800, "ancient_timestamp", "0001-01-01"),
        (10**13, "unreadable_timestamp", "318857-05-20"),
    ],
)
def test_the_quarantine_shows_a_time_that_cannot_be(
    seconds: int, reason: str, shown: str, tmp_path: Path
) -> None:
    table = tiny_events().to_arrow()
    times = table[Col.timestamp].cast(pa.timestamp("s", "UTC"))
    wrong = pa.array([seconds], pa.int64()).cast(times.type)
    spoilt = pa.chunked_array([wrong, *times.slice(1).chunks])
    tiny_log(tmp_path / "log")
    spoilt_table = table.set_column(table.column_names.index(Col.timestamp), Col.timestamp, spoilt)
    pq.write_table(spoilt_table, tmp_path / "log" / "events.parquet")
    recipe = tiny_recipe(tmp_path)
    assert prepare_here(recipe).summary["quarantined"] == {reason: 1}
    row = pl.read_parquet(recipe.root / PREPARED / QUARANTINE_DIR / "part-00000.parquet")
    assert row[Col.reason].to_list() == [reason]
    assert shown in f"{row[Col.timestamp][0]} {row[Col.unreadable][0]}"


def test_the_plan_counts_rows_and_writes_nothing(tmp_path: Path) -> None:
    tiny_log(tmp_path / "log")
    recipe: Recipe = tiny_recipe(tmp_path)
    lines = prepare.plan(Run.open(recipe))
    assert f"{tiny_events().height:,} rows" in lines[0]
    assert not recipe.root.exists()


def test_a_dry_run_tells_all_problems_in_one_list(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_log(tmp_path / "log", tiny_events().drop(Col.item), tiny_items().drop(Col.item))
    late = {name: day(1000 + number) for name, number in CUTS.items()}
    path = tiny_recipe_file(tmp_path, data=_data(tmp_path, cuts=late))
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        cli.main(["prepare", "--config", str(path), "--dry-run"])
    printed = capsys.readouterr()
    assert end.value.code == 2 and printed.out == ""
    first, *lines = printed.err.splitlines()
    assert first == "prepare: 3 problems:"
    for number, (line, part) in enumerate(zip(lines, (
        "events.parquet: [item_id] missing column", "items.parquet: [item_id] missing column",
        "[data.cuts.head] the head window holds no purchase event",
    ), strict=True), start=1):  # fmt: skip
        assert line.startswith(f"  {number}. ") and part in line and "Fix: " in line
    assert not (tmp_path / "run").exists()


def test_a_dry_run_says_what_it_found_and_warns_of(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_log(tmp_path / "log", tiny_events().with_columns(REQUEST_ID=pl.lit("r")), tiny_items())
    with pytest.raises(SystemExit) as end:
        cli.main(["prepare", "--config", str(tiny_recipe_file(tmp_path)), "--dry-run"])
    out = capsys.readouterr().out
    assert end.value.code == 0
    assert "would warn: the events' column `REQUEST_ID` is not read" in out
    assert "would find the event types view " in out
    assert "would find purchase events: " in out


def test_duplicates_are_told_with_their_share(tmp_path: Path) -> None:
    events = tiny_events()
    write_log(tmp_path / "log", pl.concat([events, events, events]), tiny_items())
    prepare_here(tiny_recipe(tmp_path))
    (line,) = (
        each
        for each in prepare.report(Run.open(tiny_recipe(tmp_path)))
        if "duplicates left out" in each
    )
    assert line.startswith("12,370 duplicates left out, 66.7% of the usable rows")
    assert "was an export joined twice" in line


def test_a_missing_key_is_made_once(tmp_path: Path) -> None:
    tiny_log(tmp_path / "log")
    recipe = tiny_recipe(tmp_path)
    with prepared_in_process(), patch.dict(os.environ):
        os.environ.pop(KEY_ENV)
        prepare.execute(Run.open(recipe))
        key = (recipe.root / "pseudonym.key").read_bytes()
        first = Prepared.open(recipe.root).users().user_ids
        prepare.execute(Run.open(recipe))
    assert (recipe.root / "pseudonym.key").read_bytes() == key
    assert (recipe.root / "pseudonym.key").stat().st_mode & 0o777 == 0o600
    assert Prepared.open(recipe.root).users().user_ids == first
    assert pseudonym(user_id(0), key.strip()) in first


def test_a_key_that_is_gone_is_not_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_log(tmp_path / "log")
    config = tiny_recipe_file(tmp_path)
    recipe = tiny_recipe(tmp_path)
    prepare_here(recipe)
    before = hashes(recipe.root / PREPARED)
    monkeypatch.delenv(KEY_ENV, raising=False)
    for more in ([], ["--dry-run"]):
        with pytest.raises(SystemExit) as end:
            cli.main(["prepare", "--config", str(config), *more])
        assert end.value.code == 2
        told = capsys.readouterr().err
        assert "the pseudonym key of this run is gone" in told and "restore the file" in told
    assert hashes(recipe.root / PREPARED) == before
    assert not (recipe.root / "pseudonym.key").exists()


def test_items_in_quarantine_are_told(tmp_path: Path) -> None:
    items = tiny_items().with_columns(
        *(pl.when(pl.int_range(pl.len()) == 0).then(None).otherwise(pl.col(name)).alias(name)
          for name in (Col.title, Col.brand, Col.category))
    )  # fmt: skip
    events = tiny_events().filter(pl.col(Col.item) != items[Col.item][0])
    write_log(tmp_path / "log", events, items)
    recipe = tiny_recipe(tmp_path, data=_data(tmp_path, max_quarantine_fraction=0.1))
    prepare_here(recipe)
    (line,) = (e for e in prepare.report(Run.open(recipe)) if e.startswith("quarantined items"))
    assert line.startswith("quarantined items: 1 ") and QUARANTINE_DIR in line


def test_the_summary_holds_the_resolved_recipe(tmp_path: Path) -> None:
    tiny_log(tmp_path / "log")
    recipe = tiny_recipe(tmp_path)
    summary: dict[str, Any] = json.loads((prepare_here(recipe).folder / "prepare.json").read_text())
    assert summary["recipe"] == recipe.resolved()
    assert summary["recipe_hash"] == recipe.fingerprint()
