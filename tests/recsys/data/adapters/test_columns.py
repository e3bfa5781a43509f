from __future__ import annotations

import pyarrow as pa
import pytest

from recsys.data.adapters.base import EVENTS_NEEDED, ITEMS_NEEDED
from recsys.data.adapters.columns import (
    Layout,
    layout_problems,
    mapping_of,
    nearest,
    overlooked,
    unmapped,
)
from recsys.errors import DataError
from recsys.schema import EVENTS, ITEMS, Col


def layout(*names: str, keys: tuple[str, ...] = (), twice: tuple[str, ...] = ()) -> Layout:
    """String columns, but for times."""
    time = pa.timestamp("us")
    types = tuple((name, time if "time" in name.lower() else pa.string()) for name in names)
    return Layout(types, keys, twice)


CAPITALS = layout("USER_ID", "ITEM_ID", "EVENT_TYPE", "TIMESTAMP", "SESSION_ID", "COUNTRY")
OURS = layout(*EVENTS_NEEDED)


def problems(given: Layout, renamed: dict[str, str] | None = None) -> list[DataError]:
    return layout_problems(
        given, EVENTS, renamed or {}, EVENTS_NEEDED, table="events", where="a.parquet"
    )


class TestSources:
    def test_columns_go_by_the_recipe_then_by_our_name(self) -> None:
        given = layout("USER_ID", "user_id", "item_id", "price", keys=("item_id", "kind"))
        renamed = {Col.user: "USER_ID", Col.event_type: "kind", Col.item: "SKU", Col.price: "cost"}
        assert given.sources(EVENTS, renamed) == {
            Col.user: "USER_ID", Col.item: "item_id", Col.event_type: "kind", Col.price: "price",
        }  # fmt: skip

    def test_two_of_ours_may_be_one_of_theirs(self) -> None:
        renamed = {Col.title: "name", Col.description: "name"}
        assert layout("item_id", "name").sources(ITEMS, renamed) == {
            Col.item: "item_id", Col.title: "name", Col.description: "name",
        }  # fmt: skip

    def test_a_file_s_column_stands_before_a_folder_s_key(self) -> None:
        assert layout("dt", keys=("dt", "lang")).names == ["dt", "lang"]


class TestMissing:
    def test_the_mapping_to_write_is_in_the_error(self) -> None:
        (error,) = problems(CAPITALS)
        assert (error.where, error.problem) == ("a.parquet", "missing columns")
        assert error.field == "user_id, item_id, event_type, timestamp"
        assert error.value == "USER_ID, ITEM_ID, EVENT_TYPE, TIMESTAMP, SESSION_ID, COUNTRY"
        assert (
            "data.columns: {events: {user_id: USER_ID, item_id: ITEM_ID, event_type: EVENT_TYPE, "
            "timestamp: TIMESTAMP, session_id: SESSION_ID}}"
        ) in error.fix

    def test_with_that_mapping_all_is_well(self) -> None:
        renamed = {name: name.upper() for name in EVENTS_NEEDED}
        assert problems(CAPITALS, renamed) == []
        assert problems(OURS) == []

    def test_a_column_of_which_nothing_is_known_is_left_to_the_reader(self) -> None:
        (error,) = problems(layout("user_id", "foo", "event_type", "timestamp"))
        assert (error.problem, error.field) == ("missing column", "item_id")
        assert "{events: {item_id: <yours>}}" in error.fix
        assert "add a column `item_id` of type string" in error.fix

    def test_items_need_an_id_alone(self) -> None:
        (error,) = layout_problems(
            layout("SKU", "TITLE", "title "), ITEMS, {}, ITEMS_NEEDED, table="items", where="i"
        )
        assert "data.columns: {items: {item_id: SKU, title: TITLE}}" in error.fix


def test_wrong_types_and_double_names_are_told_together() -> None:
    given = Layout(
        (("user_id", pa.float64()), ("item_id", pa.string()), ("TS", pa.string()),
         ("event_type", pa.string())), (), ("item_id",),
    )  # fmt: skip
    found = problems(given, {Col.timestamp: "TS"})
    assert [(each.field, each.problem.split(":")[0]) for each in found] == [
        ("user_id", "wrong type"), ("item_id", "two columns of this name"),
        ("timestamp", "wrong type"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "there", "first"),
    [
        (Col.user, ["customer_id", "UserID"], "UserID"),
        (Col.user, ["session", "userid_"], "userid_"),
        (Col.user, ["user_ids", "customer_id"], "user_ids"),
        (Col.user, ["item", "visitorid"], "visitorid"),
        (Col.user, ["CustomerID", "StockCode"], "CustomerID"),
        (Col.item, ["CustomerID", "StockCode"], "StockCode"),
        (Col.item, ["name", "sku"], "sku"),
        (Col.item, ["PRODUCT-ID"], "PRODUCT-ID"),
        (Col.timestamp, ["ts"], "ts"),
        (Col.timestamp, ["event_type", "event_time"], "event_time"),
        (Col.event_type, ["event_time", "event"], "event"),
        (Col.event_type, ["action"], "action"),
        (Col.title, ["product_name"], "product_name"),
        (Col.item, ["colour", "size"], None),
    ],
)
def test_the_nearest_column(name: str, there: list[str], first: str | None) -> None:
    assert next(iter(nearest(name, there)), None) == first


def test_one_column_is_not_proposed_for_two() -> None:
    assert mapping_of([Col.timestamp, Col.event_type], ["event"], table="events") == (
        "data.columns: {events: {timestamp: <yours>, event_type: event}}"
    )


@pytest.mark.parametrize(
    ("theirs", "meant"),
    [("user_Id", "did you mean `USER_ID`"), ("USR_ID", "did you mean `USER_ID`"),
     ("who", "did you mean `USER_ID`"), ("ITEM_IDS", "did you mean `ITEM_ID`")],
)  # fmt: skip
def test_a_name_of_the_recipe_that_no_file_has(theirs: str, meant: str) -> None:
    (error,) = unmapped({Col.user: theirs, Col.item: "ITEM_ID"}, CAPITALS.names, table="events")
    assert (error.field, error.value) == ("data.columns.events.user_id", theirs)
    assert meant in error.fix and "COUNTRY" in error.fix


def test_an_optional_column_that_only_capitals_hide_is_told() -> None:
    given = layout(*EVENTS_NEEDED, "Session_ID", "Price_")
    sources = given.sources(EVENTS, {Col.price: "Price_"})
    (line,) = overlooked(given.names, sources, EVENTS, table="events")
    assert "`Session_ID` is not read" in line
    assert "data.columns: {events: {session_id: Session_ID}}" in line
