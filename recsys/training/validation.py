"""Validation during training: nDCG@10 over the whole catalogue."""

from __future__ import annotations

from recsys.data.time_split import Questions
from recsys.evaluation.metrics.ranking import ndcg_at_k, ranks_of, tie_order
from recsys.ranking.scorer import Scorer

#: Questions scored at a time: their scores of all items must fit in memory.
QUESTIONS_AT_ONCE = 64


def validate(scorer: Scorer, questions: Questions, seed: int) -> tuple[float, int]:
    """Sum of nDCG@10 over some questions, and their number.

    Args:
        scorer: as of the validation window.
        questions: of one worker.
        seed: breaks ties, see `tie_order`.
    """
    order = tie_order(scorer.num_items, seed)
    total, count = 0.0, 0
    for part in questions.batches(QUESTIONS_AT_ONCE):
        ranks = ranks_of(scorer.scores(part.histories), part.relevant, part.relevant_offsets, order)
        total += float(ndcg_at_k(ranks, part.relevant_offsets, 10).sum())
        count += len(part)
    assert count == len(questions)
    return total, count
