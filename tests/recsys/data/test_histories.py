"""Histories against a brute force of lists, on literal logs and on random ones."""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.histories import Histories, Questions, UserEvents, ask, build_histories
from recsys.schema import EVENT_CODE, EVENT_TYPES, HISTORIES, Col

BUY, VIEW = EVENT_CODE["purchase"], EVENT_CODE["view"]


class Event(NamedTuple):
    user: str
    us: int
    session: str | None
    item: int
    code: int


def build(log: list[Event]) -> UserEvents:
    zero = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    times = [zero + dt.timedelta(microseconds=event.us) for event in log]
    table = build_histories(
        pl.DataFrame(
            {
                Col.user: pl.Series([event.user for event in log], dtype=pl.String),
                Col.item_row: pl.Series([event.item for event in log], dtype=pl.Int64),
                Col.event_type: pl.Series([EVENT_TYPES[e.code] for e in log], dtype=pl.String),
                Col.timestamp: pl.Series(times, dtype=pl.Datetime("us", "UTC")),
                Col.session: pl.Series([event.session for event in log], dtype=pl.String),
            }
        )
    )
    assert table.schema == HISTORIES
    return UserEvents.from_arrow(table)


def rows(users: UserEvents) -> dict[str, list[tuple[int, int, int, int]]]:
    """User -> (time, basket, item, code) of each event."""
    columns = (users.timestamps, users.baskets, users.item_rows, users.event_codes)
    flat = list(zip(*(column.tolist() for column in columns), strict=True))
    bounds = users.offsets.tolist()
    return {
        user: flat[bounds[n] : bounds[n + 1]] for n, user in enumerate(users.user_ids)
    }  # fmt: skip


def lists(histories: Histories) -> list[list[tuple[int, int, int]]]:
    """Each query's (time, item, code)."""
    columns = (histories.timestamps, histories.item_rows, histories.event_codes)
    flat = list(zip(*(column.tolist() for column in columns), strict=True))
    bounds = histories.offsets.tolist()
    return [flat[low:high] for low, high in zip(bounds, bounds[1:], strict=False)]


def relevant(questions: Questions) -> list[list[int]]:
    parts = np.split(questions.relevant, questions.relevant_offsets[1:-1])
    return [part.tolist() for part in parts] if len(questions) else []


LOG = [
    Event("b", 5, "s", 2, BUY),
    Event("a", 9, None, 1, VIEW),
    Event("a", 9, None, 0, VIEW),
    Event("a", 3, "t", 4, BUY),
    Event("a", 3, "s", 7, BUY),
    Event("a", 3, "s", 4, BUY),
    Event("a", 3, "s", 4, VIEW),
    Event("a", 4, "s", 4, BUY),
]


class TestBuild:
    def test_events_of_one_time_and_session_are_a_basket(self) -> None:
        assert rows(build(LOG)) == {
            "a": [
                (3, 0, 4, VIEW),
                (3, 0, 4, BUY),
                (3, 0, 7, BUY),
                (3, 1, 4, BUY),  # another session
                (4, 2, 4, BUY),  # the same session later
                (9, 3, 0, VIEW),
                (9, 4, 1, VIEW),  # without a session each event is alone
            ],
            "b": [(5, 0, 2, BUY)],
        }

    @given(st.permutations(LOG))
    def test_the_order_of_rows_changes_nothing(self, shuffled: list[Event]) -> None:
        assert rows(build(shuffled)) == rows(build(LOG))

    def test_nothing_is_nothing(self) -> None:
        assert rows(build([])) == {}


events = st.builds(
    Event,
    st.sampled_from("abc"),
    st.integers(0, 6),
    st.sampled_from([None, "s", "t"]),
    st.integers(0, 4),
    st.sampled_from([VIEW, BUY]),
)
logs = st.lists(events, max_size=40, unique=True)


