"""Small logs, and the joins that they must come to."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from shown_lists import ShownLists, at, event, known, shown

from recsys.schema import EXPOSURES, Col


@pytest.fixture
def shop(tmp_path: Path) -> ShownLists:
    return ShownLists(tmp_path)


def of(rows: pl.DataFrame, request: str | None, item: str) -> dict[str, object]:
    """The one exposure of a request and item."""
    found = rows.filter(
        pl.col(Col.request).eq_missing(pl.lit(known(request))) & (pl.col(Col.item) == item)
    )
    return found.row(0, named=True) if found.height == 1 else {"rows": found.height}


def test_a_list_is_joined_to_what_its_events_say(shop: ShownLists) -> None:
    shop.lists(shown("r1", "ann", 0, "i1", "i2", "i3"))
    shop.live(
        [
            event("ann", "i2", "click", 0.1, "r1"),
            event("ann", "i2", "click", 0.2, "r1"),
            event("ann", "i2", "view", 0.1, "r1", dwell_ms=4000),
            event("ann", "i2", "view", 0.3, "r1", dwell_ms=1500),
            event("ann", "i2", "add_to_cart", 0.4, "r1"),
            event("ann", "i2", "purchase", 0.5, "r1", price=3.0, quantity=2.0),
            event("ann", "i2", "purchase", 0.6, "r1", price=3.0, value=5.0),
            # Of a request, weeks later still.
            event("ann", "i2", "return", 500, "r1"),
        ]
    )
    rows = shop.join()
    assert rows.columns == EXPOSURES.names
    assert of(rows, "r1", "i2") == {
        Col.exposure: f"{known('r1')}:i2", Col.request: known("r1"), Col.user: known("ann"),
        Col.item: "i2", Col.timestamp: at(0), Col.position: 2, Col.propensity: 0.5,
        Col.score: 0.25, Col.arm: "a", Col.model_version: "m1", Col.placement: None,
        Col.clicked: True, Col.clicked_ts: at(0.1), Col.carted: True, Col.carted_ts: at(0.4),
        Col.purchased: True, Col.purchased_ts: at(0.5), Col.returned: True,
        Col.returned_ts: at(500), Col.dwell_ms: 5500, Col.value: 11.0, Col.long_view: None,
        Col.item_shows: 0, Col.item_clicks: 0, Col.item_purchases: 0, Col.user_shows: 0,
        Col.user_clicks: 0, Col.user_purchases: 0, Col.pair_shows: 0, Col.pair_clicks: 0,
        Col.pair_purchases: 0,
    }  # fmt: skip
    other = of(rows, "r1", "i1")
    assert (other[Col.clicked], other[Col.dwell_ms], other[Col.value]) == (False, None, None)
    assert shop.counts == {
        "exposures_in": 3, "exposures": 3, "outcomes_in": 8, "joined_by_request": 8
    }  # fmt: skip


def test_without_a_request_the_last_touch_within_the_window_counts(shop: ShownLists) -> None:
    shop.lists([*shown("r1", "ann", 0, "i1"), *shown("r2", "ann", 5, "i1")])
    shop.live(
        [
            event("ann", "i1", "click", 4),
            event("ann", "i1", "click", 6),
            event("ann", "i1", "purchase", 29),  # the last moment of r2's window
            event("ann", "i1", "add_to_cart", 29.01),  # after it
            event("ann", "i1", "view", -1, dwell_ms=100),  # before any exposure
            event("ann", "i2", "click", 6),  # never shown
            event("bob", "i1", "click", 6),  # to somebody else
        ]
    )
    rows = shop.join()
    first, second = of(rows, "r1", "i1"), of(rows, "r2", "i1")
    assert (first[Col.clicked_ts], first[Col.purchased]) == (at(4), False)
    assert (second[Col.clicked_ts], second[Col.purchased_ts]) == (at(6), at(29))
    assert not second[Col.carted]
    assert shop.counts == {
        "exposures_in": 2, "exposures": 2, "outcomes_in": 7, "joined_by_window": 3, "late": 1,
        "no_exposure": 3,
    }  # fmt: skip


def test_the_window_is_the_recipes(tmp_path: Path) -> None:
    shop = ShownLists(tmp_path, attribution_window_h=0.5)
    shop.lists(shown("r1", "ann", 0, "i1"))
    shop.live([event("ann", "i1", "click", 0.4), event("ann", "i1", "purchase", 0.6)])
    (row,) = shop.join().rows(named=True)
    assert (row[Col.clicked], row[Col.purchased]) == (True, False)
    assert shop.counts["late"] == 1


def test_an_event_that_names_a_request_joins_no_other_list(shop: ShownLists) -> None:
    shop.lists(shown("r1", "ann", 0, "i1"))
    shop.live([event("ann", "i1", "click", 1, "r9"), event("ann", "i2", "click", 1, "r1")])
    (row,) = shop.join().rows(named=True)
    assert not row[Col.clicked]
    assert shop.counts == {
        "exposures_in": 1, "exposures": 1, "outcomes_in": 2, "unknown_request": 1, "not_in_list": 1
    }  # fmt: skip


def test_a_list_that_is_logged_and_posted_counts_once(shop: ShownLists) -> None:
    shop.lists(shown("r1", "ann", 0, "i1", "i2"))
    posted = event("ann", "i1", "impression", 0.01, "r1", placement="home", position=7)
    shop.live([posted])
    shop.log("day", [posted])
    rows = shop.join()
    row = of(rows, "r1", "i1")
    assert rows.height == 2
    # As the service logged it, with what the shop alone tells.
    assert (row[Col.timestamp], row[Col.position], row[Col.arm]) == (at(0), 1, "a")
    assert row[Col.placement] == "home"
    assert shop.counts == {"exposures_in": 4, "exposures": 2, "double_exposures": 2}


def test_a_shop_that_logs_its_own_lists_needs_no_service(shop: ShownLists) -> None:
    shop.log(
        "day",
        [
            event("ann", "i1", "impression", 0, placement="home"),
            event("ann", "i1", "impression", 1, placement="home"),
            event("ann", "i1", "click", 2),
        ],
    )
    first, second = shop.join().rows(named=True)
    assert (first[Col.clicked], second[Col.clicked]) == (False, True)
    assert first[Col.request] is None and first[Col.exposure].startswith(f"{known('ann')}:i1:")
    assert second[Col.placement] == "home"


def test_a_log_s_event_without_a_type_is_no_outcome(shop: ShownLists) -> None:
    rows = [event("ann", "i1", "impression", 0), event("ann", "i1", "view", 1, dwell_ms=5)]
    path = shop.folder / "log" / "events" / "day.parquet"
    shop.log("day", rows)
    typed = pl.read_parquet(path)
    typed.with_columns(pl.col(Col.event_type).replace("view", None)).write_parquet(path)
    (row,) = shop.join().rows(named=True)
    assert row[Col.dwell_ms] is None
    assert shop.counts == {"exposures_in": 1, "exposures": 1}


def test_a_value_that_is_no_number_is_not_told(shop: ShownLists) -> None:
    nan, inf = float("nan"), float("inf")
    bought = {"price": 3.0, "quantity": nan}, {"value": nan, "price": 4.0}, {"price": inf}
    shop.log(
        "day",
        [
            event("ann", "i1", "impression", 0),
            *(event("ann", "i1", "purchase", 1 + n, **more) for n, more in enumerate(bought)),
        ],
    )
    assert shop.join()[Col.value].to_list() == [7.0]


def test_a_purchase_of_a_negative_quantity_is_a_return(shop: ShownLists) -> None:
    shop.log(
        "day",
        [
            event("ann", "i1", "impression", 0),
            event("ann", "i1", "purchase", 1, price=3.0, quantity=2.0),
            event("ann", "i1", "purchase", 2, price=3.0, quantity=-2.0),
            event("ann", "i1", "view", 3, dwell_ms=-5),
        ],
    )
    (row,) = shop.join().rows(named=True)
    assert (row[Col.purchased], row[Col.returned], row[Col.value]) == (True, True, 6.0)
    assert row[Col.dwell_ms] is None


def test_an_event_of_log_and_feedback_counts_once(shop: ShownLists) -> None:
    """The log knows its price, the service which list it answered."""
    shop.lists(shown("r1", "ann", 0, "i1"))
    shop.live([event("ann", "i1", "purchase", 1, "r1")])
    shop.log("day", [event("ann", "i1", "purchase", 1, price=4.0)])
    (row,) = shop.join().rows(named=True)
    assert (row[Col.purchased_ts], row[Col.value]) == (at(1), 4.0)
    assert shop.counts == {
        "exposures_in": 1, "exposures": 1, "outcomes_in": 2, "joined_by_request": 1, "double": 1
    }  # fmt: skip


def test_a_sessions_list_is_joined_by_its_request_alone(shop: ShownLists) -> None:
    shop.lists(shown("r1", None, 0, "i1", "i2"))
    shop.live([event("ann", "i1", "click", 1, "r1"), event("ann", "i2", "click", 1)])
    rows = shop.join()
    one, two = of(rows, "r1", "i1"), of(rows, "r1", "i2")
    assert (one[Col.user], one[Col.clicked]) == (None, True)
    assert (two[Col.clicked], two[Col.user_shows]) == (False, 0)
    assert shop.counts["joined_by_request"] == 1 and shop.counts["no_exposure"] == 1


def test_a_return_goes_where_the_purchase_went(shop: ShownLists) -> None:
    shop.lists([*shown("r1", "ann", 0, "i1"), *shown("r2", "ann", 30, "i1", "i2")])
    shop.live(
        [
            event("ann", "i1", "purchase", 1),
            event("ann", "i1", "return", 300),
            event("ann", "i2", "return", 300),  # nothing was bought
        ]
    )
    rows = shop.join()
    assert of(rows, "r1", "i1")[Col.returned_ts] == at(300)
    assert not of(rows, "r2", "i1")[Col.returned] and not of(rows, "r2", "i2")[Col.returned]
    assert shop.counts["joined_by_window"] == 2 and shop.counts["no_exposure"] == 1


def test_an_outcome_is_never_before_its_exposure(shop: ShownLists) -> None:
    """A sender's clock may be behind ours; else an exposure's own click would be in its counts."""
    shop.lists(shown("r1", "ann", 0, "i1"))
    shop.live([event("ann", "i1", "click", -0.5, "r1")])
    (row,) = shop.join().rows(named=True)
    assert (row[Col.clicked_ts], row[Col.user_clicks], row[Col.pair_clicks]) == (at(0), 0, 0)


def test_counts_are_as_they_were_then(shop: ShownLists) -> None:
    shop.lists(
        [
            *shown("r1", "ann", 0, "i1", "i2"),
            *shown("r2", "ann", 1, "i1"),
            *shown("r3", "bob", 2, "i1"),
            *shown("r4", "ann", 24, "i1"),
            *shown("r5", "bob", 48, "i1"),
        ]
    )
    shop.live(
        [
            event("ann", "i1", "click", 1, "r1"),  # not strictly before r2
            event("ann", "i1", "purchase", 25, "r1"),  # on the second day, after r4
        ]
    )
    rows = shop.join()
    names = [
        Col.item_shows, Col.item_clicks, Col.item_purchases, Col.user_shows, Col.user_clicks,
        Col.user_purchases, Col.pair_shows, Col.pair_clicks, Col.pair_purchases,
    ]  # fmt: skip
    found = {request: [of(rows, request, "i1")[name] for name in names] for request in
             ("r1", "r2", "r3", "r4", "r5")}  # fmt: skip
    assert found == {
        "r1": [0, 0, 0, 0, 0, 0, 0, 0, 0],
        "r2": [0, 0, 0, 2, 0, 0, 1, 0, 0],
        "r3": [0, 0, 0, 0, 0, 0, 0, 0, 0],
        "r4": [3, 1, 0, 3, 1, 0, 2, 1, 0],
        "r5": [4, 1, 1, 1, 0, 0, 1, 0, 0],
    }


def test_rows_that_cannot_be_joined_are_counted(shop: ShownLists) -> None:
    shop.lists(shown("r1", "ann", 0, "i1", None))
    shop.live([event("ann", "i1", "click", 10_000_000)])
    assert shop.join().height == 1
    assert shop.counts == {"exposures_in": 1, "exposures": 1, "unusable": 2}


def test_a_log_without_exposures_has_none(shop: ShownLists) -> None:
    shop.log("day", [event("ann", "i1", "purchase", 1)])
    shop.join()
    assert shop.counts == {"outcomes_in": 1, "no_exposure": 1}


def test_event_names_are_the_recipes(tmp_path: Path) -> None:
    shop = ShownLists(tmp_path, event_types={"seen": "impression", "tap": "click", "view": None})
    shop.log("day", [event("ann", "i1", "seen", 0), event("ann", "i1", "tap", 1),
                     event("ann", "i1", "view", 1, dwell_ms=10)])  # fmt: skip
    (row,) = shop.join().rows(named=True)
    assert row[Col.clicked] and row[Col.dwell_ms] is None
