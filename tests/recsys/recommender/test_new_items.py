"""New items score as items of the catalogue without events."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from bundles import NUM_ITEMS
from recommenders import HISTORY, ITEMS, NEWCOMER, NOTHING, TEXTS, rewritten

from recsys.artifacts.bundle import Bundle
from recsys.data.histories import Histories
from recsys.features.item_fields import ItemFields
from recsys.features.item_to_item import Relations
from recsys.features.popularity import ItemStats
from recsys.features.side_features import item_features
from recsys.model.item_encoder import ItemEncoder
from recsys.ranking.scorer import Scorer
from recsys.recommender import Recommender
from recsys.recommender.loading import load_scorer
from recsys.recommender.new_items import NewItems
from recsys.recommender.text_encoder import TextEncoder
from recsys.schema import Col


@pytest.fixture(scope="module")
def cold(
    folder: Path, encoder: TextEncoder, tmp_path_factory: pytest.TempPathFactory
) -> Recommender:
    """The same model over the same items, as they are before anybody met one.

    Nor are they related: to a text that comes with a request nothing is.
    """
    bundle = Bundle.open(folder)
    of_items = ItemFields.of(bundle.items, bundle.recipe.model.item_fields)
    items = ItemEncoder(encoder.dim, bundle.recipe.model.dim, 1, of_items.num_rows, 0.0).eval()
    items.load_state_dict(bundle.weights("items."))
    rows = torch.from_numpy(of_items.rows(bundle.items))
    scorer = load_scorer(bundle)
    nothing = np.zeros(NUM_ITEMS, dtype=np.int64)
    stats = ItemStats(*(nothing for _ in fields(ItemStats)))
    vectors = items.without_ids(torch.from_numpy(encoder.encode(TEXTS)), rows).detach()
    scorer = Scorer.build(
        scorer.users, scorer.head, vectors, item_features(stats, scorer.standard_price),
        scorer.standard_price, Relations.none(NUM_ITEMS), scorer.target_codes, scorer.max_history,
    )  # fmt: skip
    written = rewritten(
        bundle,
        tmp_path_factory.mktemp("cold") / "bundle",
        items=bundle.items.with_columns(**vars(stats)),
        vectors=vectors.numpy(),
        item_part=scorer.item_part.numpy(),
        relations=scorer.relations,
    )
    return Recommender(written)


class TestNewItems:
    @pytest.mark.parametrize("history", [HISTORY, NEWCOMER])
    def test_a_new_item_scores_as_one_of_the_catalogue_that_nobody_met(
        self, cold: Recommender, encoder: TextEncoder, history: Histories
    ) -> None:
        rows = np.setdiff1d(np.arange(NUM_ITEMS), history.item_rows).astype(np.int32)
        vectors = encoder.encode([TEXTS[row] for row in rows])
        scores = cold.rank(history, rows, NewItems(vectors, ITEMS[rows]))
        known, new = np.split(scores, 2)
        np.testing.assert_allclose(new, known, atol=1e-4)
        assert known.std() > 0.01

    def test_brand_category_and_price_speak_for_a_new_item(
        self, recommender: Recommender, encoder: TextEncoder
    ) -> None:
        vectors = encoder.encode(["a new item"] * 5)
        fields = pl.DataFrame(
            {
                Col.brand: ["acme", None, "unheard of", None, None],
                Col.category: [None, None, None, "cup", None],
                Col.price: [None, None, None, None, 20.0],
            },
            schema={Col.brand: pl.String, Col.category: pl.String, Col.price: pl.Float64},
        )
        new = NewItems(vectors, fields)
        brand, nothing, unheard, category, price = recommender.rank(HISTORY, NOTHING, new).tolist()
        assert unheard == nothing
        assert len({brand, nothing, category, price}) == 4
        np.testing.assert_allclose(
            recommender.rank(HISTORY, NOTHING, new.take([3, 0])), [category, brand], rtol=1e-5
        )

    def test_no_candidates_no_scores(self, recommender: Recommender) -> None:
        assert recommender.rank(HISTORY, NOTHING).shape == (0,)
