"""What holds for every store of user histories: bundles seed them, without doubling."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_events import CAP, ITEM_IDS, event, histories, num_new

from recsys.state import (
    MemoryState,
    StateEvent,
)


def test_seeded_histories_are_read_like_appended_ones(store):
    table = histories({"u": [(1, 4, 10), (0, 2, 20)], "v": [(2, 0, 5)]})
    assert store.seed(table, ITEM_IDS, 10, source="bundle-1") is True
    assert [(e.item_id, e.event_code, e.timestamp) for e in store.history("u", 10)] == [
        ("b", 4, 10),
        ("a", 2, 20),
    ]
    assert store.count_users() == 2


def test_a_source_is_seeded_once(store):
    table = histories({"u": [(1, 4, 10)]})
    assert not store.is_seeded("bundle-1")
    assert store.seed(table, ITEM_IDS, 10, source="bundle-1") is True
    assert store.is_seeded("bundle-1") and not store.is_seeded("bundle-2")
    store.delete("u", 100)
    assert store.seed(table, ITEM_IDS, 10, source="bundle-1") is False
    assert store.history("u", 10) == []


def test_the_next_bundle_doubles_nothing(store):
    twice = (1, 4, 10)
    store.seed(histories({"u": [(0, 0, 1), twice, twice]}), ITEM_IDS, 10, source="bundle-1")
    # The next one has lost the first event, knows the items by other rows, and goes on.
    reordered = np.array(["c", "a", "b", "d"])
    twice, later = (2, 4, 10), (3, 4, 30)
    assert store.seed(histories({"u": [twice, twice, later]}), reordered, 10, source="bundle-2")
    assert [e.item_id for e in store.history("u", 10)] == ["a", "b", "b", "d"]


def test_events_taken_in_live_come_back_in_the_next_bundle_without_doubling(store):
    store.append([event("u", "from-the-shop", "b", 4, 10)])
    same, other_type = (1, 4, 10), (1, 2, 10)
    store.seed(histories({"u": [same, same, other_type]}), ITEM_IDS, 10, source="bundle-2")
    got = [(e.item_id, e.event_code, e.timestamp) for e in store.history("u", 10)]
    assert sorted(got) == [("b", 2, 10), ("b", 4, 10), ("b", 4, 10)]
    assert "from-the-shop" in [e.event_id for e in store.history("u", 10)]


def test_an_event_that_comes_after_it_was_seeded_is_not_doubled(store):
    store.seed(histories({"u": [(1, 4, 10)]}), ITEM_IDS, 10, source="bundle-1")
    late = event("u", "from-the-shop", "b", 4, 10)
    others = [event("u", f"o{n}", "b", code, us) for n, (code, us) in enumerate([(2, 10), (4, 11)])]
    assert num_new(store.append([late, *others])) == 2
    assert len(store.history("u", 10)) == 3
    assert num_new(store.append([event("v", "from-the-shop", "b", 4, 10)])) == 1


def test_seeding_keeps_the_latest_of_each_user(store):
    events = [(0, 2, t) for t in range(20)]
    store.append([event("u", "live", timestamp=100)])
    store.seed(histories({"u": events, "v": events[:3]}), ITEM_IDS, CAP + 2, source="s")
    assert [e.timestamp for e in store.history("u", 100)] == [16, 17, 18, 19, 100]
    assert [e.timestamp for e in store.history("v", 100)] == [0, 1, 2]
    store.seed(histories({"w": events}), ITEM_IDS, 2, source="t")
    assert [e.timestamp for e in store.history("w", 100)] == [18, 19]


def test_seeding_leaves_out_items_outside_the_catalogue(store):
    store.seed(
        histories({"u": [(-1, 2, 1), (3, 2, 2), (2, 2, 3)], "v": []}), ITEM_IDS, 9, source="s"
    )
    assert [e.item_id for e in store.history("u", 10)] == ["c"]
    assert store.count_users() == 1


def test_seeding_nothing(store):
    assert store.seed(histories({}), ITEM_IDS, 10, source="s") is True
    assert store.count_users() == 0


def test_histories_move_from_store_to_store(store):
    source = MemoryState(CAP)
    source.append([event(event_id="live", timestamp=3)])
    source.seed(histories({"u": [(1, 4, 10), (1, 4, 10)]}), ITEM_IDS, 10, source="s")
    seeded_last = source.history("u", 10)
    assert num_new(store.append(seeded_last[:2])) == 2
    assert store.history("u", 10) == seeded_last[:2]
    assert num_new(store.append(seeded_last[:2])) == 0


seeds = st.dictionaries(
    st.sampled_from(["u", "v"]),
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 2), st.integers(-1, 2)), max_size=5).map(
        lambda events: sorted(events, key=lambda event: event[2])
    ),
)
live = st.lists(
    st.builds(
        StateEvent,
        user_id=st.sampled_from(["u", "v"]),
        event_id=st.sampled_from(["", "A", "s", "seec", "seedx", "ä", "x\0"]),
        item_id=st.sampled_from(["a", "a\0", "b"]),
        event_code=st.integers(1, 2),
        timestamp=st.integers(-1, 2),
    ),
    max_size=4,
)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(seeds | live, max_size=6), cap=st.integers(1, 6))
def test_every_store_is_seeded_like_memory(make_store, steps, cap):
    store, memory = make_store(cap), MemoryState(cap)
    item_ids = np.array(["a", "a\0", "b"], dtype=object)
    for number, step in enumerate(steps):
        if isinstance(step, dict):
            for each in (store, memory):
                each.seed(histories(step), item_ids, 4, source=str(number))
        else:
            assert store.append(step) == memory.append(step)
        for user in ("u", "v"):
            assert store.history(user, 10) == memory.history(user, 10)
        assert store.count_users() == memory.count_users()
