"""Whole-catalogue evaluation: every model scores every question, by the same rules.

The unit is one basket of the test window; its items are the relevant ones, the history is what lies
strictly before it. No negatives are sampled.

Legend: Q questions, R relevant items, I items, M columns (slice x metric).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.arrays import Bools, Float32s, Float64s, Int64s
from recsys.data.time_split import Questions
from recsys.evaluation.metrics.classification import auc
from recsys.evaluation.metrics.intervals import bootstrap_means
from recsys.evaluation.metrics.ranking import (
    hit_rate_at_k,
    mrr_at_k,
    ndcg_at_k,
    recall_at_k,
)

#: The model's name in reports, and the metric that decides: between trials, and at the gate.
OURS, METRIC = "raycommend", "ndcg@10"
CUTOFFS = (5, 10, 50)
_AT_K = {"ndcg": ndcg_at_k, "hr": hit_rate_at_k, "recall": recall_at_k, "mrr": mrr_at_k}
METRICS = (*(f"{name}@{k}" for name in _AT_K for k in CUTOFFS), "auc")
#: The most popular items, this share of the catalogue, are its head; all others are its tail.
HEAD_SHARE = 0.2

#: Slice -> its definition. `first_time` alone changes the ranking: the user's own items are removed
#: from every model's list; everywhere else the whole catalogue is ranked.
SLICES = {
    "all": "every basket, all its items",
    "new_item": "items without any event before the test window",
    "new_user": "baskets of users without any event before the test window",
    "head": f"the {HEAD_SHARE:.0%} of items with most target events before the test window",
    "tail": "all other items",
    "repeat": "items that the user had before",
    "first_time": "items that the user never had, own items taken out of the list",
}

PROTOCOL = (
    "one question a (user, basket) of the test window, its items relevant, the history strictly "
    "before the basket's moment; the whole catalogue is ranked, ties by a seeded permutation; "
    "intervals are 95 % percentile bootstrap over users. Slices: "
    + "; ".join(f"{k}: {v}" for k, v in SLICES.items())
)

#: The columns of `values_of`.
COLUMNS = [(slice_, metric) for slice_ in SLICES for metric in METRICS]
#: Those that are told beside the champion's.
COMPARED = [("all", METRIC), ("all", "hr@10"), ("all", "recall@50")]
COMPARED += [(slice_, METRIC) for slice_ in SLICES if slice_ != "all"]


@dataclass(frozen=True)
class Ranked:
    """What a model answered: the places of the relevant items of Q questions.

    Attributes:
        ranks: [R] in the whole catalogue.
        first_time: [R'] of those that the user never had, in the list without the user's own items.
    """

    ranks: Int64s
    first_time: Int64s


def values_of(
    ranked: Ranked,
    questions: Questions,
    own: Bools,
    *,
    new_item: Bools,
    head_item: Bools,
    known_user: Bools,
) -> Float32s:
    """[Q, M] every metric of every slice (`COLUMNS`), NaN where a question is not in a slice.

    Args:
        ranked: the answers.
        questions: Q of them.
        own: [R] whether the user had the relevant item before.
        new_item: [I] items without events before the test window.
        head_item: [I], see `head_items`.
        known_user: [Q] whether the user had an event before the test window.
    """
    relevant, ranks = questions.relevant, ranked.ranks
    question = np.repeat(np.arange(len(questions)), np.diff(questions.relevant_offsets))

    def columns(picked: Bools, picked_ranks: Int64s) -> Float64s:
        return _metrics(picked_ranks, _offsets(question[picked], len(questions)), len(new_item))

    whole = columns(np.ones(len(relevant), dtype=bool), ranks)
    of_new_user = np.where(known_user[:, None], np.nan, whole)
    is_new, is_head = new_item[relevant], head_item[relevant]
    parts = [
        whole,
        columns(is_new, ranks[is_new]),
        of_new_user,
        columns(is_head, ranks[is_head]),
        columns(~is_head, ranks[~is_head]),
        columns(own, ranks[own]),
        columns(~own, ranked.first_time),
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def head_items(num_targets: Int64s) -> Bools:
    """[I] the most popular `HEAD_SHARE` of the catalogue, by target events; ties by row."""
    most = np.argsort(-num_targets, kind="stable")[: int(len(num_targets) * HEAD_SHARE)]
    is_head = np.zeros(len(num_targets), dtype=bool)
    is_head[most] = True
    return is_head


def _metrics(ranks: Int64s, offsets: Int64s, num_items: int) -> Float64s:
    values = [function(ranks, offsets, k) for function in _AT_K.values() for k in CUTOFFS]
    return np.stack([*values, auc(ranks, offsets, num_items)], axis=1)


def _offsets(question: Int64s, num_questions: int) -> Int64s:
    return np.concatenate([[0], np.cumsum(np.bincount(question, minlength=num_questions))])


def summarise(
    values: dict[str, Float32s], users: NDArray[Any], *, num_bootstrap: int, seed: int
) -> list[dict[str, Any]]:
    """Long-form rows of the report: mean and interval of every model, slice and metric.

    Args:
        values: model -> [Q, M], see `values_of`.
        users: [Q] the user of each question.
        num_bootstrap: resamples.
        seed: of the resamples.
    """
    rows = []
    for model, matrix in values.items():
        intervals = bootstrap_means(
            matrix.astype(np.float64), users, num_bootstrap=num_bootstrap, seed=seed
        )
        for (slice_, metric), interval in zip(COLUMNS, intervals, strict=True):
            if interval.num_rows:
                rows.append(
                    {
                        "model": model,
                        "slice": slice_,
                        "metric": metric,
                        "value": interval.mean,
                        "low": finite(interval.low),
                        "high": finite(interval.high),
                        "num_rows": interval.num_rows,
                    }
                )
    return rows


def finite(value: float) -> float | None:
    """A number for JSON, which has no NaN: an unknown one is null."""
    return value if np.isfinite(value) else None


def table(rows: Sequence[dict[str, Any]], metrics: Sequence[str], slice_: str) -> list[str]:
    """The report as text: one line a model."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    cells = {(row["model"], row["metric"]): row for row in rows if row["slice"] == slice_}
    lines = [f"{'model':<20}" + "".join(f"{metric:>26}" for metric in metrics)]
    for model in models:
        line = f"{model:<20}"
        for metric in metrics:
            row = cells.get((model, metric))
            if row is None:
                text = "-"
            elif row["low"] is None:
                text = f"{row['value']:.4f}"
            else:
                text = f"{row['value']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"
            line += f"{text:>26}"
        lines.append(line)
    return lines
