"""The two rankings: the best items of the catalogue, and an order of given candidates.

No users, no threads: an encoded query comes in, an answer goes out.
Legend: C known candidates, M new items that come as text, H width of the language model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from recsys.config import Serve
from recsys.ranking.encoded import EncodedHistory
from recsys.ranking.exploration import Exploration
from recsys.recommender import Recommender
from recsys.recommender.new_items import NewItems
from recsys.recommender.objective import values_of
from serve.models.arms import DEFAULT_ARM
from serve.observability.trace import current
from serve.ranking.aims import RELEVANCE, Aim
from serve.ranking.answers import Answer
from serve.ranking.candidates import Candidates, fields_of
from serve.ranking.explanations import add_expected, describe_explanation
from serve.ranking.queries import Query
from serve.ranking.verbs import Verbs
from serve.schemas.requests import RankRequest, RecommendRequest


@dataclass(frozen=True)
class _Asked:
    """What both rankings have of their request."""

    request: RecommendRequest | RankRequest

    def without_explanations(self) -> Self:
        """The same, unexplained."""
        return replace(self, request=self.request.model_copy(update={"explain": False}))


@dataclass(frozen=True)
class CatalogueRanking(_Asked):
    """`/recommend`: the best items of the catalogue that the request allows.

    Attributes:
        request: what is asked for.
        defaults: stand in for what the request leaves open; neither asks for diversity or a cap
            where lists are drawn.
        verbs: for explanations.
        whole: the history is encoded for scoring the whole catalogue.
    """

    request: RecommendRequest
    defaults: Serve
    verbs: Verbs
    whole: ClassVar[bool] = True

    def answer(
        self,
        model: Recommender,
        query: Query,
        encoded: EncodedHistory,
        arm: str = DEFAULT_ARM.name,
        exploration: Exploration | None = None,
        aim: Aim = RELEVANCE,
    ) -> Answer:
        """Rank the catalogue.

        Args:
            model: scores.
            query: what is known of the user.
            encoded: its history, encoded by the model.
            arm: name of the arm whose model it is.
            exploration: draws the list; None: it is sorted by score.
            aim: what it is sorted by, or drawn by, in place of the score.
        """
        request, propensities, relevance, expected = self.request, None, None, None
        excluded = model.rows_of(request.exclude)
        filters = request.filters.model_dump() if request.filters else {}
        k, allowed = self._given("k", self.defaults.default_k), model.allowed(**filters)
        allowed = model.visible(query.hidden, allowed)
        exclude_owned = self._given("exclude_owned", self.defaults.exclude_owned)
        worth = None
        if not aim.is_relevance:
            worth = aim.worth(model, query, self.defaults.objective_candidates)
        if exploration is None:
            rows, scores = model.recommend(
                encoded,
                k,
                exclude=excluded,
                allowed=allowed,
                diversity=self._given("diversity", self.defaults.diversity),
                max_per_category=self._given("max_per_category", self.defaults.max_per_category),
                exclude_owned=exclude_owned,
                worth=worth,
            )
        else:
            rows, scores, chances = model.draw(
                encoded, k, exploration,
                exclude=excluded, allowed=allowed, exclude_owned=exclude_owned,
                worth=worth,
            )  # fmt: skip
            propensities = chances.tolist()
        if worth is not None:
            of_rows, expected = worth.of(rows)
            relevance = of_rows.tolist()
        trace = current()
        trace.record_stage("score")
        unknown = [item for item, row in zip(request.exclude, excluded, strict=True) if row < 0]
        names = model.names(rows.tolist())
        items: list[dict[str, Any]] = [
            {"item_id": item_id, "title": title, "score": score}
            for (item_id, title), score in zip(names, scores.tolist(), strict=True)
        ]
        if request.explain:
            found = model.explain(query.history, rows.astype(np.int32))
            for item, row, why in zip(items, rows.tolist(), found, strict=True):
                item["explanation"] = describe_explanation(model, row, why, self.verbs)
            if expected is None and model.outcomes is not None:
                expected = aim.expect(model, query, rows, scores)
            add_expected(items, expected)
            trace.record_stage("explain")
        return Answer.of(model, arm, query, items, unknown, propensities, relevance)

    def _given(self, name: str, default: Any) -> Any:
        given = getattr(self.request, name)
        return default if given is None else given


@dataclass(frozen=True)
class CandidateRanking(_Asked):
    """`/rank`: the request's candidates, best first, ties by position.

    Attributes:
        request: what is asked for.
        model: the one that the candidates were looked up in.
        candidates: the request's, as that model knows them; M are new items.
        text_vectors: [M, H] language-model vectors of the new items, in their order.
        verbs: for explanations.
        whole: the history is encoded for scoring candidates alone.
    """

    request: RankRequest
    model: Recommender
    candidates: Candidates
    text_vectors: NDArray[np.float32]
    verbs: Verbs
    whole: ClassVar[bool] = False

    def answer(
        self,
        model: Recommender,
        query: Query,
        encoded: EncodedHistory,
        arm: str = DEFAULT_ARM.name,
        exploration: Exploration | None = None,
        aim: Aim = RELEVANCE,
    ) -> Answer:
        """Rank the candidates.

        Args:
            model: scores; another than the attribute looks the candidates up anew.
            query: what is known of the user.
            encoded: its history, encoded by the model.
            arm: name of the arm whose model it is.
            exploration: draws the list; None: it is sorted by score.
            aim: what it is sorted by, or drawn by, in place of the score.
        """
        candidates, request = self.candidates, self.request
        if model is not self.model:
            candidates = Candidates.of(model, request)
        rows, new = candidates.rows, candidates.new
        new_items = NewItems(self.text_vectors, fields_of(new.values())) if new else None
        scores = model.rank(encoded, rows, new_items)
        # -1: a new item, named below; they come last among the scores.
        row_of_all = np.append(rows, np.full(len(new), -1, dtype=rows.dtype))
        values, expected = scores, None
        if not aim.is_relevance or (request.explain and model.outcomes is not None):
            fields = None if new_items is None else new_items.fields
            expected = aim.expect(model, query, rows.astype(np.int64), scores, fields)
        if not aim.is_relevance and expected is not None:
            values = values_of(aim.weights, scores, expected)
        trace = current()
        trace.record_stage("score")
        # Of the candidates, those that may be shown.
        shown = np.arange(len(scores))
        if (visible := model.visible_candidates(query.hidden, rows, new_items)) is not None:
            shown = np.flatnonzero(visible)
        places, propensities = candidates.places[shown], None
        if exploration is None:
            best = shown[np.lexsort((places, -scores[shown], -values[shown]))[: request.k]]
        else:
            k = len(shown) if request.k is None else request.k
            drawn = exploration.draw(values[shown], k)
            best, propensities = shown[drawn.places], drawn.propensities.tolist()
        row_of = row_of_all[best].tolist()
        items: list[dict[str, Any]] = [
            {"item_id": item_id, "title": title, "score": score, "candidate": place}
            for (item_id, title), score, place in zip(
                model.names(row_of),
                values[best].tolist(),
                candidates.places[best].tolist(),
                strict=True,
            )
        ]
        if new:
            for item, row in zip(items, row_of, strict=True):
                if row < 0:
                    given = new[item["candidate"]]
                    item["item_id"], item["title"] = given.item_id, given.title
        if request.explain:
            self._explain(model, query, items, row_of, new_items, list(new))
            add_expected(items, None if expected is None else expected.take(best))
            trace.record_stage("explain")
        relevance = None if aim.is_relevance else scores[best].tolist()
        return Answer.of(model, arm, query, items, candidates.unknown, propensities, relevance)

    def _explain(
        self,
        model: Recommender,
        query: Query,
        items: list[dict[str, Any]],
        row_of: list[int],
        new_items: NewItems | None,
        new_places: list[int],
    ) -> None:
        """Add explanations to the answered items alone.

        Args:
            model: explains.
            query: what is known of the user.
            items: of the answer; get a field `explanation`.
            row_of: catalogue row of each; -1: it is new.
            new_items: the M new ones of the request.
            new_places: [M] their places in the request.
        """
        # The new ones come last, as in `Recommender.explain`.
        number_of = {place: number for number, place in enumerate(new_places)}
        answered = list(zip(items, row_of, strict=True))
        old = [(item, row) for item, row in answered if row >= 0]
        fresh = [(item, row) for item, row in answered if row < 0]
        numbers = [number_of[item["candidate"]] for item, _ in fresh]
        explained = model.explain(
            query.history,
            np.array([row for _, row in old], dtype=np.int32),
            new_items.take(numbers) if new_items is not None else None,
        )
        for (item, row), why in zip([*old, *fresh], explained, strict=True):
            item["explanation"] = describe_explanation(model, row, why, self.verbs)


Ranking = CatalogueRanking | CandidateRanking
