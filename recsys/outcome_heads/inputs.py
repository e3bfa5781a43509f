"""The inputs of the heads: one function for training, judging and serving.

Rates are smoothed towards a prior and told as logits, relative to the rate of everything. A user's
own rate of a thing is told relative to what user and thing lead one to expect: 0 where nothing is
known of the two.

Legend: N rows (a user is shown an item at a moment), I items, F inputs, V values of a field,
C counts, R rates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.outcome_heads.rates.counts import PLACE
from recsys.outcome_heads.rates.item_fields import ItemFields
from recsys.outcome_heads.rates.keys import NONE, UInt64s, both, keys_of, of_user
from recsys.outcome_heads.rates.tables import DAY_US, RateTables
from recsys.schema import Col

Float32s = NDArray[np.float32]
#: Rate -> the counts that it is the ratio of.
RATES: Final = {
    "click": ("clicks", "shows"), "cart": ("carts", "shows"),
    "purchase": ("purchases", "shows"), "long_view": ("long_views", "shows"),
    "strong": ("strong", "seen"),
}  # fmt: skip
#: Of a kind that are needed to learn when it happens; clicks are always told.
MIN_OUTCOMES: Final = 30
#: Shows that a prior is worth: of things that many share, of an item, of a user's own counts.
_OF_SHARED, _OF_ITEM, _OF_USER = 50.0, 20.0, 4.0
_QUANTILES: Final = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class InputSpec:
    """What the inputs are, in order.

    Attributes:
        rates: of `RATES`, those that the log has.
        fields, numbers: of items.
        dwell: whether dwell times are known.
        scores: model version -> 101 quantiles of its scores: a score counts by its percentile.
    """

    rates: tuple[str, ...]
    fields: tuple[str, ...]
    numbers: tuple[str, ...]
    dwell: bool
    scores: Mapping[str, Sequence[float]]

    @classmethod
    def of(cls, rows: pl.DataFrame, items: ItemFields, *, history: bool = False) -> InputSpec:
        """The inputs that a log of exposures allows.

        Args:
            rows: exposures of the training window, columns of `schema.EXPOSURES`.
            items: that they show.
            history: whether events before the log are counted, see `RateTables.with_history`.
        """
        had = {
            "click": Col.clicked, "cart": Col.carted, "purchase": Col.purchased,
            "long_view": Col.long_view,
        }  # fmt: skip
        counted = {name: rows[column].sum() or 0 for name, column in had.items()}
        rates = [name for name, n in counted.items() if n >= MIN_OUTCOMES or name == "click"]
        scored = rows.filter(pl.col(Col.score).is_not_null())
        return cls(
            (*rates, *(["strong"] if history else [])), tuple(items.groups), tuple(items.numbers),
            rows[Col.dwell_ms].null_count() < rows.height,
            {
                str(version or ""): score_quantiles(of_version[Col.score].to_numpy())
                for (version,), of_version in scored.group_by(Col.model_version)
            },
        )  # fmt: skip

    def percentiles(self, scores: NDArray[Any], version: str) -> Float32s:
        """[N] of scores among those of their model version; NaN where unknown."""
        known = self.scores.get(version)
        if known is None:
            return np.full(len(scores), np.nan, np.float32)
        quantiles = np.asarray(known)
        low, high = (np.searchsorted(quantiles, scores, side) for side in ("left", "right"))
        found = (low + high) / 2 / len(quantiles)
        return np.where(np.isnan(scores), np.nan, found).astype(np.float32)

    def plain(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "rates": list(self.rates), "fields": list(self.fields), "numbers": list(self.numbers),
            "dwell": self.dwell, "scores": {k: list(v) for k, v in self.scores.items()},
        }  # fmt: skip

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> InputSpec:
        """What `plain` gave."""
        rates, fields, numbers = (tuple(data[name]) for name in ("rates", "fields", "numbers"))
        return cls(rates, fields, numbers, bool(data["dwell"]), dict(data["scores"]))


def score_quantiles(scores: NDArray[Any]) -> list[float]:
    """101 quantiles of the scores of a model version, for `InputSpec.scores`."""
    return [float(each) for each in np.quantile(scores, _QUANTILES)]


@dataclass(frozen=True)
class Asked:
    """Who is shown what, and when.

    Attributes:
        users: [N] keys; `NONE`: nobody that is known.
        item_rows: [N] of `ItemFields`; -1: unknown.
        now: [N] microseconds.
        placements: [N] keys.
        percentiles: [N] of the ranker's score, see `InputSpec.percentiles`; NaN: unknown.
    """

    users: UInt64s
    item_rows: NDArray[np.int64]
    now: NDArray[np.int64]
    placements: UInt64s
    percentiles: Float32s

    @classmethod
    def of(cls, spec: InputSpec, items: ItemFields, rows: pl.DataFrame) -> Asked:
        """What exposures asked.

        Args:
            spec: of the inputs.
            items: that they show.
            rows: columns of `schema.EXPOSURES`.
        """
        percentiles = np.full(rows.height, np.nan, np.float32)
        versions = rows[Col.model_version].fill_null("").to_numpy()
        scores = rows[Col.score].cast(pl.Float32).fill_null(float("nan")).to_numpy()
        for version in np.unique(versions):
            of_version = versions == version
            percentiles[of_version] = spec.percentiles(scores[of_version], str(version))
        return cls(
            keys_of("user", rows[Col.user]), items.rows_of(rows[Col.item]),
            rows[Col.timestamp].dt.epoch("us").to_numpy(),
            keys_of("placement", rows[Col.placement]), percentiles,
        )  # fmt: skip

    @classmethod
    def one_user(
        cls, user: str | None, item_rows: NDArray[np.int64], *, now: int,
        placement: str | None, percentiles: Float32s,
    ) -> Asked:  # fmt: skip
        """One user, a pseudonym or None, and M items."""
        shape = len(item_rows)
        user_key = keys_of("user", pl.Series([user], dtype=pl.String))[0]
        placed = keys_of("placement", pl.Series([placement], dtype=pl.String))[0]
        return cls(
            np.full(shape, user_key), item_rows, np.full(shape, now, np.int64),
            np.full(shape, placed), percentiles,
        )  # fmt: skip


@dataclass(frozen=True)
class _Part:
    """Inputs of one kind of thing, with what the user's own ones are compared to."""

    inputs: Float32s  # [N, f]
    logits: Float32s  # [N, R]
    share: Float32s  # [N] of all events before the log

    def at(self, rows: NDArray[Any]) -> _Part:
        return _Part(self.inputs[rows], self.logits[rows], self.share[rows])


