"""New items: the item side of the score from text, brand, category and price alone.

A new item goes through the same item encoder as the catalogue's. It has no events, no id vector
and no related items.

Legend: M new items, D width of the item vectors, H width of the language model, F item fields,
G user-independent item features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.arrays import Float32s
from recsys.artifacts.bundle import Bundle
from recsys.data.catalogue import prices_of
from recsys.features.item_fields import ItemFields
from recsys.features.side_features import ITEM_FEATURES, PriceScale
from recsys.model.item_encoder import ItemEncoder


@dataclass(frozen=True)
class NewItems:
    """Items that the catalogue does not hold.

    Attributes:
        text_vectors: [M, H] by the language model.
        fields: M rows with the columns brand, category and price, null where unknown.
    """

    text_vectors: Float32s
    fields: pl.DataFrame

    def __len__(self) -> int:
        return len(self.text_vectors)

    def take(self, numbers: Sequence[int]) -> NewItems:
        """Some of them."""
        picked = list(numbers)
        return NewItems(self.text_vectors[picked], self.fields[picked])


class NewItemEncoder:
    """A bundle's item encoder, item fields and price scale, for items without events."""

    def __init__(self, bundle: Bundle) -> None:
        model, text_dim = bundle.recipe.model, bundle.meta["text_dim"]
        num_ids = len(bundle.weights("items.ids.").get("weight", ()))
        self._fields = ItemFields.of(bundle.items, model.item_fields)
        self._items = ItemEncoder(text_dim, model.dim, num_ids, self._fields.num_rows, 0.0).eval()
        bundle.load_into(self._items, "items.")
        self._price_scale = PriceScale(*bundle.meta["price_scale"])

    @torch.no_grad()
    def encode(self, new: NewItems) -> tuple[Tensor, Float32s, Float32s]:
        """Encode new items.

        Returns:
            [M, D] item vectors, [M, G] user-independent features, [M] standardised prices.
        """
        rows = torch.from_numpy(self._fields.rows(new.fields))
        vectors = self._items.without_ids(torch.from_numpy(new.text_vectors), rows)
        price = self._price_scale.standard(prices_of(new.fields))
        features = np.zeros((len(price), len(ITEM_FEATURES)), dtype=np.float32)
        features[:, ITEM_FEATURES.index("is_new")] = 1
        features[:, ITEM_FEATURES.index("price_squared")] = price**2
        return vectors, features, price
