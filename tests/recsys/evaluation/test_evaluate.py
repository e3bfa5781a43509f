"""Any model on the protocol, without a cluster: the figures of `answer`, and mistakes named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny import Shop

from recsys.config import target_codes
from recsys.data.histories import Histories
from recsys.errors import DataError
from recsys.evaluation.baselines import Popularity, TrainingLog
from recsys.evaluation.evaluate import BASELINES, evaluate
from recsys.evaluation.judge import Judge
from recsys.evaluation.report import COLUMNS, METRICS, SLICES, head_items, table


def of(rows: list[dict[str, Any]], model: str, slice_: str, metric: str) -> dict[str, Any]:
    wanted = {"model": model, "slice": slice_, "metric": metric}
    (row,) = (row for row in rows if wanted.items() <= row.items())
    return row


class Recency:
    """What a user met lately scores high."""

    name = "recency"

    def __init__(self, num_items: int) -> None:
        self.num_items = num_items

    def scores(self, histories: Histories) -> np.ndarray:
        scores = np.zeros((len(histories), self.num_items))
        at = (histories.query_of_event, histories.item_rows)
        np.maximum.at(scores, at, 1 / (1 + histories.age_days))
        return scores


def test_models_and_baselines_are_asked_the_same_questions(shop: Shop) -> None:
    num_items = shop.prepared.catalogue.num_items
    model = Recency(num_items)
    rows = evaluate(
        shop.prepared, {"object": model, "function": model.scores}, num_bootstrap=20, batch_size=7
    )
    assert {row["model"] for row in rows} == {"object", "function", *BASELINES}
    assert {"all", "head", "new_user"} <= {row["slice"] for row in rows} <= set(SLICES)
    assert {row["metric"] for row in rows} == set(METRICS)
    num_baskets = shop.prepared.summary["counts"]["test_baskets"]
    for name in ("object", "function", *BASELINES):
        row = of(rows, name, "all", "ndcg@10")
        assert row["num_rows"] == num_baskets and 0 <= row["low"] <= row["value"] <= row["high"]
    same = [{**row, "model": ""} for row in rows if row["model"] == "object"]
    assert same == [{**row, "model": ""} for row in rows if row["model"] == "function"]
    assert table(rows, ["ndcg@10"], "all")[1].startswith("object")


@pytest.mark.parametrize("window", ["valid", "test"])
def test_the_figures_are_those_of_the_protocol(shop: Shop, window: str) -> None:
    """Popularity, fitted before the window, answers as by hand."""
    prepared, codes = shop.prepared, target_codes(shop.recipe)
    num_items, cut = prepared.catalogue.num_items, prepared.summary["cuts_us"][window]
    users, questions = prepared.questions(window, codes)
    stats = prepared.stats(window)
    tie_order = np.random.default_rng([3, 3]).permutation(num_items)
    judge = Judge(stats.num_events == 0, head_items(stats.num_targets), tie_order)
    model = Popularity.fit(TrainingLog(users.before(cut), num_items, codes))
    known = users.timestamps[users.offsets[:-1]][questions.user_index] < cut
    values = judge.answers({"a": model}, questions, known, 64)["a"]
    rows = evaluate(prepared, {}, baselines=["popularity"], window=window, num_bootstrap=5, seed=3)  # type: ignore[arg-type]
    for place, (slice_, metric) in enumerate(COLUMNS):
        if not np.isnan(values[:, place]).all():
            told = of(rows, "popularity", slice_, metric)["value"]
            assert told == pytest.approx(np.nanmean(values[:, place].astype(float)))


def test_a_sample_is_smaller_and_drawn_by_the_seed(shop: Shop) -> None:
    def asked(seed: int) -> list[dict[str, Any]]:
        return evaluate(
            shop.prepared, {}, baselines=["popularity"], max_rows=30, num_bootstrap=5, seed=seed
        )

    num_rows = of(asked(1), "popularity", "all", "ndcg@10")["num_rows"]
    assert 10 < num_rows < 60 < shop.prepared.summary["counts"]["test_baskets"]
    assert asked(1) == asked(1) != asked(2)


def test_what_a_model_hands_out_is_not_written_to(shop: Shop) -> None:
    num_items = shop.prepared.catalogue.num_items
    kept = np.ones((1, num_items), dtype=np.float32)

    def flat(histories: Histories) -> np.ndarray:
        return np.broadcast_to(kept, (len(histories), num_items))

    evaluate(shop.prepared, {"flat": flat}, baselines=[], num_bootstrap=5)
    assert (kept == 1).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_are_finite_and_of_the_whole_catalogue(shop: Shop, value: float) -> None:
    num_items = shop.prepared.catalogue.num_items
    for scores in (
        lambda histories: np.full((len(histories), num_items), value),
        lambda histories: np.zeros((len(histories), num_items - 1)),
    ):
        with pytest.raises(DataError, match=r"\[models.wrong\] scores of shape"):
            evaluate(shop.prepared, {"wrong": scores}, baselines=[])


def test_a_baseline_s_name_is_taken(shop: Shop) -> None:
    with pytest.raises(DataError, match=r"is the name of a baseline \(got 'item_knn'\)"):
        evaluate(shop.prepared, {"item_knn": lambda histories: histories})
