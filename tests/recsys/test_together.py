from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import NUM_ITEMS, make_bundle, make_recipe
from tiny_logs import BUY

from recsys import together
from recsys.bundle import Bundle
from recsys.histories import Histories
from recsys.recommender import load_scorer
from recsys.scoring import Scorer
from recsys.together import Together


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory, language_folder: Path) -> Scorer:
    root = tmp_path_factory.mktemp("together")
    folder = make_bundle(root / "bundle", make_recipe(root, language_folder), seed=3).folder
    return load_scorer(Bundle.open(folder))


def histories(num: int) -> list[Histories]:
    """Of every length from none."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(NUM_ITEMS, size=n % 20, dtype=np.int32) for n in range(num)]
    return [Histories.of(row, [BUY] * len(row), range(len(row)), 100) for row in rows]


class Held:
    """A scorer whose first pass waits until it is let go; it counts the questions of each pass."""

    over_time = None

    def __init__(self, scorer: Scorer) -> None:
        self._scorer, self.num_items = scorer, scorer.num_items
        self.passes: list[int] = []
        self.let_go, self.begun = threading.Event(), threading.Event()

    def parts(self, questions: Histories) -> Any:
        if (questions.item_rows >= NUM_ITEMS).any():
            raise IndexError("no such item")
        self.passes.append(len(questions))
        self.begun.set()
        assert self.let_go.wait(30)
        return self._scorer.parts(questions)

    def first_stage(self, user_part: Any) -> Any:
        return self._scorer.first_stage(user_part)


def held(scorer: Scorer, rest: list[Histories]) -> tuple[Held, list[Any]]:
    """One question goes alone, and while it is answered all the others come; what they are told."""
    slow = Held(scorer)
    asked = Together(slow)  # type: ignore[arg-type]
    with ThreadPoolExecutor(len(rest) + 1) as threads:
        first = threads.submit(asked.scores, histories(1)[0])
        assert slow.begun.wait(30)
        others = [threads.submit(asked.scores, history) for history in rest]
        deadline = time.monotonic() + 30
        while len(asked._waiting) < len(rest):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        slow.let_go.set()
        first.result(30)
        return slow, [other.exception(30) or other.result() for other in others]


def test_all_who_come_during_a_pass_share_the_next(scorer: Scorer) -> None:
    rest = histories(20)
    slow, found = held(scorer, rest)
    assert slow.passes == [1, 20]
    for history, scores in zip(rest, found, strict=True):
        np.testing.assert_allclose(scores, scorer.scores(history)[0], atol=1e-5)


def test_a_pass_is_bounded(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "MOST_SCORES", 4 * NUM_ITEMS)
    slow, _ = held(scorer, histories(10))
    assert slow.passes == [1, 4, 4, 2]


def test_a_question_without_an_answer_takes_no_other_along(scorer: Scorer) -> None:
    rest = histories(5)
    rest[2] = Histories.of([NUM_ITEMS], [BUY], [1], 100)
    slow, found = held(scorer, rest)
    assert [isinstance(each, IndexError) for each in found] == [n == 2 for n in range(5)]
    for number in (0, 1, 3, 4):
        np.testing.assert_allclose(found[number], scorer.scores(rest[number])[0], atol=1e-5)


def test_many_threads_get_their_own_answers(scorer: Scorer) -> None:
    """Scores and parts, mixed; scores are the asker's to change."""
    asked, questions = Together(scorer), histories(40)
    expected = [(scorer.scores(each)[0], scorer.parts(each)) for each in questions]

    def ask(number: int) -> None:
        scores, (user, pairs) = expected[number]
        if number % 3:
            mine = asked.scores(questions[number])
            np.testing.assert_allclose(mine, scores, atol=1e-5)
            mine[:] = -np.inf
        else:
            user_part, mine = asked.parts(questions[number])
            np.testing.assert_allclose(user_part.numpy(), user.numpy(), atol=1e-5)
            np.testing.assert_array_equal(mine.item_rows, pairs.item_rows)
            np.testing.assert_allclose(mine.extra, pairs.extra, atol=1e-5)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, list(range(40)) * 5))
