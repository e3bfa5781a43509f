"""The catalogue: item texts by template, equal texts once, tokens and content hashes.

Items are numbered by their sorted ids (`item_row`), distinct texts by theirs (`text_row`): the
numbering depends on the content alone, so two runs agree to the byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
from tokenizers import Tokenizer

from recsys.arrays import Float32s, Int32s
from recsys.data.checks import (
    examples_of,
    is_no_id,
    is_unfit,
    quarantine_problem,
    reasons,
    unreadable_reason,
    with_unreadable,
)
from recsys.errors import DataError
from recsys.schema import ITEMS, Col
from recsys.storage.reading import read_parquet, reading
from recsys.storage.seals import text_sha256
from recsys.text.pretrained import tokenize

ITEMS_FILE, TEXTS_FILE = "items.parquet", "texts.parquet"
_FIX = "run `recsys prepare` again"
#: Texts that are Python's objects at a time.
_AT_ONCE: Final = 100_000
_TEXTS = {
    Col.text_row: pl.Int32, Col.text: pl.String, Col.content_hash: pl.String,
    Col.tokens: pl.List(pl.Int32),
}  # fmt: skip
_ITEMS = {
    **pl.Schema(ITEMS),
    Col.item_row: pl.Int32, Col.text_row: pl.Int32, Col.content_hash: pl.String,
}  # fmt: skip


def item_text(fields: Mapping[str, str | None], order: Sequence[str]) -> str:
    """The text of one item, by the rule of `texts_of`: its non-blank fields, joined by `, `."""
    cleaned = (" ".join((fields.get(name) or "").split()) for name in order)
    return ", ".join(part for part in cleaned if part)


def texts_of(items: pl.DataFrame, order: Sequence[str]) -> pl.Series:
    """[I] text of each item (see `item_text`); empty where every field is blank."""
    # \x1c-\x1f: white space to Python's `split`, not to the expression's `\s`.
    cleaned = [
        pl.col(name).str.replace_all(r"[\s\x1c-\x1f]+", " ").str.strip_chars().replace("", None)
        for name in order
    ]
    return items.select(pl.concat_str(cleaned, separator=", ", ignore_nulls=True).alias(Col.text))[
        Col.text
    ]


def check_items(items: pl.DataFrame, order: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split items into usable ones, with their text, and quarantined ones, with the reason.

    Reasons: `null_item_id`, `unfit_item_id` (one that no request to the service could name),
    `duplicate_item_id` (all but the first row of an id), `no_text`, `unreadable_<column>`.
    """
    texts = with_unreadable(items).with_columns(texts_of(items, order).fill_null(""))
    reason = (
        pl.when(pl.col(Col.unreadable).is_not_null())
        .then(unreadable_reason())
        .when(is_no_id(Col.item))
        .then(pl.lit("null_item_id"))
        .when(is_unfit(Col.item))
        .then(pl.lit("unfit_item_id"))
        .when(~pl.col(Col.item).is_first_distinct())
        .then(pl.lit("duplicate_item_id"))
        .when(pl.col(Col.text) == "")
        .then(pl.lit("no_text"))
    )
    checked = texts.with_columns(reason.alias(Col.reason))
    good = checked.filter(pl.col(Col.reason).is_null()).drop(Col.reason, Col.unreadable)
    return good, checked.filter(pl.col(Col.reason).is_not_null())


def catalogue_problem(
    good: pl.DataFrame, bad: pl.DataFrame, limit: float, *, source: str, kept_at: object = None
) -> DataError | None:
    """The error of a catalogue with too many bad items or no good one; None if it is usable.

    Args:
        good: of `check_items`.
        bad: of `check_items`.
        limit: fraction of bad rows that is allowed.
        source: the log, for the message.
        kept_at: where the bad rows lie, if they are kept.
    """
    where = f"{source} (items)"
    told = bad.with_columns(pl.lit(where).alias(Col.source))
    problem = quarantine_problem(
        reasons([told]), examples_of(told), good.height + bad.height, limit, what="items",
        kept_at=kept_at,
    )  # fmt: skip
    if problem is None and good.is_empty():
        problem = DataError("the catalogue holds no items", where=where, fix="add items")
    return problem


#: Of a distinct text, whatever catalogue it stands in.
_OF_TEXTS: Final = (Col.text, Col.content_hash, Col.tokens)


