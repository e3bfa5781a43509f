"""The parts of published splits: their names, and a validation part where none was published.

A search needs a validation part. Where there is none, or where it holds nothing to predict, the
last tenth of the training rows becomes it: by time, rows of one time together; of splits without
times, the last rows of each user, for the order within a user is all there is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from recsys.errors import DataError
from recsys.schema import Col

PARTS = ("train", "valid", "test")
#: What others call the validation part.
VALIDATION = ("valid", "val", "validation", "dev", "eval")
#: Share of the training rows that validates where no other part does.
SHARE = 0.1

PART, LABEL, WANTED = "split", "label", "wanted"


def read_parts(splits: pl.DataFrame, path: Path, notes: list[str]) -> pl.DataFrame:
    """Name the parts as `PARTS` does, and make sure that there is something to validate on.

    Args:
        splits: columns `split` and `user_id`, and where they are known `timestamp` (in every row)
            and `label` (1: to be predicted; without it every row is).
        path: of the file, for errors.
        notes: what was done is appended.

    Raises:
        DataError: a part has another name, two may be meant for validation, nothing is to be
            predicted in the test part, or too few training rows are there to share.
    """
    splits = _named(splits, path, notes)
    wanted = splits.filter(_is_wanted(splits))[PART]
    if not (wanted == "test").any():
        raise DataError(
            "the test part must be there, and hold something to predict", where=path, field=PART,
            fix="add rows whose split is `test`",
        )  # fmt: skip
    if (wanted == "valid").any():
        return splits
    return _shared(splits, path, notes)


def _named(splits: pl.DataFrame, path: Path, notes: list[str]) -> pl.DataFrame:
    names = pl.col(PART).cast(pl.String).str.strip_chars().str.to_lowercase()
    splits = splits.with_columns(names)
    found = sorted(str(name) for name in splits[PART].unique())
    validation = [name for name in found if name in VALIDATION]
    unknown = [name for name in found if name not in (*PARTS, *VALIDATION)]
    if unknown or len(validation) > 1:
        problem = "unknown parts" if unknown else "more than one part to validate on"
        raise DataError(
            problem, where=path, field=PART, value=", ".join(unknown or validation),
            fix="name the parts train, valid and test",
        )  # fmt: skip
    if validation not in ([], ["valid"]):
        notes.append(f"validation part: {validation[0]}")
    return splits.with_columns(pl.col(PART).replace(dict.fromkeys(validation, "valid")))


def _shared(splits: pl.DataFrame, path: Path, notes: list[str]) -> pl.DataFrame:
    """Let the last of the training rows validate."""
    problem = "no validation part"
    if (splits[PART] == "valid").any():
        problem = "the validation part holds nothing to predict"
    numbered = splits.with_row_index("row")
    pool = numbered.filter(pl.col(PART) != "test").with_columns(_is_wanted(splits).alias(WANTED))
    has_times = Col.timestamp in splits.columns and splits[Col.timestamp].null_count() == 0
    picked = _latest(pool) if has_times else _last_of_users(pool)
    num_wanted = int(pool[WANTED].sum())
    num_valid = int((pool[WANTED] & picked).sum())
    if not 0 < num_valid < num_wanted:
        raise DataError(
            f"{problem}, and the training rows cannot be shared: they are too few, or of one time",
            where=path, field=PART, fix="add rows whose split is `valid`",
        )  # fmt: skip
    which = "the last ones of their users"
    if has_times:
        first: Any = pool.filter(picked)[Col.timestamp].min()
        which = f"those from {first:%Y-%m-%d %H:%M:%S} on"
    notes.append(
        f"{problem}: the last {num_valid:,} of {num_wanted:,} training rows validate, {which}"
    )
    rows = pool.filter(picked)["row"].implode()
    part = (
        pl.when(pl.col(PART) == "test").then(pl.lit("test"))
        .when(pl.col("row").is_in(rows)).then(pl.lit("valid"))
        .otherwise(pl.lit("train"))
    )  # fmt: skip
    return numbered.with_columns(part.alias(PART)).drop("row")


def _is_wanted(splits: pl.DataFrame) -> pl.Expr:
    return pl.col(LABEL) == 1 if LABEL in splits.columns else pl.lit(True)


def _latest(pool: pl.DataFrame) -> pl.Series:
    """Which rows lie at or after the moment that comes closest to leaving `SHARE` behind it."""
    moments = (
        pool.filter(WANTED).group_by(Col.timestamp).len().sort(Col.timestamp)
        .with_columns(later=pl.col("len").sum() - pl.col("len").cum_sum() + pl.col("len"))
    )  # fmt: skip
    # From the first moment on all rows would validate.
    moments = moments[1:]
    if moments.is_empty():
        return pl.repeat(False, pool.height, eager=True)
    nearest = (moments["later"].cast(pl.Float64) - SHARE * int(pool[WANTED].sum())).abs().arg_min()
    assert nearest is not None
    return pool[Col.timestamp] >= moments[Col.timestamp][nearest]


def _last_of_users(pool: pl.DataFrame) -> pl.Series:
    """Which rows are among the last of their users: each one's last, then the ones before those.

    Of rows as far from the end, those further down in the file come first.
    """
    placed = pool.with_columns(
        pl.int_range(pl.len()).reverse().over(Col.user).alias("from_end"),
        pl.int_range(pl.len()).alias("place"),
    ).sort("from_end", "place", descending=[False, True])
    most = max(1, int(SHARE * int(placed[WANTED].sum())))
    before = placed[WANTED].cum_sum() - placed[WANTED].cast(pl.UInt32)
    return placed.with_columns(picked=before < most).sort("place")["picked"]
