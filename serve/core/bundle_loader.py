"""Load a bundle and try it before anybody is answered by it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from recsys.artifacts.bundle import Bundle
from recsys.config import Serve
from recsys.errors import BundleError
from recsys.recommender import Recommender
from recsys.schema import EVENT_CODE
from recsys.state import StateEvent
from recsys.storage.location import Place
from recsys.storage.node_cache import NodeCache
from serve.core.serialization import to_json
from serve.models.added_items import Encode
from serve.models.arms import ServedBundle
from serve.ranking.candidates import Candidates
from serve.ranking.queries import Query, from_user
from serve.ranking.rankings import CandidateRanking, CatalogueRanking
from serve.ranking.verbs import verbs_of
from serve.schemas.requests import RankRequest, RecommendRequest
from serve.stores.users import Users


class BundleLoader:
    """Loads bundles that are fit to be served.

    Args:
        users: hold the pseudonym key that a bundle must share; take over its log.
        encode: see `Encode`.
        limits: the recipe's `serve`.
        cache: of this node, for bundles at URIs.
        clock_us: the server's time, microseconds since 1970, UTC.
    """

    def __init__(
        self,
        users: Users,
        encode: Encode,
        limits: Serve,
        cache: NodeCache,
        clock_us: Callable[[], int],
    ) -> None:
        self._users, self._encode, self._cache = users, encode, cache
        self._limits, self._clock_us = limits, clock_us

    async def load(self, place: Place, version: str) -> ServedBundle:
        """A bundle that is whole, gives finite scores, and whose language model reads.

        Args:
            place: where it lies.
            version: which one is meant: a folder's content may be replaced.

        Raises:
            BundleError: it is missing, broken, another one, or its model has diverged.
            StorageError: it cannot be fetched.
            DataError: its log was prepared with another pseudonym key.
            Unavailable: the text encoder does not answer.
        """
        served = await asyncio.to_thread(self._load, place, version)
        vectors = await self._encode(place, version, [{"title": "a new item"}])
        _check_finite(vectors, place)
        return served

    def _load(self, place: Place, version: str) -> ServedBundle:
        local = self._cache.local(place)
        bundle = Bundle.open(local.folder)
        bundle.must_be(version)
        self._users.check_key(bundle)
        model = Recommender(bundle)
        model.outcomes, without = self._users.outcomes(bundle)
        for events in ([], [StateEvent("", "", model.item_id(0), EVENT_CODE["view"], 0)]):
            query = from_user(model, events, clock_us=self._clock_us())
            _check_finite(model.scorer.scores(query.history), place)
            _try_out(model, query, self._limits)
        log = self._users.seed(bundle)
        if without is not None:
            log += f"; the outcome heads know none of them: {without}"
        return ServedBundle(place, model, log, model, local=local)


def _try_out(model: Recommender, query: Query, limits: Serve) -> None:
    """Answer as the hot routes do: a model that cannot is not served, and caches are warm after."""
    (encoded,) = model.encode([query.history], whole=True)
    verbs = verbs_of({}, {})
    everything = RecommendRequest(user_id="nobody", explain=True)
    one = RankRequest(user_id="nobody", candidates=[model.item_id(0)], explain=True)
    no_texts, candidates = np.zeros((0, 0), dtype=np.float32), Candidates.of(model, one)
    for ranking in (
        CatalogueRanking(everything, limits, verbs),
        CandidateRanking(one, model, candidates, no_texts, verbs),
    ):
        to_json(ranking.answer(model, query, encoded).fields)


def _check_finite(values: NDArray[np.float32], place: Place) -> None:
    if not np.isfinite(values).all():
        raise BundleError(
            "its scores are not finite: the model has diverged", where=place, fix="train again"
        )
