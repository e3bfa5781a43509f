"""Ranking quality of the ways: nDCG@10 on validation questions, paired differences."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.training.ways import (
    EVERY,
    EXACT,
    ONCE,
    ONCE_ALIKE,
    TEXTBOOK,
    Once,
    Textbook,
    fresh,
    say,
)
from recsys.config import Recipe, target_codes
from recsys.data.time_split import Questions
from recsys.evaluation.gate import beats
from recsys.evaluation.metrics.ranking import ndcg_at_k, ranks_of, tie_order
from recsys.preparation.prepared import Prepared

METRIC = "ndcg@10"
#: Candidates that the textbook ranks: it cannot rank a catalogue.
CANDIDATES = 100
LEAST_ANSWERED = 2


def rank_all(workers: dict[str, Once], prepared: Prepared, recipe: Recipe) -> dict[str, Any]:
    """The whole catalogue ranked for all validation questions, by cosine and popularity prior."""
    _, questions = prepared.questions("valid", target_codes(recipe))
    order = tie_order(prepared.catalogue.num_items, recipe.seed)
    values: dict[str, np.ndarray] = {}
    untrained = fresh(Once, recipe, prepared, workers[ONCE].store)
    for name, way in {"untrained": untrained, **workers}.items():
        scores_of = logits(way)
        parts = [
            ndcg_at_k(
                ranks_of(scores_of(part), part.relevant, part.relevant_offsets, order),
                part.relevant_offsets, 10,
            )
            for part in questions.batches(256)
        ]  # fmt: skip
        values[name] = np.concatenate(parts)
        assert len(values[name]) == len(questions)
        say(f"{name}: validation {METRIC} {values[name].mean():.4f}")
    return _compared(values, questions, recipe, [(ONCE_ALIKE, EXACT), (ONCE, EVERY)])


def rerank_all(
    workers: dict[str, Once],
    textbook: Textbook,
    prepared: Prepared,
    recipe: Recipe,
    num_questions: int,
    seconds: float,
) -> dict[str, Any]:
    """A few candidates ranked for a few questions, by all: the target and others sampled uniformly.

    As many questions, up to `num_questions`, as the textbook answers in the time.
    """
    _, questions = prepared.questions("valid", target_codes(recipe))
    rng = np.random.default_rng([recipe.seed, 9])
    questions = questions.take(rng.permutation(len(questions))[:num_questions])
    num_items = prepared.catalogue.num_items
    candidates = []
    for number in range(len(questions)):
        relevant = questions[number : number + 1].relevant
        others = np.setdiff1d(rng.permutation(num_items)[: 2 * CANDIDATES], relevant)
        others = rng.permutation(others)[: CANDIDATES - 1]
        candidates.append(np.concatenate([relevant[:1], others]))
    recent, started = questions.histories.last(recipe.model.max_history), time.monotonic()
    gains: list[float] = []
    for number, items in enumerate(candidates):
        if number >= LEAST_ANSWERED and time.monotonic() - started > seconds:
            break
        gains.append(_gain(textbook.scores(recent[number : number + 1].item_rows, items)))
        if number % 10 == 9:
            say(f"{TEXTBOOK}: {number + 1} of {len(questions)} questions answered")
    questions = questions[: len(gains)]
    values = {TEXTBOOK: np.array(gains)}
    for name, way in workers.items():
        scores = logits(way)(questions)
        rows = [row[items] for row, items in zip(scores, candidates, strict=False)]
        values[name] = np.array([_gain(row) for row in rows])
    report = _compared(values, questions, recipe, [(ONCE, TEXTBOOK), (ONCE, EVERY)])
    return report | {"num_candidates": min(CANDIDATES, min(map(len, candidates)))}


def logits(worker: Once) -> Callable[[Questions], np.ndarray]:
    """What training's softmax is taken over: cosine and popularity prior; texts encoded anew."""
    worker.cache.expire(worker.step)
    scorer = worker.scorer("valid")
    with torch.no_grad():
        scale = float(worker.model.log_scale.exp())
        prior = float(worker.model.popularity) * torch.from_numpy(worker.log_share)

    vectors = torch.from_numpy(np.asarray(scorer.vectors))

    def scores(questions: Questions) -> np.ndarray:
        found = scorer.states(questions.histories) @ vectors.T * scale + prior
        return found.numpy().astype(np.float32)

    return scores


def _gain(scores: np.ndarray) -> float:
    """nDCG@10 where the first candidate alone is relevant; of equals it comes last."""
    rank = 1 + int((scores[1:] >= scores[0]).sum())
    return float(1 / np.log2(rank + 1)) if rank <= 10 else 0.0


def _compared(
    values: dict[str, np.ndarray],
    questions: Questions,
    recipe: Recipe,
    pairs: list[tuple[str, str]],
) -> dict[str, Any]:
    gains = {
        f"{one} - {other}": beats(
            values[one], values[other], questions.user_index, 0.95,
            recipe.evaluate.num_bootstrap, recipe.seed,
        ).as_json()
        for one, other in pairs
    }  # fmt: skip
    return {
        "num_questions": len(questions),
        METRIC: {name: float(each.mean()) for name, each in values.items()},
        "differences": gains,
    }
