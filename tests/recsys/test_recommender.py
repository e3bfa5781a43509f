from __future__ import annotations

import copy
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from bundles import (
    BRANDS,
    NUM_ITEMS,
    SOLD_OUT,
    THINGS,
    item_id,
    make_bundle,
    make_items,
    make_recipe,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from tiny_logs import BUY

from recsys.artifacts.bundle import Bundle, write_bundle
from recsys.data.catalogue import texts_of
from recsys.data.histories import Histories
from recsys.features.item_fields import ItemFields
from recsys.features.item_to_item import Relations
from recsys.features.popularity import ItemStats
from recsys.features.side_features import item_features
from recsys.model.item_encoder import ItemEncoder
from recsys.ranking.index import Index
from recsys.ranking.scorer import Scorer
from recsys.recommender import (
    ADDED,
    STANDARD_PRICE,
    NewItems,
    Recommender,
    TextEncoder,
    best,
    load_scorer,
)
from recsys.schema import TEXT_FIELDS, Col

NOTHING = np.zeros(0, dtype=np.int32)
HISTORY = Histories.of([3, 5, 3, 40], [BUY] * 4, [10, 20, 30, 30], 100)
NEWCOMER = Histories.of([], [], [], 100)
ITEMS = make_items()
TEXTS = texts_of(ITEMS, TEXT_FIELDS).to_list()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, language_folder: Path) -> Path:
    root = tmp_path_factory.mktemp("recommender")
    return make_bundle(root / "bundle", make_recipe(root, language_folder), seed=3).folder


@pytest.fixture(scope="module")
def recommender(folder: Path) -> Recommender:
    return Recommender.load(folder)


@pytest.fixture(scope="module")
def encoder(folder: Path) -> TextEncoder:
    return TextEncoder(Bundle.open(folder))


def recommend(
    recommender: Recommender,
    history: Histories,
    k: int,
    exclude: list[int] | None = None,
    **filters: object,
) -> tuple[list[int], np.ndarray]:
    allowed = recommender.allowed(**filters)  # type: ignore[arg-type]
    rows, scores = recommender.recommend(
        history, k, exclude=np.array(exclude or [], dtype=np.int32), allowed=allowed
    )
    return rows.tolist(), scores


class TestRecommend:
    def test_the_best_come_first_and_the_sold_out_not_at_all(
        self, recommender: Recommender
    ) -> None:
        rows, scores = recommend(recommender, HISTORY, 1_000)
        sold_out = recommender.rows_of([SOLD_OUT])[0]
        assert sorted(rows) == [row for row in range(NUM_ITEMS) if row != sold_out]
        assert (np.diff(scores) <= 0).all()
        top, top_scores = recommend(recommender, HISTORY, 7)
        assert top == rows[:7]
        np.testing.assert_array_equal(top_scores, scores[:7])

    @pytest.mark.parametrize("history", [HISTORY, NEWCOMER])
    def test_an_item_ranks_with_the_score_it_is_recommended_with(
        self, recommender: Recommender, history: Histories
    ) -> None:
        rows, scores = recommend(recommender, history, NUM_ITEMS)
        order = np.random.default_rng(0).permutation(len(rows))
        ranked = recommender.rank(history, np.array(rows, dtype=np.int32)[order])
        np.testing.assert_allclose(ranked, scores[order], atol=1e-4)

    def test_excluded_items_stay_out_and_unknown_ones_do_no_harm(
        self, recommender: Recommender
    ) -> None:
        rows, _ = recommend(recommender, HISTORY, 5)
        without, _ = recommend(recommender, HISTORY, 5, exclude=[rows[0], -1, rows[2]])
        assert without[:3] == [rows[1], rows[3], rows[4]]
        assert recommender.rows_of([SOLD_OUT, "nobody's"])[1] == -1

    def test_events_of_unknown_items_are_as_if_they_had_not_been(
        self, recommender: Recommender
    ) -> None:
        more = Histories.of([3, -1, 5, 3, 40, NUM_ITEMS], [BUY] * 6, [10, 15, 20, 30, 30, 50], 100)
        rows, scores = recommend(recommender, HISTORY, 9)
        again, same = recommend(recommender, more, 9)
        assert again == rows
        np.testing.assert_array_equal(same, scores)
        some = np.array(rows, dtype=np.int32)
        np.testing.assert_array_equal(recommender.rank(more, some), recommender.rank(HISTORY, some))


@pytest.fixture(scope="module")
def indexed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    bundle = Bundle.open(folder)
    queries = load_scorer(bundle).user_parts(HISTORY).numpy()
    index = Index.build(bundle.item_part, queries, seed=0)
    hidden = ("files", "recipe", "format", "version", "metrics", "num_items", "recipe_hash")
    written = write_bundle(
        tmp_path_factory.mktemp("indexed") / "bundle",
        recipe=bundle.recipe,
        weights=bundle.weights(""),
        items=bundle.items,
        vectors=bundle.vectors,
        item_part=bundle.item_part,
        relations=bundle.relations,
        facts={name: fact for name, fact in bundle.meta.items() if name not in hidden},
        index=index,
    )
    return Recommender(Bundle.open(written.folder))


