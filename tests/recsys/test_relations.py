from __future__ import annotations

from pathlib import Path

import numpy as np
from tiny import Shop
from tiny_logs import BUY, VIEW, user_events

from recsys.baselines import ItemKnn, LastItem
from recsys.config import target_codes
from recsys.relations import NUM_KEPT, Relations

LOG = user_events(
    [(0, 0, BUY), (1, 1, BUY), (1, 2, VIEW), (2, 3, BUY)],
    [(0, 0, BUY), (3, 1, BUY)],
    [(5, 3, VIEW), (6, 0, BUY)],
)


def test_what_follows_was_wanted_in_the_next_moment() -> None:
    following = Relations.fit(LOG, 4, [BUY]).following.toarray()
    expected = np.zeros((4, 4), dtype=np.float32)
    expected[0, 1] = 2 / (2 + 10)  # both of its moments that had a next one
    expected[1, 3] = expected[2, 3] = 1 / (1 + 10)
    expected[3, 0] = 1 / (1 + 10)
    np.testing.assert_allclose(following, expected)


def test_they_are_what_the_baselines_rank_by() -> None:
    mine = Relations.fit(LOG, 4, [BUY])
    last_item, item_knn = LastItem.fit(LOG, 4, [BUY]), ItemKnn.fit(LOG, 4, [BUY])
    np.testing.assert_array_equal(mine.following.toarray(), last_item.transitions.toarray())
    similar = item_knn.similarity.toarray()
    np.fill_diagonal(similar, 0)
    np.testing.assert_array_equal(mine.together.toarray(), similar)


def test_they_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    mine = Relations.fit(LOG, 4, [BUY])
    mine.save(tmp_path / "relations")
    found = Relations.open(tmp_path / "relations")
    for name in ("following", "together"):
        np.testing.assert_array_equal(getattr(found, name).toarray(), getattr(mine, name).toarray())
        for part in ("data", "indices", "indptr"):
            assert is_mapped(getattr(getattr(found, name), part)), (name, part)
    assert found.num_items == 4


def is_mapped(array: np.ndarray | None) -> bool:
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return isinstance(array, np.memmap)


def test_a_log_without_events_relates_nothing(tmp_path: Path) -> None:
    Relations.fit(user_events(), 3, [BUY]).save(tmp_path)
    assert Relations.open(tmp_path).together.nnz == 0
    assert Relations.none(3).num_items == 3


def test_prepare_counts_them_as_of_each_cut(shop: Shop) -> None:
    users, codes = shop.prepared.users(), target_codes(shop.recipe)
    for as_of, cut in shop.prepared.summary["cuts_us"].items():
        known = users if cut is None else users.before(cut)
        expected = Relations.fit(known, shop.prepared.catalogue.num_items, codes)
        found = shop.prepared.relations(as_of)
        np.testing.assert_array_equal(found.following.toarray(), expected.following.toarray())
        np.testing.assert_array_equal(found.together.toarray(), expected.together.toarray())
    assert 0 < found.following.nnz <= NUM_KEPT * found.num_items
