"""The service without HTTP and without Ray: a model that can be swapped, users, and answers."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.artifacts.bundle import Bundle
from recsys.config import Serve
from recsys.data.catalogue import item_text
from recsys.data.feedback import Feedback
from recsys.errors import BundleError, DataError, RaycommendError
from recsys.ranking.encoded import EncodedHistory
from recsys.ranking.exploration import Exploration
from recsys.recommender import Recommender
from recsys.schema import EVENT_CODE, TEXT_FIELDS, Col
from recsys.state import StateEvent, clock_us
from recsys.state.items import NOTHING, ItemChange, ItemEdit, merged
from serve.core import answer_flow
from serve.core.added_items import AddedItems, Encode, Seen, extended, texts_of
from serve.core.answer_flow import Answer, Candidates
from serve.core.arms import ONLY, Arms, PlacedArm, Served, ServedArm, told
from serve.core.batches import Batches
from serve.core.impressions import Impressions, Log, NoImpressions, Shown
from serve.core.queries import EventTypes, Query, from_session, from_user
from serve.core.shadow import Asked, Shadows
from serve.core.users import Users
from serve.core.verbs import verbs_of
from serve.observability.metrics import Metrics, Unkept
from serve.observability.trace import current, current_id
from serve.schemas.callers import Claims, write_token
from serve.schemas.problems import Conflict, Forbidden, NotFound, Refused, Unavailable
from serve.schemas.requests import (
    MAX_NEW_ITEMS,
    Event,
    ItemUpdate,
    NewItem,
    RankRequest,
    RecommendRequest,
)
from serve.settings import Settings

logger = logging.getLogger("ray.serve")

#: Makes what is sent of an answer's fields; called in a thread that works for the request.
Form = Callable[[dict[str, Any]], Any]

#: Seconds for which a store that could not be read is not asked again.
STORE_COOLDOWN_S = 1.0
#: Seconds between two looks at the store of added items; after a failure, longer.
LOOK_S, LOOK_AGAIN_S = 0.5, 5.0


class Service:
    """Everything the routes do.

    Args:
        settings: limits, event names, store and key.
        encode: see `Encode`.
        metrics: what is measured goes there.

    Attributes:
        keys: the API keys that may ask; None: whoever reaches the service may.
        origins: web pages that may ask from a browser.
        log_requests: the share of requests that is logged.
        metrics: as above.
        ongoing: requests in work.
    """

    def __init__(self, settings: Settings, encode: Encode, metrics: Metrics | None = None) -> None:
        self._settings, self._encode = settings, encode
        self._types = EventTypes(settings.event_types)
        self._verbs = verbs_of(settings.event_types, settings.serve.verbs)
        self._users = Users(settings)
        shown = Feedback.of(settings.root).impressions
        is_logged = settings.serve.impressions
        self._impressions: Log = (
            Impressions(shown, self._users.pseudonym) if is_logged else NoImpressions()
        )
        self._added = AddedItems(settings, encode)
        self.keys = self._users.api_keys()
        self.origins = settings.serve.access.origins
        self.log_requests = settings.serve.log_requests
        self.metrics = metrics or Unkept()
        self.ongoing = 0
        self._batches = Batches(self.metrics)
        # For what waits for a store, and for explanations, which would keep all others waiting.
        most = settings.serve.max_ongoing_requests
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="answer")
        # Writes wait for the disk and for each other.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._swapping = asyncio.Lock()
        self._extending = asyncio.Lock()
        self._arms: Arms | None = None
        self._shadows = Shadows(self.metrics, settings.serve.log_requests)
        self._failed_update: str | None = None
        self._is_draining = False
        self._circuit_open_until = float("-inf")
        self._last_write = time.time()

    @property
    def arms(self) -> Arms:
        """What is served now; a request takes it once, so that a swap cannot part its steps."""
        if self._arms is None:
            raise Unavailable("no model is loaded yet")
        return self._arms

    async def load(self, folder: Path, version: str, arms: Sequence[PlacedArm] = ()) -> None:
        """Serve other bundles or arms: load and try them aside, then swap.

        An arm whose new bundle is broken keeps its last good one. Where it has none, nothing is
        changed.

        Args:
            folder: where the bundle lies that the service is started with.
            version: which one is meant: a folder's content may be replaced.
            arms: of the recipe; none: that bundle answers everybody.

        Raises:
            Exception: whatever loading raises, but only if there is no last good one.
        """
        async with self._swapping:
            wanted = [
                (arm, (Path(arm.bundle), str(arm.version)) if arm.bundle else (folder, version))
                for arm in arms or [ONLY]
            ]
            now = self._arms
            loaded = {} if now is None else {(s.folder, s.bundle.version): s for s in now.bundles}
            last_good = {} if now is None else {each.name: each.served for each in now.every}
            failed, every = None, []
            for arm, place in wanted:
                try:
                    if place not in loaded:
                        loaded[place] = await self._tried(*place)
                    served = loaded[place]
                except Exception as error:
                    if now is None:
                        raise
                    failed = f"arm {arm.name}: {_reason(error)}" if arms else _reason(error)
                    kept = last_good.get(arm.name)
                    logger.exception("%s: %s", kept and kept.bundle.version, place[0])
                    if kept is None:
                        self._failed_update = failed
                        return
                    served = kept
                every.append(ServedArm(arm, served))
            # Twice: many texts may have to be read anew, and meanwhile further items may come.
            found = await self._with_added(Arms(every, self._settings.serve.arms_salt))
            async with self._extending:
                self._arms = await self._with_added(found)
            self._failed_update = failed
            logger.info("serving %s", ", ".join(f"{e.name}: {e.model.version}" for e in every))

    async def follow(self) -> None:
        """For ever: notice which items other replicas add or take away."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self._refresh()
            except (DataError, Unavailable) as error:
                logger.error("for %g s added items are not looked for: %s", LOOK_AGAIN_S, error)
                await asyncio.sleep(LOOK_AGAIN_S)
            except Exception:
                logger.exception("added items cannot be taken up")
                await asyncio.sleep(LOOK_AGAIN_S)

    async def update_items(self, updates: Sequence[ItemUpdate], *, single: bool) -> bytes:
        """The JSON answer to `POST /items`; `single`: the request is one item, not a list."""
        stored = None
        while stored is None:  # somebody else has said something of one of them meanwhile
            await self._refresh()
            edits, known, version = await self._edits(updates, single=single)
            put = partial(self._added.put, edits, version)
            stored = await self._in_thread(put, self._writer)
        await self._refresh()
        return answer_flow.to_json(
            {"received": len(updates), "stored": stored, "known_items": known}
        )

    async def _edits(
        self, updates: Sequence[ItemUpdate], *, single: bool
    ) -> tuple[list[ItemEdit], list[str], str]:
        """What is to be stored of items, the ids that the catalogue holds, and the model's version.

        Raises:
            Refused: an item stands there twice, a new one has no text, or there are too many.
        """
        arms, served = self.arms, self.arms.first.served
        seen, loc = served.seen.items, () if single else ("items",)
        ids = [update.item_id for update in updates]
        said = {name: seen[name].fields if name in seen else None for name in ids}
        now = {each.item_id: merged(said[each.item_id], each.given()) for each in updates}
        new, text_fields = {}, served.bundle.recipe.data.text_fields
        for place, name in enumerate(ids):
            at: tuple[str | int, ...] = (*loc, *(() if single else (place,)))
            if ids.index(name) < place:
                raise Refused((*at, "item_id"), "given twice", kind="repeated")
            if any(each.bundle.in_bundle(name) for each in arms.bundles):
                continue
            if not item_text(json.loads(now[name]), text_fields):
                msg = f"the item is new and has no text: fill one of {', '.join(text_fields)}"
                raise Refused(at, msg, kind="text")
            new[at] = name
        most = self._settings.serve.max_added_items
        others = {name for name in seen if not served.bundle.in_bundle(name)}
        if len(others | set(new.values())) > most:
            msg = f"at most {most} added items: take some away, or serve a bundle that holds them"
            raise Refused((), msg, kind="too_many")
        vectors = {name: seen[name].vector for name in new.values() if name in seen}
        unread = {
            at: json.loads(now[name])
            for at, name in new.items()
            if name not in seen or texts_of(json.loads(now[name])) != _texts(seen[name])
        }
        for at, vector in zip(unread, await self._encoded(served, unread), strict=True):
            vectors[new[at]] = vector
        edits = [
            ItemEdit(name, said[name], now[name], vectors.get(name))
            for name in ids
            if said[name] is not None or now[name] != NOTHING
        ]
        known = [name for name in ids if name not in new.values()]
        return edits, known, served.bundle.version

    async def item(self, item_id: str) -> bytes:
        """The JSON answer to `GET /items/...`.

        Raises:
            NotFound: neither the bundle holds it nor was it added.
        """
        await self._refresh()
        served = self.arms.first.served
        in_bundle, said = served.bundle.in_bundle(item_id), served.seen.items.get(item_id)
        if not in_bundle and said is None:
            raise NotFound("no such item: the bundle does not hold it, and none was added")

        def answer() -> bytes:
            own = served.bundle.fields_in_bundle(item_id) if in_bundle else {}
            updated = json.loads(said.fields or "{}") if said else {}
            known = {name: (own | updated).get(name) for name in (*TEXT_FIELDS, Col.price)}
            available = (own | updated).get(Col.available)
            return answer_flow.to_json(
                {
                    "item_id": item_id, **known, "available": available is not False,
                    "in_bundle": in_bundle, "updated": sorted(updated),
                }
            )  # fmt: skip

        return await self._in_thread(answer, self._threads)

    async def remove_item(self, item_id: str) -> bytes:
        """The JSON answer to `DELETE /items/...`."""
        removed = await self._in_thread(lambda: self._added.remove(item_id), self._writer)
        await self._refresh()
        return answer_flow.to_json({"removed": removed})

    async def recommend(self, request: RecommendRequest, form: Form = answer_flow.to_json) -> Any:
        """The answer to `POST /recommend`; JSON, unless it is to have another form."""
        limits, arms = self._settings.serve, self.arms
        self._check_caller(request)
        if request.k is not None and request.k > limits.max_k:
            raise Refused(("k",), f"at most {limits.max_k}", kind="too_large")
        if arms.explores:
            _check_no_rules(request)

        def ranked(
            model: Recommender, query: Query, encoded: EncodedHistory, asked: Any, *of_arm: Any
        ) -> Answer:
            verbs = self._verbs
            return answer_flow.recommend(model, query, encoded, asked, limits, verbs, *of_arm)

        async def by(arm: ServedArm) -> Any:
            return await self._made(arm, arms.shadows, request, ranked, form, whole=True)

        return await self._answered(arms, request, by)

    async def rank(self, request: RankRequest, form: Form = answer_flow.to_json) -> Any:
        """The answer to `POST /rank`; JSON, unless it is to have another form."""
        most, arms = self._settings.serve.max_candidates, self.arms
        self._check_caller(request)
        if len(request.candidates) > most:
            raise Refused(("candidates",), f"at most {most} candidates", kind="too_many")
        if request.k is not None and request.k > most:
            raise Refused(("k",), f"at most {most}", kind="too_large")

        async def by(arm: ServedArm) -> Any:
            # Looked up here and not by the thread that ranks: another core would have to fetch
            # every id from this one's cache.
            candidates = Candidates.of(arm.model, request)
            vectors = await self._text_vectors(arm.served, candidates.new)

            def ranked(
                model: Recommender, query: Query, encoded: EncodedHistory, asked: Any, *of_arm: Any
            ) -> Answer:
                mine = candidates if model is arm.model else Candidates.of(model, request)
                return answer_flow.rank(
                    model, query, encoded, asked, mine, vectors, self._verbs, *of_arm
                )

            # A shadow's own language model would have to read the new items.
            shadows = () if len(vectors) else arms.shadows
            return await self._made(arm, shadows, request, ranked, form, whole=False)

        return await self._answered(arms, request, by)

    async def store(
        self, events: Sequence[Event], form: Form = answer_flow.to_json, *, single: bool
    ) -> Any:
        """The answer to `POST /events`; JSON, unless it is to have another form.

        Args:
            events: to be stored.
            form: see `Form`.
            single: the request is one event, not a list.

        Raises:
            Conflict: a single event whose id another one bears.
        """
        models, caller = [served.model for served in self.arms.bundles], current().caller
        for place, event in enumerate(events):
            if caller.user and not caller.speaks_for(self._users.pseudonym(event.user_id)):
                at = ("user_id",) if single else ("events", place, "user_id")
                raise Forbidden(at, "this token is another user's")

        def answer() -> Any:
            kept = self._users.store(events, self._types, single=single)
            ids = list(dict.fromkeys(event.item_id for event in events))
            rows = np.maximum.reduce([model.rows_of(ids) for model in models])
            if kept.stored:
                self._last_write = time.time()
            current().record_stage("store")
            if single and kept.conflicts:
                raise Conflict(
                    ("event_id",), "another event is held under this id: give each one of its own"
                )
            unknown = [i for i, row in zip(ids, rows, strict=True) if row < 0]
            return form({"received": len(events), **vars(kept), "unknown_items": unknown})

        return await self._in_thread(answer, self._writer)

    async def erase(self, user_id: str) -> bytes:
        """The JSON answer to `DELETE /users/{user_id}` and `POST /users/erase`."""

        def answer() -> bytes:
            found = self._users.erase(user_id)
            return answer_flow.to_json({"erased": found.num_events, "held": found.held})

        return await self._in_thread(answer, self._writer)

    def user_token(self, user_id: str, lives_s: int) -> bytes:
        """The JSON answer to `POST /users/token`."""
        assert self.keys is not None  # without keys there is no such route
        claims = Claims(
            self._users.pseudonym(user_id), int(time.time()) + lives_s, current().caller.key
        )
        token = write_token(claims, self.keys.signing)
        return answer_flow.to_json({"token": token, "expires": claims.expires})

    def drain(self) -> None:
        """Say that no more should be asked; whatever comes is answered still."""
        self._is_draining = True

    def close(self) -> None:
        """Write what waits to be written; nothing can be asked after."""
        for threads in (self._threads, self._writer):
            threads.shutdown()
        self._batches.close()
        self._shadows.close()
        self._impressions.close()
        self._added.close()
        self._users.close()

    async def check(self) -> str:
        """The version of the first arm that answers, if requests can be answered.

        Raises:
            Unavailable: there is no model yet, or the service is about to end.
            DataError: the store cannot be read.
        """
        if self._is_draining:
            raise Unavailable("the service is stopping")
        model = self.arms.first.model
        await self._in_thread(self._users.ping, self._threads)
        return model.version

    def report(self) -> None:
        """Set the gauges; again and again, as Ray drops what it has not heard of for a while."""
        self.metrics.set("ongoing_requests", self.ongoing)
        self.metrics.set("dropped_impressions", self._impressions.num_dropped)
        self.metrics.set("failed_update", self._failed_update is not None)
        self.metrics.set("last_write_timestamp_seconds", self._last_write)
        if self._arms is not None:
            for version in {arm.model.version for arm in self._arms.answering}:
                self.metrics.set("model_info", 1, version=version)

    def describe(self) -> dict[str, Any]:
        """The answer to `GET /model`."""
        arms, served = self.arms, self.arms.first.served
        return {
            "version": served.model.version,
            "num_items": served.bundle.num_items,
            "num_added": served.model.num_items - served.bundle.num_items,
            "info": served.model.info,
            "log": served.log,
            "failed_update": self._failed_update,
            "arms": [{**told(each.arm), "version": each.model.version} for each in arms.every],
        }

    async def _tried(self, folder: Path, version: str) -> Served:
        """A bundle that is whole, gives finite scores, and whose language model reads."""
        served = await asyncio.to_thread(self._loaded, folder, version)
        vectors = await self._encode(folder, version, [{"title": "a new item"}])
        _check_finite(vectors, folder)
        return served

    def _loaded(self, folder: Path, version: str) -> Served:
        bundle = Bundle.open(folder)
        bundle.must_be(version)
        self._users.check_key(bundle)
        model = Recommender(bundle)
        for events in ([], [StateEvent("", "", model.item_id(0), EVENT_CODE["view"], 0)]):
            query = from_user(model, events, clock_us=clock_us())
            _check_finite(model.scorer.scores(query.history), folder)
            _try_out(model, query, self._settings.serve)
        return Served(folder, model, self._users.seed(bundle), model)

    async def _refresh(self) -> None:
        """Take up what has changed in the store of added items.

        Raises:
            DataError: it cannot be read.
            Unavailable: a text has to be encoded anew, and cannot be.
        """
        async with self._extending:
            arms = self.arms
            version = await asyncio.to_thread(self._added.version)
            if all(served.seen.version == version for served in arms.bundles):
                return
            versions, new = [each.bundle.version for each in arms.bundles], {}
            for served in arms.bundles:
                # A store that was emptied, or came back from a copy, begins anew.
                before = served.seen if version > served.seen.version else Seen()
                new[id(served)] = await self._grown(served, before, versions)
            self._arms = arms.with_served(new)

    async def _with_added(self, arms: Arms) -> Arms:
        """The same with the added items as they are now; without, if they cannot be had."""
        bundles = [*arms.bundles, *([] if self._arms is None else self._arms.bundles)]
        versions, new = [each.bundle.version for each in bundles], {}
        for served in arms.bundles:
            new[id(served)] = served
            try:
                new[id(served)] = await self._grown(served, served.seen, versions)
            except (DataError, Unavailable) as error:
                version = served.bundle.version
                logger.error("%s is served without added items for now: %s", version, error)
        return arms.with_served(new)

    async def _grown(self, served: Served, before: Seen, versions: Sequence[str]) -> Served:
        """A bundle with the added items as they are now.

        Args:
            served: the bundle.
            before: what of the store is known.
            versions: bundles whose vectors are still needed.
        """
        seen = await self._added.read(served.folder, served.bundle, before, versions)
        if seen.version == served.seen.version:
            return served
        model = await asyncio.to_thread(extended, served.bundle, seen)
        return replace(served, model=model, seen=seen)

    async def _answered(
        self,
        arms: Arms,
        request: RecommendRequest | RankRequest,
        by: Callable[[ServedArm], Awaitable[Any]],
    ) -> Any:
        """The answer of the user's arm; if that one fails, of the first other that answers."""
        own = self._arm_of(arms, request.user_id)
        try:
            return await by(own)
        except (Refused, Unavailable):  # of the request, or of what all arms need
            raise
        except Exception:
            other = arms.instead_of(own)
            if other is None:
                raise
            logger.exception("arm %s fails, %s answers", own.name, other.name)
            current().failed_arm = own.name
            return await by(other)

    async def _made(
        self,
        arm: ServedArm,
        shadows: Sequence[ServedArm],
        request: RecommendRequest | RankRequest,
        ranked: Callable[..., Answer],
        form: Form,
        *,
        whole: bool,
    ) -> Any:
        """An arm's answer as it is sent, logged; shadows are to rank the same.

        Args:
            arm: answers.
            shadows: are compared with it.
            request: what is asked.
            ranked: model, query, its encoded history, request, and of the arm its name and how it
                draws -> the answer.
            form: see `Form`.
            whole: the whole catalogue is ranked.
        """
        model, query_for = arm.model, await self._query_of(request)

        def answer(query: Query, encoded: EncodedHistory) -> Any:
            current().record_stage("score")
            made = ranked(model, query, encoded, request, arm.name, self._exploration(arm))
            sent = form(made.fields)
            current().record_stage("answer")
            ids = [item["item_id"] for item in made.items] if shadows else []
            if ids:
                plain = request.model_copy(update={"explain": False})

                def by_shadow(model: Recommender) -> Answer:
                    query = query_for(model)
                    (encoded,) = model.encode([query.history], whole=whole)
                    return ranked(model, query, encoded, plain)

                self._shadows.offer(Asked(made.request_id, made.arm, ids, shadows, by_shadow))
            self._log(made, request)
            return sent

        if not request.explain:
            return await self._batches.ask(model, lambda: query_for(model), answer, whole=whole)

        def alone() -> Any:
            query = query_for(model)
            current().record_stage("history")
            return answer(query, *model.encode([query.history], whole=whole))

        return await self._in_thread(alone, self._threads)

    def _check_caller(self, request: RecommendRequest | RankRequest) -> None:
        """Refuse what tells of a user whom the caller may not ask for.

        Raises:
            Forbidden: as it says.
        """
        caller, user_id = current().caller, request.user_id
        if user_id is None:
            return
        if caller.user and not caller.speaks_for(self._users.pseudonym(user_id)):
            raise Forbidden(("user_id",), "this token is another user's")
        if request.explain and not caller.may("explain"):
            msg = "tells what a user did, and this key lacks the right `explain`"
            raise Forbidden(("explain",), msg)

    def _arm_of(self, arms: Arms, user_id: str | None) -> ServedArm:
        if len(arms.answering) == 1:
            return arms.first
        return arms.of(current_id() if user_id is None else self._users.pseudonym(user_id))

    def _exploration(self, arm: ServedArm) -> Exploration | None:
        return arm.exploration(current_id(), self._settings.serve.arms_salt)

    async def _query_of(
        self, request: RecommendRequest | RankRequest
    ) -> Callable[[Recommender], Query]:
        """What is known of the user, read once: the query that it makes to any arm's model."""
        now, user_id = clock_us(), request.user_id
        if user_id is not None:
            events = await self._in_thread(lambda: self._history(user_id), self._threads)
            current().record_stage("history")
            is_degraded = events is None

            def of_user(model: Recommender) -> Query:
                query = from_user(model, events or [], clock_us=now)
                return replace(query, degraded=True) if is_degraded else query

            return of_user
        session, latest = request.history, now + self._settings.max_skew_us
        assert session is not None  # the request's own check

        def of_session(model: Recommender) -> Query:
            return from_session(model, session, self._types, clock_us=now, latest_us=latest)

        return of_session

    def _history(self, user_id: str) -> list[StateEvent] | None:
        """A user's events; None if the store cannot be read: a worse answer beats none.

        A store that failed is left alone for a while, or every request would wait for it.
        """
        if time.monotonic() < self._circuit_open_until:
            return None
        try:
            return self._users.history(user_id)
        except DataError as error:
            self._circuit_open_until = time.monotonic() + STORE_COOLDOWN_S
            logger.error(
                "for %g s answers are the non-personalised fallback: %s", STORE_COOLDOWN_S, error
            )
            return None

    def _log(self, answer: Answer, request: RecommendRequest | RankRequest) -> None:
        """Have an answered list logged."""
        shown = request.shown
        if shown is None:
            shown = self._settings.serve.default_k if request.k is None else request.k
        propensities = answer.propensities
        self._impressions.offer(
            Shown(
                answer.request_id,
                request.user_id,
                answer.items[:shown],
                answer.model_version,
                clock_us(),
                answer.arm,
                None if propensities is None else propensities[:shown],
            )
        )

    async def _text_vectors(
        self, served: Served, new: Mapping[int, NewItem]
    ) -> NDArray[np.float32]:
        if not new:
            return np.zeros((0, 0), dtype=np.float32)
        if len(new) > MAX_NEW_ITEMS:
            raise Refused(("candidates",), f"at most {MAX_NEW_ITEMS} new items", kind="too_many")
        return await self._encoded(
            served, {("candidates", place): item.model_dump() for place, item in new.items()}
        )

    async def _encoded(
        self, served: Served, items: Mapping[tuple[str | int, ...], Mapping[str, Any]]
    ) -> NDArray[np.float32]:
        """[M, H] text vectors of M items, the fields of each by its place in the request."""
        if not items:
            return np.zeros((0, 0), dtype=np.float32)
        fields = [texts_of(item) for item in items.values()]
        self.metrics.observe("text_batch_items", len(fields))
        trace = current()
        trace.record_stage("receive")
        vectors = await self._encode(served.folder, served.bundle.version, fields)
        trace.record_stage("text")
        for loc, vector in zip(items, vectors, strict=True):
            if np.isnan(vector).any():
                raise Refused(loc, "no field that the model reads is filled", kind="text")
        return vectors

    async def _in_thread(self, function: Callable[[], Any], threads: ThreadPoolExecutor) -> Any:
        trace, context = current(), contextvars.copy_context()
        trace.record_stage("receive")

        def started() -> Any:
            trace.record_stage("wait")
            return function()

        return await asyncio.get_running_loop().run_in_executor(threads, context.run, started)


