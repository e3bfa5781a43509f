from __future__ import annotations

import pyarrow as pa

from recsys.schema import EVENT_CODE, EVENT_TYPES, EVENTS, HISTORIES, ITEMS, TEXT_FIELDS, Col


def test_codes_are_places_in_the_order_from_weak_to_strong() -> None:
    assert [EVENT_CODE[name] for name in EVENT_TYPES] == list(range(5))
    assert EVENT_CODE["impression"] < EVENT_CODE["view"] < EVENT_CODE["purchase"]


def test_every_column_is_spelled_in_col_and_no_schema_has_one_twice() -> None:
    spelled = {value for name, value in vars(Col).items() if not name.startswith("_")}
    for schema in (EVENTS, ITEMS, HISTORIES):
        assert len(set(schema.names)) == len(schema.names)
        assert set(schema.names) <= spelled


def test_required_columns_come_first_and_hold_no_nulls() -> None:
    assert [field.name for field in EVENTS if not field.nullable] == EVENTS.names[:4]
    assert [field.name for field in ITEMS if not field.nullable] == [Col.item]


def test_time_is_utc_in_microseconds() -> None:
    for schema, name in ((EVENTS, Col.timestamp), (ITEMS, Col.available_from)):
        assert schema.field(name).type == pa.timestamp("us", tz="UTC")


def test_texts_are_made_of_text_columns() -> None:
    assert all(ITEMS.field(name).type == pa.string() for name in TEXT_FIELDS)
