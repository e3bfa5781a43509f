"""Questions against a brute force of lists, on literal logs and on random ones."""

from __future__ import annotations

import numpy as np
from event_lists import BUY, LOGS, VIEW, Event, build, lists, relevant, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.time_split import ask


@settings(deadline=None)
@given(
    LOGS, st.integers(0, 7), st.none() | st.integers(0, 7), st.sampled_from([[BUY], [VIEW, BUY]])
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