class TestIndex:
    """With an index, on its own bundle: the service picks from a part of the catalogue."""

    def with_cells(self, indexed: Recommender, num_probed: int) -> Recommender:
        found = copy.copy(indexed)
        assert found._index is not None
        found._index = replace(found._index, num_probed=(num_probed,) * 2)
        return found

    @pytest.mark.parametrize("history", [HISTORY, NEWCOMER])
    @pytest.mark.parametrize("k", [1, 7, 40])
    def test_where_all_cells_are_read_nothing_changes(
        self, recommender: Recommender, indexed: Recommender, history: Histories, k: int
    ) -> None:
        everything = self.with_cells(indexed, NUM_ITEMS)
        best = recommend(recommender, history, 3)[0]
        for how in (
            {}, {"exclude": best}, {"category": [THINGS[0]], "min_price": 20.0}, {"exclude": [-1]},
        ):  # fmt: skip
            rows, scores = recommend(recommender, history, k, **how)  # type: ignore[arg-type]
            found, its = recommend(everything, history, k, **how)  # type: ignore[arg-type]
            assert found == rows
            np.testing.assert_allclose(its, scores, rtol=1e-5, atol=1e-5)

    def test_owned_items_and_variety(self, recommender: Recommender, indexed: Recommender) -> None:
        everything, none = self.with_cells(indexed, NUM_ITEMS), np.zeros(0, dtype=np.int32)
        for how in ({"exclude_owned": True}, {"diversity": 0.5}, {"max_per_category": 2}):
            rows, _ = recommender.recommend(HISTORY, 8, exclude=none, allowed=None, **how)  # type: ignore[arg-type]
            found, _ = everything.recommend(HISTORY, 8, exclude=none, allowed=None, **how)  # type: ignore[arg-type]
            assert found.tolist() == rows.tolist()

    @pytest.mark.parametrize("num_probed", [1, 5])
    def test_where_few_are_read_scores_and_rules_still_hold(
        self, recommender: Recommender, indexed: Recommender, num_probed: int
    ) -> None:
        few = self.with_cells(indexed, num_probed)
        barred = recommend(few, HISTORY, 3)[0]
        for k in (5, 60, NUM_ITEMS):
            rows, scores = recommend(few, HISTORY, k, exclude=barred, brand=[BRANDS[1]])
            assert len(rows) == min(k, len(recommend(recommender, HISTORY, k, exclude=barred,
                                                     brand=[BRANDS[1]])[0]))  # fmt: skip
            assert not set(rows) & set(barred)
            assert set(ITEMS[rows][Col.brand]) == {BRANDS[1]}
            ranked = recommender.rank(HISTORY, np.array(rows, dtype=np.int32))
            np.testing.assert_allclose(ranked, scores, atol=1e-4)


