"""What training starts from: an untrained model and item features over time, of prepared data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from recsys.arrays import Float32s
from recsys.config import Recipe
from recsys.features.item_fields import ItemFields
from recsys.features.popularity import DailyCounts
from recsys.features.side_features import FeaturesOverTime
from recsys.model.item_encoder import id_rows_of
from recsys.model.language import load_language_model
from recsys.model.two_tower import TwoTower
from recsys.preparation.prepared import Prepared


def build_two_tower(
    recipe: Recipe, prepared: Prepared, until: str = "head"
) -> tuple[TwoTower, Tensor]:
    """An untrained model for prepared data, and each item's id row and field rows [I, 1 + F].

    An item has an id vector if it has enough events before the cut `until`.
    """
    torch.manual_seed(recipe.seed)
    settings, items = recipe.model, prepared.catalogue.items
    language = load_language_model(settings)
    ids = id_rows_of(prepared.stats(until).num_events, settings.min_events_for_id)
    fields = ItemFields.of(items, settings.item_fields)
    rows = np.column_stack([ids, fields.rows(items)])
    model = TwoTower(settings, language, int(ids.max(initial=-1)) + 1, fields.num_rows)
    return model, torch.from_numpy(rows)


def features_over_time(
    recipe: Recipe,
    prepared: Prepared,
    standard_price: Float32s,
    counts: Callable[[], DailyCounts] | None = None,
) -> FeaturesOverTime | None:
    """Item features as of each question's day; None if the recipe counts at the cuts alone.

    Args:
        recipe: the recipe.
        prepared: the prepared data.
        standard_price: [I].
        counts: opens the daily counts; None: they are read into memory.
    """
    every_days = recipe.data.count_every_days
    if every_days is None:
        return None
    return FeaturesOverTime((counts or prepared.daily_counts)(), standard_price, every_days)
