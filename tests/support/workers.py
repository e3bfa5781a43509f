"""Training workers on a shop for tests, and batches of its users."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from tiny import Shop
from torch import Tensor

from recsys.data.histories import UserEvents
from recsys.model.sharding import shard
from recsys.text.text_store import TextStore
from recsys.training.build import build_two_tower
from recsys.training.worker import Worker


def make_worker(shop: Shop, rank: int = 0, world: int = 1, **train: object) -> Worker:
    """An untrained worker; `train` overrides keys of the recipe's section."""
    recipe = shop.recipe.model_copy(update={"train": shop.recipe.train.model_copy(update=train)})
    model, item_rows = build_two_tower(recipe, shop.prepared)
    model.items.start_from(shop.store.vectors)
    if recipe.train.sharding == "full":
        shard(model, torch.device("cpu"))
    return Worker(recipe, shop.prepared, shop.store, model, item_rows, rank, world)


def chunks(users: UserEvents, size: int) -> Iterator[UserEvents]:
    """So many users at a time."""
    for low in range(0, len(users), size):
        first, last = users.offsets[low], users.offsets[min(low + size, len(users))]
        yield UserEvents(
            users.user_ids[low : low + size],
            users.item_rows[first:last],
            users.event_codes[first:last],
            users.timestamps[first:last],
            users.baskets[first:last],
            users.offsets[low : low + size + 1] - first,
        )


@dataclass(frozen=True)
class RecordingStore(TextStore):
    """A store that notes which texts it is asked for."""

    asked: list[np.ndarray] = field(default_factory=list)

    @staticmethod
    def of(store: TextStore) -> RecordingStore:
        return RecordingStore(**vars(store))

    def batch(self, text_rows: np.ndarray) -> tuple[Tensor, Tensor]:
        self.asked.append(text_rows)
        return super().batch(text_rows)
