"""Placeholder until the heads are there."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.errors import DataError
from recsys.storage.reading import reading


@dataclass(frozen=True)
class Probabilities:
    click: Any
    cart: Any
    purchase: Any
    dwell_ms: Any
    value: Any

    def take(self, places: Any) -> Probabilities:
        return Probabilities(**{n: v[places] for n, v in vars(self).items()})


@dataclass(frozen=True)
class OutcomeHeads:
    base: float
    rates: dict[str, float]
    users: dict[str, float]
    items: list[str | None]
    mean: float = 0.0
    card: Any = None

    def save(self, folder: Path) -> None:
        (folder / "heads.json").write_text(json.dumps([self.base, self.rates, self.mean]))

    def save_users(self, folder: Path) -> None:
        (folder / "users.json").write_text(json.dumps(self.users))

    @classmethod
    def open(cls, folder: Path, items: pl.DataFrame, error: Any) -> OutcomeHeads:
        with reading(folder / "heads.json", "again", error):
            base, rates, mean = json.loads((folder / "heads.json").read_text())
        return cls(base, rates, {}, items["item_id"].to_list(), mean, {"made": "up"})

    def with_scores(self, scores: Any) -> OutcomeHeads:
        return replace(self, mean=float(scores.mean()))

    def with_items(self, items: pl.DataFrame) -> OutcomeHeads:
        return replace(self, items=[*self.items, *[None] * items.height])

    def with_users(self, folder: Path, erased: Collection[str]) -> OutcomeHeads:
        with reading(folder / "users.json", "again", DataError):
            users = json.loads((folder / "users.json").read_text())
        return replace(self, users={u: r for u, r in users.items() if u not in erased})

    def probabilities(self, user, rows, scores, moment_us, placement) -> Probabilities:
        def logit(p):
            return np.log(p / (1 - p))

        rate = np.array([self.rates.get(self.items[row], self.base) for row in rows])
        x = logit(rate) + logit(self.users.get(user, self.base)) - logit(self.base)
        p = (1 / (1 + np.exp(-x))).astype(np.float32)
        return Probabilities(p, p / 2, p * np.float32(0.4), p * 0 + 5000, p * 0 + (np.asarray(rows) % 7 + 1) * (np.asarray(rows) < 300) + 1)
