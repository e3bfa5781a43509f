"""MIND (https://msnews.github.io): news, each line of `behaviors.tsv` an answered list."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import polars as pl

from recsys.outcomes.adapters.labelled import exposures_of, first_at
from recsys.schema import Col
from recsys.storage.reading import reading

_COLUMNS: Final = [Col.request, Col.user, Col.timestamp, "history", "shown"]
_TIME: Final = "%m/%d/%Y %I:%M:%S %p"
_FIX: Final = "give a `behaviors.tsv` of the training or the validation set"
#: A news id, and whether it was clicked.
_SHOWN: Final = r"^(\S+)-([01])$"


def read_mind(path: Path) -> pl.DataFrame:
    """The exposures of a `behaviors.tsv`.

    A line has five fields, separated by tabs: id of the impression, user, time (such as `11/15/2019
    8:55:22 AM`, taken for UTC), history, and the news shown as `N1-1 N2-0`, 1 for a click. The
    news of a list are shuffled, so the position is null. One that stands twice in a list counts
    once.

    Args:
        path: of the file; that of the test set tells no clicks, and is refused.

    Returns:
        Columns of `schema.EXPOSURES`.

    Raises:
        DataError: the file is missing, or a line is not of this form.
    """
    with reading(path, _FIX):
        lines = pl.read_csv(
            path, separator="\t", has_header=False, new_columns=_COLUMNS, quote_char=None,
            schema_overrides=[pl.String] * len(_COLUMNS),
        )  # fmt: skip
        rows = lines.with_columns(
            pl.col(Col.timestamp).str.to_datetime(_TIME, time_unit="us", time_zone="UTC"),
            pl.col("shown").str.split(" "),
        ).explode("shown")
        parts = pl.col("shown").str.extract_groups(_SHOWN)
        rows = rows.with_columns(
            parts.struct[0].alias(Col.item), (parts.struct[1] == "1").alias("label")
        )
        wrong = rows.filter(pl.col(Col.item).is_null())
        if wrong.height:
            raise ValueError(f"shown news without a label 0 or 1: {wrong['shown'][0]!r}")
        once = rows.group_by(Col.request, Col.item, maintain_order=True).agg(
            pl.col(Col.user, Col.timestamp).first(), pl.col("label").any()
        )
        return exposures_of(
            once.select(
                pl.concat_str(Col.request, pl.lit(":"), Col.item).alias(Col.exposure),
                Col.request, Col.user, Col.item, Col.timestamp,
                first_at("label").alias(Col.clicked_ts),
            )
        )  # fmt: skip
