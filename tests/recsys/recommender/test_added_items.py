"""A catalogue that grows while it is served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from bundles import NUM_ITEMS, item_id
from recommenders import HISTORY, NEWCOMER, NOTHING, recommend, rewritten
from scipy import sparse
from tiny_logs import BUY

from recsys.artifacts.bundle import STANDARD_PRICE, Bundle
from recsys.data.histories import Histories
from recsys.features.item_to_item import Relations
from recsys.features.popularity import ItemStats
from recsys.recommender import Recommender
from recsys.recommender.new_items import NewItems
from recsys.recommender.served_items import ADDED
from recsys.recommender.text_encoder import TextEncoder
from recsys.schema import Col

NUM_ADDED = 7
#: Rows of added items stand behind those of the catalogue.
WITH_ADDED = Histories.of(
    [3, NUM_ITEMS + 2, 5, NUM_ITEMS + 2, 40, NUM_ITEMS + 5], [BUY, 1, BUY, 1, BUY, 1],
    [10, 15, 20, 25, 30, 30], 100,
)  # fmt: skip
ADDED_ITEMS = pl.DataFrame(
    {
        Col.item: [f"added-{number}" for number in range(NUM_ADDED)],
        Col.title: [f"a new {thing}" for thing in ("cup", "pen", "bag", "cup", "pen", "cup", "x")],
        Col.brand: ["acme", None, "globex", "unheard of", "acme", "initech", None],
        Col.category: ["cup", "pen", "bag", "cup", None, "tent", "tent"],
        Col.price: [20.0, None, 4.0, 1e4, 300.0, 20.0, 50.0],
        Col.available: [True, True, True, True, False, True, None],
    },
    schema=ADDED,
)


@pytest.fixture(scope="module", params=["exact", "index"])
def base(request: pytest.FixtureRequest) -> Recommender:
    if request.param == "exact":
        return request.getfixturevalue("recommender")
    with_cells: Callable[[int], Recommender] = request.getfixturevalue("with_cells")
    return with_cells(NUM_ITEMS)


@pytest.fixture(scope="module")
def grown(base: Recommender, encoder: TextEncoder) -> Recommender:
    vectors = encoder.encode(ADDED_ITEMS[Col.title].to_list())
    return base.with_items(NewItems(vectors, ADDED_ITEMS))


@pytest.fixture(scope="module")
def whole(
    folder: Path, encoder: TextEncoder, tmp_path_factory: pytest.TempPathFactory
) -> Recommender:
    bundle = Bundle.open(folder)
    model = Recommender(bundle)
    new = NewItems(encoder.encode(ADDED_ITEMS[Col.title].to_list()), ADDED_ITEMS)
    part = model.new_item_part(new).numpy()
    nobody = {field.name: pl.Series([0] * NUM_ADDED) for field in fields(ItemStats)}
    added = ADDED_ITEMS.with_columns(**nobody, **{STANDARD_PRICE: part[:, -2]})
    dense = [
        np.pad(getattr(bundle.relations, field.name).toarray(), (0, NUM_ADDED))
        for field in fields(Relations)
    ]
    written = rewritten(
        bundle,
        tmp_path_factory.mktemp("whole") / "bundle",
        items=pl.concat([bundle.items, added], how="diagonal_relaxed"),
        vectors=np.concatenate([bundle.vectors, part[:, :-2]]),
        item_part=np.concatenate([bundle.item_part, part]),
        relations=Relations(*map(sparse.csr_array, dense)),
    )
    model = Recommender(written)
    # Variety is measured from the mean of the bundle's own catalogue.
    model.mean_vector = np.asarray(bundle.vectors.mean(axis=0))
    return model


class TestAddedItems:
    """A catalogue that grows while it is served, against a bundle that was written with it all."""

    @pytest.mark.parametrize("history", [HISTORY, NEWCOMER, WITH_ADDED])
    @pytest.mark.parametrize("k", [5, NUM_ITEMS + NUM_ADDED])
    def test_they_are_recommended_as_if_the_bundle_held_them(
        self, grown: Recommender, whole: Recommender, history: Histories, k: int
    ) -> None:
        best = recommend(whole, history, 3)[0]
        for how in (
            {}, {"exclude": [*best, NUM_ITEMS]}, {"category": ["cup", "tent"]}, {"brand": ["acme"]},
            {"min_price": 15.0, "max_price": 400.0},
        ):  # fmt: skip
            rows, scores = recommend(whole, history, k, **how)
            found, its = recommend(grown, history, k, **how)
            assert found == rows
            np.testing.assert_allclose(its, scores, rtol=1e-5, atol=1e-5)
        if k > NUM_ITEMS:
            available = {NUM_ITEMS + place for place in range(NUM_ADDED) if place != 4}
            everything, _ = recommend(grown, history, k)
            assert {row for row in everything if row >= NUM_ITEMS} == available

    def test_owned_items_and_variety(self, grown: Recommender, whole: Recommender) -> None:
        bought = replace(WITH_ADDED, event_codes=np.full(6, BUY, dtype=np.int8))
        for how in ({"exclude_owned": True}, {"diversity": 0.5}, {"max_per_category": 2}):
            rows, _ = whole.recommend(bought, 60, exclude=NOTHING, allowed=None, **how)
            found, _ = grown.recommend(bought, 60, exclude=NOTHING, allowed=None, **how)
            assert found.tolist() == rows.tolist()

    @pytest.mark.parametrize("history", [HISTORY, NEWCOMER, WITH_ADDED])
    def test_they_rank_and_explain(
        self, grown: Recommender, whole: Recommender, history: Histories
    ) -> None:
        ids = [item_id(3), "added-2", item_id(200), "added-4", "added-6"]
        rows = grown.rows_of([*ids, "nobody's"])
        assert rows.tolist() == [3, NUM_ITEMS + 2, 200, NUM_ITEMS + 4, NUM_ITEMS + 6, -1]
        expected = whole.rank(history, rows[:-1])
        np.testing.assert_allclose(grown.rank(history, rows[:-1]), expected, rtol=1e-5, atol=1e-5)
        for mine, theirs in zip(
            grown.explain(history, rows[:-1]), whole.explain(history, rows[:-1]), strict=True
        ):
            assert mine.parts == pytest.approx(theirs.parts, abs=1e-5)
            assert [r.item_row for r in mine.reasons] == [r.item_row for r in theirs.reasons]
        assert grown.title(int(rows[1])) == "a new bag"
        assert grown.item_id(int(rows[1])) == "added-2"

    def test_what_was_before_stays_as_it_was(self, base: Recommender, grown: Recommender) -> None:
        assert (base.num_items, grown.num_items) == (NUM_ITEMS, NUM_ITEMS + NUM_ADDED)
        assert base.rows_of(["added-1"]).tolist() == [-1]
        assert max(recommend(base, WITH_ADDED, 1000)[0]) < NUM_ITEMS
        assert grown.scorer.vectors.upper is base.scorer.vectors  # type: ignore[union-attr]
        data = grown.scorer.relations.content_similarity.data
        assert np.shares_memory(data, base.scorer.relations.content_similarity.data)
        assert base.in_bundle(item_id(3)) and not grown.in_bundle("added-1")
