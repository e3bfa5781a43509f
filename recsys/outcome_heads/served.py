"""The heads as a bundle holds them and the service asks them.

The counts of users stay in the run's folder, and a bundle's heads take them up from there. The next
fit leaves erased users out; until then they are not looked up.

Legend: C known items, M new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.errors import DataError, RaycommendError
from recsys.outcome_heads.examples import batch_of
from recsys.outcome_heads.heads import Batch
from recsys.outcome_heads.inputs import Asked, Inputs, score_quantiles
from recsys.outcome_heads.model import Floats, OutcomeModel
from recsys.outcome_heads.rates.counts import Counts
from recsys.outcome_heads.rates.item_fields import ItemFields
from recsys.outcome_heads.rates.keys import NONE, UInt64s
from recsys.outcome_heads.rates.tables import RateTables
from recsys.schema import Col
from recsys.storage.outputs import write_json
from recsys.storage.reading import read_json

#: Fields that items share.
FIELDS: Final = (Col.brand, Col.category, Col.tags)
#: Under this name the spec has the scores of the bundle's own model, whose version follows from it.
OWN: Final = "served"
_USERS_META: Final = "users.json"
_FIX: Final = "train again"


@dataclass(frozen=True)
class Expected:
    """What is expected to come of showing items.

    Attributes:
        click, cart, purchase: [N] probabilities.
        dwell_ms: [N] of a click.
        value: [N] of a purchase. Of these None: the log does not tell.
    """

    click: Floats
    cart: Floats | None
    purchase: Floats | None
    dwell_ms: Floats | None
    value: Floats | None

    def take(self, places: NDArray[np.int64]) -> Expected:
        """Some of the items."""
        taken: dict[str, Any] = {
            name: None if each is None else each[places] for name, each in vars(self).items()
        }
        return Expected(**taken)


@dataclass(frozen=True)
class ServedHeads:
    """Heads with what is counted.

    Attributes:
        model: fitted.
        tables: as of the end of the log; without users until `with_users`.
        items: of the catalogue, by row.
    """

    model: OutcomeModel
    tables: RateTables
    items: ItemFields

    def save(self, folder: Path, users_folder: Path) -> None:
        """Write what a bundle needs into one folder, and the counts of users into another."""
        self.model.save(folder, self.tables, users_folder)
        write_json(users_folder / _USERS_META, self._of_users())

    @classmethod
    def open(
        cls, folder: Path, items: pl.DataFrame, error: type[RaycommendError] = DataError
    ) -> Self:
        """Read what `save` wrote into the first folder; no user is known.

        Args:
            folder: that of the heads.
            items: of the catalogue, in the order of its rows.
            error: class of the errors.

        Raises:
            error: a file is missing, damaged or another thing.
        """
        model, tables = OutcomeModel.open(folder, None, error)
        return cls(model, tables, ItemFields.of(items, FIELDS))

    def with_users(self, folder: Path) -> Self:
        """The same with the counts of users, mapped into memory; newer ones than its own will do.

        Raises:
            DataError: they are missing, damaged, or counted otherwise.
        """
        path = folder / _USERS_META
        told = read_json(path, _FIX, {"fields": list, "half_life_days": float, "night_h": int})
        if told != self._of_users():
            raise DataError("the users of other heads are counted here", where=path, fix=_FIX)
        users, pairs = (Counts.open(folder, name, _FIX) for name in ("users", "pairs"))
        return replace(self, tables=replace(self.tables, users=users, pairs=pairs))

    def _of_users(self) -> dict[str, Any]:
        """What decides how users are counted."""
        return {
            "fields": list(self.tables.fields), "night_h": self.tables.night_h,
            "half_life_days": float(self.tables.half_life_days),
        }  # fmt: skip

    def with_items(self, more: pl.DataFrame) -> Self:
        """The same with M items behind those of the catalogue, of whom their fields are known."""
        grown = replace(self, items=_joined(self.items, _like(self.items, more)))
        grown._inputs.warm()
        return grown

    def with_scores(self, scores: NDArray[np.float32]) -> Self:
        """The same for a model whose lists have such scores."""
        quantiles = {**self.model.spec.scores, OWN: score_quantiles(scores)}
        spec = replace(self.model.spec, scores=quantiles)
        return replace(self, model=replace(self.model, spec=spec))

    @property
    def card(self) -> Mapping[str, Any]:
        """What the heads were made from and how good they are."""
        return self.model.card

    @property
    def objectives(self) -> set[str]:
        """Of the objectives of `config.objective`, those that the log allows to tell."""
        has = {"click", "purchase"} & set(self.model.spec.rates)
        if "purchase" in has and self.model.has_value:
            has.add("revenue")
        return has | ({"dwell"} if self.model.spec.dwell else set())

    @cached_property
    def _inputs(self) -> Inputs:
        return Inputs(self.model.spec, self.tables, self.items)

    def expect(
        self,
        user: str | None,
        item_rows: NDArray[np.int64],
        scores: Floats,
        *,
        now: int,
        placement: str | None = None,
        new: pl.DataFrame | None = None,
    ) -> Expected:
        """What is expected of showing a user some items.

        Args:
            user: pseudonym; None: unknown.
            item_rows: [C] of the catalogue, `with_items` included.
            scores: [C + M] of the bundle's model.
            now: microseconds since 1970, UTC.
            placement: where they are shown.
            new: M further items.
        """
        percentiles = self.model.spec.percentiles(np.asarray(scores), OWN)

        def asked(rows: NDArray[np.int64], at: slice) -> Asked:
            return Asked.one_user(
                user, rows, now=now, placement=placement, percentiles=percentiles[at]
            )

        first = len(item_rows)
        inputs = self._inputs.of(asked(item_rows, slice(first)))
        if new is not None:
            fields = Inputs(self.model.spec, self.tables, _like(self.items, new))
            of_new = fields.of(asked(np.arange(new.height), slice(first, None)))
            inputs = np.concatenate([inputs, of_new])
        found = self.model.probabilities(inputs)
        of = {name: found.of.get(name) for name in ("cart", "purchase")}
        return Expected(found.of["click"], **of, dwell_ms=found.dwell_ms, value=found.value)

    def shown(self, rows: pl.DataFrame, version: str) -> Batch:
        """Exposures later than the log, for `OutcomeModel.clicks_at_places`.

        Args:
            rows: columns of `schema.EXPOSURES`.
            version: of the bundle whose heads these are: how its scores lie is known.
        """
        ours = rows.with_columns(pl.col(Col.model_version).replace(version, OWN))
        return batch_of(ours, self._inputs, self.model.placements)


def _like(items: ItemFields, more: pl.DataFrame) -> ItemFields:
    """Items with the fields and numbers of others: the median of a number where it is unknown."""
    named = more if Col.item in more else more.with_columns(pl.lit(None, pl.String).alias(Col.item))
    found = ItemFields.of(named, FIELDS, tuple(items.numbers))
    unknown = np.full((more.height, 1), NONE)
    groups = {name: found.groups.get(name, unknown) for name in items.groups}
    numbers = {}
    for name, known in items.numbers.items():
        given = found.numbers.get(name, np.full(more.height, np.nan, np.float32))
        numbers[name] = np.where(np.isnan(given), np.nanmedian(known), given).astype(np.float32)
    return ItemFields(found.keys, groups, numbers, found.rows)


def _joined(one: ItemFields, other: ItemFields) -> ItemFields:
    """The items of both, one after the other."""
    groups = {name: _stacked(keys, other.groups[name]) for name, keys in one.groups.items()}
    numbers = {k: np.concatenate([v, other.numbers[k]]) for k, v in one.numbers.items()}
    ids = pl.concat([one.rows, other.rows]).select(Col.item).with_row_index(Col.item_row)
    return ItemFields(np.concatenate([one.keys, other.keys]), groups, numbers, ids)


def _stacked(one: UInt64s, other: UInt64s) -> UInt64s:
    """Keys of both, as many values wide as the wider ones."""
    width = max(one.shape[1], other.shape[1])
    parts = [np.pad(keys, ((0, 0), (0, width - keys.shape[1]))) for keys in (one, other)]
    return np.concatenate(parts)
