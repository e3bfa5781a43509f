"""What a list is ordered by, and for whom: what the outcome heads have to know of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import polars as pl

from recsys.arrays import Float32s, Int64s
from recsys.config import Arm, Objective, ObjectiveName, Serve, weights_of
from recsys.outcome_heads.served import Expected
from recsys.recommender import Recommender
from recsys.recommender.objective import Worth
from serve.ranking.queries import Query
from serve.schemas.requests import RankRequest, RecommendRequest


@dataclass(frozen=True)
class Aim:
    """What a list is ordered by, and for whom.

    Attributes:
        weights: of the objective.
        user: pseudonym; None: a session.
        placement: where the list is shown, if told.
    """

    weights: Mapping[ObjectiveName, float]
    user: str | None = None
    placement: str | None = None

    @property
    def is_relevance(self) -> bool:
        """Whether the scores decide, as they do without outcome heads."""
        return self.weights.keys() == {"relevance"}

    def worth(self, model: Recommender, query: Query, num_candidates: int) -> Worth:
        """What items are worth to the query by this aim."""
        return Worth(self.weights, num_candidates, partial(self.expect, model, query))

    def expect(
        self,
        model: Recommender,
        query: Query,
        rows: Int64s,
        scores: Float32s,
        new: pl.DataFrame | None = None,
    ) -> Expected:
        """What is expected of showing items now; see `ServedHeads.expect`."""
        assert model.outcomes is not None
        now = int(query.history.now[0])
        return model.outcomes.expect(
            self.user, rows, scores, now=now, placement=self.placement, new=new
        )


#: Of requests without any objective.
RELEVANCE = Aim({"relevance": 1.0})


def aim_of(
    request: RecommendRequest | RankRequest, arm: Arm, limits: Serve, user: str | None
) -> Aim:
    """The aim of a request: its own objective, else the arm's, the placement's, the service's."""
    objective: Objective | None = request.objective or arm.objective
    if objective is None and request.placement is not None:
        objective = limits.objectives.get(request.placement)
    return Aim(weights_of(objective or limits.objective), user, request.placement)
