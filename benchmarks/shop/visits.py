"""From what shoppers see to what they do: draws by the true probabilities, and the events of them.

Legend: n visits of one moment, K items of a list.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from benchmarks.shop.shoppers import DWELL_SPREAD, Chances, Shoppers
from recsys.arrays import Bools, Float64s, Int64s
from recsys.schema import Col

#: The first day of the service. It lies in the past, since no log may tell of the future.
FIRST_DAY: Final = dt.datetime(2024, 3, 4, tzinfo=dt.UTC)
#: Moments of a day at which shoppers come.
MOMENTS: Final = 6
#: Places of a list.
K: Final = 10
#: Things found without the service in a visit, at most.
BROWSED: Final = 4
#: Days until a thing comes back.
BACK_DAYS: Final = 2

Event = dict[str, Any]


def moment(day: int, number: int) -> dt.datetime:
    """When the shoppers of a moment of a day ask."""
    return FIRST_DAY + dt.timedelta(days=day, hours=24 * (number + 0.5) / MOMENTS)


def user_id(number: int) -> str:
    """The raw id of a shopper."""
    return f"shopper-{number:05d}"


@dataclass(frozen=True)
class Seen:
    """What came of lists that were shown.

    Attributes:
        users: [n].
        items: [n, K] rows.
        chances: the truth, [n, K] each.
        clicked, carted, bought: [n, K].
        value: [n, K] money.
        dwell_ms: [n, K]; 0 where not clicked.
    """

    users: Int64s
    items: Int64s
    chances: Chances
    clicked: Bools
    carted: Bools
    bought: Bools
    value: Float64s
    dwell_ms: Int64s


@dataclass
class Shop:
    """The shop in motion: shoppers, what they sent for, what comes back.

    Attributes:
        shoppers: as they are now.
        shift_day: on which tastes shift.
        logs: by shopper, the events so far: (item row, type, moment), for replays.
        back: returns that are on their way.
        tastes: day -> what tastes were.
    """

    shoppers: Shoppers
    shift_day: int
    logs: list[list[tuple[int, str, dt.datetime]]] = field(default_factory=list)
    back: list[Event] = field(default_factory=list)
    tastes: dict[int, Float64s] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.logs = self.logs or [[] for _ in range(len(self.shoppers))]
        self.ids: list[str] = self.shoppers.catalogue.table[Col.item].to_list()
        self.row_of = {item: row for row, item in enumerate(self.ids)}

    def begin(self, day: int) -> None:
        """Begin a day."""
        self.shoppers.next_day(day, shift=day == self.shift_day)
        self.tastes[day] = self.shoppers.taste.copy()

    def visitors(self) -> Int64s:
        """Who comes at the next moment."""
        shoppers = self.shoppers
        come = shoppers.rng.random(len(shoppers)) < shoppers.visits / MOMENTS
        return np.flatnonzero(come)

    def browse(self, users: Int64s, day: int, at: dt.datetime) -> list[Event]:
        """What visitors open, and buy, without the service, in the minutes before `at`."""
        shoppers = self.shoppers
        items = shoppers.browse(users, day, BROWSED)
        none = np.ones((len(users), BROWSED), dtype=np.int64)
        known = np.maximum(items, 0)
        everyone = np.broadcast_to(users[:, None], items.shape)
        chances = shoppers.chances(everyone, known, none)
        seen = self._drawn(users, known, chances, items >= 0)
        return self._told(seen, at - dt.timedelta(minutes=5), "view", [None] * len(users))

    def bestsellers(self, users: Int64s, day: int) -> list[list[str]]:
        """What a page without a service shows: of what each has not opened, the most opened."""
        sold = self.shoppers.catalogue.sold_on(day)
        opened = self.shoppers.opened[:, sold]
        counts = np.where(opened[users], -1, opened.sum(axis=0))
        best = np.argsort(-counts, axis=1, kind="stable")[:, :K]
        return [[self.ids[row] for row in sold[each]] for each in best]

    def look(self, users: Int64s, lists: Sequence[Sequence[str]]) -> Seen:
        """Let visitors look at lists; what they buy is paid for."""
        shoppers = self.shoppers
        items = np.array([[self.row_of[item] for item in each] for each in lists], dtype=np.int64)
        position = np.broadcast_to(np.arange(1, items.shape[1] + 1), items.shape)
        everyone = np.broadcast_to(users[:, None], items.shape)
        chances = shoppers.chances(everyone, items, position)
        clicked = shoppers.rng.random(items.shape) < chances.click
        return self._drawn(users, items, chances, clicked)

    def answers(self, seen: Seen, at: dt.datetime, requests: Sequence[str | None]) -> list[Event]:
        """The events that shops post of lists, in the minutes after `at`; under their requests."""
        return self._told(seen, at, "click", requests)

    def _drawn(self, users: Int64s, items: Int64s, chances: Chances, clicked: Bools) -> Seen:
        shoppers, shape = self.shoppers, items.shape
        rng = shoppers.rng
        carted = clicked & (rng.random(shape) < chances.cart)
        bought = carted & (rng.random(shape) < chances.buy)
        price = shoppers.catalogue.table[Col.price].to_numpy()[items]
        value = np.where(bought, price, 0.0)
        # A list is looked at at once: what is bought together may exceed the purse once.
        np.subtract.at(shoppers.left, users, value.sum(axis=1))
        rows, places = np.nonzero(clicked)
        shoppers.opened[users[rows], items[rows, places]] = True
        dwell = np.exp(rng.normal(chances.log_dwell_ms, DWELL_SPREAD)).clip(500, 600_000)
        dwell_ms = np.where(clicked, dwell, 0).astype(np.int64)
        return Seen(users, items, chances, clicked, carted, bought, value, dwell_ms)

    def _told(
        self, seen: Seen, at: dt.datetime, opened: str, requests: Sequence[str | None]
    ) -> list[Event]:
        events: list[Event] = []
        back = self.shoppers.rng.random(seen.items.shape) < seen.chances.back
        for row, place in zip(*np.nonzero(seen.clicked), strict=True):
            user, item = int(seen.users[row]), int(seen.items[row, place])
            then = at + dt.timedelta(seconds=20 * (int(place) + 1))
            about: Event = {Col.user: user_id(user), Col.item: self.ids[item]}
            if requests[row] is not None:
                about |= {Col.request: requests[row], Col.position: int(place) + 1}
            self.logs[user].append((item, opened, then))
            told = {Col.dwell_ms: int(seen.dwell_ms[row, place])}
            events.append(about | {Col.event_type: opened, Col.timestamp: then} | told)
            if seen.carted[row, place]:
                in_cart = then + dt.timedelta(seconds=5)
                self.logs[user].append((item, "add_to_cart", in_cart))
                events.append(about | {Col.event_type: "add_to_cart", Col.timestamp: in_cart})
            if seen.bought[row, place]:
                paid = then + dt.timedelta(seconds=10)
                value = {Col.value: float(seen.value[row, place])}
                self.logs[user].append((item, "purchase", paid))
                events.append(about | {Col.event_type: "purchase", Col.timestamp: paid} | value)
            if seen.bought[row, place] and back[row, place]:
                due = then + dt.timedelta(days=BACK_DAYS)
                event = about | {Col.event_type: "return", Col.timestamp: due}
                self.back.append(event)
        return events

    def returned(self, until: dt.datetime) -> list[Event]:
        """What has come back by a moment, and was not told before."""
        events = [event for event in self.back if event[Col.timestamp] <= until]
        self.back = [event for event in self.back if event[Col.timestamp] > until]
        for event in events:
            user = int(event[Col.user].rpartition("-")[2])
            self.logs[user].append((self.row_of[event[Col.item]], "return", event[Col.timestamp]))
            self.logs[user].sort(key=lambda told: told[2])
        return events
