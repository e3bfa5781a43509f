"""What holds for every store of user histories: appending, reading, the cap."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_events import CAP, ITEM_IDS, event, histories, num_new

from recsys.config import State
from recsys.schema import ALL_EVENT_TYPES
from recsys.state import (
    Batch,
    Erasure,
    MemoryState,
    SqliteState,
    StateEvent,
    open_state,
)
from recsys.state.base import order


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


def test_events_of_every_type_are_kept_seeded_and_erased(store):
    codes = range(len(ALL_EVENT_TYPES))
    sent = [event(event_id=str(code), code=code, timestamp=code) for code in codes][-CAP:]
    assert num_new(store.append(sent)) == CAP
    assert store.history("u", 10) == sent
    store.seed(histories({"v": [(0, code, code) for code in codes]}), ITEM_IDS, 20, source="s")
    assert [each.event_code for each in store.history("v", 10)] == list(codes)[-CAP:]
    store.delete("u", 100)
    assert store.append(sent) == ["erased"] * CAP


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
