"""A run in parts comes to the bytes of a run from nothing, and does again what it must."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import polars as pl
import pytest
from prepare_runs import hashes
from shown_lists import ShownLists, at, event, known, shown

from recsys.data.feedback import merge_days
from recsys.outcomes.joining import JOINED_DIR
from recsys.schema import Col

USERS = [f"user-{number}" for number in range(12)]


def day_of(shop: ShownLists, number: int) -> None:
    """A day of lists, and of events that answer them or name no list."""
    start = 24 * number
    rows = [
        row
        for nth, user in enumerate(USERS)
        for row in shown(f"r{number}-{nth}", user if nth % 5 else None, start + nth / 4, "i1", "i2")
    ]
    shop.lists(rows)
    shop.live(
        [
            *(event(user, "i1", "click", start + 4, f"r{number}-{nth}")
              for nth, user in enumerate(USERS)),
            *(event(user, "i2", "purchase", start + 5, price=2.0) for user in USERS[::2]),
        ]
    )  # fmt: skip
    shop.log(f"day{number}", [event(user, "i2", "view", start + 6, dwell_ms=900) for user in USERS])


def late(shop: ShownLists) -> None:
    """Two events of the first day that come days later."""
    shop.live(
        [
            event(USERS[1], "i1", "purchase", 7, "r0-1", value=9.0),
            event(USERS[2], "i2", "add_to_cart", 8),
        ]
    )


def merged(shop: ShownLists) -> None:
    """What `compact` does: the files of a day become one."""
    for folder in (shop.feedback.events, shop.feedback.impressions):
        merge_days(folder, dt.date(2999, 1, 1))


def erased(shop: ShownLists) -> None:
    shop.erase(USERS[3], 30)


STEPS: list[tuple[Callable[[ShownLists], None], ...]] = [
    (lambda shop: day_of(shop, 0),),
    (lambda shop: day_of(shop, 1),),
    (lambda shop: day_of(shop, 2), late),
    (erased,),
    (merged,),
]


def test_a_run_in_parts_is_one_from_nothing(tmp_path: Path) -> None:
    parts, whole = ShownLists(tmp_path / "parts"), ShownLists(tmp_path / "whole")
    for step in STEPS:
        for change in step:
            change(parts)
            change(whole)
        parts.join()
    whole.join()
    assert hashes(parts.out) == hashes(whole.out)
    assert len(hashes(parts.out)) == 4  # three days and the counts


def test_what_did_not_change_is_not_done_again(tmp_path: Path) -> None:
    shop = ShownLists(tmp_path)
    for number in range(3):
        day_of(shop, number)
    shop.join()
    assert shop.tasks["SplitRows"] == 3 * 3 + 1 and shop.tasks["WriteDay"] == 3
    before = hashes(shop.out)
    shop.join()
    assert shop.tasks == {} and hashes(shop.out) == before
    day_of(shop, 3)
    shop.join()
    assert shop.tasks["SplitRows"] == 3
    after = hashes(shop.out)
    # The new purchases are after the days before, and change none of their rows.
    assert (
        shop.tasks["WriteDay"] == 1
        and after.items()
        > {name: each for name, each in before.items() if name.endswith(".parquet")}.items()
    )


def test_a_late_outcome_opens_its_day_again(tmp_path: Path) -> None:
    shop = ShownLists(tmp_path)
    for number in range(3):
        day_of(shop, number)
    shop.join()
    last_day = 48 + 23.9
    shop.live([event(USERS[1], "i1", "purchase", last_day, "r2-1")])
    before = hashes(shop.out)
    rows = shop.join()
    assert shop.tasks["SplitRows"] == 1 and shop.tasks["WriteDay"] == 1
    changed = {name for name, each in hashes(shop.out).items() if before[name] != each}
    assert changed == {"2024-03-03.parquet", "exposures.json"}
    row = rows.filter(pl.col(Col.exposure) == f"{known('r2-1')}:i1")
    assert row[Col.purchased].to_list() == [True]


def test_erased_users_vanish(tmp_path: Path) -> None:
    shop = ShownLists(tmp_path)
    day_of(shop, 0)
    day_of(shop, 1)
    shop.join()
    user, other = known(USERS[3]), known(USERS[4])
    assert user is not None and other is not None
    shop.erase(USERS[3], 20)
    rows = shop.join()
    # What came after the erasure is a new history.
    theirs = rows.filter(pl.col(Col.user) == user)
    assert theirs[Col.timestamp].dt.day().unique().to_list() == [2]
    assert theirs[Col.user_shows].min() == 0
    assert shop.counts["erased"] == 4  # of the first day: two items shown, a click, a view
    shop.erase(USERS[3], 100)
    rows = shop.join()
    assert rows.filter(pl.col(Col.user) == user).is_empty()
    assert rows.filter(pl.col(Col.user) == other).height == 4
    # Nor is anything kept of them for the next run.
    kept = [path for path in (shop.recipe.root / JOINED_DIR).rglob("*.parquet")]
    for path in kept:
        table = pl.read_parquet(path, glob=False)
        for name in {Col.user, "owner"} & set(table.columns):
            held = table[name].drop_nulls()
            if path.name == "users.parquet" and path.parent.parent.name == "parts":
                continue  # the first half of a pseudonym tells that the part is to be forgotten
            assert not held.str.starts_with(user[:16]).any(), path


def test_what_lies_in_the_future_is_joined_once_its_time_has_come(tmp_path: Path) -> None:
    shop = ShownLists(tmp_path)
    shop.lists(shown("r1", "ann", 0, "i1"))
    shop.live([event("ann", "i1", "click", 5, "r1")])
    with patch.object(time, "time", lambda: at(1).timestamp()):
        assert shop.join()[Col.clicked].to_list() == [False]
    assert shop.counts["unusable"] == 1
    assert shop.join()[Col.clicked].to_list() == [True]
    assert "unusable" not in shop.counts


def test_a_run_that_ends_early_leaves_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recsys.outcomes import joining

    shop = ShownLists(tmp_path)
    day_of(shop, 0)
    shop.join()
    before = hashes(shop.out)
    day_of(shop, 1)

    class Stopped(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stopped

    monkeypatch.setattr(joining, "write_json", stop)
    with pytest.raises(Stopped):
        shop.join()
    assert hashes(shop.out) == before
