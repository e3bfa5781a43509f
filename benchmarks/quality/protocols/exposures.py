"""Labelled exposures of published splits."""

from __future__ import annotations

import polars as pl

from benchmarks.quality.protocols.benchmark import HISTORY, IS_TEST, NOW
from benchmarks.quality.protocols.parts import LABEL, PART
from recsys.schema import Col


def published_exposures(splits: pl.DataFrame, labelled: pl.DataFrame) -> pl.DataFrame:
    """All that was shown: the rows of the splits, and the events that are none of them."""
    rows = splits.select(
        Col.user, Col.item, Col.timestamp, pl.col(LABEL).cast(pl.Int8),
        (pl.col(PART) == "test").alias(IS_TEST),
    )  # fmt: skip
    others = labelled.join(rows, on=[Col.user, Col.item, Col.timestamp], how="anti")
    return pl.concat([rows, others.with_columns(pl.lit(False).alias(IS_TEST))])


def tells_whole_histories(splits: pl.DataFrame, exposures: pl.DataFrame) -> bool:
    """Whether no test row's history lacks a like that its user gave before the row's timestamp."""
    tests = splits.filter(pl.col(PART) == "test").with_row_index("row")
    likes = exposures.filter(pl.col(LABEL) == 1).select(
        Col.user, pl.col(Col.item).alias(HISTORY), pl.col(Col.timestamp).alias(NOW)
    )
    earlier = (
        tests.select("row", Col.user, Col.timestamp)
        .join(likes, on=Col.user)
        .filter(pl.col(NOW) < pl.col(Col.timestamp))
    )
    told = tests.select("row", HISTORY).explode(HISTORY)
    return earlier.join(told, on=["row", HISTORY], how="anti").is_empty()
