"""Histories against a brute force of lists, on literal logs and on random ones."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from event_lists import BUY, LOGS, VIEW, Event, build, lists, rows
from hypothesis import given
from hypothesis import strategies as st
from tiny_logs import queries

from recsys.data.histories import Histories, UserEvents
from recsys.schema import HISTORIES, Col

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


@given(LOGS, st.randoms())
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


def test_queries_are_taken_and_their_last_moments_measured() -> None:
    histories = queries([(1, 4, BUY), (2, 5, BUY), (2, 6, VIEW)], [], [(3, 7, BUY)])
    assert histories.last_moment_sizes.tolist() == [2, 0, 1]
    taken = histories.take(np.array([2, 0, 1]))
    assert taken.item_rows.tolist() == [7, 4, 5, 6]
    assert taken.lengths.tolist() == [1, 3, 0]
    assert queries([], []).last_moment_sizes.tolist() == [0, 0]
