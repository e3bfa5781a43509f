"""Intake of one part of a log: map event names, check rows, pseudonymise users, count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from recsys.config import Data
from recsys.data.adapters.spellings import COUNTED, Spellings, count_spellings
from recsys.data.checks import check_events, map_event_types
from recsys.data.pseudonyms import pseudonymise
from recsys.preparation.coverage import Coverage
from recsys.schema import Col
from recsys.state import Tombstone, is_erased


@dataclass(frozen=True)
class Taken:
    """The rows of one part, sorted out.

    Attributes:
        ready: usable events, users pseudonymous, in the columns of `schema.EVENTS`.
        bad: the others, with `reason` and `unreadable`, users pseudonymous.
        num_left_out: rows that the recipe leaves out: event types, and times from `cuts.end` on.
        num_erased: rows of erased users.
        coverage: of the good rows.
        spelled: id column -> integers in another spelling.
        users: pseudonyms that the rows hold, erased ones included.
    """

    ready: pl.DataFrame
    bad: pl.DataFrame
    num_left_out: int
    num_erased: int
    coverage: Coverage
    spelled: dict[str, Spellings] = field(default_factory=dict)
    users: pl.Series = field(default_factory=lambda: pl.Series(Col.user, [], dtype=pl.String))


@dataclass(frozen=True)
class Intake:
    """How rows are taken in, the same in a dry run and in a real one.

    Attributes:
        data: of the recipe.
        key: of the pseudonyms.
        erased: tombstones, by pseudonym.
        now_us: the present; later events lie in the future.
    """

    data: Data
    key: bytes
    erased: Mapping[str, Tombstone]
    now_us: int

    def take(self, raw: pl.DataFrame, *, known_items: pl.Series | None, live: bool) -> Taken:
        """Take in the rows of a part.

        Args:
            raw: as an adapter read them.
            known_items: ids of the catalogue; None: any item is taken for known.
            live: the service took them in: names and users are ours already.
        """
        mapped, left_out = (raw, 0) if live else map_event_types(raw, self.data.event_types)
        latest_us = self.now_us + self.data.max_clock_skew_s * 1_000_000
        good, bad = check_events(mapped, latest_us=latest_us, known_items=known_items)
        num_checked = good.height + bad.height
        if not live:
            good, bad = (
                frame.with_columns(pseudonymise(frame[Col.user], self.key)) for frame in (good, bad)
            )
        users = pl.concat([good[Col.user], bad[Col.user]]).drop_nulls().unique()
        if self.erased:
            good, bad = (frame.filter(~is_erased(frame, self.erased)) for frame in (good, bad))
        end = self.data.cuts.end
        ready = good if end is None else good.filter(pl.col(Col.timestamp) < end)
        return Taken(
            ready,
            bad,
            left_out + good.height - ready.height,
            num_checked - good.height - bad.height,
            Coverage.of(good, raw[Col.event_type], self.data),
            {} if live else {name: count_spellings(raw[name]) for name in COUNTED},
            users,
        )
