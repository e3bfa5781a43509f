from __future__ import annotations

import datetime as dt

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from recsys.data.checks import (
    FIXES,
    check_events,
    drop_crowded_users,
    enforce_quarantine_limit,
    is_no_id,
    is_unfit,
    map_event_types,
    reasons,
)
from recsys.errors import DataError
from recsys.schema import EVENTS, Col
from serve.schemas.requests import Id

NOON = dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)
NOON_US = int(NOON.timestamp() * 1e6)
LATER = NOON + dt.timedelta(microseconds=1)
ITEMS = pl.Series(Col.item, ["i1", "i2"])

Row = tuple[str | None, str | None, str | None, dt.datetime | None]


def events(*rows: Row) -> pl.DataFrame:
    schema = pa.schema([field.with_nullable(True) for field in EVENTS])
    named = [dict(zip(EVENTS.names, row, strict=False)) for row in rows]
    return pl.DataFrame(pa.Table.from_pylist(named, schema))


def check(*rows: Row) -> tuple[pl.DataFrame, pl.DataFrame]:
    return check_events(events(*rows), latest_us=NOON_US, known_items=ITEMS)


class TestCheck:
    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            ((None, "i1", "view", NOON), "null_user_id"),
            (("", "i1", "view", NOON), "null_user_id"),
            (("u", None, "view", NOON), "null_item_id"),
            (("u", "", "view", NOON), "null_item_id"),
            (("u", "i1", "view", None), "null_timestamp"),
            (("u", "i1", None, NOON), "null_event_type"),
            (("u", "i1", "view", LATER), "future_timestamp"),
            (("u", "i1", "View", NOON), "unknown_event_type"),
            (("u", "i3", "view", NOON), "unknown_item"),
            (("u\t", "i1", "view", NOON), "unfit_user_id"),
            (("\x7f", "i1", "view", NOON), "unfit_user_id"),
            (("ü" * 257, "i1", "view", NOON), "unfit_user_id"),
            (("u", "i\n1", "view", NOON), "unfit_item_id"),
            (("u", "i" * 257, "view", NOON), "unfit_item_id"),
            ((None, None, None, None), "null_user_id"),  # the first that holds
        ],
    )
    def test_each_bad_row_has_its_reason(self, row: Row, reason: str) -> None:
        good, bad = check(("u", "i1", "view", NOON), row)
        assert good.height == 1
        assert bad[Col.reason].to_list() == [reason]
        assert bad.select(EVENTS.names).equals(events(row))
        assert reason in FIXES

    def test_a_value_that_could_not_be_read_is_the_reason_before_all_others(self) -> None:
        text = "timestamp: 318857-05-20 cannot be read as timestamp[us, tz=UTC]"
        log = events((None, "i1", "view", None), ("u", "i1", "view", NOON)).with_columns(
            pl.Series(Col.unreadable, [text, None])
        )
        good, bad = check_events(log, latest_us=NOON_US, known_items=ITEMS)
        assert good.height == 1 and good.columns == EVENTS.names
        assert bad.select(Col.reason, Col.unreadable).rows() == [("unreadable_timestamp", text)]
        assert "unreadable_timestamp" in FIXES

    def test_256_characters_of_any_script_are_an_id(self) -> None:
        assert check(("ü" * 256, "i1", "view", NOON))[0].height == 1

    def test_no_row_is_lost_and_good_ones_keep_their_columns(self) -> None:
        rows: list[Row] = [("u", "i1", "view", NOON), ("u", "i9", "view", NOON)] * 3
        good, bad = check(*rows)
        assert (good.height, bad.height) == (3, 3)
        assert good.columns == EVENTS.names

    def test_nothing_is_nothing(self) -> None:
        good, bad = check()
        assert (good.height, bad.height) == (0, 0)


@given(st.text(st.sampled_from("aé\x00\t\n\x1f\x7f\x80\u2028😀 "), max_size=3), st.integers(1, 300))
def test_the_service_takes_the_same_ids(letters: str, times: int) -> None:
    ids = pl.DataFrame({Col.user: [letters * times]})
    fits = not ids.select(is_no_id(Col.user) | is_unfit(Col.user)).item()
    try:
        TypeAdapter(Id).validate_python(ids[Col.user][0])
    except ValidationError:
        assert not fits
    else:
        assert fits


