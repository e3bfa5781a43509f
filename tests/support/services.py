"""Services in this process: no Ray, the text encoder beside them; a clock, and arms that fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from recsys.config import Recipe
from recsys.recommender import Recommender
from recsys.state import clock_us
from serve.core.service import Service
from serve.observability.metrics import Metrics, NoMetrics
from serve.ray.text_encoder import TextEncoder
from serve.settings import Settings


class Clock:
    """Microseconds since 1970, UTC: those of the machine, or a moment that a test sets.

    Attributes:
        now: the moment; None: the machine's time.
    """

    def __init__(self) -> None:
        self.now: int | None = None

    def __call__(self) -> int:
        return clock_us() if self.now is None else self.now


def make_service(recipe: Recipe, metrics: Metrics | None = None, **options: Any) -> Service:
    """A service without a model; `options` are those of `Service`."""
    encoder = TextEncoder(lambda: metrics or NoMetrics())

    async def encode(folder: Path, version: str, items: list[dict[str, str | None]]) -> np.ndarray:
        return await encoder.encode(str(folder), version, items)

    return Service(Settings.of(recipe), encode, metrics, **options)


class Broken(Recommender):
    """A model that fails while it answers."""

    def recommend(self, *arguments: Any, **options: Any) -> Any:
        raise RuntimeError("broken while it answers")

    rank = draw = recommend  # type: ignore[assignment]


def break_arm(service: Service, name: str = "default") -> None:
    """From now on the arm's model fails."""
    for each in service.arms.every:
        if each.name == name:
            each.served.model.__class__ = Broken
