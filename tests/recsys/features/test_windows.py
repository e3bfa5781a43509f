from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_logs import BUY, VIEW, Event, bought, queries, user_events

from recsys.features.windows import (
    TrainingBatch,
    Windows,
    event_weights,
    make_windows,
    training_batch,
)
from recsys.schema import EVENT_CODE

WEIGHTS = event_weights([BUY], EVENT_CODE, {})


def batch_of(
    *users: list[Event], max_history: int = 99, windows_per_user: int = 1, seed: int = 0
) -> TrainingBatch:
    return training_batch(
        user_events(*users), max_history=max_history, windows_per_user=windows_per_user,
        weights=WEIGHTS, rng=np.random.default_rng(seed),
    )  # fmt: skip


def events_of(windows: Windows) -> list[list[tuple[int, int]]]:
    """Each window's (state, item) pairs, without the padding."""
    return [
        [(state, item) for state, item in zip(states, items, strict=True) if state]
        for states, items in zip(
            windows.state_of_event.tolist(), windows.item_rows.tolist(), strict=True
        )
    ]


def targets_of(batch: TrainingBatch) -> list[tuple[int, int]]:
    return list(zip(batch.target_states.tolist(), batch.target_items.tolist(), strict=True))


class TestWindows:
    def test_ragged_histories_are_padded_and_their_moments_numbered(self) -> None:
        windows = make_windows(
            queries([(3, 7, VIEW), (3, 8, BUY), (10, 9, BUY)], [], [(5, 6, VIEW)])
        )
        assert windows.item_rows.tolist() == [[7, 8, 9], [0, 0, 0], [6, 0, 0]]
        assert windows.event_codes.tolist() == [[VIEW, BUY, BUY], [0, 0, 0], [VIEW, 0, 0]]
        assert windows.moments.tolist() == [[0, 0, 1], [-1, -1, -1], [0, -1, -1]]
        assert windows.state_of_event.tolist() == [[1, 1, 2], [0, 0, 0], [3, 0, 0]]
        assert windows.gap_us.tolist() == [[0, 0, 7], [0, 0, 0], [0, 0, 0]]
        assert windows.num_states == 3
        assert windows.last_state.tolist() == [2, 0, 3]

    def test_every_event_of_a_moment_carries_the_gap_before_it(self) -> None:
        windows = make_windows(queries([(1, 0, BUY), (5, 1, BUY), (5, 2, BUY), (5, 3, BUY)]))
        assert windows.gap_us.tolist() == [[0, 4, 4, 4]]

    def test_equal_times_of_different_users_are_different_moments(self) -> None:
        windows = make_windows(queries([(1, 0, BUY)], [(1, 0, BUY)]))
        assert windows.state_of_event.tolist() == [[1], [2]]

    def test_nobody_and_nothing(self) -> None:
        assert make_windows(queries()).item_rows.shape == (0, 1)
        assert make_windows(queries([])).last_state.tolist() == [0]


class TestTargets:
    def test_each_moment_foretells_the_targets_of_the_next(self) -> None:
        batch = batch_of(
            [(0, 5, BUY), (1, 6, VIEW), (1, 7, BUY), (1, 8, BUY), (2, 9, VIEW), (3, 5, BUY)],
            [(0, 1, VIEW), (4, 2, BUY)],
        )
        # States 1-4 are the first user's moments, 5 and 6 the second's; 0 knows nothing yet.
        assert targets_of(batch) == [(0, 5), (1, 7), (1, 8), (3, 5), (5, 2)]
        assert batch.target_weights.tolist() == [1.0] * 5

    def test_a_window_from_inside_a_history_does_not_foretell_its_first_moment(self) -> None:
        log = bought(*([item] for item in range(10)))
        for seed in range(20):
            batch = batch_of(log, max_history=3, seed=seed)
            ((_, first), (_, second), (_, third)) = events_of(batch.windows)[0]
            expected = [(1, second), (2, third)]
            assert targets_of(batch) == ([(0, first), *expected] if first == 0 else expected)

    def test_weights_come_from_the_event_type(self) -> None:
        weights = event_weights([BUY], EVENT_CODE, {"view": 0.25, "click": 0.0, "purchase": 2.0})
        assert weights.tolist() == [0, 0.25, 0, 0, 2]
        assert event_weights([1, 4], EVENT_CODE, {}).tolist() == [0, 1, 0, 0, 1]
        batch = training_batch(
            user_events([(0, 1, VIEW), (1, 2, BUY)]), max_history=9, windows_per_user=1,
            weights=weights, rng=np.random.default_rng(0),
        )  # fmt: skip
        assert targets_of(batch) == [(0, 1), (1, 2)]
        assert batch.target_weights.tolist() == [0.25, 2.0]

    def test_a_batch_without_targets(self) -> None:
        assert targets_of(batch_of([(0, 1, VIEW)], [(0, 1, VIEW), (5, 1, VIEW)])) == []


def numbered(sizes: list[int], first: int) -> list[Event]:
    """Purchases in moments of these sizes, each of an item of its own: first, first + 1, ..."""
    moments = np.repeat(np.arange(len(sizes)), sizes).tolist()
    return [(moment, first + number, BUY) for number, moment in enumerate(moments)]


@given(
    st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=12), min_size=1, max_size=3),
    st.integers(1, 8),
    st.integers(1, 3),
    st.integers(0, 99),
)
def test_windows_are_pieces_of_histories_and_targets_lie_one_moment_on(
    users: list[list[int]], max_history: int, windows_per_user: int, seed: int
) -> None:
    logs = [numbered(sizes, 100 * number) for number, sizes in enumerate(users)]
    batch = batch_of(*logs, max_history=max_history, windows_per_user=windows_per_user, seed=seed)
    windows = iter(events_of(batch.windows))
    expected = []
    for number, log in enumerate(logs):
        for _ in range(min(windows_per_user, -(-len(log) // max_history))):
            window = next(windows)
            first_state, first_item = window[0]
            size = min(max_history, len(log))
            assert [item for _, item in window] == list(range(first_item, first_item + size))
            begins_whole = first_item == 100 * number
            for state, item in window:
                if state > first_state:
                    expected.append((state - 1, item))
                elif begins_whole:
                    expected.append((0, item))
    assert next(windows, None) is None
    assert targets_of(batch) == expected


@pytest.mark.parametrize(("length", "per_user"), [(3, 1), (10, 2), (23, 4)])
def test_windows_of_many_epochs_cover_the_whole_history(length: int, per_user: int) -> None:
    log = bought(*([item] for item in range(length)))
    seen: Counter[int] = Counter()
    for seed in range(100):
        windows = events_of(
            batch_of(log, max_history=5, windows_per_user=per_user, seed=seed).windows
        )
        starts = [window[0][1] for window in windows]
        assert len(windows) == min(per_user, -(-length // 5))
        assert starts == sorted(starts)  # one from each stretch of the history
        seen.update(item for window in windows for _, item in window)
    assert set(seen) == set(range(length))
