"""The service without HTTP and without Ray: what the routes of every surface call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from recsys.errors import DataError
from recsys.state import STATE_FILE, clock_us, open_items
from recsys.storage.location import Place
from serve.core.answer_flow import AnswerFlow, Ask
from serve.core.bundle_loader import BundleLoader
from serve.core.catalogue_updates import CatalogueUpdates
from serve.core.circuit_breaker import CircuitBreaker
from serve.core.model_swap import ModelSwap
from serve.core.query_sources import QuerySources
from serve.core.serialization import Serialize, to_json
from serve.core.user_events import UserEvents
from serve.core.worker_pool import WorkerPool
from serve.models.added_items import Encode
from serve.models.arms import Arms, ResolvedArm, describe_arm
from serve.models.live_arms import LiveArms
from serve.models.text_vectors import TextVectors
from serve.observability.drift import DriftGauges
from serve.observability.metrics import Metrics, NoMetrics
from serve.observability.trace import current
from serve.ranking.batches import Batches
from serve.ranking.queries import EventTypes
from serve.ranking.shadow import Shadows
from serve.ranking.verbs import verbs_of
from serve.schemas.events import Event, Events
from serve.schemas.problems import Unavailable
from serve.schemas.requests import ItemUpdate, RankRequest, RecommendRequest
from serve.settings import Settings
from serve.stores.impressions import ImpressionLog, Impressions, NoImpressions
from serve.stores.users import Users

logger = logging.getLogger("ray.serve")

#: Seconds for which a store of users that could not be read is not asked again.
STORE_COOLDOWN_S = 1.0
#: Seconds between two looks at whom other replicas have erased.
ERASED_S = 5.0


class Service:
    """A facade: one method a route, one collaborator a task.

    Args:
        settings: limits, event names, store and key.
        encode: see `Encode`.
        metrics: what is measured goes there.
        clock: the server's time, microseconds since 1970, UTC.
        store_cooldown_s: see `STORE_COOLDOWN_S`.

    Attributes:
        keys: the API keys that callers need; None: none are asked for.
        origins: web pages that may call from a browser.
        log_requests: the share of requests that is logged.
        metrics: as above.
        ongoing: requests in work.

    Raises:
        DataError: there is no pseudonym key, or a store or the file of API keys cannot be opened.
    """

    def __init__(
        self,
        settings: Settings,
        encode: Encode,
        metrics: Metrics | None = None,
        *,
        clock: Callable[[], int] = clock_us,
        store_cooldown_s: float = STORE_COOLDOWN_S,
    ) -> None:
        limits = settings.serve
        self.metrics = metrics or NoMetrics()
        self.origins, self.log_requests = limits.access.origins, limits.log_requests
        self.ongoing, self._is_draining = 0, False
        types = EventTypes(settings.event_types)
        texts = TextVectors(encode, self.metrics)
        # For what waits for a store, and for explanations, which would keep all others waiting.
        self._workers = WorkerPool(limits.max_ongoing_requests, "answer")
        # Writes wait for the disk and for each other.
        self._writer = WorkerPool(1, "store")
        self._users = Users(settings, clock)
        self.keys = self._users.api_keys()
        self._items = open_items(limits.state, settings.root / STATE_FILE)
        self._live = LiveArms(self._items, encode)
        loader = BundleLoader(self._users, encode, limits, settings.storage.cache, clock)
        self._swap = ModelSwap(self._live, loader, limits)
        self._catalogue = CatalogueUpdates(
            self._live, self._items, texts, self._workers, self._writer, limits.max_added_items
        )
        self._events = UserEvents(self._users, types, self._writer)
        self._impressions = _impression_log(settings, self._users)
        self._shadows = Shadows(self.metrics, limits.log_requests)
        self._drift = DriftGauges(settings.shared, self.metrics)
        self._batches = Batches(self.metrics)
        self._flow = AnswerFlow(
            limits,
            verbs_of(settings.event_types, limits.verbs),
            pseudonym=self._users.pseudonym,
            counted=self._users.counted,
            sources=QuerySources(
                self._users,
                types,
                settings.max_skew_us,
                CircuitBreaker(store_cooldown_s),
                self._workers,
                clock,
            ),
            texts=texts,
            batches=self._batches,
            workers=self._workers,
            shadows=self._shadows,
            impressions=self._impressions,
            clock_us=clock,
        )

    # What is served.

    @property
    def arms(self) -> Arms:
        """What is served now; see `LiveArms.now`."""
        return self._live.now

    async def load(self, place: Place, version: str, arms: Sequence[ResolvedArm] = ()) -> None:
        """Serve other bundles or arms; see `ModelSwap.load`."""
        await self._swap.load(place, version, arms)
        self._drift.look_again()

    async def refresh(self) -> None:
        """Take up the items that other replicas changed; see `LiveArms.refresh`."""
        await self._live.refresh()

    async def follow(self) -> None:
        """The same for ever, see `LiveArms.follow`; and whom other replicas erase."""
        await asyncio.gather(self._live.follow(), self._follow_erasures())

    async def _follow_erasures(self) -> None:
        while True:
            await asyncio.sleep(ERASED_S)
            if all(served.model.outcomes is None for served in self.arms.bundles):
                continue
            try:
                await asyncio.to_thread(self._users.read_erased)
            except DataError as error:
                logger.error("erased users are not read: %s", error)

    # The routes.

    async def recommend(self, request: RecommendRequest, serialize: Serialize = to_json) -> Any:
        """The answer to `POST /recommend`; JSON by default."""
        return await self._flow.answer(Ask(request, self.arms, serialize))

    async def rank(self, request: RankRequest, serialize: Serialize = to_json) -> Any:
        """The answer to `POST /rank`; JSON by default."""
        return await self._flow.answer(Ask(request, self.arms, serialize))

    async def store(self, request: Event | Events, serialize: Serialize = to_json) -> Any:
        """The answer to `POST /events`, JSON by default; see `UserEvents.store`."""
        return await self._events.store(request, self.arms, serialize)

    async def erase(self, user_id: str) -> bytes:
        """The JSON answer to `DELETE /users/{user_id}` and `POST /users/erase`."""
        return await self._events.erase(user_id)

    def user_token(self, user_id: str, lives_s: int) -> bytes:
        """The JSON answer to `POST /users/token`.

        Args:
            user_id: raw.
            lives_s: seconds until the token expires.
        """
        assert self.keys is not None  # without keys there is no such route
        user = self._users.pseudonym(user_id)
        token, expires = self.keys.user_token(user, current().caller.key, lives_s)
        return to_json({"token": token, "expires": expires})

    async def update_items(self, updates: Sequence[ItemUpdate], *, single: bool) -> bytes:
        """The JSON answer to `POST /items`; see `CatalogueUpdates.update`."""
        return await self._catalogue.update(updates, single=single)

    async def item(self, item_id: str) -> bytes:
        """The JSON answer to `GET /items/...`; see `CatalogueUpdates.describe`."""
        return await self._catalogue.describe(item_id)

    async def remove_item(self, item_id: str) -> bytes:
        """The JSON answer to `DELETE /items/...`."""
        return await self._catalogue.remove(item_id)

    def describe(self) -> dict[str, Any]:
        """The answer to `GET /model`."""
        arms, served = self.arms, self.arms.first.served
        return {
            "version": served.model.version,
            "num_items": served.bundle.num_items,
            "num_added": served.model.num_items - served.bundle.num_items,
            "info": served.model.info,
            "log": served.log,
            "failed_update": self._swap.failed_update,
            "arms": [
                {**describe_arm(each.arm), "version": each.model.version} for each in arms.every
            ],
        }

    async def check(self) -> str:
        """The answer to `GET /readyz`: the version of the first arm that answers.

        Raises:
            Unavailable: there is no model yet, or the service is about to end.
            DataError: the store cannot be read.
        """
        if self._is_draining:
            raise Unavailable("the service is stopping")
        model = self.arms.first.model
        await self._workers.run(self._users.ping)
        return model.version

    # The life of a replica.

    def report(self) -> None:
        """Set the gauges; to be called every second, as Ray drops what is not set for a while."""
        self.metrics.set("ongoing_requests", self.ongoing)
        self.metrics.set("dropped_impressions", self._impressions.num_dropped)
        self.metrics.set("failed_update", self._swap.failed_update is not None)
        self.metrics.set("last_write_timestamp_seconds", self._events.last_write)
        self._drift.set()
        arms = self._live.or_none
        if arms is not None:
            for version in {arm.model.version for arm in arms.answering}:
                self.metrics.set("model_info", 1, version=version)

    def drain(self) -> None:
        """Say through `check` that no more should be asked; what comes is answered still."""
        self._is_draining = True

    def close(self) -> None:
        """Finish and write what waits; nothing can be asked after."""
        self._workers.close()
        self._writer.close()
        self._batches.close()
        self._shadows.close()
        self._impressions.close()
        self._items.close()
        self._users.close()


def _impression_log(settings: Settings, users: Users) -> ImpressionLog:
    if not settings.serve.impressions:
        return NoImpressions()
    return Impressions(settings.impressions, users.pseudonym)
