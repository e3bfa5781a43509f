"""Removals, returns and dislikes of a log: kept for the store, and nothing to a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from tiny import day, prepare_here, tiny_events, tiny_items, tiny_recipe, write_log

from recsys.preparation.survey import survey
from recsys.schema import EVENT_CODE, RETRACTIONS, Col


def test_models_do_not_see_them_and_the_store_does(tmp_path: Path) -> None:
    events = tiny_events()
    some = events.sample(40, seed=0)
    taken_back = pl.concat(
        some.with_columns(
            pl.lit(name).alias(Col.event_type), pl.col(Col.timestamp) + pl.duration(hours=1)
        )
        for name in RETRACTIONS
    )
    alone = taken_back.head(1).with_columns(pl.lit("did nothing else").alias(Col.user))
    recipes = []
    for name, log in (("without", events), ("with", pl.concat([events, taken_back, alone]))):
        write_log(tmp_path / name / "log", log, tiny_items())
        recipes.append(tiny_recipe(tmp_path / name))
    without, prepared = map(prepare_here, recipes)
    one, other = without.users(), prepared.users()
    assert one.user_ids == other.user_ids
    for name in ("item_rows", "event_codes", "timestamps", "offsets"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for file in ("item_stats.parquet", "item_days.parquet"):
        assert pl.read_parquet(without.folder / file).equals(
            pl.read_parquet(prepared.folder / file)
        )
    held = pl.concat([pl.DataFrame(pq.read_table(path)) for path in prepared.shards])
    codes = held[Col.event_codes].explode()
    assert {code: (codes == code).sum() for code in map(EVENT_CODE.get, RETRACTIONS)} == {
        EVENT_CODE[name]: 40 for name in RETRACTIONS
    }
    counts = prepared.summary["counts"]
    assert counts["events"] == without.summary["counts"]["events"] + 161
    assert f"find {counts['users']} users" in " ".join(survey(recipes[1]).found)


def test_a_log_may_call_them_otherwise(tmp_path: Path) -> None:
    events = tiny_events()
    sent_back = events.head(1).with_columns(
        pl.lit("sent back").alias(Col.event_type), pl.lit(day(80)).alias(Col.timestamp)
    )
    write_log(tmp_path / "log", pl.concat([events, sent_back]), tiny_items())
    assert prepare_here(tiny_recipe(tmp_path)).summary["quarantined"] == {"unknown_event_type": 1}
    mapped = {"event_types": {"sent back": "return"}}
    base = tiny_recipe(tmp_path)
    recipe = base.model_copy(update={"data": base.data.model_copy(update=mapped)})
    assert prepare_here(recipe).summary["quarantined"] == {}
