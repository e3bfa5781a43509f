"""Rows of a bucket's users, sorted out user by user: some can be built without the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from recsys.data.checks import drop_crowded_users, with_unreadable
from recsys.data.feedback import without_logged
from recsys.data.histories import histories_of, in_order
from recsys.preparation.split import LIVE, NEEDED
from recsys.schema import EVENT_TYPES, HISTORIES, Col


@dataclass(frozen=True)
class UserRows:
    """The rows of some users.

    Attributes:
        once: those that count, each once; of `histories.in_order`.
        crowded: those of users with too many, for the quarantine; sorted by user.
        num_duplicates: rows that said what another one had said.
    """

    once: pl.DataFrame
    crowded: pl.DataFrame
    num_duplicates: int

    @staticmethod
    def of(rows: pl.DataFrame, most: int) -> UserRows:
        """Sort the rows of bucket files out.

        Args:
            rows: all that there are of their users.
            most: rows a user may have.
        """
        known = without_logged(rows, LIVE)
        kept, crowded = drop_crowded_users(known, most)
        ordered = in_order(kept)
        differs = (pl.col(name).ne_missing(pl.col(name).shift(1)) for name in ordered.columns)
        is_first = pl.int_range(pl.len()) == 0
        once = ordered.filter(pl.any_horizontal(is_first, *differs))
        told = with_unreadable(crowded.select(*NEEDED, Col.reason))
        told = told.with_columns(pl.lit("the whole log").alias(Col.source))
        return UserRows(
            once,
            told.sort(Col.user, maintain_order=True),
            rows.height - known.height + kept.height - once.height,
        )

    @property
    def num_retractions(self) -> int:
        """Events that take something back."""
        return int((self.once["code"] >= len(EVENT_TYPES)).sum())

    def histories(self) -> pa.Table:
        """Their histories, of the `HISTORIES` schema; sorted by user."""
        return histories_of(self.once)


def added_files(before: Sequence[str], now: Sequence[str]) -> list[bool] | None:
    """Which files came to a bucket; None if others went, or stand in another order.

    Args:
        before: hashes of the files that it was built from.
        now: of those it has now.
    """
    left, is_new = list(before), []
    for each in now:
        is_new.append(not left or left[0] != each)
        if not is_new[-1]:
            left.pop(0)
    return None if left else is_new


def rows_of_users(histories: pa.Table, users: pl.Series) -> pa.Table:
    """The histories of some users."""
    return histories.filter(pc.is_in(histories[Col.user], users.to_arrow().cast(pa.string())))


def joined_histories(before: pa.Table, touched: pl.Series, now: pa.Table) -> pa.Table:
    """The histories of a bucket with those of some users in the place of what they were."""
    stayed = pl.DataFrame(before).filter(~pl.col(Col.user).is_in(touched.implode()))
    return (
        pl.concat([stayed, pl.DataFrame(now)]).sort(Col.user).rechunk().to_arrow().cast(HISTORIES)
    )


def joined_crowded(before: Path, touched: pl.Series, now: pl.DataFrame) -> pl.DataFrame:
    """The quarantine of a bucket, likewise."""
    if not before.is_file():
        return now
    stayed = pl.read_parquet(before, glob=False).filter(~pl.col(Col.user).is_in(touched.implode()))
    return pl.concat([stayed, now]).sort(Col.user, maintain_order=True)
