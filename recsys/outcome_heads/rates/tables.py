"""What is known of items, what they share, and users, as of the last night.

All rates are as of the begin of the day, in training and when served: that is why both see the
same. A day ends at `night_h` UTC. Each thing counts on the day that it was known:
a click at its own time, a dwell time when it was over.

    tables, rows of a day = RateTables.empty(...), ...
    inputs of those rows from the tables, then tables = tables.with_day(rows), and so on

Legend: N rows, V values of a field.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.errors import DataError, RaycommendError
from recsys.outcome_heads.rates.counts import COUNTS, Counts
from recsys.outcome_heads.rates.item_fields import ItemFields
from recsys.outcome_heads.rates.keys import NONE, UInt64s, both, keys_of, of_user
from recsys.schema import Col
from recsys.storage.outputs import write_json
from recsys.storage.reading import read_json

DAY_US: Final = 86_400_000_000
_HOUR_US: Final = 3_600_000_000
#: A user's own counts that came to less are forgotten.
_LEAST: Final = 0.05
_META: Final = "tables.json"
_FIX: Final = "train again"
_EVERYTHING: Final = "all"


@dataclass(frozen=True)
class RateTables:
    """Counts as of a moment.

    Attributes:
        as_of: microseconds; everything known before it is in.
        fields: of items, as in `ItemFields`.
        half_life_days: after so many days a count is half of what it was.
        night_h: hour UTC that a day ends at.
        days: that were counted, decayed as the counts are.
        things: of everything, items, values of fields, placements, items at placements.
        users: of each user.
        pairs: of each user with each item, value of a field, placement.
    """

    as_of: int
    fields: tuple[str, ...]
    half_life_days: float
    night_h: int
    days: float
    things: Counts
    users: Counts
    pairs: Counts

    @classmethod
    def empty(
        cls,
        as_of: int,
        fields: Iterable[str],
        *,
        half_life_days: float = 30.0,
        night_h: int = 0,
    ) -> RateTables:
        """Nothing counted yet.

        Args:
            as_of: microseconds: the begin of the first day is the night before it.
            fields: of items.
            half_life_days: see above.
            night_h: see above.
        """
        nothing = Counts.empty()
        empty = cls(0, tuple(fields), half_life_days, night_h, 0.0, nothing, nothing, nothing)
        return replace(empty, as_of=empty.begin_of_day(as_of))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of things, by code."""
        return (_EVERYTHING, "item", *self.fields, "placement", "item at placement")

    def begin_of_day(self, moment: int) -> int:
        """The last night at or before a moment, microseconds."""
        shift = self.night_h * _HOUR_US
        return (moment - shift) // DAY_US * DAY_US + shift

    def with_day(self, rows: pl.DataFrame, items: ItemFields) -> RateTables:
        """A day more.

        Args:
            rows: exposures of this day, and those of earlier days of which something may have
                become known during it (a late purchase); what did not happen during the day is
                not counted.
            items: that they show.
        """
        until = self.as_of + DAY_US
        shown = pl.col(Col.timestamp)
        known = pl.coalesce(Col.clicked_ts, Col.timestamp) + pl.duration(
            milliseconds=pl.col(Col.dwell_ms).fill_null(0).clip(0, DAY_US // 1000)
        )
        dwelled = pl.col(Col.clicked) & pl.col(Col.dwell_ms).is_not_null()
        worth = pl.col(Col.purchased) & (pl.col(Col.value) > 0)
        counted: dict[str, tuple[pl.Expr, pl.Expr]] = {
            "shows": (shown, pl.lit(1.0)),
            "clicks": (pl.col(Col.clicked_ts), pl.lit(1.0)),
            "carts": (pl.col(Col.carted_ts), pl.lit(1.0)),
            "purchases": (pl.col(Col.purchased_ts), pl.lit(1.0)),
            "long_views": (known, pl.col(Col.long_view).cast(pl.Float64)),
            "dwells": (known, dwelled.cast(pl.Float64)),
            "log_dwell": (known, pl.when(dwelled).then(log_seconds(pl.col(Col.dwell_ms)))),
            "values": (pl.col(Col.purchased_ts), worth.cast(pl.Float64)),
            "log_value": (pl.col(Col.purchased_ts), pl.when(worth).then(pl.col(Col.value).log())),
        }

        def today(moment: pl.Expr) -> pl.Expr:
            return moment.dt.epoch("us").is_between(self.as_of, until, closed="left")

        found = rows.select(
            Col.user, Col.item, Col.placement,
            *(
                pl.when(today(moment)).then(amount).fill_null(0.0).cast(pl.Float32).alias(name)
                for name, (moment, amount) in counted.items()
            ),
        )  # fmt: skip
        found = found.filter(pl.any_horizontal(pl.col(list(counted)) != 0))
        factor = 0.5 ** (1 / self.half_life_days)
        more = self._decayed(factor)._plus(found, items)
        return replace(more, as_of=until, days=self.days * factor + 1)

    def with_history(self, events: pl.DataFrame, items: ItemFields) -> RateTables:
        """What users did before the first day, apart from exposures.

        Args:
            events: columns `user_id`, `item_id`, and `strong`: whether the event tells of more
                than a look.
            items: that they are of.
        """
        found = events.select(
            Col.user, Col.item, pl.lit(None, pl.String).alias(Col.placement),
            pl.lit(1, pl.Float32).alias("seen"),
            pl.col("strong").cast(pl.Float32),
        )  # fmt: skip
        return self._plus(found, items)

    def _decayed(self, factor: float) -> RateTables:
        return replace(
            self, things=self.things.decayed(factor), users=self.users.decayed(factor),
            pairs=self.pairs.decayed(factor, _LEAST),
        )  # fmt: skip

    def _plus(self, rows: pl.DataFrame, items: ItemFields) -> RateTables:
        """Rows with users, items, placements and some of `COUNTS`."""
        if not rows.height:
            return self
        things = things_of(self, items, items.rows_of(rows[Col.item]), rows[Col.placement])
        users = keys_of("user", rows[Col.user])
        counts = rows.select(
            pl.col(name) if name in rows else pl.lit(0, pl.Float32).alias(name) for name in COUNTS
        )
        by_thing, by_pair = [], []
        for code, keys in enumerate(things):
            own = code not in (0, self.kinds.index("item at placement"))
            by_thing.append((code, keys))
            if own:
                by_pair.append((code, of_user(users[:, None], keys)))
        day = (self.as_of - self.night_h * _HOUR_US) // DAY_US
        return replace(
            self,
            things=self.things.plus(_counted(by_thing, counts, day)),
            users=self.users.plus(_counted([(0, users[:, None])], counts, day)),
            pairs=self.pairs.plus(_counted(by_pair, counts, day)),
        )

    def save(self, folder: Path, users_folder: Path) -> None:
        """Write the tables of things into one folder, and those of users into another.

        Users' counts go with the run, not with the bundle: the next fit leaves erased users out.
        """
        meta = {
            "as_of": self.as_of, "fields": list(self.fields),
            "half_life_days": self.half_life_days, "night_h": self.night_h,
            "days": self.days,
        }  # fmt: skip
        self.things.save(folder, "things")
        self.users.save(users_folder, "users")
        self.pairs.save(users_folder, "pairs")
        write_json(folder / _META, meta)

    @classmethod
    def open(
        cls,
        folder: Path,
        users_folder: Path | None,
        error: type[RaycommendError] = DataError,
    ) -> RateTables:
        """Map what `save` wrote into memory.

        Args:
            folder: of the things.
            users_folder: of the users; None: no user is known.
            error: class of the errors.

        Raises:
            error: a file is missing or broken.
        """
        kinds: dict[str, type | tuple[type, ...]] = {
            "as_of": int,
            "fields": list,
            "half_life_days": (int, float),
            "night_h": int,
            "days": float,
        }
        meta = read_json(folder / _META, _FIX, kinds, error)
        nothing = Counts.empty()
        return cls(
            meta["as_of"], tuple(meta["fields"]), meta["half_life_days"], meta["night_h"],
            meta["days"],
            Counts.open(folder, "things", _FIX, error),
            Counts.open(users_folder, "users", _FIX, error) if users_folder else nothing,
            Counts.open(users_folder, "pairs", _FIX, error) if users_folder else nothing,
        )  # fmt: skip

    @cached_property
    def total(self) -> NDArray[np.float32]:
        """[C] counts of everything."""
        return self.things.at(self.things.find(keys_of("kind", pl.Series([_EVERYTHING]))))[0]


def _counted(keys: list[tuple[int, UInt64s]], counts: pl.DataFrame, day: int) -> Counts:
    """Sums of rows by key.

    Args:
        keys: kind and [N, V] keys.
        counts: [N] rows of `COUNTS`.
        day: that they are of.
    """
    parts = [
        counts.with_columns(pl.Series("key", column), pl.lit(code, pl.UInt8).alias("kind"))
        for code, each in keys
        for column in each.T
    ]
    summed = (
        pl.concat(parts)
        .filter(pl.col("key") != 0)
        .group_by("key", maintain_order=True)  # sums of floats depend on their order
        .agg(pl.col("kind").first(), pl.col(COUNTS).sum())
        .sort("key")
    )
    return Counts(
        summed["key"].to_numpy(), summed["kind"].to_numpy(),
        np.full(summed.height, day, np.int32), summed.select(COUNTS).to_numpy(),
    )  # fmt: skip


def log_seconds(dwell_ms: pl.Expr) -> pl.Expr:
    """log(1 + seconds)."""
    return (dwell_ms.clip(0) / 1000).log1p()


def things_of(
    tables: RateTables, items: ItemFields, rows: NDArray[Any], placements: pl.Series
) -> list[UInt64s]:
    """[N, V] keys of each of `tables.kinds` in turn; `NONE` where there is none.

    Args:
        tables: whose kinds.
        items: the items.
        rows: [N] of items, -1: not there.
        placements: [N] or null.
    """
    known = (rows >= 0)[:, None]

    def of_item(keys: UInt64s) -> UInt64s:
        if not len(keys):
            return np.full((len(rows), 1), NONE)
        return np.where(known, keys[rows], NONE)

    everything = np.repeat(keys_of("kind", pl.Series([_EVERYTHING]))[:, None], len(rows), axis=0)
    item, placement = of_item(items.keys[:, None]), keys_of("placement", placements)[:, None]
    fields = (of_item(items.groups[name]) for name in tables.fields)
    return [everything, item, *fields, placement, both(item, placement)]


def days_of(rows: pl.DataFrame, night_h: int = 0) -> list[pl.DataFrame]:
    """Exposures, sorted by time, one frame a day that ends at `night_h` UTC."""
    since = pl.col(Col.timestamp).dt.epoch("us") - night_h * _HOUR_US
    dated = rows.with_columns(since.floordiv(DAY_US).alias("night"))
    return [day.drop("night") for day in dated.partition_by("night", maintain_order=True)]


def through_days(
    tables: RateTables,
    days: Iterable[pl.DataFrame],
    items: ItemFields,
    *,
    attribution_days: int = 1,
) -> Iterator[tuple[RateTables, pl.DataFrame]]:
    """Each day's exposures with the tables as of its begin; last, no rows with those of its end.

    Args:
        tables: as of the begin of the first day or before.
        days: exposures of one day each, as of `tables.begin_of_day`; days without any may be
            left out.
        items: that they show.
        attribution_days: an outcome comes at most so many days after its day.

    Raises:
        ValueError: a day comes before the one before it.
    """
    late: pl.DataFrame | None = None

    def next_day(known: pl.DataFrame) -> tuple[RateTables, pl.DataFrame]:
        after = tables.with_day(known, items)
        since = pl.col(Col.timestamp).dt.epoch("us") >= after.as_of - attribution_days * DAY_US
        return after, known.filter(since)

    for rows in days:
        moments = rows[Col.timestamp].dt.epoch("us")
        begins = {tables.begin_of_day(int(m)) for m in (moments.min(), moments.max())}  # type: ignore[arg-type]
        if len(begins) != 1 or min(begins) < tables.as_of:
            raise ValueError(f"exposures of one day at a time, in order: {rows[Col.timestamp][0]}")
        late = rows.clear() if late is None else late
        while tables.as_of < min(begins):
            tables, late = next_day(late)
        yield tables, rows
        tables, late = next_day(pl.concat([late, rows]))
    if late is not None:
        yield tables, late.clear()
