from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import sparse
from tiny import Shop
from tiny_logs import BUY, VIEW, user_events

from recsys.config import target_codes
from recsys.evaluation.baselines import ItemKnn, LastItem, TrainingLog
from recsys.features.item_to_item import (
    ITEMS_OF_TEXT,
    NUM_KEPT,
    NUM_SIMILAR,
    Relations,
    content_similarity,
    count_relations,
)

LOG = user_events(
    [(0, 0, BUY), (1, 1, BUY), (1, 2, VIEW), (2, 3, BUY)],
    [(0, 0, BUY), (3, 1, BUY)],
    [(5, 3, VIEW), (6, 0, BUY)],
)


def test_what_follows_was_wanted_in_the_next_moment() -> None:
    following = count_relations(LOG, 4, [BUY])["transitions"].toarray()
    expected = np.zeros((4, 4), dtype=np.float32)
    expected[0, 1] = 2 / (2 + 10)  # both of its moments that had a next one
    expected[1, 3] = expected[2, 3] = 1 / (1 + 10)
    expected[3, 0] = 1 / (1 + 10)
    np.testing.assert_allclose(following, expected)


def test_they_are_what_the_baselines_rank_by() -> None:
    mine = count_relations(LOG, 4, [BUY])
    log = TrainingLog(LOG, 4, [BUY])
    last_item, item_knn = LastItem.fit(log), ItemKnn.fit(log)
    np.testing.assert_array_equal(mine["transitions"].toarray(), last_item.transitions.toarray())
    similar = item_knn.similarity.toarray()
    np.fill_diagonal(similar, 0)
    np.testing.assert_array_equal(mine["co_occurrence"].toarray(), similar)


def test_they_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    mine = Relations(
        **count_relations(LOG, 4, [BUY]), content_similarity=sparse.eye_array(4, format="csr")
    )
    mine.save(tmp_path / "relations")
    found = Relations.open(tmp_path / "relations", "write it again")
    for name in ("transitions", "co_occurrence", "content_similarity"):
        np.testing.assert_array_equal(getattr(found, name).toarray(), getattr(mine, name).toarray())
        for part in ("data", "indices", "indptr"):
            assert is_mapped(getattr(getattr(found, name), part)), (name, part)
    assert found.num_items == 4


def is_mapped(array: np.ndarray | None) -> bool:
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return isinstance(array, np.memmap)


def test_a_log_without_events_relates_nothing() -> None:
    assert all(matrix.nnz == 0 for matrix in count_relations(user_events(), 3, [BUY]).values())
    assert Relations.none(3).num_items == 3


def test_prepare_counts_them_as_of_each_cut(shop: Shop) -> None:
    users, codes = shop.prepared.users(), target_codes(shop.recipe)
    num_items = shop.prepared.catalogue.num_items
    for as_of, cut in shop.prepared.summary["cuts_us"].items():
        known = users if cut is None else users.before(cut)
        expected = count_relations(known, num_items, codes)
        found = shop.prepared.relations(as_of, Relations.none(num_items).content_similarity)
        for name, matrix in expected.items():
            np.testing.assert_array_equal(getattr(found, name).toarray(), matrix.toarray())
    assert 0 < found.transitions.nnz <= NUM_KEPT * num_items


class TestAlike:
    """Texts a, b, c of items 0..6: a is near b, and c far from both."""

    TEXTS = np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 0, 1]], dtype=np.float32)

    def test_by_hand(self) -> None:
        found = content_similarity(self.TEXTS, np.array([0, 1, 2, 1, 2], dtype=np.int32)).toarray()
        near = 0.8**4
        expected = np.array(
            [
                [0, near, 0, near, 0],
                [near, 0, 0, 1, 0],
                [0, 0, 0, 0, 1],
                [near, 1, 0, 0, 0],
                [0, 0, 1, 0, 0],
            ]
        )
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_a_text_stands_for_few_of_its_items(self) -> None:
        found = content_similarity(
            self.TEXTS, np.array([0, 1, 1, 1, 1, 1, 2], dtype=np.int32)
        ).toarray()
        assert np.count_nonzero(found[0]) == ITEMS_OF_TEXT

    def test_the_nearest_of_many_texts(self) -> None:
        rng = np.random.default_rng(0)
        vectors = rng.standard_normal((700, 6)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        found = content_similarity(vectors, np.arange(700, dtype=np.int32))
        for item in range(0, 700, 50):
            cosines = vectors @ vectors[item]
            expected = np.sort(np.argsort(-cosines)[1:NUM_SIMILAR])
            assert found[[item]].indices.tolist() == expected.tolist()
            np.testing.assert_allclose(found[[item]].data, cosines[expected] ** 4, rtol=1e-4)

    def test_a_catalogue_of_one_text(self) -> None:
        assert content_similarity(self.TEXTS[:1], np.zeros(1, dtype=np.int32)).nnz == 0
