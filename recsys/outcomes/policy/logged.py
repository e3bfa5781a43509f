"""The logged lists that another policy can be judged on, and rates to predict their outcomes by.

A list is judged if its arm drew it (some of the arm's propensities that day lie below 1), a user
asked for it, all its places are known, and it was shown in the window.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from recsys.arrays import Float64s, Strings
from recsys.outcomes.tasks import day_file
from recsys.schema import EXPOSURES, Col
from recsys.storage.reading import read_parquet

#: Outcome -> what an exposure adds to it; the outcome of a list is their sum.
OUTCOMES: Final = {
    "clicks": pl.col(Col.clicked).cast(pl.Float64),
    "carts": pl.col(Col.carted).cast(pl.Float64),
    "purchases": pl.col(Col.purchased).cast(pl.Float64),
    "dwell_ms": pl.col(Col.dwell_ms).cast(pl.Float64).fill_null(0.0),
    "revenue": pl.col(Col.value).fill_nan(None).fill_null(0.0),
}
#: Users are split into so many parts: rates that predict for one come from the others.
FOLDS: Final = 5
#: Exposures that an item's rates are smoothed by, towards those of the positions it had.
PRIOR: Final = 50.0
FOLD: Final = "fold"
_WHY: Final = "why"
_ARM: Final = [Col.arm, Col.model_version]
_COLUMNS: Final = (
    Col.request, Col.user, Col.item, Col.timestamp, Col.position, Col.propensity, *_ARM,
    Col.clicked, Col.carted, Col.purchased, Col.dwell_ms, Col.value,
)  # fmt: skip
_FIX: Final = "run `recsys exposures` again"


@dataclass(frozen=True)
class LoggedLists:
    """The exposures of a run, a day in memory at a time.

    Attributes:
        folder: of the exposures.
        days: UTC days, in order.
        since_us: earlier lists are not judged.
        until_us: later ones are not: histories end there.
        places: the first of each list that count; None: all.
    """

    folder: Path
    days: tuple[str, ...]
    since_us: int
    until_us: int
    places: int | None = None

    def survey(self, most: int | None = None) -> Survey:
        """All of them, once.

        Args:
            most: about as many lists are judged: all those of some users, drawn by their pseudonym.
        """
        counts: Counter[str] = Counter()
        users, explorers, shown = [_NO_USERS], [_NO_ARMS], [_NO_SUMS]
        for day in self.days:
            rows = self._read(day)
            drawn = rows.filter(pl.col(Col.propensity) < 1).select(*_ARM).unique()
            drawn = drawn.with_columns(pl.lit(day).alias("day"))
            lists = self._told(rows, drawn)
            counts.update(dict(lists[_WHY].value_counts().iter_rows()))
            counts["not_listed"] += int(rows[Col.request].is_null().sum())
            users.append(lists.filter(pl.col(_WHY) == "judged")[Col.user].unique())
            explorers.append(drawn)
            new = rows.filter(pl.col(Col.position) >= 1).group_by(
                fold_of(Col.user), Col.item, Col.position
            )
            sums = new.agg(
                pl.len().alias("shows"), *(e.sum().alias(o) for o, e in OUTCOMES.items())
            )
            every = pl.concat([*shown, sums], how="vertical_relaxed")
            shown = [every.group_by(FOLD, Col.item, Col.position).agg(pl.all().sum())]
        every_user = pl.concat(users).unique().sort()
        if most is not None and most < counts["judged"]:
            drawn_below = int(most / counts["judged"] * 16**8)
            digits = every_user.str.slice(0, 8).str.to_integer(base=16, dtype=pl.Int64)
            every_user = every_user.filter(digits < drawn_below)
        return Survey(
            dict(sorted(counts.items())), every_user, pl.concat(explorers),
            shown[0].sort(FOLD, Col.item, Col.position, nulls_last=True),
        )  # fmt: skip

    def of(self, users: pl.Series, explorers: pl.DataFrame) -> pl.DataFrame:
        """The judged lists of some users: a row a list, by time, with lists of equal length.

        Args:
            users: pseudonyms.
            explorers: of the survey.

        Returns:
            Columns `user_id`, `us`, and lists `item_id`, `propensity` and each of `OUTCOMES`.
        """
        found = [_NO_LISTS]
        for day in self.days:
            rows = self._read(day).filter(pl.col(Col.user).is_in(users.implode()))
            judged = self._told(rows, explorers.filter(pl.col("day") == day))
            judged = judged.filter(pl.col(_WHY) == "judged").select(Col.request)
            ours = rows.join(judged, on=Col.request, how="semi").sort(Col.request, Col.position)
            if self.places is not None:
                ours = ours.filter(pl.col(Col.position) <= self.places)
            us = pl.col(Col.timestamp).dt.epoch("us")
            found.append(
                ours.group_by(Col.request, maintain_order=True)
                .agg(
                    pl.col(Col.user).first(), us.first().alias("us"), Col.item,
                    pl.col(Col.propensity).cast(pl.Float64),
                    *(each.alias(name) for name, each in OUTCOMES.items()),
                )
                .sort("us", Col.request)
                .select(_NO_LISTS.columns)
            )  # fmt: skip
        return pl.concat(found)

    def _read(self, day: str) -> pl.DataFrame:
        types = pl.Schema(EXPOSURES)
        nullable = tuple(field.name for field in EXPOSURES if field.nullable)
        return read_parquet(
            self.folder / day_file(day), _FIX, {name: types[name] for name in _COLUMNS},
            nullable=nullable, only=True,
        )  # fmt: skip

    def _told(self, rows: pl.DataFrame, drawn: pl.DataFrame) -> pl.DataFrame:
        """A row a request: its user, and in `why` whether it is judged, or why not."""
        us, place = pl.col(Col.timestamp).dt.epoch("us"), pl.col(Col.position)
        chance = pl.col(Col.propensity)
        whole = (place.min() == 1) & (place.max() == pl.len()) & (place.n_unique() == pl.len())
        known = ((chance > 0) & (chance <= 1)).fill_null(False).all()
        lists = rows.filter(pl.col(Col.request).is_not_null()).group_by(Col.request).agg(
            pl.col(Col.user, *_ARM).first(), us.first().alias("us"),
            chance.is_null().all().alias("not_listed"), (whole & known).alias("whole"),
        )  # fmt: skip
        lists = lists.join(
            drawn.select(*_ARM, pl.lit(True).alias("drawn")), on=_ARM, how="left", nulls_equal=True
        )
        why = (
            pl.when("not_listed").then(pl.lit("not_listed"))
            .when(pl.col("us") < self.since_us).then(pl.lit("before_window"))
            .when(pl.col("us") > self.until_us).then(pl.lit("after_log"))
            .when(pl.col("drawn").is_null()).then(pl.lit("not_drawn"))
            .when(pl.col(Col.user).is_null()).then(pl.lit("session"))
            .when(~pl.col("whole")).then(pl.lit("incomplete"))
            .otherwise(pl.lit("judged"))
        )  # fmt: skip
        return lists.select(Col.request, Col.user, why.alias(_WHY))


@dataclass(frozen=True)
class Survey:
    """What is known of the lists once all were looked at.

    Attributes:
        counts: lists by what becomes of them: `judged`, or why they are left out.
        users: pseudonyms of those whose lists are judged.
        explorers: `day`, `arm` and `model_version` of the arms that draw lists.
        shown: `shows` and outcomes by `fold`, item and position, of all lists.
    """

    counts: dict[str, int]
    users: pl.Series
    explorers: pl.DataFrame
    shown: pl.DataFrame


@dataclass(frozen=True)
class Rates:
    """Predicted outcomes: the rate of the position times a factor of the item.

    Attributes:
        of_position: [FOLDS, K, M] by position from 1, of M outcomes.
        of_item: [FOLDS, I, M] an item's outcomes by those that its positions would have given it,
            smoothed by `PRIOR` exposures.

    Each fold's are fitted on the users of the other folds, and on who is no user.
    """

    of_position: Float64s
    of_item: Float64s

    @staticmethod
    def fit(shown: pl.DataFrame, item_ids: Strings) -> Rates:
        """The rates by `Survey.shown`, for the items [I] of a catalogue."""
        rows = pl.DataFrame({Col.item: item_ids}).with_row_index("row")
        known = shown.join(rows, on=Col.item, how="left")
        num_items, num_places = len(item_ids), int(known[Col.position].to_numpy().max(initial=1))
        folds = [_fit(known.filter(pl.col(FOLD).ne_missing(at)), num_items, num_places)
                 for at in range(FOLDS)]  # fmt: skip
        return Rates(*(np.stack(column) for column in zip(*folds, strict=True)))


def fold_of(user: str) -> pl.Expr:
    """The fold of each user, from a column of pseudonyms; null where there is none."""
    digits = pl.col(user).str.slice(-8).str.to_integer(base=16, dtype=pl.Int64)
    return (digits % FOLDS).alias(FOLD)


def _fit(shown: pl.DataFrame, num_items: int, num_places: int) -> tuple[Float64s, Float64s]:
    place, row = shown[Col.position].to_numpy() - 1, shown["row"].fill_null(num_items).to_numpy()
    num = shown["shows"].to_numpy().astype(np.float64)
    sums = shown.select(list(OUTCOMES)).to_numpy()
    by_place = np.bincount(place, num, minlength=num_places)
    of_position, of_item = (
        np.zeros((num_places, sums.shape[1])),
        np.ones((num_items, sums.shape[1])),
    )
    for at, column in enumerate(sums.T):
        rate = np.bincount(place, column, minlength=num_places) / np.maximum(by_place, 1)
        prior = PRIOR * column.sum() / max(1.0, num.sum())
        if prior > 0:
            had = np.bincount(row, column, minlength=num_items + 1)[:num_items]
            due = np.bincount(row, num * rate[place], minlength=num_items + 1)[:num_items]
            of_item[:, at] = (had + prior) / (due + prior)
        of_position[:, at] = rate
    return of_position, of_item


_NO_USERS: Final = pl.Series(Col.user, [], pl.String)
_NO_ARMS: Final = pl.DataFrame(
    schema={Col.arm: pl.String, Col.model_version: pl.String, "day": pl.String}
)
_SUMS: Final[dict[str, Any]] = {"shows": pl.UInt32} | dict.fromkeys(OUTCOMES, pl.Float64)
_NO_SUMS: Final = pl.DataFrame(
    schema={FOLD: pl.Int64, Col.item: pl.String, Col.position: pl.Int32} | _SUMS
)
_NO_LISTS: Final = pl.DataFrame(
    schema={
        Col.user: pl.String,
        "us": pl.Int64,
        Col.item: pl.List(pl.String),
        **dict.fromkeys([Col.propensity, *OUTCOMES], pl.List(pl.Float64)),
    }
)
