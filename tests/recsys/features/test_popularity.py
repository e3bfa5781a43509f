from __future__ import annotations

import copy
from dataclasses import fields
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tiny import Shop
from tiny_logs import BUY, VIEW, user_events

from recsys.data.histories import US_PER_DAY
from recsys.features.popularity import (
    RECENT_DAYS,
    WEEK_DAYS,
    CountsByDay,
    DailyCounts,
    ItemStats,
    count_days,
    count_items,
    last_count,
)
from recsys.schema import Col

NOW = 100 * US_PER_DAY
RECENT, WEEK = NOW - RECENT_DAYS * US_PER_DAY, NOW - WEEK_DAYS * US_PER_DAY
USERS = user_events(
    [(0, 1, BUY), (RECENT - 1, 1, BUY), (RECENT, 1, BUY), (NOW - 1, 1, VIEW), (NOW, 1, BUY)],
    [(4, 1, BUY), (5, 3, VIEW), (WEEK, 4, BUY), (NOW - 2, 4, BUY), (NOW, 2, BUY)],
)


def test_only_events_strictly_before_the_moment_are_counted() -> None:
    counted = count_items(USERS, NOW, [BUY])
    assert counted.columns == [Col.item_row, *(field.name for field in fields(ItemStats))]
    assert counted.rows() == [
        (1, 5, 4, 1, 0, 0, 2, 0, 0),
        (3, 1, 0, 0, 0, 0, 0, 0, 0),
        (4, 2, 2, 2, 2, 1, 1, 1, 0),
    ]


def daily(*groups: pl.DataFrame, folder: Path) -> DailyCounts:
    path = folder / "days.parquet"
    days = pl.concat(groups).group_by("day", Col.item_row).sum()
    days.sort("day", Col.item_row).write_parquet(path)
    return DailyCounts.load(path, 5)


@pytest.mark.parametrize("day", [0, 1, 71, 72, 73, 93, 94, 99, 100, 101, 200])
def test_as_of_a_day_are_the_counts_as_of_its_first_moment(day: int, tmp_path: Path) -> None:
    found = daily(count_days(USERS, [BUY]), folder=tmp_path).as_of(day)
    counted = count_items(USERS, day * US_PER_DAY, [BUY])
    for field in fields(ItemStats):
        expected = np.zeros(5, dtype=np.int64)
        expected[counted[Col.item_row].to_numpy()] = counted[field.name].to_numpy()
        np.testing.assert_array_equal(getattr(found, field.name), expected, err_msg=field.name)


def test_days_in_any_order_are_counted_as_each_alone(tmp_path: Path) -> None:
    counts = daily(count_days(USERS, [BUY]), folder=tmp_path)
    by_day = CountsByDay(counts)
    by_day.as_of(72)
    by_day = copy.deepcopy(by_day)  # what it has summed up stays behind
    for day in (71, 72, 72, 99, 101, 200, 3, 94, 73, 100, 0):
        expected = counts.as_of(day)
        for name, found in vars(by_day.as_of(day)).items():
            np.testing.assert_array_equal(found, getattr(expected, name), err_msg=f"{day} {name}")


def test_counts_of_groups_of_users_add_up(tmp_path: Path) -> None:
    one, other = (user_events([(1, 1, BUY), (2, 1, BUY)]), user_events([(2, 1, BUY)]))
    found = daily(*(count_days(each, [BUY]) for each in (one, other)), folder=tmp_path).as_of(1)
    assert (found.num_targets[1], found.num_users[1]) == (3, 2)


def test_the_last_count_lies_before_the_moment() -> None:
    now = np.array([0, US_PER_DAY - 1, US_PER_DAY, 13 * US_PER_DAY + 5])
    assert last_count(now, 1).tolist() == [0, 0, 1, 13]
    assert last_count(now, 7).tolist() == [0, 0, 0, 7]


def test_what_prepare_wrote_agrees_with_its_cuts(shop: Shop) -> None:
    prepared = shop.prepared
    for name, cut in prepared.summary["cuts_us"].items():
        if cut is None:
            continue
        assert cut % US_PER_DAY == 0
        found, expected = prepared.daily_counts().as_of(cut // US_PER_DAY), prepared.stats(name)
        for field in fields(ItemStats):
            np.testing.assert_array_equal(
                getattr(found, field.name), getattr(expected, field.name), err_msg=field.name
            )
