"""Exposures of a window of days: how many were clicked, by user."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from shown_lists import START, ShownLists, event, shown

from recsys.drift.measuring import Window, count_clicks

FIRST = (START.date() - dt.date(1970, 1, 1)).days


def test_clicks_by_user_and_day(tmp_path: Path) -> None:
    shop = ShownLists(tmp_path)
    window = Window(FIRST, 2)
    assert count_clicks(shop.recipe, window) is None, "nobody has joined exposures yet"
    shop.lists(
        [
            *shown("r1", "ann", 0, "i1", "i2", "i3"),
            *shown("r2", "ann", 24, "i1", "i2"),
            *shown("r3", None, 25, "i1"),
            *shown("r4", "bob", 24 * 5, "i1"),
        ]
    )
    shop.live(
        [event("ann", "i1", "click", 0.1, "r1"), event("ann", "i2", "click", 24.1, "r2"),
         event("bob", "i1", "click", 24 * 5 + 0.1, "r4")]
    )  # fmt: skip
    shop.join()
    found = count_clicks(shop.recipe, window)
    assert found is not None
    assert found.by_day.tolist() == [[2, 1], [2, 1]]
    assert found.num_users == 2, "ann, and the session"
    assert found.products.tolist() == [[3 * 3 + 1, 3 * 2], [3 * 2, 2 * 2]]
    assert found.products_of_visits.tolist() == [[4 + 1 + 1, 2 + 1], [2 + 1, 1 + 1]]
    assert count_clicks(shop.recipe, Window(FIRST + 2, 2)) is None
    late = count_clicks(shop.recipe, Window(FIRST + 4, 3))
    assert late is not None and late.by_day.tolist() == [[0, 0], [0, 1], [0, 0]]