class TestNames:
    LOG = events(*[("u", "i1", name, NOON) for name in ("buy", "view", "ping", None, "click")])

    def test_the_logs_own_names_become_canonical(self) -> None:
        mapped, left_out = map_event_types(
            self.LOG, {"buy": "purchase", "ping": None, "view": "click", "click": "view"}
        )
        assert mapped[Col.event_type].to_list() == ["purchase", "click", None, "view"]
        assert left_out == 1

    def test_names_may_only_be_left_out(self) -> None:
        mapped, left_out = map_event_types(self.LOG, {"ping": None, "buy": None})
        assert mapped[Col.event_type].to_list() == ["view", None, "click"]
        assert left_out == 2

    def test_without_a_mapping_nothing_changes(self) -> None:
        mapped, left_out = map_event_types(self.LOG, {})
        assert mapped.equals(self.LOG)
        assert left_out == 0


def test_users_with_too_many_events_are_split_off_whole() -> None:
    log = events(*[(user, "i1", "view", NOON) for user in "aababc"])
    good, crowded = drop_crowded_users(log, 2)
    assert good[Col.user].to_list() == ["b", "b", "c"]
    assert crowded[Col.user].to_list() == ["a", "a", "a"]
    assert set(crowded[Col.reason]) == {"too_many_events"}
    assert good.columns == log.columns


class TestLimit:
    BAD = check(
        ("u", "i7", "view", NOON), ("v", "i8", "view", NOON), ("w", "i1", "wink", NOON)
    )[1].with_columns(pl.lit("log/events.parquet").alias(Col.source))  # fmt: skip

    def test_up_to_the_limit_a_run_goes_on(self) -> None:
        enforce_quarantine_limit(self.BAD, 300, 0.01, what="events", kept_at="q")
        enforce_quarantine_limit(self.BAD[:0], 0, 0.0, what="events", kept_at="q")

    def test_beyond_it_the_commonest_reason_is_told_and_how_to_mend_it(self) -> None:
        with pytest.raises(DataError) as error:
            enforce_quarantine_limit(self.BAD, 299, 0.01, what="events", kept_at="run/bad")
        assert str(error.value) == (
            "log/events.parquet: [item_id] 3 of 299 events were quarantined, more than the limit "
            "of 1.00% (2 x unknown_item, 1 x unknown_event_type; all of them lie in run/bad) "
            "(got 'i7'). Fix: add the item, with a text, to the items table; or raise "
            "data.max_quarantine_fraction"
        )

    @pytest.mark.parametrize(
        ("column", "value", "told"),
        [
            (Col.timestamp, dt.datetime(2600, 6, 1, tzinfo=dt.UTC), "'2600-06-01 00:00:00+00:00'"),
            (Col.timestamp, 2**62, "'4611686018427387904 microseconds since 1970'"),
            (Col.unreadable, "timestamp: 318857-05-20 cannot be read", "'318857-05-20 cannot be"),
        ],
    )
    def test_a_time_is_told_however_far_it_lies(
        self, column: str, value: object, told: str
    ) -> None:
        kind = pl.String if column == Col.unreadable else pl.Datetime("us", "UTC")
        at = pl.Series([value], dtype=pl.Int64 if isinstance(value, int) else kind).cast(kind)
        bad = self.BAD[:1].with_columns(
            pl.lit("future_timestamp").alias(Col.reason), at.alias(column)
        )
        with pytest.raises(DataError) as error:
            enforce_quarantine_limit(bad, 1, 0.5, what="events", kept_at="q")
        assert f"(got {told}" in str(error.value)

    def test_every_reason_has_a_field_and_a_mend(self) -> None:
        for reason, (field, _) in FIXES.items():
            bad = self.BAD[:1].with_columns(
                pl.lit(reason).alias(Col.reason), pl.lit("t").alias(Col.title)
            )
            with pytest.raises(DataError, match=reason) as error:
                enforce_quarantine_limit(bad, 1, 0.5, what="events", kept_at="q")
            assert error.value.field == field


def test_reasons_are_counted_over_all_frames() -> None:
    bad = TestLimit.BAD
    assert reasons([bad, bad[:1]]) == {"unknown_event_type": 1, "unknown_item": 3}
    assert reasons([]) == {}
