from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse
from tiny_logs import BUY, VIEW, Event, queries

from recsys.data.histories import US_PER_DAY
from recsys.features.candidates import make_pairs
from recsys.features.item_to_item import Relations
from recsys.features.popularity import DailyCounts
from recsys.features.side_features import ITEM_FEATURES, FeaturesOverTime, usual_price
from recsys.model.ranking_head import ScoringHead
from recsys.model.user_encoder import UserEncoder
from recsys.ranking.scorer import STATES_AT_ONCE, Scorer

NUM_ITEMS, DIM, MAX_HISTORY = 30, 8, 6


def make_scorer() -> Scorer:
    """Every part of the score with weights that matter."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    users, head = UserEncoder(DIM, 2, 2, 0.0), ScoringHead(0.1)
    with torch.no_grad():
        for parameter in [*users.parameters(), *head.parameters()]:
            parameter.add_(0.2 * torch.randn_like(parameter))
    vectors = torch.nn.functional.normalize(torch.randn(NUM_ITEMS, DIM), dim=-1)
    features = rng.standard_normal((NUM_ITEMS, len(ITEM_FEATURES))).astype(np.float32)
    prices = rng.standard_normal(NUM_ITEMS).astype(np.float32)
    weights = rng.random((3, NUM_ITEMS, NUM_ITEMS)).astype(np.float32)
    relations = Relations(*(sparse.csr_array(np.where(each < 0.1, each, 0)) for each in weights))
    return Scorer.build(users, head, vectors, features, prices, relations, [BUY], MAX_HISTORY)


def random_users(num_users: int) -> list[list[Event]]:
    rng = np.random.default_rng(1)
    return [
        sorted(
            (int(rng.integers(20)), int(rng.integers(NUM_ITEMS)), int(rng.choice([VIEW, BUY])))
            for _ in range(rng.integers(0, 15))
        )
        for _ in range(num_users)
    ]


SCORER, ASKED = make_scorer(), random_users(STATES_AT_ONCE + 6)


def test_a_score_is_its_parts_added_up() -> None:
    histories = queries(*ASKED[:8])
    scores, head = SCORER.scores(histories), SCORER.head
    states, usual = SCORER.states(histories), usual_price(histories, SCORER.standard_price)
    pairs = make_pairs(histories, SCORER.relations, SCORER.vectors.numpy(), [BUY])
    pair_at = {
        (int(query), int(item)): place
        for place, (query, item) in enumerate(zip(pairs.query, pairs.item_rows, strict=True))
    }
    assert 20 < len(pair_at) == len(pairs.query) < len(histories) * NUM_ITEMS - 20
    features = torch.from_numpy(SCORER.item_features)
    with torch.no_grad():
        for query in range(len(histories)):
            for item in range(NUM_ITEMS):
                cosine = states[query] @ SCORER.vectors[item]
                price = torch.tensor(usual[query] * SCORER.standard_price[item])
                expected = (
                    head.cosine * cosine + head.item_scores(features[item]) + head.price * price
                )
                if (query, item) in pair_at:
                    mine = torch.from_numpy(pairs.features[pair_at[query, item]])[None]
                    expected += head.pair_scores(
                        mine, features[item, None], cosine[None], price[None]
                    )[0]
                assert scores[query, item] == pytest.approx(float(expected), abs=1e-4)


def test_a_query_scores_alone_as_in_a_batch() -> None:
    together = SCORER.scores(queries(*ASKED))
    assert together.shape == (len(ASKED), NUM_ITEMS)
    assert together.dtype == np.float32
    alone = np.concatenate([SCORER.scores(queries(user)) for user in ASKED])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_the_state_reads_the_latest_events_only_the_features_all() -> None:
    user = [(time, time, BUY) for time in range(MAX_HISTORY + 3)]
    whole, recent = queries(user), queries(user[3:])
    torch.testing.assert_close(SCORER.states(whole), SCORER.states(recent))
    assert set(range(MAX_HISTORY + 3)) <= set(SCORER.parts(whole)[1].item_rows.tolist())


def test_without_a_history_there_is_the_start_state() -> None:
    histories = queries([], [(0, 1, BUY)], [])
    states = SCORER.states(histories)
    start = torch.nn.functional.normalize(SCORER.users.start.detach(), dim=-1)
    torch.testing.assert_close(states[[0, 2]], start.expand(2, -1))
    np.testing.assert_array_equal(SCORER.scores(histories)[0], SCORER.scores(histories)[2])


def test_nobody_asks() -> None:
    assert SCORER.scores(queries()).shape == (0, NUM_ITEMS)


def test_it_answers_without_dropout() -> None:
    users = UserEncoder(DIM, 1, 2, 0.5)
    users.train()
    scorer = Scorer.build(
        users, ScoringHead(0.1), SCORER.vectors, SCORER.item_features, SCORER.standard_price,
        SCORER.relations, [BUY], MAX_HISTORY,
    )  # fmt: skip
    histories = queries(*ASKED[:5])
    np.testing.assert_array_equal(scorer.scores(histories), scorer.scores(histories))


class TestOverTime:
    """Popularity as of each question's day, in place of what the item side was folded with."""

    def counts(self) -> DailyCounts:
        rng = np.random.default_rng(3)
        days = np.sort(rng.integers(0, 8, 200)).astype(np.int32)
        rows = rng.integers(0, NUM_ITEMS, 200).astype(np.int32)
        return DailyCounts(NUM_ITEMS, days, rows, *(rng.integers(1, 9, (3, 200))))

    def test_a_score_is_that_of_a_scorer_made_on_its_day(self) -> None:
        over_time = FeaturesOverTime(self.counts(), SCORER.standard_price, 1)
        asked = queries(*ASKED[:8])
        asked = replace(asked, now=np.array([3, 1, 3, 7, 0, 9, 1, 5]) * US_PER_DAY + 17)
        found = replace(SCORER, over_time=over_time).scores(asked)
        for number, day in enumerate([3, 1, 3, 7, 0, 9, 1, 5]):
            that_day = Scorer.build(
                SCORER.users, SCORER.head, SCORER.vectors, over_time.of(day),
                SCORER.standard_price, SCORER.relations, [BUY], MAX_HISTORY,
            )  # fmt: skip
            alone = asked[number : number + 1]
            np.testing.assert_allclose(found[number], that_day.scores(alone)[0], atol=1e-3)
        assert np.abs(found - SCORER.scores(asked)).max() > 0.1

    def test_an_item_that_is_never_ranked_stays_so(self) -> None:
        over_time = FeaturesOverTime(self.counts(), SCORER.standard_price, 1)
        part = SCORER.item_part.clone()
        part[4, -1] = -np.inf
        scores = replace(SCORER, item_part=part, over_time=over_time).scores(queries(*ASKED[:8]))
        assert np.isneginf(scores[:, 4]).all()
        assert np.isfinite(np.delete(scores, 4, axis=1)).all()