class Inputs:
    """Makes inputs from tables as of one night; what depends on items alone is made once.

    Args:
        spec: of the inputs.
        tables: whose fields are those of `spec`.
        items: that are asked about.
    """

    def __init__(self, spec: InputSpec, tables: RateTables, items: ItemFields) -> None:
        assert spec.fields == tables.fields, (spec.fields, tables.fields)
        self.spec, self.tables, self.items = spec, tables, items
        self._top = [PLACE[RATES[rate][0]] for rate in spec.rates]
        self._below = [PLACE[RATES[rate][1]] for rate in spec.rates]
        total = tables.total
        # Of a log that begins with nothing: one in ten.
        rates = (total[self._top] + 1) / (total[self._below] + 10)
        self._base = _logit(np.minimum(rates, 0.9))
        self._dwell = (total[PLACE["log_dwell"]] + 3) / (total[PLACE["dwells"]] + 1)
        self._events = max(1.0, float(total[PLACE["seen"]]))

    def of(self, asked: Asked) -> Float32s:
        """[N, F] inputs."""
        rows = np.where(asked.item_rows < 0, len(self.items.keys), asked.item_rows)
        users, tables, placements = asked.users, self.tables, asked.placements[:, None]
        own = tables.users.at(tables.users.find(users))
        own_logits = self._logits(own, self._base, _OF_USER)
        found = [own_logits - self._base, *self._support(own, _OF_USER)]
        placed = self._part(placements, _OF_SHARED)
        parts = [part.at(rows) for part in self._of_items]
        for part, keys in zip(
            [*parts, placed], [*(keys[rows] for keys in self._item_keys), placements], strict=True
        ):
            pairs = self._counts(tables.pairs, of_user(users[:, None], keys))
            expected = own_logits + part.logits - self._base
            events = pairs[:, PLACE["seen"]] + 20 * part.share + 0.01
            share = events / (own[:, PLACE["seen"]] + 20) / (part.share + 1e-5)
            found += [
                part.inputs, self._logits(pairs, expected, _OF_USER) - expected,
                self._often(pairs), np.log(share)[:, None],
            ]  # fmt: skip
        at_placement = both(self._item_keys[0][rows], placements)
        expected = parts[0].logits + placed.logits - self._base
        found.append(self._part(at_placement, _OF_ITEM, expected).inputs)
        hours = asked.now / 3_600_000_000
        day, week = (2 * np.pi * hours / period for period in (24, 168))
        known = ~np.isnan(asked.percentiles)
        found.append(
            np.stack(
                [
                    np.sin(day), np.cos(day), np.sin(week), np.cos(week),
                    known, np.where(known, asked.percentiles, 0.5),
                    *(number[rows] for number in self._numbers),
                    self._age[rows],
                ],
                axis=1,
            )
        )  # fmt: skip
        return np.concatenate(found, axis=1, dtype=np.float32, casting="same_kind")

    @cached_property
    def _item_keys(self) -> list[UInt64s]:
        """[I + 1, V] of the item and each field; the last row is of an unknown item."""
        columns = [self.items.keys[:, None], *(self.items.groups[f] for f in self.spec.fields)]
        return [np.concatenate([keys, np.full((1, keys.shape[1]), NONE)]) for keys in columns]

    def warm(self) -> None:
        """Make what depends on items alone: of many items the first request would wait for it."""
        _ = self._of_items, self._age, self._numbers

    @cached_property
    def _of_items(self) -> list[_Part]:
        item, *fields = self._item_keys
        return [self._part(item, _OF_ITEM), *(self._part(keys, _OF_SHARED) for keys in fields)]

    @cached_property
    def _age(self) -> Float32s:
        """[I + 1] log of the days since the item was first counted; 0 if it is new."""
        things = self.tables.things
        rows = things.find(self._item_keys[0][:, 0])
        if not len(things.keys):
            return np.zeros(len(rows), np.float32)
        today = self.tables.as_of // DAY_US
        return np.where(rows >= 0, np.log1p(np.maximum(today - things.first[rows], 0)), 0)

    @cached_property
    def _numbers(self) -> list[Float32s]:
        return [self._number(name) for name in self.spec.numbers]

    def _number(self, name: str) -> Float32s:
        """[I + 1] log of a number, its median where unknown."""
        logs = np.log(np.maximum(self.items.numbers[name], 1e-3))
        return np.nan_to_num(np.append(logs, np.nan), nan=float(np.nanmedian(logs)))

    def _part(self, keys: UInt64s, worth: float, prior: Float32s | None = None) -> _Part:
        counts = self._counts(self.tables.things, keys)
        logits = self._logits(counts, self._base if prior is None else prior, worth)
        share = counts[:, PLACE["seen"]] / self._events
        support = self._support(counts, worth)
        return _Part(np.concatenate([logits - self._base, *support], axis=1), logits, share)

    def _counts(self, table: Any, keys: UInt64s) -> Float32s:
        """[N, C] mean counts over the values of a field."""
        counts = table.at(table.find(keys))
        if keys.shape[1] == 1:
            return counts[:, 0]
        known = (keys != NONE)[..., None]
        return (counts * known).sum(1) / np.maximum(known.sum(1), 1)

    def _logits(self, counts: Float32s, prior: Any, worth: float) -> Float32s:
        """[N, R] of the smoothed rates."""
        above, below = counts[:, self._top], counts[:, self._below]
        rate = (above + worth / (1 + np.exp(-prior))) / (below + worth)
        return _logit(np.clip(rate, 1e-5, 0.99)).astype(np.float32)

    def _often(self, counts: Float32s) -> Float32s:
        """[N, 2] logs of shows a week, and of events before the log.

        Not of all shows: they grow from day to day, and what they say of a user would not last.
        """
        weekly = counts[:, PLACE["shows"]] * (7 / max(self.tables.days, 1.0))
        return np.log1p(np.stack([weekly, counts[:, PLACE["seen"]]], axis=1))

    def _support(self, counts: Float32s, worth: float) -> list[Any]:
        """[N, f] how often, and the smoothed mean of log dwell times."""
        found = [self._often(counts)]
        if self.spec.dwell:
            above = counts[:, PLACE["log_dwell"]] + worth * self._dwell
            found.append((above / (counts[:, PLACE["dwells"]] + worth))[:, None])
        return found


def _logit(rate: NDArray[Any]) -> NDArray[Any]:
    return np.log(rate / (1 - rate))