def build_catalogue(
    items: pl.DataFrame, tokenizer: Tokenizer, known: pl.DataFrame | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Checked items -> (items with rows, distinct texts with tokens).

    Args:
        items: of `check_items`.
        tokenizer: of the language model.
        known: texts that it has tokenised before, as returned.

    Returns:
        items: the `ITEMS` columns, `item_row`, `text_row`, `content_hash`; sorted by id.
        texts: `text_row`, `text`, `content_hash` (SHA-256, 16 hex digits), `tokens`; sorted by
            text.
    """
    distinct = items.select(Col.text).unique().sort(Col.text)
    # Some at a time: as Python's objects, a text and its tokens take kilobytes.
    pieces = []
    if known is not None:
        pieces.append(known.select(_OF_TEXTS).join(distinct, on=Col.text, how="semi"))
        distinct = distinct.join(known, on=Col.text, how="anti")
    for rows in distinct.iter_slices(_AT_ONCE):
        some = rows[Col.text].to_list()
        hashes = pl.Series(Col.content_hash, [text_sha256(text) for text in some])
        pieces.append(rows.with_columns(hashes, _lists(tokenize(tokenizer, some))))
    texts = pl.concat(pieces, rechunk=True).sort(Col.text).select(
        pl.int_range(pl.len(), dtype=pl.Int32).alias(Col.text_row), Col.text, Col.content_hash,
        Col.tokens,
    )  # fmt: skip
    numbered = (
        items.sort(Col.item)
        .with_row_index(Col.item_row)
        .with_columns(pl.col(Col.item_row).cast(pl.Int32))
        .join(texts.select(Col.text, Col.text_row, Col.content_hash), on=Col.text, how="left",
              maintain_order="left")
        .select(Col.item_row, *ITEMS.names, Col.text_row, Col.content_hash)
    )  # fmt: skip
    return numbered, texts


def _lists(tokens: Sequence[Sequence[int]]) -> pl.Series:
    """Token lists as a column; Polars would look at each list by itself."""
    offsets = np.cumsum([0, *map(len, tokens)])
    flat = np.fromiter(chain.from_iterable(tokens), dtype=np.int32, count=int(offsets[-1]))
    return pl.Series(Col.tokens, pa.LargeListArray.from_arrays(offsets, flat))


def prices_of(items: pl.DataFrame) -> Float32s:
    """[I] price of each item, NaN where unknown."""
    return items[Col.price].cast(pl.Float32).fill_null(float("nan")).to_numpy()


@dataclass(frozen=True)
class Catalogue:
    """The prepared catalogue as read back: one row an item, and one a distinct text."""

    items: pl.DataFrame
    texts: pl.DataFrame

    @staticmethod
    def load(folder: Path) -> Catalogue:
        """Read what `prepare` wrote.

        Raises:
            DataError: a file is missing or broken.
        """
        texts = read_parquet(folder / TEXTS_FILE, _FIX, _TEXTS)
        with reading(folder / TEXTS_FILE, _FIX):
            if texts[Col.text_row].to_list() != list(range(texts.height)):
                raise ValueError("texts that are not numbered from 0")
        nullable = tuple(name for name in ITEMS.names if name != Col.item)
        items = read_parquet(folder / ITEMS_FILE, _FIX, _ITEMS, nullable=nullable)
        with reading(folder / ITEMS_FILE, _FIX):
            if items[Col.item_row].to_list() != list(range(items.height)):
                raise ValueError("items that are not numbered from 0")
            if not items[Col.text_row].is_between(0, texts.height - 1).all():
                raise ValueError(f"a text outside rows 0..{texts.height - 1}")
        return Catalogue(items, texts)

    @property
    def num_items(self) -> int:
        """Number of items."""
        return self.items.height

    @property
    def num_texts(self) -> int:
        """Number of distinct texts."""
        return self.texts.height

    @cached_property
    def text_rows(self) -> Int32s:
        """[I] the text of each item."""
        return self.items[Col.text_row].to_numpy()

    @cached_property
    def prices(self) -> Float32s:
        """[I] price of each item, NaN where unknown."""
        return prices_of(self.items)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over item ids and content hashes; 16 hex digits."""
        return _sha256(self.items[name] for name in (Col.item, Col.content_hash))[:16]

    @cached_property
    def ids_sha256(self) -> str:
        """SHA-256 over item ids, and so over which item has which row."""
        return _sha256([self.items[Col.item]])


def _sha256(columns: Iterable[pl.Series]) -> str:
    """Of columns of texts, a line each; some at a time, for a catalogue may hold millions."""
    digest = hashlib.sha256()
    for column in columns:
        for start in range(0, len(column), _AT_ONCE):
            lines = "\n".join(column[start : start + _AT_ONCE].to_list())
            digest.update((("\n" if start else "") + lines).encode())
    return digest.hexdigest()
