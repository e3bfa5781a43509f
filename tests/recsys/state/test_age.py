"""What holds for every store of user histories: events expire."""

from contextlib import contextmanager
from unittest.mock import patch

from store_events import ITEM_IDS, event, histories, num_new

from recsys.state import (
    base,
    clock_us,
)

DAY = 86_400_000_000


@contextmanager
def age_by(days):
    """Let the clock of the stores go ahead."""
    with patch.object(base, "clock_us", lambda: clock_us() + days * DAY):
        yield


class TestAge:
    def store(self, make_store):
        return make_store(cap=10, max_age_days=30)

    def events(self, *days_ago):
        return [event(event_id=f"{d}", timestamp=clock_us() - d * DAY) for d in days_ago]

    def test_expired_events_are_not_answered_from(self, make_store):
        store = self.store(make_store)
        young, old = self.events(29), self.events(31)
        assert num_new(store.append([*old, *young])) == 2
        assert store.history("u", 10) == young
        assert store.num_waiting() == 2

    def test_they_are_deleted_when_the_user_is_written_or_all_are_swept(self, make_store):
        store = self.store(make_store)
        store.append([event("v", "x", timestamp=clock_us() - 29 * DAY)])
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
        table = histories({"u": [(1, 4, now - 31 * DAY), (1, 4, now - DAY)]})
        store.seed(table, ITEM_IDS, 10, source="s")
        assert [each.timestamp for each in store.history("u", 10)] == [now - DAY]

    def test_without_a_maximal_age_nothing_expires(self, store):
        old = self.events(10_000)
        store.append(old)
        store.sweep()
        assert store.history("u", 10) == old