class TestFilters:
    def test_they_hold_for_everything_that_comes_back(self, recommender: Recommender) -> None:
        rows, _ = recommend(
            recommender, HISTORY, NUM_ITEMS, category=[THINGS[0], THINGS[1]], brand=[BRANDS[2]],
            min_price=20, max_price=200,
        )  # fmt: skip
        found = ITEMS[rows]
        wanted = ITEMS.filter(
            ITEMS[Col.category].is_in(THINGS[:2]),
            ITEMS[Col.brand] == BRANDS[2],
            ITEMS[Col.price].is_between(20, 200),
            ITEMS[Col.available],
        )
        assert set(found[Col.item]) == set(wanted[Col.item])
        assert 0 < len(rows) < NUM_ITEMS

    def test_an_item_without_a_price_passes_no_price_filter(self, recommender: Recommender) -> None:
        unknown = np.flatnonzero(ITEMS[Col.price].is_null())
        for bound in ({"min_price": 0.0}, {"max_price": 1e9}):
            allowed = recommender.allowed(**bound)
            assert allowed is not None
            assert not allowed[unknown].any()
            assert allowed.sum() == NUM_ITEMS - len(unknown) - 1  # the sold-out one

    def test_no_filter_passes_all_but_the_sold_out(self, recommender: Recommender) -> None:
        allowed = recommender.allowed()
        assert allowed is not None
        assert np.flatnonzero(~allowed).tolist() == recommender.rows_of([SOLD_OUT]).tolist()

    def test_nothing_allowed_gives_nothing(self, recommender: Recommender) -> None:
        for filters in ({"category": []}, {"brand": ["unheard of"]}, {"min_price": 1e9}):
            assert recommend(recommender, HISTORY, 5, **filters)[0] == []


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
    hidden = ("files", "recipe", "format", "version", "metrics", "num_items", "recipe_hash")
    written = write_bundle(
        tmp_path_factory.mktemp("cold") / "bundle",
        recipe=bundle.recipe,
        weights=bundle.weights(""),
        items=bundle.items.with_columns(**vars(stats)),
        vectors=vectors.numpy(),
        item_part=scorer.item_part.numpy(),
        relations=scorer.relations,
        facts={name: fact for name, fact in bundle.meta.items() if name not in hidden},
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
    indexed = copy.copy(request.getfixturevalue("indexed"))
    indexed._index = replace(indexed._index, num_probed=(NUM_ITEMS,) * 2)
    return indexed


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
    part = model._new_part(new).numpy()
    nobody = {field.name: pl.Series([0] * NUM_ADDED) for field in fields(ItemStats)}
    added = ADDED_ITEMS.with_columns(**nobody, **{STANDARD_PRICE: part[:, -2]})
    dense = [
        np.pad(getattr(bundle.relations, field.name).toarray(), (0, NUM_ADDED))
        for field in fields(Relations)
    ]
    hidden = ("files", "recipe", "format", "version", "metrics", "num_items", "recipe_hash")
    written = write_bundle(
        tmp_path_factory.mktemp("whole") / "bundle",
        recipe=bundle.recipe,
        weights=bundle.weights(""),
        items=pl.concat([bundle.items, added], how="diagonal_relaxed"),
        vectors=np.concatenate([bundle.vectors, part[:, :-2]]),
        item_part=np.concatenate([bundle.item_part, part]),
        relations=Relations(*map(sparse.csr_array, dense)),
        facts={name: fact for name, fact in bundle.meta.items() if name not in hidden},
    )
    model = Recommender(written)
    # Variety is measured from the mean of the bundle's own catalogue.
    model._mean = np.asarray(bundle.vectors.mean(axis=0))
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
            rows, scores = recommend(whole, history, k, **how)  # type: ignore[arg-type]
            found, its = recommend(grown, history, k, **how)  # type: ignore[arg-type]
            assert found == rows
            np.testing.assert_allclose(its, scores, rtol=1e-5, atol=1e-5)
        if k > NUM_ITEMS:
            available = {NUM_ITEMS + place for place in range(NUM_ADDED) if place != 4}
            everything, _ = recommend(grown, history, k)
            assert {row for row in everything if row >= NUM_ITEMS} == available

    def test_owned_items_and_variety(self, grown: Recommender, whole: Recommender) -> None:
        bought = replace(WITH_ADDED, event_codes=np.full(6, BUY, dtype=np.int8))
        for how in ({"exclude_owned": True}, {"diversity": 0.5}, {"max_per_category": 2}):
            rows, _ = whole.recommend(bought, 60, exclude=NOTHING, allowed=None, **how)  # type: ignore[arg-type]
            found, _ = grown.recommend(bought, 60, exclude=NOTHING, allowed=None, **how)  # type: ignore[arg-type]
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


class TestTextEncoder:
    def test_texts_are_encoded_alike_in_any_company(self, encoder: TextEncoder) -> None:
        texts = ["red cup 1", "lamp", "a new item, acme", "blue pen 7, globex"] * 20
        together = encoder.encode(texts, batch_size=7)
        assert together.shape == (80, encoder.dim)
        for row in (0, 1, 2, 3, 77):
            np.testing.assert_allclose(together[row], encoder.encode([texts[row]])[0], atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
        assert encoder.encode([]).shape == (0, encoder.dim)

    def test_the_template_is_the_recipes(self, encoder: TextEncoder) -> None:
        assert encoder.text_of({"title": " red  cup", "brand": "acme"}) == "red cup, acme"
        assert encoder.text_of({"colour": "red"}) == ""


@pytest.mark.parametrize(
    ("scores", "k", "rows"),
    [
        ([1, 3, 2], 2, [1, 2]),
        ([1, 3, 2], 9, [1, 2, 0]),
        ([2, 2, 2], 3, [0, 1, 2]),
        ([-np.inf, 1, -np.inf], 3, [1]),
        ([-np.inf, -np.inf], 1, []),
        ([5], 1, [0]),
    ],
)
def test_best(scores: list[float], k: int, rows: list[int]) -> None:
    found, values = best(np.array(scores, dtype=np.float32), k)
    assert found.tolist() == rows
    assert values.tolist() == [scores[row] for row in rows]


def test_what_the_service_tells_of_a_model(recommender: Recommender, folder: Path) -> None:
    assert recommender.info["version"] == Bundle.open(folder).version == recommender.version
    assert not {"files", "recipe", "seal"} & set(recommender.info)
    assert recommender.item_id(0) == item_id(0)
    assert recommender.title(0) == ITEMS[Col.title][0]
    assert recommender.num_items == NUM_ITEMS
    assert torch.is_tensor(recommender.scorer.item_part)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, -np.inf]), min_size=1, max_size=40))
def test_fewer_of_the_best_are_the_first_of_more(values: list[float]) -> None:
    """Ties go by position at the cut too: items with equal texts and prices score alike."""
    scores = np.array(values, dtype=np.float32)
    everything, _ = best(scores.copy(), len(scores))
    expected = [row for row in np.lexsort((np.arange(len(scores)), -scores)) if scores[row] > -1]
    assert everything.tolist() == expected
    for k in range(1, len(scores) + 1):
        rows, found = best(scores.copy(), k)
        assert rows.tolist() == expected[:k]
        assert found.tolist() == scores[rows].tolist()
