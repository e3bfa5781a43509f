"""Items of several days: of each item the newest row counts, the older ones are superseded.

What is newer, the folders say (`dt=2024-01-02` after `dt=2024-01-01`, `version=10` after
`version=9`), or a column that the recipe names. Two rows of one item in one snapshot are no
matter of time: they stay, and are quarantined as duplicates.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import polars as pl
import pyarrow as pa

from recsys.data.adapters.base import Items
from recsys.data.adapters.columns import nearest
from recsys.data.adapters.text import as_text, is_text, plain
from recsys.data.adapters.times import as_utc, is_time
from recsys.errors import DataError
from recsys.schema import Col

_WHOLE, _NUMBER = r"^-?[0-9]{1,18}$", r"^-?[0-9]+(\.[0-9]+)?$"


def snapshot_ranks(keys: Sequence[Mapping[str, str | None]]) -> list[int]:
    """How new each file is: 0 for the oldest snapshot, equal for files of one snapshot.

    Snapshots are compared key by key, outermost first: as numbers where all of a key's values are
    numbers, else as text. A file without the key, or in Hive's default folder, is the oldest.

    Args:
        keys: of each file, the folders' keys that are no columns of ours.
    """
    names = dict.fromkeys(name for each in keys for name in each)
    columns = [
        ordered(pl.Series([each.get(name) for each in keys], dtype=pl.String)) for name in names
    ]
    ranks = [column.rank("dense").fill_null(0).to_list() for column in columns]
    places = list(zip(*ranks, strict=True)) if ranks else [()] * len(keys)
    order = {place: rank for rank, place in enumerate(sorted(set(places)))}
    return [order[place] for place in places]


def merge_snapshots(snapshots: Iterable[pl.DataFrame]) -> Items:
    """The rows that no newer snapshot supersedes.

    One snapshot is in memory at a time, beside the rows that stay.

    Args:
        snapshots: of items, the newest first. A row without an id is superseded by none.
    """
    kept: list[pl.DataFrame] = []
    num_superseded, seen = 0, pl.Series(Col.item, [], dtype=pl.String)
    for rows in snapshots:
        current = rows.filter(~_is_among(seen))
        num_superseded += rows.height - current.height
        kept.append(current)
        seen = pl.concat([seen, current[Col.item]]).unique()
    return Items(pl.concat(kept, how="diagonal"), num_superseded)


def latest_rows(items: pl.DataFrame, newness: pl.Series) -> Items:
    """The rows that no row of the same item with a larger value supersedes.

    Args:
        items: [N] rows.
        newness: [N] comparable; null is the oldest.
    """
    rank = newness.rank("dense").fill_null(0).alias("rank")
    latest = pl.col("rank") == pl.col("rank").max().over(Col.item)
    none = pl.col(Col.item).is_null() | (pl.col(Col.item) == "")
    current = items.with_columns(rank).filter(latest | none).drop("rank")
    return Items(current, items.height - current.height)


def newness_problem(
    name: str, kinds: Sequence[pa.DataType | None], there: Sequence[str], *, where: str
) -> DataError | None:
    """Why a column cannot tell what is newer, if it cannot.

    Args:
        name: the column, of the recipe's `data.items_by`.
        kinds: its types in the files that have it; None for a folder's key.
        there: the columns that the files have.
        where: the items, for the message.
    """
    if not kinds:
        meant = nearest(name, there) or difflib.get_close_matches(name, there, n=1)
        return DataError(
            "no items file has this column", where="recipe", field="data.items_by", value=name,
            fix=(f"did you mean `{meant[0]}`? " if meant else "")
            + f"the items have {', '.join(there)}",
        )  # fmt: skip
    spoken = dict.fromkeys("string" if kind is None else str(kind) for kind in kinds)
    compared = {"text" if kind is None else _kind(kind) for kind in kinds} - {"nothing"}
    if len(compared) > 1 or None in compared:
        return DataError(
            f"values of type {', '.join(spoken)} do not say what is newer", where=where,
            field=name, fix="name a column of times, numbers or texts in data.items_by",
        )  # fmt: skip
    return None


def joined_newness(columns: Sequence[pa.ChunkedArray]) -> pl.Series:
    """Of all files' rows, one after another, how new they are: comparable, null is the oldest.

    Args:
        columns: of each file, of types that have no `newness_problem`.
    """
    each = [_newness(column).to_frame("newness") for column in columns]
    value = pl.concat(each, how="vertical_relaxed").to_series()
    return ordered(value) if value.dtype == pl.String else value


def _kind(kind: pa.DataType) -> Literal["time", "number", "text", "nothing"] | None:
    """What a column of this type is compared as; None: it cannot be compared."""
    kind = plain(kind)
    if pa.types.is_null(kind):
        return "nothing"
    if is_time(kind):
        return "time"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    return "text" if is_text(kind) else None


def _newness(column: pa.ChunkedArray) -> pl.Series:
    if column.null_count == len(column):
        return pl.Series([None] * len(column), dtype=pl.Null)
    kind = plain(column.type)
    if is_text(kind):
        return pl.Series(as_text(column)[0])
    column = column.cast(kind)
    values = pl.Series(as_utc(column)[0] if is_time(kind) else column)
    return values.fill_nan(None) if values.dtype.is_float() else values


def ordered(texts: pl.Series) -> pl.Series:
    """Texts as numbers, if all of them are numbers; else as they are."""
    if texts.str.contains(_WHOLE).all():
        return texts.cast(pl.Int64)
    return texts.cast(pl.Float64) if texts.str.contains(_NUMBER).all() else texts


def _is_among(ids: pl.Series) -> pl.Expr:
    item = pl.col(Col.item)
    return (item.is_in(ids.implode()) & (item != "")).fill_null(False)
