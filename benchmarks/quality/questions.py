"""The questions that every model answers, and what their slices need.

Legend: Q questions, I items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from benchmarks.quality.protocols.benchmark import CODES, HISTORY, NOW, TIMES, Benchmark
from benchmarks.quality.protocols.parts import LABEL
from recsys.config import Recipe, target_codes
from recsys.data.time_split import Questions
from recsys.evaluation.report import head_items
from recsys.preparation.prepared import Prepared
from recsys.schema import Col


@dataclass(frozen=True)
class TestSet:
    """The questions and what their slices need.

    Attributes:
        questions: Q of them.
        users: [Q] who asks; intervals resample these.
        known_user: [Q], new_item: [I], head_item: [I], see `recsys.evaluation.report.answer`.
    """

    questions: Questions
    users: np.ndarray
    known_user: np.ndarray
    new_item: np.ndarray
    head_item: np.ndarray


def make_test_set(benchmark: Benchmark, prepared: Prepared, recipe: Recipe) -> TestSet:
    """The baskets of the test window, or the rows that a split publishes."""
    stats = prepared.stats("test")
    new_item, head_item = stats.num_events == 0, head_items(stats.num_targets)
    cut = prepared.summary["cuts_us"]["test"]
    if benchmark.rows is None:
        users, questions = prepared.questions("test", target_codes(recipe))
        first_us = users.timestamps[users.offsets[:-1]]
        asking = np.array([users.user_ids[index] for index in questions.user_index])
        known = first_us[questions.user_index] < cut
        assert len(questions) == prepared.summary["counts"]["test_baskets"]
        return TestSet(questions, asking, known, new_item, head_item)
    rows = benchmark.rows.filter(pl.col(LABEL) == 1)
    early = benchmark.events.filter(pl.col(Col.timestamp) < benchmark.cuts["test"])
    return TestSet(
        questions_of(rows, prepared.catalogue.items[Col.item].to_list()),
        rows[Col.user].to_numpy(),
        rows[Col.user].is_in(early[Col.user].unique().implode()).to_numpy(),
        new_item,
        head_item,
    )


def questions_of(rows: pl.DataFrame, item_ids: Sequence[str]) -> Questions:
    """Rows with explicit histories as questions, one a row, in their order."""
    numbers = {item_id: row for row, item_id in enumerate(item_ids)}
    histories = rows.select(HISTORY, TIMES, CODES).explode(HISTORY, TIMES, CODES)
    histories = histories.drop_nulls(HISTORY)
    lengths = rows[HISTORY].list.len().to_numpy().astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Questions(
        np.arange(rows.height),
        np.zeros(rows.height, dtype=np.int32),
        np.array([numbers[item] for item in histories[HISTORY]], dtype=np.int32),
        histories[CODES].to_numpy().astype(np.int8),
        histories[TIMES].dt.epoch("us").to_numpy().astype(np.int64),
        offsets[:-1],
        offsets[1:],
        rows[NOW].dt.epoch("us").to_numpy().astype(np.int64),
        np.array([numbers[item] for item in rows[Col.item]], dtype=np.int32),
        np.arange(rows.height + 1),
    )
