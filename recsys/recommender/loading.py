"""Scorers from a bundle: over its own catalogue, and over prepared data."""

from __future__ import annotations

import warnings
from dataclasses import fields, replace
from typing import Final

import numpy as np
import torch
from scipy import sparse

from recsys.arrays import Float32s
from recsys.artifacts.bundle import STANDARD_PRICE, Bundle
from recsys.config import target_codes
from recsys.features.popularity import ItemStats
from recsys.features.side_features import PriceScale, item_features
from recsys.model.ranking_head import ScoringHead
from recsys.model.user_encoder import UserEncoder
from recsys.preparation.prepared import Prepared
from recsys.ranking.scorer import Scorer
from recsys.schema import Col
from recsys.training.build import features_over_time

#: A window is asked about shard by shard, each from its first day on: the days' item features that
#: stay.
DAYS_BYTES: Final = 2**27


def load_scorer(bundle: Bundle) -> Scorer:
    """The scorer of a bundle, its item side memory-mapped."""
    recipe = bundle.recipe
    model = recipe.model
    users = UserEncoder(model.dim, model.num_layers, model.num_heads, 0.0)
    head = ScoringHead(model.temperature)
    bundle.load_into(users, "users.")
    bundle.load_into(head, "head.")
    items = bundle.items
    standard = items[STANDARD_PRICE].to_numpy()
    stats = ItemStats(*(items[field.name].to_numpy() for field in fields(ItemStats)))
    return Scorer(
        users.eval(),
        head.eval(),
        _mapped(bundle.vectors),
        _mapped(bundle.item_part),
        item_features(stats, standard),
        standard,
        bundle.relations,
        target_codes(recipe),
        model.max_history,
    )


def scorer_on(
    bundle: Bundle, prepared: Prepared, as_of: str, content_similarity: sparse.csr_array
) -> Scorer:
    """The scorer of a bundle over prepared data, with popularity and relations as of a cut.

    The catalogues may differ: items are matched by id, and an item the bundle does not know is
    never ranked.

    Args:
        bundle: any bundle.
        prepared: the data whose rows the histories will use.
        as_of: `head`, `valid`, `test` or `end`.
        content_similarity: of these data's text store.
    """
    scorer = load_scorer(bundle)
    catalogue = prepared.catalogue
    row_of = {item_id: row for row, item_id in enumerate(bundle.items[Col.item].to_list())}
    rows = np.array([row_of.get(item_id, -1) for item_id in catalogue.items[Col.item]])
    known = rows >= 0
    vectors = torch.from_numpy(np.where(known[:, None], bundle.vectors[rows], 0).astype(np.float32))
    standard = PriceScale(*bundle.meta["price_scale"]).standard(catalogue.prices)
    features = item_features(prepared.stats(as_of), standard)
    over_time = None if as_of == "end" else features_over_time(bundle.recipe, prepared, standard)
    if over_time is not None:
        over_time = replace(over_time, bytes_kept=DAYS_BYTES)
    matched = Scorer.build(
        scorer.users,
        scorer.head,
        vectors,
        features,
        standard,
        prepared.relations(as_of, content_similarity),
        scorer.target_codes,
        scorer.max_history,
        over_time,
    )
    assert isinstance(matched.item_part, torch.Tensor)
    matched.item_part[torch.from_numpy(~known), -1] = -np.inf
    return matched


def _mapped(array: Float32s) -> torch.Tensor:
    """A tensor over a read-only map; torch warns of that, but nothing here writes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)
