"""What holds for every store of user histories: erased users stay erased."""

from dataclasses import replace

from store_events import ITEM_IDS, event, histories, num_new

from recsys.state import (
    Erasure,
    Tombstone,
)
from recsys.state.base import digest_of


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
