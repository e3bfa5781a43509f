"""The shop's days: shoppers ask the service for lists over HTTP, and the shop posts what they do.

A day has some moments. At each, the service's clock is set, those who come browse, ask, look; ten
minutes later the shop posts what came of it. Each list's true probabilities go to a side file.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Final

import numpy as np
import polars as pl

from benchmarks.shop.catalogue import Catalogue
from benchmarks.shop.service import Call, Service
from benchmarks.shop.visits import MOMENTS, Event, K, Seen, Shop, moment, user_id
from recsys.data.pseudonyms import pseudonym
from recsys.errors import DataError
from recsys.schema import Col
from serve.models.arms import bounds, hash_fraction

#: The arms, each with a quarter of the shoppers: the champion of each night, the first one for
#: ever, the champion with lists that are drawn, and the service's fallback: what is popular.
LOOP, FROZEN, EXPLORE, POPULAR = ARMS = ("loop", "frozen", "explore", "popular")
SALT: Final = "raycommend"
#: Of the lists that are drawn.
TEMPERATURE: Final = 0.5
#: Events in a request.
_BATCH: Final = 100
#: When the shop posts what came of lists.
_LATER: Final = dt.timedelta(minutes=10)


def arms(frozen: str) -> list[dict[str, Any]]:
    """`serve.arms` of the recipe.

    Args:
        frozen: where the first bundle lies.
    """
    more: Mapping[str, dict[str, Any]] = {
        FROZEN: {"bundle": frozen},
        EXPLORE: {"exploration": "plackett_luce", "temperature": TEMPERATURE},
    }
    return [{"name": name, **more.get(name, {})} for name in ARMS]


def arm_of(key: str) -> str:
    """The arm that answers a user, by pseudonym, or a session, by the request's id."""
    return ARMS[bisect_right(bounds([1.0] * len(ARMS)), hash_fraction(key, SALT))]


class Days:
    """Serves days.

    Args:
        shop: in motion.
        service: that is asked.
        key: of the pseudonyms.
    """

    def __init__(self, shop: Shop, service: Service, key: bytes) -> None:
        self._shop, self._service, self._key = shop, service, key
        self._arms = np.array(
            [arm_of(pseudonym(user_id(user), key)) for user in range(len(shop.shoppers))]
        )

    def serve(self, day: int) -> pl.DataFrame:
        """Serve a day.

        Returns:
            A row for each item that was shown: who saw what and where, what came of it, and the
            true probabilities `click`, `cart`, `buy` of each, given that it was shown.
        """
        self._shop.begin(day)
        self._service.set_clock(moment(day, 0))
        self._announce(self._shop.shoppers.catalogue, day)
        return pl.concat([self._moment(day, number) for number in range(MOMENTS)])

    def _announce(self, catalogue: Catalogue, day: int) -> None:
        """Tell the service of items that are new on a day."""
        items = catalogue.table[catalogue.new_on(day)].to_dicts()
        if items:
            self._service.ask([Call("/items", {"items": items})])

    def _moment(self, day: int, number: int) -> pl.DataFrame:
        shop, at = self._shop, moment(day, number)
        users = shop.visitors()
        self._service.set_clock(at)
        self._post([*shop.returned(at), *shop.browse(users, day, at)])
        ids = [self._request_id(day, number, user) for user in users.tolist()]
        calls = [self._call(*each) for each in zip(users.tolist(), ids, strict=True)]
        answers = self._service.ask(calls)
        expected = self._arms[users].tolist()
        for answer, arm in zip(answers, expected, strict=True):
            if (answer["arm"], answer["fallback"], len(answer["items"])) != (arm, False, K):
                raise DataError(
                    "not the answer that was asked for", value=str(answer)[:500],
                    field=f"arm {arm}", fix="this is a fault of the benchmark or of the service",
                )  # fmt: skip
        lists = [[item["item_id"] for item in answer["items"]] for answer in answers]
        seen = shop.look(users, lists)
        self._service.set_clock(at + _LATER)
        self._post(shop.answers(seen, at, ids))
        return self._told(seen, day, at, ids, answers)

    def _request_id(self, day: int, number: int, user: int) -> str:
        """The id of a list; whoever sees what is popular asks as a stranger of that arm."""
        name = f"{day}-{number}-{user}"
        if self._arms[user] != POPULAR:
            return name
        return next(each for each in (f"{name}-{n}" for n in count()) if arm_of(each) == POPULAR)

    def _call(self, user: int, request_id: str) -> Call:
        if self._arms[user] != POPULAR:
            return Call("/recommend", {"user_id": user_id(user), "k": K}, request_id)
        rows = np.flatnonzero(self._shop.shoppers.opened[user])
        opened = [self._shop.ids[row] for row in rows]
        return Call("/recommend", {"history": [], "k": K, "exclude": opened}, request_id)

    def _post(self, events: Sequence[Event]) -> None:
        calls = [Call("/events", {"events": batch}) for batch in _batches(events)]
        for answer in self._service.ask(calls):
            if answer["stored"] != len(answer["results"]):
                raise DataError(
                    "an event was not stored", value=str(answer)[:500], field="/events",
                    fix="this is a fault of the benchmark or of the service",
                )  # fmt: skip

    def _told(
        self,
        seen: Seen,
        day: int,
        at: dt.datetime,
        ids: Sequence[str],
        answers: Sequence[Mapping[str, Any]],
    ) -> pl.DataFrame:
        size = seen.items.shape[0]
        chances = seen.chances

        def each(values: Sequence[Any]) -> pl.Series:
            return pl.Series(np.repeat(np.arange(size), K)).replace_strict(
                list(range(size)), list(values)
            )

        requests = [pseudonym(request, self._key) for request in ids]
        return pl.DataFrame(
            {
                "day": np.full(size * K, day),
                Col.request: each(requests),
                Col.timestamp: pl.Series([at] * (size * K), dtype=pl.Datetime("us", "UTC")),
                "shopper": np.repeat(seen.users, K),
                Col.arm: np.repeat(self._arms[seen.users], K),
                Col.model_version: each([answer["model_version"] for answer in answers]),
                Col.position: np.tile(np.arange(1, K + 1), size),
                Col.item_row: seen.items.ravel(),
                "click": chances.click.ravel(),
                "cart": (chances.click * chances.cart).ravel(),
                "buy": (chances.click * chances.cart * chances.buy).ravel(),
                Col.clicked: seen.clicked.ravel(),
                Col.carted: seen.carted.ravel(),
                Col.purchased: seen.bought.ravel(),
                Col.dwell_ms: seen.dwell_ms.ravel(),
                Col.value: seen.value.ravel(),
            }
        )


def _batches(events: Sequence[Event]) -> Iterator[list[Event]]:
    """The events as JSON, in the order given, so many at a time."""
    for low in range(0, len(events), _BATCH):
        yield [
            event | {Col.timestamp: event[Col.timestamp].isoformat()}
            for event in events[low : low + _BATCH]
        ]
