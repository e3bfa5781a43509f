"""What holds for every store of user histories."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.config import State
from recsys.schema import HISTORIES
from recsys.state import (
    Batch,
    Erasure,
    MemoryState,
    SqliteState,
    StateEvent,
    Tombstone,
    base,
    clock_us,
    open_state,
)
from recsys.state.base import digest_of, order

CAP = 5


@pytest.fixture(params=["memory", "sqlite", "redis"])
def make_store(request, tmp_path):
    """Make a fresh store; all are closed at the end."""
    made = []
    is_redis = request.param == "redis"
    url = request.getfixturevalue("shared_server").url if is_redis else None

    def make(cap=CAP, max_age_days=None):
        path = tmp_path / f"state-{len(made)}.sqlite"
        state = State(
            backend=request.param, max_events_per_user=cap, url=url, prefix=uuid.uuid4().hex,
            max_age_days=max_age_days,
        )  # fmt: skip
        made.append(open_state(state, path))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make_store):
    return make_store()


def num_new(outcomes):
    return outcomes.count("new")


def event(user="u", event_id="e", item="i", code=2, timestamp=0):
    return StateEvent(user, event_id, item, code, timestamp)


def histories(users):
    """`{user: [(item_row, code, timestamp), ...]}` as a table."""
    columns = [[[e[part] for e in events] for events in users.values()] for part in range(3)]
    baskets = [list(range(len(events))) for events in users.values()]
    return pa.table([list(users), *columns, baskets], schema=HISTORIES)


ITEM_IDS = np.array(["a", "b", "c"])


def test_a_fresh_store_is_empty(store):
    store.ping()
    assert store.count_users() == 0
    assert store.history("u", 10) == []
    assert store.delete("u", 1) == Erasure(0, held=False)
    assert store.append([]) == []
    assert store.claim(10) is None
    assert store.num_waiting() == 0


def test_what_is_appended_is_read_back_whole(store):
    events = [event("u", "x", "ä", 4, -5), event("u", "y\0z", "", 0, 2**62), event("v", "x")]
    assert num_new(store.append(events)) == 3
    assert store.history("u", 10) == events[:2]
    assert store.history("v", 10) == events[2:]
    assert store.count_users() == 2


def test_history_is_ordered_by_time_item_and_event_id(make_store):
    events = [event(timestamp=t, item=i, event_id=e) for t, i, e in ORDERED]
    for shuffled in (events[::-1], events[2:] + events[:2]):
        store = make_store()
        store.append(shuffled)
        assert store.history("u", 10) == events
        assert store.history("u", 2) == events[-2:]
        assert store.history("u", 0) == []


ORDERED = [(1, "b", "e4"), (2, "a", "e0"), (2, "a", "e3"), (2, "b", "e2"), (10, "a", "e1")]


def test_the_same_event_again_changes_nothing(store):
    first = event(event_id="1", timestamp=3)
    assert num_new(store.append([first])) == 1
    assert num_new(store.append([first, first, event(event_id="2", timestamp=4)])) == 1
    assert num_new(store.append([event(event_id="1", timestamp=9, item="other")])) == 0
    assert [e.timestamp for e in store.history("u", 10)] == [3, 4]


def test_event_ids_of_different_users_do_not_meet(store):
    assert num_new(store.append([event("u", "1"), event("v", "1")])) == 2


def test_a_user_over_the_cap_loses_the_earliest(store):
    events = [event(event_id=f"e{t}", timestamp=t) for t in range(CAP + 3)]
    assert num_new(store.append(events[::-1])) == CAP + 3
    assert store.history("u", 100) == events[3:]
    assert num_new(store.append([event(event_id="late", timestamp=1)])) == 1
    assert store.history("u", 100) == events[3:]
    store.append([event("v", "e", timestamp=-1)])
    assert len(store.history("u", 100)) == CAP
    assert len(store.history("v", 100)) == 1


class TestOutcomes:
    """Of each event what became of it."""

    def test_the_same_id_is_the_same_event_or_a_conflict(self, store):
        first = event(event_id="1", item="a", code=4, timestamp=5)
        line = event(event_id="1", item="b", code=4, timestamp=5)
        assert store.append([first, line, first]) == ["new", "conflict", "repeated"]
        others = [
            event(event_id="1", item="a", code=3, timestamp=5),
            event(event_id="1", item="a", code=4, timestamp=6),
            event("v", event_id="1", item="b", code=4, timestamp=5),
        ]
        assert store.append(others) == ["conflict", "conflict", "new"]
        assert store.history("u", 10) == [first]
        assert [each.item_id for each in store.claim(10).events] == ["a", "b"]

    def test_a_time_that_was_not_told_parts_nothing(self, store):
        store.append([event(event_id="1", timestamp=5)])
        again = replace(event(event_id="1", timestamp=9), is_timed=False)
        other = replace(event(event_id="1", item="other", timestamp=9), is_timed=False)
        assert store.append([again, other]) == ["repeated", "conflict"]

    def test_what_a_bundle_brought_is_repeated(self, store):
        store.seed(histories({"u": [(1, 4, 10)]}), ITEM_IDS, 10, source="s")
        assert store.append([event("u", "x", "b", 4, 10)]) == ["repeated"]

    def test_details_go_to_the_outbox_alone(self, store):
        told = replace(event(event_id="1"), details='{"session_id": "\u00e4"}')
        store.append([told, event(event_id="2")])
        assert store.history("u", 10) == [replace(told, details=None), event(event_id="2")]
        assert store.claim(10).events == [told, event(event_id="2")]


class TestErasure:
    def test_erases_one_user_for_good(self, store):
        store.append([event("u", "1"), event("u", "2"), event("v", "1")])
        assert store.delete("u", 100) == Erasure(2, held=True)
        assert store.history("u", 10) == []
        assert store.count_users() == 1
        assert store.erased() == {"u": Tombstone(100, 100)}
        assert [each.user_id for each in store.claim(10).events] == ["v"]

    def test_what_was_before_does_not_come_back_and_what_comes_later_does(self, store):
        store.append([event("u", "1", timestamp=5)])
        store.delete("u", 100)
        again = [event("u", "1", timestamp=5), event("u", "2", timestamp=100)]
        assert num_new(store.append(again)) == 0
        later = event("u", "3", timestamp=101)
        assert num_new(store.append([*again, later])) == 1
        assert store.history("u", 10) == [later]
        assert store.claim(10).events == [later]

    def test_a_seed_does_not_bring_the_user_back(self, store):
        store.delete("u", 20)
        table = histories({"u": [(1, 4, 10), (1, 4, 20), (0, 2, 21)], "v": [(2, 0, 5)]})
        assert store.seed(table, ITEM_IDS, 10, source="bundle-1")
        assert [each.timestamp for each in store.history("u", 10)] == [21]
        assert len(store.history("v", 10)) == 1

    def test_tombstones_that_the_store_has_lost_hold_too(self, store):
        store.delete("v", 30)
        table = histories({name: [(1, 4, 10), (0, 2, 21), (0, 2, 31)] for name in "uvw"})
        store.seed(
            table, ITEM_IDS, 10, source="s", erased={"u": Tombstone(20, 20), "v": Tombstone(5, 5)}
        )
        times = [[each.timestamp for each in store.history(name, 10)] for name in "uvw"]
        assert times == [[21, 31], [31], [10, 21, 31]]

    def test_the_times_are_the_latest_known(self, store):
        """Of two erasures; and of the user's events, if the sender's clock was ahead."""
        ahead = event("u", "1", timestamp=150)
        store.append([ahead])
        for now, times in (
            (100, (100, 150)),
            (120, (120, 150)),
            (110, (120, 150)),
            (200, (200,) * 2),
        ):
            store.delete("u", now)
            assert store.erased() == {"u": Tombstone(*times, frozenset([digest_of(ahead)]))}

    def test_a_clock_that_was_ahead_keeps_nothing_new_out(self, store):
        """What comes after the erasure is taken, whatever had come before it; that never is."""
        ahead = event("u", "1", timestamp=150)
        store.append([ahead, event("u", "2", item="j", timestamp=90)])
        store.delete("u", 100)
        old = [event("u", "3", timestamp=100), ahead, replace(ahead, event_id="4")]
        assert store.append(old) == ["erased"] * 3
        new = [event("u", "5", timestamp=101), event("u", "6", item="j", timestamp=150)]
        assert store.append(new) == ["new", "new"]
        assert store.append([event("v", "1", timestamp=150)]) == ["new"], "another's is no matter"
        assert store.history("u", 10) == new
        store.delete("u", 200)
        assert store.append([new[1], event("u", "7", timestamp=201)]) == ["erased", "new"]

    def test_what_waits_alone_is_held_too(self, make_store):
        """The cap has taken it from the history."""
        store = make_store(cap=1)
        store.append([event("u", "1", timestamp=1), event("u", "2", timestamp=2)])
        store.settle(store.claim(2).id)
        store.append([event("u", "3", timestamp=0)])
        assert len(store.history("u", 10)) == 1
        assert store.delete("u", 5) == Erasure(1, held=True)
        assert store.delete("u", 6) == Erasure(0, held=False)

    def test_a_claimed_batch_loses_the_user_and_nobody_takes_the_place(self, store):
        store.append([event("v", "1"), event("u", "1"), event("u", "2")])
        batch = store.claim(10)
        store.delete("u", 100)
        store.append([event("w", "1"), event("w", "2")])
        again = store.claim(10)
        assert again.id == batch.id
        assert [each.user_id for each in again.events] == ["v"]
        store.settle(batch.id)
        assert [each.user_id for each in store.claim(10).events] == ["w", "w"]

    def test_a_batch_of_which_nothing_is_left_is_settled_all_the_same(self, store):
        store.append([event("u", "1")])
        batch = store.claim(10)
        store.delete("u", 100)
        assert store.claim(10).events == []
        store.settle(batch.id)
        assert store.claim(10) is None


class TestOutbox:
    def test_each_new_event_waits_once_in_the_order_of_acceptance(self, store):
        first, second = event(event_id="1", timestamp=9), event(event_id="2", timestamp=3)
        store.append([first, first])
        store.append([second, first])
        assert store.num_waiting() == 2
        assert store.claim(10).events == [first, second]

    def test_the_cap_takes_nothing_from_it(self, store):
        events = [event(event_id=f"e{t}", timestamp=t) for t in range(CAP + 3)]
        store.append(events)
        assert store.claim(100).events == events

    def test_a_batch_stays_the_same_until_it_is_settled(self, store):
        events = [event(event_id=f"e{n}", timestamp=n) for n in range(7)]
        store.append(events[:4])
        batch = store.claim(3)
        assert batch.events == events[:3]
        store.append(events[4:])
        assert store.claim(100) == batch
        store.settle("another")
        assert store.claim(100) == batch
        store.settle(batch.id)
        store.settle(batch.id)
        assert store.num_waiting() == 4
        following = store.claim(100)
        assert following.events == events[3:] and following.id != batch.id
        store.settle(following.id)
        assert store.claim(100) is None
        store.append([event(event_id="later", timestamp=99)])
        assert len(store.claim(100).events) == 1

    def test_seeded_events_do_not_wait(self, store):
        store.seed(histories({"u": [(1, 4, 10)]}), ITEM_IDS, 10, source="bundle-1")
        store.append([event("u", "from-the-shop", "b", 4, 10)])
        assert store.num_waiting() == 0

    def test_many_go_out_in_batches(self, make_store):
        store = make_store(cap=3)
        events = [event(f"u{n % 7}", f"e{n}", "ä", 4, n) for n in range(6000)]
        for at in range(0, 6000, 1000):
            store.append(events[at : at + 1000])
        found = []
        while batch := store.claim(2500):
            found.append(batch)
            store.settle(batch.id)
        assert [len(batch.events) for batch in found] == [2500, 2500, 1000]
        assert [each for batch in found for each in batch.events] == events


class TestAge:
    DAY = 86_400_000_000

    def store(self, make_store):
        return make_store(cap=10, max_age_days=30)

    def events(self, *days_ago):
        return [event(event_id=f"{d}", timestamp=clock_us() - d * self.DAY) for d in days_ago]

    def test_expired_events_are_not_answered_from(self, make_store):
        store = self.store(make_store)
        young, old = self.events(29), self.events(31)
        assert num_new(store.append([*old, *young])) == 2
        assert store.history("u", 10) == young
        assert store.num_waiting() == 2

    def test_they_are_deleted_when_the_user_is_written_or_all_are_swept(self, make_store):
        store = self.store(make_store)
        store.append([event("v", "x", timestamp=clock_us() - 29 * self.DAY)])
        store.append(self.events(29, 28))
        assert store.count_users() == 2
        with age_by(2):
            assert store.history("u", 10) == store.history("v", 10) == []
            now = event(event_id="now", timestamp=clock_us())
            store.append([now])
            assert store.history("u", 10) == [now]
            store.sweep()
            assert store.count_users() == 1

    def test_they_are_not_seeded(self, make_store):
        store = self.store(make_store)
        now = clock_us()
        table = histories({"u": [(1, 4, now - 31 * self.DAY), (1, 4, now - self.DAY)]})
        store.seed(table, ITEM_IDS, 10, source="s")
        assert [each.timestamp for each in store.history("u", 10)] == [now - self.DAY]

    def test_without_a_maximal_age_nothing_expires(self, store):
        old = self.events(10_000)
        store.append(old)
        store.sweep()
        assert store.history("u", 10) == old


@contextmanager
def age_by(days):
    """Let the clock of the stores go ahead."""
    with patch.object(base, "clock_us", lambda: clock_us() + days * TestAge.DAY):
        yield


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


def test_threads_lose_nothing(make_store):
    store = make_store(cap=1000)

    def work(thread):
        for number in range(25):
            mine = event(f"u{number % 3}", f"{thread}-{number}", timestamp=number)
            shared = event("shared", f"{number}", timestamp=number)
            store.append([mine, shared])
            assert mine in store.history(mine.user_id, 1000)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert sum(len(store.history(f"u{n}", 1000)) for n in range(3)) == 150
    assert len(store.history("shared", 1000)) == 25
    assert store.count_users() == 4


batches = st.lists(
    st.lists(
        st.builds(
            StateEvent,
            user_id=st.sampled_from(["u", "v"]),
            event_id=st.sampled_from(["", "A", "a", "ä", "\U0001f600", "\uffff", "z"]),
            item_id=st.sampled_from(["1", "10", "2", "é", "\uffff", "\U0001f600"]),
            event_code=st.integers(0, 4),
            timestamp=st.integers(-2, 3),
        ),
        max_size=8,
    ),
    max_size=6,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(batches=batches, cap=st.integers(1, 4), limit=st.integers(0, 5))
def test_every_store_follows_the_model(make_store, batches, cap, limit):
    """The model: first come stays, then the latest `cap` in the order of `order`, user by user."""
    store = make_store(cap)
    model, accepted = {}, []
    for batch in batches:
        num_before = len(model)
        for each in batch:
            if (each.user_id, each.event_id) not in model:
                model[each.user_id, each.event_id] = each
                accepted.append(each)
        assert num_new(store.append(batch)) == len(model) - num_before
        for user in ("u", "v"):
            mine = sorted((e for e in model.values() if e.user_id == user), key=order)
            for dropped in mine[:-cap]:
                del model[user, dropped.event_id]
            assert store.history(user, limit) == mine[-cap:][max(len(mine[-cap:]) - limit, 0) :]
    assert store.count_users() == len({user for user, _ in model})
    assert (store.claim(100) or Batch("", [])).events == accepted


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


def test_histories_move_from_store_to_store(store):
    source = MemoryState(CAP)
    source.append([event(event_id="live", timestamp=3)])
    source.seed(histories({"u": [(1, 4, 10), (1, 4, 10)]}), ITEM_IDS, 10, source="s")
    seeded_last = source.history("u", 10)
    assert num_new(store.append(seeded_last[:2])) == 2
    assert store.history("u", 10) == seeded_last[:2]
    assert num_new(store.append(seeded_last[:2])) == 0


def test_the_recipe_picks_the_store(tmp_path):
    assert isinstance(open_state(State(backend="memory"), tmp_path / "x"), MemoryState)
    default = open_state(State(), tmp_path / "run" / "state.sqlite")
    assert isinstance(default, SqliteState)
    named = open_state(State(path=str(tmp_path / "named.sqlite")), tmp_path / "unused.sqlite")
    default.close()
    named.close()
    assert (tmp_path / "run" / "state.sqlite").exists()
    assert (tmp_path / "named.sqlite").exists()
    assert not (tmp_path / "unused.sqlite").exists()
