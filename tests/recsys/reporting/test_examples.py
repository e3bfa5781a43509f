"""Ten users of a real window: chosen by rule, with the scorer's own lists, forgotten on demand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bundles import make_bundle
from tiny import Shop, tiny_shop

from recsys.artifacts.run import Run
from recsys.evaluation.metrics.beyond_accuracy import catalogue_coverage
from recsys.ranking.scorer import Scorer
from recsys.recommender.loading import scorer_on
from recsys.reporting.examples import (
    NUM_USERS,
    chosen,
    forget,
    lists_by_user,
    make_examples,
    sampled,
)
from recsys.reporting.trade_off import K, trade_off
from recsys.state import Tombstone
from recsys.storage.outputs import write_json


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return tiny_shop(tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="module")
def scorer(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    bundle = make_bundle(tmp_path_factory.mktemp("bundle") / "bundle", shop.recipe, seed=3)
    return scorer_on(bundle, shop.prepared, "test", shop.store.content_similarity)


def test_they_are_other_users_from_short_to_long_histories_and_always_the_same(shop: Shop) -> None:
    users, questions = sampled(shop.prepared, shop.recipe)
    picked = chosen(users, questions)
    assert len(picked) == NUM_USERS == len({users[place] for place in picked})
    lengths = (questions.stops - questions.starts)[picked]
    assert lengths.tolist() == sorted(lengths) and lengths[0] < lengths[-1]
    for place in picked:  # each one's first basket
        mine = [n for n, user in enumerate(users) if user == users[place]]
        assert questions.now[place] == questions.now[mine].min()
    again = sampled(shop.prepared, shop.recipe)
    assert again[0] == users and chosen(*again).tolist() == picked.tolist()
    assert len(chosen(users[:3], questions[:3])) == len(set(users[:3]))


def test_a_list_is_what_the_scorer_says(shop: Shop, scorer: Scorer) -> None:
    users, questions = sampled(shop.prepared, shop.recipe)
    found = make_examples(scorer, shop.prepared, users, questions, "v")
    ids = shop.prepared.item_ids()
    for place, user in zip(chosen(users, questions), found["users"], strict=True):
        asked = questions[place : place + 1]
        best = np.argsort(-scorer.scores(asked.histories)[0], kind="stable")[:10]
        assert [item["item_id"] for item in user["list"]] == ids[best].tolist()
        assert {item["item_id"] for item in user["taken"]} == set(ids[asked.relevant])
        taken = {item["item_id"] for item in user["list"] if item["taken"]}
        assert taken == set(ids[best]) & set(ids[asked.relevant])
        past = set(ids[asked.histories.item_rows])
        assert user["num_events"] == len(asked.histories.item_rows)
        assert all(event["at_us"] < user["asked_us"] for event in user["history"])
        for item in user["list"]:
            assert {reason["item_id"] for reason in item["reasons"]} <= past
    assert any(item["reasons"] for user in found["users"] for item in user["list"])
    assert json.loads(json.dumps(found)) == found
    lists = lists_by_user(scorer, shop.prepared, shop.recipe)
    assert lists == {
        user["user"]: [item["item_id"] for item in user["list"]] for user in found["users"]
    }


def test_without_diversity_the_trade_off_is_the_list_of_the_best(
    shop: Shop, scorer: Scorer
) -> None:
    _, questions = sampled(shop.prepared, shop.recipe)
    plain, *_, most = trade_off(scorer, questions, 7)
    scores = np.concatenate([scorer.scores(part.histories) for part in questions.batches(50)])
    best = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    assert plain["coverage"] == catalogue_coverage(best, scorer.num_items)
    gains = []
    for number, rows in enumerate(best):
        relevant = questions[number : number + 1].relevant
        ideal = (1 / np.log2(2 + np.arange(min(K, len(relevant))))).sum()
        gains.append((np.isin(rows, relevant) / np.log2(2 + np.arange(K))).sum() / ideal)
    assert plain["ndcg@10"] == pytest.approx(np.mean(gains), abs=1e-6)
    assert most["intra_list"] > plain["intra_list"]


def test_an_erased_user_is_taken_out(shop: Shop, scorer: Scorer, tmp_path: Path) -> None:
    run = Run.open(shop.recipe)
    found = make_examples(scorer, shop.prepared, *sampled(shop.prepared, shop.recipe), "v")
    gone, back, *_ = found["users"]
    lists = lists_by_user(scorer, shop.prepared, shop.recipe)
    write_json(run.examples_file, found)
    write_json(run.decision_file, {"bundle": "v", "changes": {"lists": lists}})
    # Who came back after an erasure has a history since then.
    before = Tombstone(back["asked_us"] - 1, back["asked_us"] - 1)
    assert not forget(run, {back["user"]: before, "somebody": before})
    assert forget(run, {gone["user"]: Tombstone(gone["asked_us"], gone["asked_us"])})
    for path in (run.examples_file, run.decision_file):
        assert gone["user"] not in path.read_text() and back["user"] in path.read_text()
    # A killed `compact` has written the first file alone; `evaluate` has made it anew.
    later = {back["user"]: Tombstone(back["asked_us"], back["asked_us"])}
    for examples in ({"bundle": "v", "users": []}, {"bundle": "w", "users": found["users"][2:]}):
        write_json(run.examples_file, examples)
        write_json(run.decision_file, {"bundle": "v", "changes": {"lists": lists}})
        assert forget(run, later) and back["user"] not in run.decision_file.read_text()
