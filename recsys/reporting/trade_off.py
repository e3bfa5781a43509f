"""What diversity costs: nDCG@10 beside intra-list diversity and coverage, setting by setting.

Legend: Q questions, N items of the pool, k places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch

from recsys.arrays import Int64s
from recsys.data.time_split import Questions
from recsys.evaluation.metrics.beyond_accuracy import catalogue_coverage, intra_list_diversity
from recsys.evaluation.metrics.ranking import ndcg_at_k
from recsys.ranking.rerank import LEAST_POOL, NO_CATEGORY, POOL_PER_PLACE, centred, diversify
from recsys.ranking.scorer import Scorer
from recsys.ranking.top_k import top_k

#: Settings of `serve.diversity` that are tried.
KNOBS: Final = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
K: Final = 10


@torch.no_grad()
def trade_off(
    scorer: Scorer, questions: Questions, batch_size: int = 64, knobs: Sequence[float] = KNOBS
) -> list[dict[str, Any]]:
    """Answer questions at each setting with a list of ten, as `POST /recommend` would make it.

    Args:
        scorer: over the questions' catalogue.
        questions: Q of them.
        batch_size: questions asked together; their scores of all items must fit in memory.
        knobs: settings of `serve.diversity`.

    Returns:
        Of each setting `diversity`, mean `ndcg@10`, mean `intra_list` diversity, and `coverage`,
        the share of the catalogue that is in some list.
    """
    own = np.asarray(scorer.vectors)
    mean, size = own.mean(axis=0), max(POOL_PER_PLACE * K, LEAST_POOL)
    lists: dict[float, list[Int64s]] = {knob: [] for knob in knobs}
    intra: dict[float, list[float]] = {knob: [] for knob in knobs}
    for part in questions.batches(batch_size):
        for scores in scorer.scores(part.histories):
            pool, values = top_k(scores, size)
            vectors = centred(own[pool], mean)
            categories = np.full(len(pool), NO_CATEGORY)
            for knob in knobs:
                picked = diversify(values, vectors, categories, K, diversity=knob)
                lists[knob].append(pool[picked])
                intra[knob].append(float(intra_list_diversity(picked[None], vectors)[0]))
    return [
        {
            "diversity": knob,
            "ndcg@10": _ndcg(np.stack(lists[knob]), questions),
            "intra_list": float(np.mean(intra[knob])),
            "coverage": catalogue_coverage(np.stack(lists[knob]), scorer.num_items),
        }
        for knob in knobs
    ]


def _ndcg(lists: Int64s, questions: Questions) -> float:
    """Mean nDCG@10 of lists that stop there: a relevant item outside one ranks behind it."""
    question = np.repeat(np.arange(len(questions)), np.diff(questions.relevant_offsets))
    hits = lists[question] == questions.relevant[:, None]
    ranks = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, K + 1)
    return float(ndcg_at_k(ranks, questions.relevant_offsets, K).mean())
