"""One literal case for every slice: four questions, six items, scores chosen by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from tiny_logs import BUY, VIEW, queries

from recsys.data.histories import Histories
from recsys.data.time_split import Questions
from recsys.evaluation.judge import Judge
from recsys.evaluation.report import (
    COLUMNS,
    METRICS,
    SLICES,
    head_items,
    summarise,
    table,
)

NUM_ITEMS = 6
NEW_ITEM = np.array([False, False, False, False, True, True])
HEAD_ITEM = np.array([False, True, True, False, False, False])

#: History, bought next, and the items as the model ranks them, best first.
ASKED = [
    ([(1, 0, BUY), (2, 1, VIEW)], [0, 4], [2, 0, 1, 4, 3, 5]),  # own and new, found both
    ([(1, 2, BUY)], [2], [2, 0, 1, 3, 4, 5]),  # own only
    ([], [5], [0, 1, 2, 3, 4, 5]),  # a user who was never seen
    ([(1, 3, BUY), (2, 3, BUY)], [1], [3, 1, 0, 2, 4, 5]),  # first time, behind an own item
]
KNOWN_USER = np.array([True, True, False, True])


class Literal:
    """A model that answers with the lists above, whatever it is asked."""

    name = "literal"

    def scores(self, histories: Histories) -> np.ndarray:
        assert len(histories) == len(ASKED)
        out = np.zeros((len(ASKED), NUM_ITEMS), dtype=np.float32)
        for row, (_, _, ranked) in enumerate(ASKED):
            out[row, ranked] = np.arange(NUM_ITEMS, 0, -1)
        return out


def asked() -> Questions:
    bought = [items for _, items, _ in ASKED]
    histories = queries(*(history for history, _, _ in ASKED))
    return Questions(
        np.arange(4),
        np.zeros(4, dtype=np.int32),
        histories.item_rows,
        histories.event_codes,
        histories.timestamps,
        histories.offsets[:-1],
        histories.offsets[1:],
        histories.now,
        np.array([item for items in bought for item in items], dtype=np.int32),
        np.concatenate([[0], np.cumsum([len(items) for items in bought])]),
    )


def literal_values() -> np.ndarray:
    """[4, M] all metrics of the literal model."""
    judge = Judge(NEW_ITEM, HEAD_ITEM, np.arange(NUM_ITEMS))
    return judge.answers({"literal": Literal()}, asked(), KNOWN_USER, 4)["literal"]


@pytest.fixture(scope="module")
def answers() -> dict[tuple[str, str], list[float]]:
    values = literal_values()
    assert values.shape == (4, len(COLUMNS))
    return {column: values[:, number].tolist() for number, column in enumerate(COLUMNS)}


def gain(rank: int) -> float:
    return 1 / math.log2(rank + 1)


NAN = math.nan
IDEAL_2 = gain(1) + gain(2)

EXPECTED = {
    # Ranks 2 and 4; 1; 6; 2.
    ("all", "ndcg@10"): [(gain(2) + gain(4)) / IDEAL_2, 1, gain(6), gain(2)],
    ("all", "recall@10"): [1, 1, 1, 1],
    ("all", "mrr@10"): [1 / 2, 1, 1 / 6, 1 / 2],
    # Of 4 irrelevant items 1 lies above the first and 2 above the second; 0, 5, 1 of 5.
    ("all", "auc"): [1 - 3 / 8, 1, 0, 4 / 5],
    # Item 4 at rank 4; item 5 at rank 6.
    ("new_item", "ndcg@10"): [gain(4), NAN, gain(6), NAN],
    ("new_item", "mrr@10"): [1 / 4, NAN, 1 / 6, NAN],
    # The third question alone, whole.
    ("new_user", "ndcg@10"): [NAN, NAN, gain(6), NAN],
    ("new_user", "recall@50"): [NAN, NAN, 1, NAN],
    # Item 2 at rank 1; item 1 at rank 2.
    ("head", "hr@5"): [NAN, 1, NAN, 1],
    ("head", "ndcg@5"): [NAN, 1, NAN, gain(2)],
    # Items 0 and 4 at ranks 2 and 4; item 5 at rank 6.
    ("tail", "hr@5"): [1, NAN, 0, NAN],
    ("tail", "ndcg@50"): [(gain(2) + gain(4)) / IDEAL_2, NAN, gain(6), NAN],
    # Item 0 at rank 2 of all; item 2 at rank 1.
    ("repeat", "ndcg@10"): [gain(2), 1, NAN, NAN],
    ("repeat", "mrr@50"): [1 / 2, 1, NAN, NAN],
    # Own items taken out: 4 moves from rank 4 to 2, 5 stays, 1 moves from 2 to 1.
    ("first_time", "ndcg@10"): [gain(2), NAN, gain(6), gain(1)],
    ("first_time", "mrr@10"): [1 / 2, NAN, 1 / 6, 1],
}


@pytest.mark.parametrize("column", EXPECTED)
def test_each_slice_by_hand(
    answers: dict[tuple[str, str], list[float]], column: tuple[str, str]
) -> None:
    assert answers[column] == pytest.approx(EXPECTED[column], nan_ok=True, rel=1e-5)


def test_every_slice_has_every_metric_and_a_case_here() -> None:
    assert len(COLUMNS) == len(SLICES) * len(METRICS)
    assert {name for name, _ in EXPECTED} == set(SLICES)


def test_a_question_is_in_a_slice_for_all_metrics_or_for_none(
    answers: dict[tuple[str, str], list[float]],
) -> None:
    for slice_ in SLICES:
        missing = [[math.isnan(v) for v in answers[slice_, metric]] for metric in METRICS]
        assert all(row == missing[0] for row in missing)


def test_the_head_is_a_fifth_of_the_catalogue() -> None:
    assert head_items(np.array([3, 9, 9, 0, 1, 9, 2, 0, 0, 0])).nonzero()[0].tolist() == [1, 2]
    assert not head_items(np.zeros(3, dtype=np.int64)).any()


class TestSummary:
    USERS = np.array(["a", "a", "b", "c"])

    def rows(self) -> list[dict[str, Any]]:
        return summarise({"literal": literal_values()}, self.USERS, num_bootstrap=200, seed=1)

    def test_means_over_the_questions_that_are_in_the_slice(self) -> None:
        rows = {(row["slice"], row["metric"]): row for row in self.rows()}
        for column, expected in EXPECTED.items():
            assert rows[column]["value"] == pytest.approx(np.nanmean(expected), rel=1e-5)
            assert rows[column]["num_rows"] == np.isfinite(expected).sum()
        whole = rows["all", "ndcg@10"]
        assert whole["low"] <= whole["value"] <= whole["high"]

    def test_a_slice_that_nobody_is_in_is_left_out(self) -> None:
        nobody = np.full((2, len(COLUMNS)), np.nan, dtype=np.float32)
        nobody[:, COLUMNS.index(("all", "auc"))] = 0.5
        rows = summarise({"m": nobody}, np.array(["a", "b"]), num_bootstrap=10, seed=0)
        assert [(row["slice"], row["metric"]) for row in rows] == [("all", "auc")]

    def test_the_table_has_a_line_a_model(self) -> None:
        rows = self.rows()
        heading, line = table(rows, ["ndcg@10", "mrr@10"], "all")
        assert heading.split() == ["model", "ndcg@10", "mrr@10"]
        assert line.startswith("literal")
        value = np.mean(EXPECTED["all", "mrr@10"])
        assert f" {value:.4f} [" in line
        assert table(rows, ["ndcg@10"], "nowhere")[1].split() == ["literal", "-"]

    def test_a_bound_that_is_not_known_is_null(self) -> None:
        row = next(r for r in self.rows() if (r["slice"], r["metric"]) == ("new_user", "mrr@10"))
        assert (row["low"], row["high"], row["num_rows"]) == (None, None, 1)
        assert "[" not in table([row], ["mrr@10"], "new_user")[1]
