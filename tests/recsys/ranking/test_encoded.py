from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bundles import NUM_ITEMS, make_bundle, make_recipe
from tiny_logs import BUY

from recsys.artifacts.bundle import Bundle
from recsys.data.histories import Histories
from recsys.ranking import encoded
from recsys.ranking.encoded import encode
from recsys.ranking.scorer import Scorer
from recsys.recommender.loading import load_scorer


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory, language_folder: Path) -> Scorer:
    root = tmp_path_factory.mktemp("encoded")
    folder = make_bundle(root / "bundle", make_recipe(root, language_folder), seed=3).folder
    return load_scorer(Bundle.open(folder))


def histories(num: int) -> list[Histories]:
    """Of every length from none."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(NUM_ITEMS, size=n % 20, dtype=np.int32) for n in range(num)]
    return [Histories.of(row, [BUY] * len(row), range(len(row)), 100) for row in rows]


@pytest.mark.parametrize("whole", [True, False])
def test_read_together_or_alone_a_history_says_the_same(scorer: Scorer, whole: bool) -> None:
    asked = histories(40)
    found = encode(scorer, asked, whole=whole)
    assert [each.history for each in found] == asked
    for history, each in zip(asked, found, strict=True):
        user, pairs = scorer.parts(history)
        np.testing.assert_allclose(each.user_part.numpy(), user.numpy(), atol=1e-5)
        np.testing.assert_array_equal(each.pairs.item_rows, pairs.item_rows)
        np.testing.assert_allclose(each.pairs.extra, pairs.extra, atol=1e-5)
        assert (each.first_stage is not None) == whole
        np.testing.assert_allclose(each.scores(), scorer.scores(history)[0], atol=1e-5)


@pytest.mark.parametrize("whole", [True, False])
def test_scores_of_some_items_are_theirs_among_all(scorer: Scorer, whole: bool) -> None:
    rows = np.random.default_rng(1).permutation(NUM_ITEMS)[:50].astype(np.int32)
    for each in encode(scorer, histories(12), whole=whole):
        some = np.concatenate([rows, each.pairs.item_rows[:5].astype(np.int32)])
        np.testing.assert_allclose(each.scores_of(some), each.scores()[some], atol=1e-5)


def test_scores_are_the_callers_to_change(scorer: Scorer) -> None:
    for whole in (True, False):
        (each,) = encode(scorer, histories(8)[-1:], whole=whole)
        before = each.scores().copy()
        each.scores()[:] = -np.inf
        np.testing.assert_array_equal(each.scores(), before)


def test_a_pass_is_bounded(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []

    def parts(self: Scorer, asked: Histories, real=Scorer.parts):  # type: ignore[no-untyped-def]
        passes.append(len(asked))
        return real(self, asked)

    monkeypatch.setattr(Scorer, "parts", parts)
    monkeypatch.setattr(encoded, "MOST_SCORES", 4 * NUM_ITEMS)
    encode(scorer, histories(10), whole=True)
    encode(scorer, histories(40), whole=False)
    assert passes == [4, 4, 2, 32, 8]
    assert encode(scorer, [], whole=True) == []


def test_a_catalogue_beyond_all_bounds_is_read_alone(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoded, "MOST_SCORES", NUM_ITEMS - 1)
    assert len(encode(scorer, histories(3), whole=True)) == 3