@given(logs, st.randoms())
def test_building_agrees_with_sorting_lists(log: list[Event], random: object) -> None:
    expected: dict[str, list[tuple[int, int, int, int]]] = {}
    last: tuple[object, ...] | None = None
    for event in sorted(log, key=lambda e: (e.user, e.us, e.session or "z", e.item, e.code)):
        mine = expected.setdefault(event.user, [])
        key = (event.user, event.us, event.session)
        new = event.session is None or key != last
        basket = (mine[-1][1] + new) if mine else 0
        mine.append((event.us, basket, event.item, event.code))
        last = key
    shuffled = list(log)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert rows(build(shuffled)) == expected


@settings(deadline=None)
@given(
    logs, st.integers(0, 7), st.none() | st.integers(0, 7), st.sampled_from([[BUY], [VIEW, BUY]])
)
def test_asking_agrees_with_looking_through_lists(
    log: list[Event], start: int, end: int | None, codes: list[int]
) -> None:
    users = build(log)
    expected = []
    for number, mine in enumerate(rows(users).values()):
        wanted: dict[int, tuple[int, set[int]]] = {}
        for us, basket, item, code in mine:
            if start <= us and (end is None or us < end) and code in codes:
                wanted.setdefault(basket, (us, set()))[1].add(item)
        for basket, (now, items) in wanted.items():
            before = [(us, item, code) for us, _, item, code in mine if us < now]
            expected.append((number, basket, now, before, sorted(items)))
    asked = ask(users, start=start, end=end, target_codes=codes)
    found = list(
        zip(
            asked.user_index.tolist(),
            asked.baskets.tolist(),
            asked.histories.now.tolist(),
            lists(asked.histories),
            relevant(asked),
            strict=True,
        )
    )
    assert found == expected
    histories = asked.histories
    assert (histories.timestamps < np.repeat(histories.now, histories.lengths)).all()


class TestAsk:
    USERS = build(
        [
            Event("a", 1, "s", 0, VIEW),
            Event("a", 5, "s", 1, BUY),
            Event("a", 5, "s", 1, VIEW),
            Event("a", 5, "s", 2, BUY),
            Event("a", 5, "t", 3, BUY),
            Event("a", 8, "u", 1, BUY),
        ]
    )

    def test_a_basket_sees_neither_itself_nor_another_of_its_moment(self) -> None:
        asked = ask(self.USERS, start=5, end=8, target_codes=[BUY])
        assert asked.baskets.tolist() == [1, 2]
        assert relevant(asked) == [[1, 2], [3]]
        assert lists(asked.histories) == [[(1, 0, VIEW)]] * 2

    def test_the_window_holds_its_start_and_not_its_end(self) -> None:
        def moments(start: int, end: int | None) -> list[int]:
            asked = ask(self.USERS, start=start, end=end, target_codes=[BUY])
            return asked.histories.now.tolist()

        assert moments(5, 8) == [5, 5]
        assert moments(6, 9) == [8]
        assert moments(6, None) == [8]
        assert moments(6, 8) == []

    def test_questions_are_cut_and_picked_with_all_that_is_theirs(self) -> None:
        asked = ask(self.USERS, start=0, end=None, target_codes=[BUY])
        whole = list(zip(lists(asked.histories), relevant(asked), strict=True))
        assert len(whole) == 3
        for keep in ([True, False, True], [False] * 3, [True] * 3, [False, True, False]):
            picked = asked.where(np.array(keep))
            expected = [pair for pair, kept in zip(whole, keep, strict=True) if kept]
            assert list(zip(lists(picked.histories), relevant(picked), strict=True)) == expected
        parts = list(asked.batches(2))
        assert [len(part) for part in parts] == [2, 1]
        joined = [
            pair for part in parts
            for pair in zip(lists(part.histories), relevant(part), strict=True)
        ]  # fmt: skip
        assert joined == whole
        assert len(asked[3:]) == len(asked[2:1]) == 0


