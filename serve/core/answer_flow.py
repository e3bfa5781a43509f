"""From a request to its answer, stage by stage; the methods stand in the order of the stages.

check     refuse what the caller may not ask for, and what exceeds the recipe's limits
arm       the user's arm answers; if it fails, the first other one
prepare   look candidates up, encode new texts, read the user's events
rank      in the thread that ranks, in one batch with other requests; explanations apart
finish    serialise the answer, offer it to shadow arms, log its impressions
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from recsys.config import Serve
from recsys.ranking.encoded import EncodedHistory
from serve.core.query_sources import QuerySource, QuerySources
from serve.core.request_checks import (
    check_caller,
    check_objective,
    check_rank,
    check_recommend,
)
from serve.core.serialization import Serialize
from serve.core.worker_pool import WorkerPool
from serve.models.arms import Arms, ServedArm
from serve.models.objectives import objectives_of
from serve.models.text_vectors import TextVectors
from serve.observability.trace import current, current_id
from serve.ranking.aims import Aim, aim_of
from serve.ranking.answers import Answer
from serve.ranking.batches import Batches
from serve.ranking.candidates import Candidates
from serve.ranking.queries import Query
from serve.ranking.rankings import CandidateRanking, CatalogueRanking, Ranking
from serve.ranking.shadow import Comparison, Shadows
from serve.ranking.verbs import Verbs
from serve.schemas.problems import Refused, Unavailable
from serve.schemas.requests import RankRequest, RecommendRequest
from serve.stores.impressions import ImpressionLog, Shown

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class Ask:
    """A request on its way to its answer.

    Attributes:
        request: as it came.
        arms: what is served; taken once, so that a swap cannot part the stages.
        serialize: makes what is sent.
    """

    request: RecommendRequest | RankRequest
    arms: Arms
    serialize: Serialize


@dataclass(frozen=True)
class PreparedAsk:
    """A request that its arm is ready to rank.

    Attributes:
        ask: the request.
        arm: answers it.
        ranking: what is ranked.
        source: what is known of the user.
        shadows: arms that are compared with the answer.
    """

    ask: Ask
    arm: ServedArm
    ranking: Ranking
    source: QuerySource
    shadows: Sequence[ServedArm]


class AnswerFlow:
    """Answers `/recommend` and `/rank`.

    Args:
        limits: the recipe's `serve`.
        verbs: for explanations.
        pseudonym: raw user id -> pseudonym.
        counted: the same for the outcome heads, None of an erased one.
        sources: reads what is known of a user.
        texts: encodes new items.
        batches: the thread that ranks.
        workers: threads for explanations, which would keep all others waiting.
        shadows: compares arms that never answer.
        impressions: logs what was shown.
        clock_us: the server's time, microseconds since 1970, UTC.
    """

    def __init__(
        self,
        limits: Serve,
        verbs: Verbs,
        *,
        pseudonym: Callable[[str], str],
        counted: Callable[[str], str | None],
        sources: QuerySources,
        texts: TextVectors,
        batches: Batches,
        workers: WorkerPool,
        shadows: Shadows,
        impressions: ImpressionLog,
        clock_us: Callable[[], int],
    ) -> None:
        self._limits, self._verbs = limits, verbs
        self._pseudonym, self._counted = pseudonym, counted
        self._sources, self._texts, self._batches = sources, texts, batches
        self._workers, self._shadows = workers, shadows
        self._impressions, self._clock_us = impressions, clock_us

    async def answer(self, ask: Ask) -> Any:
        """Answer a request; what is sent is what its `serialize` makes.

        Raises:
            Refused: the request cannot be answered as it is.
            Unavailable: the text encoder does not answer.
        """
        self._check(ask)
        return await self._by_some_arm(ask)

    def _check(self, ask: Ask) -> None:
        request = ask.request
        check_caller(request, self._pseudonym)
        check_objective(request, ask.arms)
        if isinstance(request, RankRequest):
            check_rank(request, self._limits)
        else:
            check_recommend(request, ask.arms, self._limits)

    async def _by_some_arm(self, ask: Ask) -> Any:
        """The answer of the user's arm; if that one fails, of the first other that answers."""
        own = self._arm_of(ask)
        try:
            return await self._by_arm(ask, own)
        except (Refused, Unavailable):  # of the request, or of what all arms need
            raise
        except Exception:
            other = ask.arms.instead_of(own)
            if other is None:
                raise
            logger.exception("arm %s fails, %s answers", own.name, other.name)
            current().failed_arm = own.name
            return await self._by_arm(ask, other)

    def _arm_of(self, ask: Ask) -> ServedArm:
        """The user's arm; that of a visitor follows from the request's id."""
        arms, user_id = ask.arms, ask.request.user_id
        if len(arms.answering) == 1:
            return arms.first
        return arms.of(current_id() if user_id is None else self._pseudonym(user_id))

    async def _by_arm(self, ask: Ask, arm: ServedArm) -> Any:
        prepared = await self._prepare(ask, arm)
        if ask.request.explain:
            return await self._workers.run(partial(self._rank_alone, prepared))
        return await self._batches.submit(
            arm.model,
            partial(prepared.source.query, arm.model),
            partial(self._finish, prepared),
            whole=prepared.ranking.whole,
        )

    async def _prepare(self, ask: Ask, arm: ServedArm) -> PreparedAsk:
        request, shadows = ask.request, ask.arms.shadows
        ranking: Ranking
        if isinstance(request, RankRequest):
            # Looked up here and not by the thread that ranks: another core would have to fetch
            # every id from this one's cache.
            candidates = Candidates.of(arm.model, request)
            vectors = await self._texts.of_candidates(arm.served, candidates.new)
            ranking = CandidateRanking(request, arm.model, candidates, vectors, self._verbs)
            if len(vectors):  # a shadow's own language model would have to read the new items
                shadows = ()
        else:
            ranking = CatalogueRanking(request, self._limits, self._verbs)
        return PreparedAsk(ask, arm, ranking, await self._sources.read(request), shadows)

    def _rank_alone(self, prepared: PreparedAsk) -> Any:
        """Rank without a batch."""
        model = prepared.arm.model
        query = prepared.source.query(model)
        current().record_stage("history")
        (encoded,) = model.encode([query.history], whole=prepared.ranking.whole)
        return self._finish(prepared, query, encoded)

    def _finish(self, prepared: PreparedAsk, query: Query, encoded: EncodedHistory) -> Any:
        """From the encoded history to what is sent; what is offered here waits for nothing."""
        current().record_stage("score")
        arm = prepared.arm
        exploration = arm.exploration(current_id(), self._limits.arms_salt)
        aim = self._aim(prepared, arm)
        answer = prepared.ranking.answer(arm.model, query, encoded, arm.name, exploration, aim)
        sent = prepared.ask.serialize(answer.fields)
        current().record_stage("answer")
        self._offer_to_shadows(prepared, answer)
        self._log_impressions(prepared.ask.request, answer)
        return sent

    def _aim(self, prepared: PreparedAsk, arm: ServedArm) -> Aim:
        """What an arm orders the request's list by."""
        request = prepared.ask.request
        user = None
        if arm.model.outcomes is not None and request.user_id is not None:
            user = self._counted(request.user_id)
        return aim_of(request, arm.arm, self._limits, user)

    def _offer_to_shadows(self, prepared: PreparedAsk, answer: Answer) -> None:
        asked = prepared.ask.request.objective
        shadows = [
            arm
            for arm in prepared.shadows
            if asked is None or asked in objectives_of(arm.model.outcomes)
        ]
        if not shadows or not answer.items:
            return
        ids = [item["item_id"] for item in answer.items]
        rank = partial(self._rank_again, prepared)
        self._shadows.offer(Comparison(answer.request_id, answer.arm, ids, shadows, rank))

    def _rank_again(self, prepared: PreparedAsk, arm: ServedArm) -> Answer:
        """The answer of another arm to the same request."""
        ranking, model = prepared.ranking.without_explanations(), arm.model
        query = prepared.source.query(model)
        (encoded,) = model.encode([query.history], whole=ranking.whole)
        return ranking.answer(model, query, encoded, aim=self._aim(prepared, arm))

    def _log_impressions(self, request: RecommendRequest | RankRequest, answer: Answer) -> None:
        shown = request.shown
        if shown is None:
            shown = self._limits.default_k if request.k is None else request.k
        propensities, items = answer.propensities, answer.items[:shown]
        if answer.relevance is not None:
            items = [
                {**item, "score": score}
                for item, score in zip(items, answer.relevance, strict=False)
            ]
        self._impressions.offer(
            Shown(
                answer.request_id,
                request.user_id,
                items,
                answer.model_version,
                self._clock_us(),
                answer.arm,
                None if propensities is None else propensities[:shown],
                request.placement,
            )
        )
