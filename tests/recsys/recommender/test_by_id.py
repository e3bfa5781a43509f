"""A bundle, asked by item ids: the same answers as by rows."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest
from bundles import SOLD_OUT, THINGS, item_id, make_bundle, make_recipe

from recsys.data.histories import Histories
from recsys.errors import BundleError, DataError
from recsys.recommender.by_id import Event, Recommender
from recsys.schema import EVENT_CODE

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
EVENTS: list[Event] = [
    ("item-0003", "view", NOW - dt.timedelta(days=3)),
    ("item-0005", "purchase", NOW - dt.timedelta(days=2)),
    ("item-0003", "buy", NOW - dt.timedelta(days=1)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, language_folder: Path) -> Path:
    root = tmp_path_factory.mktemp("api")
    return make_bundle(root / "bundle", make_recipe(root, language_folder), seed=3).folder


@pytest.fixture(scope="module")
def recommender(folder: Path) -> Recommender:
    return Recommender.load(str(folder))


class TestHistory:
    def test_ids_times_and_names_of_the_shop(self, recommender: Recommender) -> None:
        history = recommender.history(EVENTS, now=NOW)
        us = [int(event[2].timestamp() * 1e6) for event in EVENTS]  # type: ignore[misc]
        codes = [EVENT_CODE["view"], EVENT_CODE["purchase"], EVENT_CODE["purchase"]]
        same(history, Histories.of([3, 5, 3], codes, us, int(NOW.timestamp() * 1e6)))

    def test_times_are_put_in_order(self, recommender: Recommender) -> None:
        same(recommender.history(EVENTS[::-1], now=NOW), recommender.history(EVENTS, now=NOW))

    def test_without_times_the_events_succeed_each_other_until_now(
        self, recommender: Recommender
    ) -> None:
        history = recommender.history([("item-0003", "view"), ("item-0005", "view")])
        assert history.item_rows.tolist() == [3, 5]
        assert np.diff(history.timestamps).tolist() == [1_000_000]
        assert history.timestamps[-1] < history.now[0]

    def test_a_naive_time_is_utc(self, recommender: Recommender) -> None:
        naive: list[Event] = [(e[0], e[1], e[2].replace(tzinfo=None)) for e in EVENTS]  # type: ignore[misc]
        same(recommender.history(naive, now=NOW), recommender.history(EVENTS, now=NOW))

    def test_every_event_lies_before_the_question(self, recommender: Recommender) -> None:
        late = recommender.history([("item-0003", "view", NOW + dt.timedelta(hours=1))], now=NOW)
        assert (late.timestamps < late.now[0]).all()

    def test_what_the_catalogue_or_the_recipe_leaves_out(self, recommender: Recommender) -> None:
        history = recommender.history([("nobody's", "view"), ("item-0003", "ping")])
        assert len(history) == 1 and not len(history.item_rows)

    def test_mistakes_are_named(self, recommender: Recommender) -> None:
        with pytest.raises(DataError, match=r"\[events\[1\]\] unknown event type \(got 'steal'\)"):
            recommender.history([("item-0003", "view"), ("item-0003", "steal")])
        with pytest.raises(DataError, match="some events have a time"):
            recommender.history([EVENTS[0], ("item-0003", "view")])


def test_what_was_taken_back_or_disliked(recommender: Recommender) -> None:
    cart: list[Event] = [("item-0003", "view"), ("item-0005", "add_to_cart")]
    left = recommender.history([*cart, ("item-0005", "remove_from_cart")])
    assert left.item_rows.tolist() == [3]
    first, second, *_ = (each.item_id for each in recommender.recommend_items(cart))
    told: list[Event] = [*cart, (first, "dislike")]
    assert first not in [each.item_id for each in recommender.recommend_items(told)]
    assert [each.item_id for each in recommender.rank_items(told, [first, second])] == [second]


def same(one: Histories, other: Histories) -> None:
    for name, values in vars(one).items():
        np.testing.assert_array_equal(values, getattr(other, name))


def test_a_list_is_the_one_by_rows(recommender: Recommender) -> None:
    items = recommender.recommend_items(EVENTS, k=7, exclude=["item-0005", "nobody's"], now=NOW)
    rows, scores = recommender.recommend(
        recommender.history(EVENTS, now=NOW), 7,
        exclude=recommender.rows_of(["item-0005"]), allowed=recommender.allowed(),
    )  # fmt: skip
    assert [item.item_id for item in items] == [item_id(row) for row in rows]
    assert [item.score for item in items] == scores.tolist()
    assert items[0].title == recommender.title(int(rows[0]))


def test_filters_and_owned_items(recommender: Recommender) -> None:
    filters = {"category": [THINGS[0]], "max_price": 100}
    found = recommender.recommend_items(EVENTS, 300, filters=filters, exclude_owned=True, now=NOW)
    ids = {item.item_id for item in found}
    assert found and all(THINGS[0] in item.title for item in found)
    assert not ids & {"item-0003", "item-0005", SOLD_OUT}


def test_of_nobody_the_popular_items_come(recommender: Recommender) -> None:
    assert len(recommender.recommend_items([])) == 10


def test_ranked_items_have_the_scores_of_the_list(recommender: Recommender) -> None:
    listed = recommender.recommend_items(EVENTS, k=5, now=NOW)
    ranked = recommender.rank_items(EVENTS, [item.item_id for item in reversed(listed)], now=NOW)
    assert [item.item_id for item in ranked] == [item.item_id for item in listed]
    np.testing.assert_allclose(
        [item.score for item in ranked], [item.score for item in listed], atol=1e-4
    )


def test_an_explanation_adds_up_and_names_past_items(recommender: Recommender) -> None:
    (listed, *_) = recommender.recommend_items(EVENTS, k=1, now=NOW)
    (why,) = recommender.explain_items(EVENTS, [listed.item_id], now=NOW)
    assert (why.item_id, why.title) == (listed.item_id, listed.title)
    assert why.score == pytest.approx(listed.score, abs=1e-4)
    assert set(why.parts) == {"taste", "price", "popularity", "history"}
    assert {past.item_id for past in why.reasons} <= {"item-0003", "item-0005"}
    assert all(past.gain > 0 for past in why.reasons)


def test_vectors_are_of_the_items_and_of_unit_length(recommender: Recommender) -> None:
    vectors = recommender.item_vectors(["item-0007", "item-0003"])
    assert vectors.shape == (2, recommender.recipe.model.dim) and vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, recommender.scorer.vectors[[7, 3]].numpy())
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("method", ["rank_items", "explain_items"])
def test_an_unknown_item_is_named(recommender: Recommender, method: str) -> None:
    with pytest.raises(DataError, match=r"does not hold the item \(got \"nobody's\"\)"):
        getattr(recommender, method)(EVENTS, ["item-0003", "nobody's"])
    with pytest.raises(DataError, match="does not hold the item"):
        recommender.item_vectors(["nobody's"])


def test_no_bundle_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle here"):
        Recommender.load(tmp_path)
