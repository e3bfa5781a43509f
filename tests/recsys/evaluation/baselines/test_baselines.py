"""What every baseline promises, on random logs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from tiny_logs import BUY, VIEW, Event, queries, user_events

from recsys.config import BaselineName
from recsys.data.histories import US_PER_DAY, UserEvents
from recsys.errors import RecipeError
from recsys.evaluation.baselines import Recommends, TrainingLog, fit_baselines
from recsys.features.popularity import DailyCounts

NAMES: tuple[str, ...] = get_args(BaselineName)
NUM_ITEMS = 12


def random_users(rng: np.random.Generator, num_users: int) -> list[list[Event]]:
    """Few times and many events, so that moments are crowded; items 12 and -1 are unknown."""
    return [
        sorted(
            (
                int(rng.integers(6)),
                int(rng.integers(-1, NUM_ITEMS + 1)),
                int(rng.choice([VIEW, BUY])),
            )
            for _ in range(rng.integers(0, 30))
        )
        for _ in range(num_users)
    ]


def shuffled_moments(rng: np.random.Generator, users: list[list[Event]]) -> list[list[Event]]:
    return [
        sorted((user[n] for n in rng.permutation(len(user))), key=lambda event: event[0])
        for user in users
    ]


def fitted(train: UserEvents, names: Sequence[str] = NAMES) -> dict[str, Recommends]:
    rng = np.random.default_rng(5)
    log = TrainingLog(
        train,
        NUM_ITEMS,
        [BUY],
        rng.standard_normal((4, 3)).astype(np.float32),
        rng.integers(0, 4, NUM_ITEMS).astype(np.int32),
    )
    return fit_baselines(names, log)


RNG = np.random.default_rng(0)
TRAIN, ASKED = random_users(RNG, 8), [[], *random_users(RNG, 5)]
MODELS = fitted(user_events(*TRAIN))


def test_every_recipe_name_is_fitted_under_its_own_name() -> None:
    assert list(MODELS) == list(NAMES)
    assert [model.name for model in MODELS.values()] == list(NAMES)
    assert list(fitted(user_events(*TRAIN), ["last_item", "popularity"])) == [
        "last_item",
        "popularity",
    ]


@pytest.mark.parametrize("name", NAMES)
class TestEveryBaseline:
    def test_scores_every_item_of_every_query_finitely(self, name: str) -> None:
        scores = MODELS[name].scores(queries(*ASKED))
        assert scores.shape == (len(ASKED), NUM_ITEMS)
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()
        assert MODELS[name].scores(queries()).shape == (0, NUM_ITEMS)

    def test_scores_a_query_alone_as_in_a_batch(self, name: str) -> None:
        together = MODELS[name].scores(queries(*ASKED))
        alone = [MODELS[name].scores(queries(user))[0] for user in ASKED]
        np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)

    def test_answers_an_empty_history_by_popularity(self, name: str) -> None:
        unknown_only = [(0, NUM_ITEMS, BUY), (1, -1, BUY)]
        popularity = MODELS["popularity"].scores(queries([]))[0]
        for scores in MODELS[name].scores(queries([], unknown_only)):
            order = np.sign(np.subtract.outer(scores, scores))
            assert np.array_equal(order, np.sign(np.subtract.outer(popularity, popularity)))

    def test_the_order_inside_a_moment_changes_nothing(self, name: str) -> None:
        rng = np.random.default_rng(1)
        refitted = fitted(user_events(*shuffled_moments(rng, TRAIN)), [name])[name]
        expected = MODELS[name].scores(queries(*ASKED))
        found = refitted.scores(queries(*shuffled_moments(rng, ASKED)))
        # A sum in another order rounds otherwise: two units of float32 near 1, after training.
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

    def test_fits_a_log_without_events(self, name: str) -> None:
        for log in (user_events(), user_events([(0, 3, VIEW)])):
            scores = fitted(log, [name])[name].scores(queries(*ASKED))
            assert np.isfinite(scores).all()


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    with pytest.raises(RecipeError, match=r"implicit.*raycommend\[bench\]"):
        fit_baselines(["als"], TrainingLog(user_events(*TRAIN), NUM_ITEMS, [BUY]))


def test_a_wrong_name_and_missing_vectors_are_refused() -> None:
    log = TrainingLog(user_events(*TRAIN), NUM_ITEMS, [BUY])
    with pytest.raises(ValueError, match="unknown baseline 'random'; use popularity"):
        fit_baselines(["random"], log)
    with pytest.raises(ValueError, match="zero_shot needs text_vectors"):
        fit_baselines(["zero_shot"], log)


def test_what_trends_is_counted_before_the_day_of_the_question() -> None:
    """Item 7 was bought ten days before the question's day, item 9 in its week, item 5 on it."""
    log = user_events([(0, 3, BUY), (1, 3, BUY), (2, 7, BUY)])
    days, rows = np.array([10, 19, 20], dtype=np.int32), np.array([7, 9, 5], dtype=np.int32)
    counts = DailyCounts(NUM_ITEMS, days, rows, *(np.ones((3, 3), dtype=np.int64)))
    told = TrainingLog(log, NUM_ITEMS, [BUY], daily_counts=counts, count_every_days=1)
    (model,) = fit_baselines(["trending"], told).values()
    asked = replace(queries([]), now=np.array([20 * US_PER_DAY + 5]))
    assert np.argsort(-model.scores(asked)[0], kind="stable")[:3].tolist() == [9, 3, 7]
    untold = replace(told, count_every_days=None)
    never = fit_baselines(["trending"], untold)["trending"]
    assert np.argsort(-never.scores(asked)[0], kind="stable")[:2].tolist() == [3, 7]
