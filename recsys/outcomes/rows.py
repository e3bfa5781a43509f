"""Rows that the joins are made of: what was shown, and what people did afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from recsys.data.checks import is_no_id, is_unfit, map_event_types
from recsys.data.pseudonyms import pseudonymise
from recsys.schema import Col
from recsys.state import Tombstone, is_erased

SHOWN: Final = "impression"
CLICK, CART, PURCHASE, RETURN = "click", "add_to_cart", "purchase", "return"
#: Outcomes by their types; an event of another type is one where it tells a dwell time.
OUTCOMES: Final = (CLICK, CART, PURCHASE, RETURN)
#: Whether the service logged a row itself: it knows better than the shop what it answered.
LISTED: Final = "listed"

TIME: Final = pl.Datetime("us", "UTC")
#: Columns of the rows. A `request_id` is a pseudonym, as a `user_id` is.
ROWS: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    Col.user: pl.String, Col.item: pl.String, Col.event_type: pl.String, Col.timestamp: TIME,
    Col.request: pl.String, Col.position: pl.Int32, Col.propensity: pl.Float32,
    Col.score: pl.Float32, Col.arm: pl.String, Col.model_version: pl.String,
    Col.placement: pl.String, Col.dwell_ms: pl.Int64, Col.value: pl.Float64, LISTED: pl.Boolean,
}  # fmt: skip


@dataclass(frozen=True)
class Taken:
    """The rows of one part, sorted out.

    Attributes:
        rows: in the columns of `ROWS`.
        num_unusable: exposures and outcomes without an id or a usable time.
        num_erased: those of erased users.
        users: pseudonyms that the part holds, erased ones included.
        last_us: the latest timestamp of the rows; 0: there are none.
        future_us: the earliest one that lies in the future; None: there is none.
    """

    rows: pl.DataFrame
    num_unusable: int
    num_erased: int
    users: pl.Series
    last_us: int
    future_us: int | None


@dataclass(frozen=True)
class Taking:
    """How rows are taken in.

    Attributes:
        names: event names of the log -> canonical ones, `data.event_types`.
        key: of the pseudonyms.
        erased: tombstones, by pseudonym.
        latest_us: a later timestamp lies in the future.
    """

    names: Mapping[str, str | None]
    key: bytes
    erased: Mapping[str, Tombstone]
    latest_us: int

    def events(self, events: pl.DataFrame, *, live: bool) -> Taken:
        """Take in canonical events.

        The value of an event is its own, else price times quantity (1 where none is told); NaN,
        infinity and a negative dwell time tell nothing. A purchase of a negative quantity is a
        return.

        Args:
            events: the columns of `schema.EVENTS`.
            live: the service took them in: names and users are ours already.
        """
        mapped = events if live else map_event_types(events, self.names)[0]
        kind = pl.col(Col.event_type)
        tells = kind.is_in([SHOWN, *OUTCOMES]) | (pl.col(Col.dwell_ms) >= 0).fill_null(False)
        ours = mapped.filter(tells & kind.is_not_null())
        broken = pl.col(Col.unreadable).is_not_null() if Col.unreadable in ours.columns else False
        value, price, quantity = (
            pl.when(pl.col(name).is_finite()).then(pl.col(name))
            for name in (Col.value, Col.price, Col.quantity)
        )
        rows = ours.with_columns(
            ours[Col.user] if live else pseudonymise(ours[Col.user], self.key),
            value.fill_null(price * quantity.fill_null(1.0)).alias(Col.value),
            pl.when((kind == PURCHASE) & (quantity < 0)).then(pl.lit(RETURN)).otherwise(kind)
            .alias(Col.event_type),
            pl.when(pl.col(Col.dwell_ms) >= 0).then(Col.dwell_ms).alias(Col.dwell_ms),
        )  # fmt: skip
        return self._taken(rows, broken | is_no_id(Col.user) | is_unfit(Col.user))

    def lists(self, lists: pl.DataFrame) -> Taken:
        """Take in answered lists, in the columns of `schema.IMPRESSIONS`."""
        rows = lists.with_columns(pl.lit(SHOWN).alias(Col.event_type))
        return self._taken(rows, pl.col(Col.request).is_null(), listed=True)

    def _taken(self, rows: pl.DataFrame, wrong: pl.Expr, *, listed: bool = False) -> Taken:
        us = pl.col(Col.timestamp).dt.epoch("us")
        future = us > self.latest_us
        wrong |= is_no_id(Col.item) | is_unfit(Col.item) | us.is_null() | (us < 0) | future
        good = rows.filter(~wrong)
        kept = good
        if self.erased:
            # Of a list the time alone decides: it is our own clock's.
            told = good.drop(Col.event_type) if listed else good
            kept = good.filter(~is_erased(told, self.erased))
        ready = kept.with_columns(
            pseudonymise(kept[Col.request].replace("", None), self.key),
            *(pl.lit(None, kind).alias(name) for name, kind in ROWS.items() if name not in rows),
        ).with_columns(pl.lit(listed).alias(LISTED))
        ready = ready.select(pl.col(name).cast(kind) for name, kind in ROWS.items())
        return Taken(
            ready,
            rows.height - good.height,
            good.height - ready.height,
            rows[Col.user].drop_nulls().unique(),
            ready.select(us.max()).item() or 0,
            rows.select(us.filter(future).min()).item(),
        )


def merged(rows: pl.DataFrame, same: Sequence[str]) -> pl.DataFrame:
    """One row for all that tell of the same; what the first does not tell, the next may.

    Args:
        rows: in the order of their credit.
        same: columns that are equal then.

    Returns:
        The rows, those that were alone first.
    """
    alone = pl.len().over(*same) == 1
    marked = rows.with_columns(alone.alias("alone"))
    others = [name for name in rows.columns if name not in same]
    several = (
        marked.filter(~pl.col("alone"))
        .group_by(*same, maintain_order=True)
        .agg(pl.col(name).drop_nulls().first() for name in others)
    )
    return pl.concat([marked.filter("alone").select(rows.columns), several.select(rows.columns)])