def _texts(item: ItemChange) -> dict[str, str | None]:
    """What is said of an item, as far as it makes its text."""
    return texts_of(json.loads(item.fields or "{}"))


def _check_no_rules(request: RecommendRequest) -> None:
    """Whoever the user's arm is: a request must not be refused to some users alone.

    Raises:
        Refused: the propensities of a rearranged list are not known.
    """
    for name, asked in (
        ("diversity", bool(request.diversity)),
        ("max_per_category", request.max_per_category is not None),
    ):
        if asked:
            msg = "lists are drawn here (`serve.arms`, exploration), and are not rearranged"
            raise Refused((name,), f"{msg}; leave it out", kind="explores")


def _try_out(model: Recommender, query: Query, limits: Serve) -> None:
    """Answer as the hot routes do: who cannot is not served, and what is slow once is done."""
    everything = RecommendRequest(user_id="nobody", explain=True)
    (encoded,) = model.encode([query.history], whole=True)
    verbs = verbs_of({}, {})
    answer_flow.to_json(
        answer_flow.recommend(model, query, encoded, everything, limits, verbs).fields
    )
    one = RankRequest(user_id="nobody", candidates=[model.item_id(0)], explain=True)
    no_texts, candidates = np.zeros((0, 0), dtype=np.float32), Candidates.of(model, one)
    answer = answer_flow.rank(model, query, encoded, one, candidates, no_texts, verbs)
    answer_flow.to_json(answer.fields)


def _check_finite(values: NDArray[np.float32], folder: Path) -> None:
    if not np.isfinite(values).all():
        raise BundleError(
            "its scores are not finite: the model has diverged", where=folder, fix="train again"
        )


def _reason(error: Exception) -> str:
    """What `GET /model` tells of a failed update: no paths, no stack trace."""
    if isinstance(error, RaycommendError):
        return error.problem
    return str(error) if isinstance(error, Unavailable) else type(error).__name__
