"""What `prepare` makes of a log, without a cluster."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from prepare_runs import hashes, tiny_cuts, tiny_data, with_robot
from tiny import (
    CUTS,
    KEY,
    NUM_DAYS,
    day,
    prepare_here,
    tiny_events,
    tiny_items,
    tiny_log,
    tiny_recipe,
    write_log,
)

from recsys.data.pseudonyms import pseudonym
from recsys.preparation.prepared import PREPARED, QUARANTINE_DIR
from recsys.schema import EVENT_CODE, Col


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
        write_log(tmp_path / "log", with_robot(100_000), tiny_items())
        recipe = tiny_recipe(tmp_path, data=tiny_data(tmp_path, max_quarantine_fraction=0.999))
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
        data = tiny_data(tmp_path, event_types={"view": None}, cuts=tiny_cuts() | {"end": day(85)})
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
        data = tiny_data(tmp_path / "other", source=(tmp_path / "other" / "log").as_uri())
        remote = prepare_here(tiny_recipe(tmp_path / "other", data=data))
        assert local.summary["data_fingerprint"] == remote.summary["data_fingerprint"]


def test_the_summary_holds_the_resolved_recipe(tmp_path: Path) -> None:
    tiny_log(tmp_path / "log")
    recipe = tiny_recipe(tmp_path)
    summary: dict[str, Any] = json.loads((prepare_here(recipe).folder / "prepare.json").read_text())
    assert summary["recipe"] == recipe.resolved()
    assert summary["recipe_hash"] == recipe.fingerprint()
