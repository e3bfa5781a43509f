"""Placeholder until the heads are there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl


@dataclass(frozen=True)
class Probabilities:
    click: Any
    cart: Any
    purchase: Any
    dwell_ms: Any
    value: Any

    def take(self, places: Any) -> Probabilities:
        return Probabilities(**{n: v[places] for n, v in vars(self).items()})


class OutcomeHeads:
    def save(self, folder: Path) -> None: ...

    @classmethod
    def open(cls, folder: Path, items: pl.DataFrame, error: Any) -> OutcomeHeads: ...

    def with_items(self, items: pl.DataFrame) -> OutcomeHeads: ...

    def with_users(self, folder: Path, erased: Collection[str]) -> OutcomeHeads: ...

    def probabilities(self, user, rows, scores, moment_us, placement) -> Probabilities: ...
