"""Features of the like probability against loops over lists."""

from __future__ import annotations

import math

import numpy as np
import pytest
from like_logs import LIKE, NUM_ITEMS, NUM_USERS, Event, random_log, texts, users_of

from recsys.data.histories import Histories
from recsys.data.time_split import ask_shown
from recsys.evaluation.like_features import LIKE_FEATURES, LikeStats, text_rates


def logit(chance: float) -> float:
    return math.log(chance / (1 - chance))


def by_loops(
    log: list[Event], vectors: np.ndarray, cut: int, row: Event, likes_only: bool = False
) -> list[float]:
    """The features of one row, from the formulas, on lists."""
    before = [event for event in log if event[1] < cut]
    n = [sum(e[2] == j for e in before) for j in range(NUM_ITEMS)]
    p = [sum(e[2] == j and e[3] for e in before) for j in range(NUM_ITEMS)]
    mu = (sum(p) + 5) / (sum(n) + 10)
    m = [float(value) for value in text_rates(np.array(n, float), np.array(p, float), vectors)]
    pi = [(p[j] + 5 * m[j]) / (n[j] + 5) for j in range(NUM_ITEMS)]
    centred = vectors - vectors.mean(axis=0)
    centred = centred / np.linalg.norm(centred, axis=1, keepdims=True)

    def similarity(a: int, b: int, liked: bool) -> float:
        fans = [{e[0] for e in before if e[2] == item and (e[3] or not liked)} for item in (a, b)]
        if a == b:
            return 0.0
        return len(fans[0] & fans[1]) / (math.sqrt(len(fans[0]) * len(fans[1])) + 5)

    user, time, j, _ = row
    own = [e for e in log if e[0] == user and e[1] < time]
    if likes_only:
        own = [e for e in own if e[1] < cut or e[3]]
    rated = [e for e in own if e[1] < cut or not likes_only]
    h = len(rated)
    b = sum(e[3] - pi[e[2]] for e in rated) / (h + 4)
    pairs = [(e[2], e[3] - pi[e[2]] - b) for e in own]
    return [
        logit((p[j] + 5 * mu) / (n[j] + 5)),
        logit(pi[j]),
        logit(m[j]),
        math.log1p(n[j]),
        logit((sum(e[3] for e in rated) + 4 * mu) / (h + 4)),
        b,
        math.log1p(h),
        sum(r * float(centred[i] @ centred[j]) for i, r in pairs if i != j)
        / math.sqrt(len(own) + 5),
        sum(r * similarity(i, j, True) for i, r in pairs),
        sum(r * similarity(i, j, False) for i, r in pairs),
    ]


@pytest.mark.parametrize("likes_only", [False, True])
@pytest.mark.parametrize(("seed", "num_events"), [(1, 150), (2, 600)])
def test_features_are_what_the_formulas_say(seed: int, num_events: int, likes_only: bool) -> None:
    log, vectors, cut = sorted(random_log(seed, num_events)), texts(), 12
    users = users_of(log)
    stats = LikeStats.count(users.before(cut), vectors, [LIKE])
    questions = ask_shown(users, start=cut, end=18)
    found = stats.features_of(questions, likes_only_since=cut if likes_only else None)
    rows = [event for event in log if cut <= event[1] < 18]
    assert questions.relevant.tolist() == [event[2] for event in rows]
    expected = [by_loops(log, vectors, cut, row, likes_only) for row in rows]
    np.testing.assert_allclose(found, expected, atol=2e-6)
    learned = num_events > 300
    assert (stats.text_rate == 0.5).all() != learned


def test_nothing_at_or_after_a_moment_changes_its_features() -> None:
    rng, vectors, cut, moment = np.random.default_rng(3), texts(), 8, 14
    log = sorted(random_log(3, 500))
    late = [n for n, event in enumerate(log) if event[1] >= moment]
    changed = list(log)
    for n, other in zip(late, rng.permutation(late), strict=True):
        user, time, item, label = log[n]
        # Rows of the moment itself keep their item, which is what they are asked about.
        item = item if time == moment else log[other][2]
        changed[n] = (user, time, item, 1 - label)

    def features(events: list[Event]) -> np.ndarray:
        users = users_of(events)
        stats = LikeStats.count(users.before(cut), vectors, [LIKE])
        questions = ask_shown(users, start=cut, end=moment + 1)
        keys = np.lexsort((questions.relevant, questions.now, questions.user_index))
        return stats.features_of(questions)[keys]

    before, after = features(log), features(changed)
    tied = sum(event[1] == moment for event in log)
    assert len(before) == len(after) and tied > NUM_USERS
    np.testing.assert_array_equal(before, after)
    # The check can fail: the rows of the moment are told apart by what lies just before it.
    earlier = [(*event[:3], 1 - event[3]) if event[1] == moment - 1 else event for event in log]
    assert (features(earlier) != before).any()


def test_an_empty_history_and_an_item_never_seen() -> None:
    users = users_of(random_log(4))
    stats = LikeStats.count(users, texts(), [LIKE])
    empty = Histories.of([], [], [], now=100)
    (row,) = stats.features(empty, np.array([NUM_ITEMS - 1]))
    named = dict(zip(LIKE_FEATURES, row, strict=True))
    assert named["item_rate"] == pytest.approx(logit(stats.mean))
    assert named["user_rate"] == pytest.approx(logit(stats.mean))
    assert named["item_rate_by_text"] == pytest.approx(named["text_rate"])
    assert all(row[LIKE_FEATURES.index("user_balance") :] == 0)
    assert named["item_shown"] == 0


def test_before_the_first_event_nothing_is_known_and_all_is_finite() -> None:
    users = users_of(random_log(5))
    stats = LikeStats.count(users.before(-1), texts(), [LIKE])
    features = stats.features_of(ask_shown(users, start=0, end=None))
    assert np.isfinite(features).all() and stats.mean == 0.5
    assert (features[:, :4] == 0).all()
    assert stats.features_of(ask_shown(users, start=99, end=None)).shape == (0, 10)


def test_texts_tell_of_items_that_nobody_has_met() -> None:
    vectors = texts(6, 200)
    chance = 1 / (1 + np.exp(-4 * vectors[:, 0]))
    shown = np.full(200, 40.0)
    shown[100:] = 0
    rates = text_rates(shown, np.round(shown * chance), vectors)
    assert np.corrcoef(rates[100:], chance[100:])[0, 1] > 0.95
    assert rates.min() >= 0.02 and rates.max() <= 0.98