class TestUserEvents:
    USERS = build(LOG)

    def test_before_is_strict_and_drops_users_left_without_an_event(self) -> None:
        assert rows(self.USERS.before(4)) == {"a": rows(self.USERS)["a"][:4]}
        assert rows(self.USERS.before(5)) == {"a": rows(self.USERS)["a"][:5]}
        assert rows(self.USERS.before(3)) == {}
        assert rows(self.USERS.before(99)) == rows(self.USERS)

    def test_every_user_is_a_query(self) -> None:
        queries = self.USERS.as_queries(77)
        assert queries.now.tolist() == [77, 77]
        assert [len(part) for part in lists(queries)] == [7, 1]

    def test_a_record_batch_reads_as_its_table(self) -> None:
        names = (Col.item_rows, Col.event_codes, Col.timestamps, Col.baskets)
        filled = {Col.user: "a"} | dict.fromkeys(names, [1])
        empty = {Col.user: "b"} | dict.fromkeys(names, [])
        table = pa.Table.from_pylist([filled, empty], HISTORIES)
        (batch,) = table.to_batches()
        assert rows(UserEvents.from_arrow(batch)) == {"a": [(1, 1, 1, 1)], "b": []}
        assert rows(UserEvents.from_arrow(table)) == {"a": [(1, 1, 1, 1)], "b": []}


class TestHistories:
    THREE = Histories(
        np.array([0, 9, -1, 5], dtype=np.int32),
        np.array([1, 4, 1, 4], dtype=np.int8),
        np.array([10, 20, 20, 7], dtype=np.int64),
        np.array([0, 3, 3, 4], dtype=np.int64),
        np.array([30, 31, 32], dtype=np.int64),
    )

    def test_queries_own_their_events(self) -> None:
        assert len(self.THREE) == 3
        assert self.THREE.lengths.tolist() == [3, 0, 1]
        assert self.THREE.query_of_event.tolist() == [0, 0, 0, 2]

    def test_age_is_counted_from_the_querys_own_now(self) -> None:
        day = 86_400_000_000
        two = Histories.of([0, 1], [1, 1], [0, day], 3 * day)
        assert two.age_days.tolist() == [3.0, 2.0]

    @pytest.mark.parametrize(
        ("most", "items"),
        [
            (0, [[], [], []]),
            (1, [[-1], [], [5]]),
            (2, [[9, -1], [], [5]]),
            (9, [[0, 9, -1], [], [5]]),
        ],
    )
    def test_last_keeps_the_latest(self, most: int, items: list[list[int]]) -> None:
        cut = self.THREE.last(most)
        assert [[item for _, item, _ in part] for part in lists(cut)] == items
        assert cut.now.tolist() == [30, 31, 32]

    def test_known_drops_items_outside_the_catalogue(self) -> None:
        found = [[item for _, item, _ in part] for part in lists(self.THREE.known(6))]
        assert found == [[0], [], [5]]
        assert self.THREE.known(10).known(10).lengths.tolist() == [2, 0, 1]

    @pytest.mark.parametrize(
        "picked",
        [slice(0, 1), slice(1, None), slice(None), slice(2, 1), slice(3, 9), slice(-1, None)],
    )
    def test_slices_are_those_of_a_list(self, picked: slice) -> None:
        part = self.THREE[picked]
        assert lists(part) == lists(self.THREE)[picked]
        assert part.now.tolist() == [30, 31, 32][picked]

    def test_gather_reads_pieces_in_any_order(self) -> None:
        three = self.THREE
        starts, stops = np.array([3, 0, 1, 2]), np.array([4, 2, 1, 3])
        found = Histories.gather(
            three.item_rows, three.event_codes, three.timestamps, starts, stops, np.arange(4)
        )
        assert lists(found) == [[(7, 5, 4)], [(10, 0, 1), (20, 9, 4)], [], [(20, -1, 1)]]
        assert found.now.tolist() == [0, 1, 2, 3]
