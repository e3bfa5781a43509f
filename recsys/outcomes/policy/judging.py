"""Policies judge logged lists: how likely each would have shown them, and what it would have shown.

The question is the service's: the user's events before the list, the items on sale, less those that
the user has hidden and, by `serve.exclude_owned`, owns.

Legend: L lists, I items, K places, M outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from recsys.arrays import Bools, Float64s, Int64s
from recsys.data.histories import Histories
from recsys.data.standing import Hidden, standing
from recsys.evaluation.baselines import Recommends
from recsys.outcomes.policy.logged import FOLD, OUTCOMES, LoggedLists, Rates, Survey, fold_of
from recsys.preparation.prepared import Prepared
from recsys.ranking.chances import Chances, Policy
from recsys.ranking.rerank import NO_CATEGORY
from recsys.schema import HISTORIES, Col

TARGET: Final = "target"
#: Of an outcome: of the item at its place, of what the policy would put there, of all places below.
PREDICTED, EXPECTED, BELOW = "predicted", "expected", "below"


@dataclass(frozen=True)
class Judged:
    """A model and what makes lists of its scores."""

    model: Recommends
    policy: Policy


def column(name: str, what: str, outcome: str | None = None) -> str:
    """The column of a judged policy: `TARGET`, or a prediction of an outcome."""
    return ":".join([name, what, *([] if outcome is None else [outcome])])


class Judging:
    """Judges the lists of the users of one shard at a time.

    Args:
        prepared: histories and catalogue, whose rows the models know.
        lists: of the log.
        survey: of the lists.
        judged: policies by name.
        owned_codes: events by which an item is owned and left out; empty: none are.
        batch_size: lists scored together.
    """

    def __init__(
        self,
        prepared: Prepared,
        lists: LoggedLists,
        survey: Survey,
        judged: Mapping[str, Judged],
        *,
        owned_codes: Sequence[int],
        batch_size: int,
    ) -> None:
        self._prepared, self._lists, self._survey = prepared, lists, survey
        self._judged, self._owned, self._batch_size = judged, list(owned_codes), batch_size
        items = prepared.catalogue.items
        self._row_of = {item: row for row, item in enumerate(items[Col.item].to_list())}
        codes = items[Col.category].cast(pl.Categorical).to_physical().cast(pl.Int64)
        self._categories = codes.fill_null(NO_CATEGORY).to_numpy()
        self._on_sale = items[Col.available].fill_null(True).to_numpy()
        self._rates = Rates.fit(survey.shown, items[Col.item].to_numpy())

    def __call__(self, shard: Path | None) -> pl.DataFrame:
        """The judged lists of a shard's users; None: of those who are in no shard.

        Returns:
            A row a list, by time: `user_id`, `known` (whether anything was known of the user), and
            lists over its places: `propensity`, the outcomes, and the columns of `column`.
        """
        users = self._survey.users
        if shard is None:
            for path in self._prepared.shards:
                ids = pl.Series(self._prepared.shard(path)[Col.user])
                users = users.filter(~users.is_in(ids.implode()))
            table = HISTORIES.empty_table()
        else:
            table = self._prepared.shard(shard)
            table = table.filter(pc.is_in(table[Col.user], pa.array(users.to_list(), pa.string())))
            users = pl.Series(Col.user, table[Col.user].to_pylist(), pl.String)
        lists = self._lists.of(users, self._survey.explorers)
        return self._judge(lists.sort("us", maintain_order=True), _Pasts(table))

    def _judge(self, lists: pl.DataFrame, pasts: _Pasts) -> pl.DataFrame:
        shown = [
            np.array([self._row_of.get(item, -1) for item in items], dtype=np.int64)
            for items in lists[Col.item].to_list()
        ]
        folds = lists.select(fold_of(Col.user))[FOLD].to_list()
        asked = zip(lists[Col.user].to_list(), lists["us"].to_list(), strict=True)
        pairs = [pasts.of(user, us) for user, us in asked]
        columns: dict[str, list[Any]] = {}
        for start in range(0, lists.height, self._batch_size):
            part = range(start, min(start + self._batch_size, lists.height))
            histories = Histories.joined([pairs[at][0] for at in part])
            barred = [self._barred(*pairs[at]) for at in part]
            for name, each in self._judged.items():
                every = each.model.scores(histories)
                if np.isnan(every).any():
                    raise FloatingPointError(f"scores of {name} are not finite: it has diverged")
                for scores, mask, at in zip(every, barred, part, strict=True):
                    scores[mask] = -np.inf
                    rates = self._rates.of_position[folds[at]], self._rates.of_item[folds[at]]
                    chances = each.policy.chances(scores, shown[at], rates[1])
                    for key, values in _told(name, chances, shown[at], *rates).items():
                        columns.setdefault(key, []).append(values.tolist())
        new = {
            key: pl.Series(key, columns.get(key, []), dtype=pl.List(pl.Float64))
            for name in self._judged
            for key in _keys(name)
        }
        known = pl.Series("known", [len(history.item_rows) > 0 for history, _ in pairs], pl.Boolean)
        return lists.drop(Col.item, "us").with_columns(known, **new)

    def _barred(self, history: Histories, hidden: Hidden) -> Bools:
        """[I] what the service would not show."""
        barred = ~self._on_sale
        if hidden:
            barred |= hidden.mask(self._categories, NO_CATEGORY)
        if self._owned:
            barred[history.item_rows[np.isin(history.event_codes, self._owned)]] = True
        return barred


class _Pasts:
    """What was known of users at a moment; rows of the `HISTORIES` schema."""

    def __init__(self, table: pa.Table) -> None:
        self._row_of = {user: row for row, user in enumerate(table[Col.user].to_pylist())}
        lengths = pc.list_value_length(table[Col.timestamps]).to_numpy()
        self._offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self._rows, self._codes, self._us = (
            pc.list_flatten(table[name]).to_numpy()
            for name in (Col.item_rows, Col.event_codes, Col.timestamps)
        )

    def of(self, user: str, us: int) -> tuple[Histories, Hidden]:
        """The events strictly before a moment that stand, and what the user has hidden."""
        row = self._row_of.get(user)
        low, high = (0, 0) if row is None else self._offsets[row : row + 2].tolist()
        high = low + int(np.searchsorted(self._us[low:high], us))
        rows, codes, times = (each[low:high] for each in (self._rows, self._codes, self._us))
        stands, hidden = standing(rows, codes.tolist(), times.tolist())
        return Histories.of(rows[stands], codes[stands], times[stands], us), hidden


def _keys(name: str) -> list[str]:
    kinds = (PREDICTED, EXPECTED, BELOW)
    return [column(name, TARGET), *(column(name, what, o) for o in OUTCOMES for what in kinds)]


def _told(
    name: str, chances: Chances, shown: Int64s, of_position: Float64s, of_item: Float64s
) -> dict[str, Float64s]:
    """What a policy says of one list.

    Args:
        name: of the policy.
        chances: of the list.
        shown: [K] rows; -1: no item of the catalogue.
        of_position: [places, M], see `Rates`, of one fold.
        of_item: [I, M] likewise.
    """
    rates = of_position[: len(shown)]
    predicted = rates * np.where((shown >= 0)[:, None], of_item[shown], 1.0)
    # What comes below is predicted without looking at what was shown above it.
    due = np.cumsum((rates * chances.expected[0])[::-1], axis=0)[::-1]
    below = np.concatenate([due[1:], np.zeros((1, rates.shape[1]))])
    found = {column(name, TARGET): chances.shown}
    for at, outcome in enumerate(OUTCOMES):
        found[column(name, PREDICTED, outcome)] = predicted[:, at]
        found[column(name, EXPECTED, outcome)] = (rates * chances.expected)[:, at]
        found[column(name, BELOW, outcome)] = below[:, at]
    return found
