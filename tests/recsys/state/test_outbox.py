"""What holds for every store of user histories: each new event goes out once."""

from store_events import CAP, ITEM_IDS, event, histories


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
