"""Examples of the scoring head, and its fit by several workers that share them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import Shop
from workers import chunks, make_worker

from recsys.config import target_codes
from recsys.training import head_examples, validation
from recsys.training.head_examples import HeadQuestions

pytestmark = pytest.mark.slow


class TestHead:
    def test_workers_that_share_the_questions_find_the_same_head(self, shop: Shop) -> None:
        """Loss and gradient are summed over workers: two halves are as good as the whole."""
        codes = target_codes(shop.recipe)
        _, questions = shop.prepared.questions("head", codes)
        alone = make_worker(shop)
        expected = alone.fit_head(alone.head_examples(questions))

        pair = [make_worker(shop, rank, 2) for rank in range(2)]
        half = len(questions) // 2
        parts = [
            pair[0].head_examples(questions[:half]),
            pair[1].head_examples(questions[half:]),
        ]
        found = _in_step([each.fit_head for each in pair], parts)
        # Sums in another order lead L-BFGS along a slightly different path.
        assert found == pytest.approx([expected, expected], rel=0.01)
        assert found[0] == found[1]
        for name, value in pair[0].head.state_dict().items():
            torch.testing.assert_close(pair[1].head.state_dict()[name], value, rtol=0, atol=0)

    @pytest.mark.parametrize("every_days", [1, None])
    def test_a_worker_without_questions_goes_along(
        self, shop: Shop, every_days: int | None
    ) -> None:
        """The shards of a third one hold nothing to ask: the head is that of the other two."""
        data = {"data": shop.recipe.data.model_copy(update={"count_every_days": every_days})}
        shop = shop._replace(recipe=shop.recipe.model_copy(update=data))
        codes = target_codes(shop.recipe)
        _, questions = shop.prepared.questions("head", codes)
        _, none = shop.prepared.questions("head", codes, shards=[])
        assert len(none) == 0
        half = len(questions) // 2
        pair = [make_worker(shop, rank, 2) for rank in range(2)]
        parts = [
            pair[0].head_examples(questions[:half]), pair[1].head_examples(questions[half:]),
        ]  # fmt: skip
        expected = _in_step([each.fit_head for each in pair], parts)

        third = make_worker(shop, 2, 3)
        found = _in_step(
            [each.fit_head for each in (*(make_worker(shop, rank, 3) for rank in range(2)), third)],
            [*parts, third.head_examples(none)],
        )
        assert found == pytest.approx([expected[0]] * 3)
        for name, value in third.head.state_dict().items():
            torch.testing.assert_close(value, pair[0].head.state_dict()[name])
        assert third.validate(none) == (0.0, 0)

    def test_trainings_share_what_no_weight_changes(
        self, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Candidates are found once; the figures are those of a training that shares nothing."""
        codes = target_codes(shop.recipe)
        head, valid = (shop.prepared.questions(name, codes)[1] for name in ("head", "valid"))

        def figures(shared: Path | None) -> tuple[float, float]:
            mine = make_worker(shop)
            mine.shared = shared
            mine.train_epoch(chunks(shop.prepared.users(), 16), 10)
            loss = mine.fit_head(mine.head_examples(head))
            return loss, mine.validate(valid)[0]

        alone, first = figures(None), figures(tmp_path)
        assert sorted(path.name.split("-")[0] for path in tmp_path.iterdir()) == [
            "head", "validation",
        ]  # fmt: skip
        for module in (head_examples, validation):
            monkeypatch.setattr(module, "find_candidates", None)
        assert figures(tmp_path) == first == alone

    def test_examples_count_every_relevant_item_once(self, shop: Shop) -> None:
        codes = target_codes(shop.recipe)
        _, questions = shop.prepared.questions("head", codes)
        mine = make_worker(shop)
        scorer = mine.scorer("head")
        sample = np.arange(scorer.num_items)
        zeros = np.zeros(len(sample), dtype=np.float32)
        rng = np.random.default_rng(0)
        examples = HeadQuestions.of(scorer, questions, sample, zeros, rng).examples(scorer)
        inside = int(examples.pair_relevant.sum())
        assert inside + len(examples.pos_query) == len(questions.relevant)
        counted = examples.sample_left_out.sum(dim=1).numpy()
        pairs = np.bincount(examples.pair_query.numpy(), minlength=len(questions))
        outside = np.bincount(examples.pos_query.numpy(), minlength=len(questions))
        assert (counted == pairs + outside).all()


def _in_step(fits: list[Any], parts: list[Any]) -> list[float]:
    """Run the fits in threads whose `reduce` adds up what all hand in."""
    world = len(fits)
    barrier, handed = threading.Barrier(world), [torch.zeros(0)] * world
    results = [0.0] * world

    def run(rank: int) -> None:
        def reduce(value: torch.Tensor) -> None:
            handed[rank] = value.clone()
            barrier.wait(60)
            total = torch.stack(handed).sum(dim=0)
            barrier.wait(60)
            value.copy_(total)

        results[rank] = fits[rank](parts[rank], reduce=reduce)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
