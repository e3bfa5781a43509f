"""Explanations must be true: a named past item is one without which the score is lower."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from tiny_logs import BUY, VIEW, Event, queries

from recsys.features.item_to_item import Relations
from recsys.features.side_features import ITEM_FEATURES
from recsys.model.ranking_head import ScoringHead
from recsys.model.user_encoder import UserEncoder
from recsys.ranking.explain import NUM_PAST, NUM_REASONS, PARTS, explain
from recsys.ranking.scorer import Scorer

NUM_ITEMS, DIM = 60, 8
ALL = np.arange(NUM_ITEMS)


def make_scorer() -> Scorer:
    torch.manual_seed(4)
    rng = np.random.default_rng(4)
    users, head = UserEncoder(DIM, 1, 2, 0.0), ScoringHead(0.2)
    with torch.no_grad():
        for parameter in [*users.parameters(), *head.parameters()]:
            parameter.add_(0.2 * torch.randn_like(parameter))
    vectors = torch.nn.functional.normalize(torch.randn(NUM_ITEMS, DIM), dim=-1)
    features = rng.standard_normal((NUM_ITEMS, len(ITEM_FEATURES))).astype(np.float32)
    prices = rng.standard_normal(NUM_ITEMS).astype(np.float32)
    weights = rng.random((3, NUM_ITEMS, NUM_ITEMS)).astype(np.float32)
    relations = Relations(*(sparse.csr_array(np.where(each < 0.1, each, 0)) for each in weights))
    return Scorer.build(users, head, vectors, features, prices, relations, [BUY], 40)


SCORER = make_scorer()
ITEM_PARTS = SCORER.item_part.numpy()
USER: list[Event] = [(1, 4, VIEW), (2, 4, BUY), (2, 9, BUY), (5, 4, BUY), (6, 17, VIEW)]


def test_the_parts_add_up_to_the_score() -> None:
    history = queries(USER)
    found = explain(SCORER, history, ALL, ITEM_PARTS)
    scores = SCORER.scores(history)[0]
    for explanation, score in zip(found, scores, strict=True):
        assert tuple(explanation.parts) == PARTS
        assert sum(explanation.parts.values()) == pytest.approx(float(score), abs=1e-4)


def test_a_reason_is_what_the_score_loses_without_it() -> None:
    found = explain(SCORER, queries(USER), ALL, ITEM_PARTS)
    scores = SCORER.scores(queries(USER))[0]
    without = {
        item: SCORER.scores(queries([event for event in USER if event[1] != item]))[0]
        for item in (4, 9, 17)
    }
    named = 0
    for item, explanation in enumerate(found):
        gains = {past: float(scores[item] - less[item]) for past, less in without.items()}
        expected = sorted((gain for gain in gains.values() if gain > 0), reverse=True)
        assert len(explanation.reasons) <= NUM_REASONS
        for reason, gain in zip(explanation.reasons, expected, strict=True):
            assert reason.gain == pytest.approx(gain, abs=1e-4)
            assert reason.gain == pytest.approx(gains[reason.item_row], abs=1e-4)
            assert without[reason.item_row][item] < scores[item]
            named += 1
    assert named > NUM_ITEMS // 2


def test_a_reason_tells_the_strongest_event_how_often_and_when() -> None:
    told = {
        reason.item_row: (reason.event_code, reason.count, reason.last_us)
        for explanation in explain(SCORER, queries(USER), ALL, ITEM_PARTS)
        for reason in explanation.reasons
    }
    times = queries(USER).timestamps
    assert told == {4: (BUY, 2, times[3]), 9: (BUY, 1, times[2]), 17: (VIEW, 1, times[4])}


def test_only_the_latest_items_are_tried() -> None:
    user = [(time, time, BUY) for time in range(NUM_PAST + 10)]
    found = explain(SCORER, queries(user), ALL, ITEM_PARTS)
    tried = {reason.item_row for explanation in found for reason in explanation.reasons}
    assert tried <= set(range(10, NUM_PAST + 10))


def test_without_a_history_there_is_no_reason_and_without_a_row_no_history() -> None:
    (nobody,) = explain(SCORER, queries([]), ALL[:1], ITEM_PARTS[:1])
    assert nobody.reasons == []
    assert nobody.parts["history"] == 0
    (unknown,) = explain(SCORER, queries(USER), np.array([-1]), ITEM_PARTS[:1])
    assert unknown.parts["history"] == 0
    assert explain(SCORER, queries(USER), ALL[:0], ITEM_PARTS[:0]) == []
