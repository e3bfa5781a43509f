"""An answered list, and the fields of its response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recsys.recommender import Recommender
from serve.observability.trace import current
from serve.ranking.queries import Query


@dataclass(frozen=True)
class Answer:
    """A list, ready to be sent and to be logged.

    Attributes:
        fields: of `serve.schemas.responses`, but for the request's id.
        request_id: of the request.
        items: in the order to show: `item_id`, `score` and more of each.
        model_version: of the bundle that ranked them.
        arm: the name of the arm that answered.
        propensities: of each item; None: the list is sorted, not drawn.
        relevance: score of each item; None: it is what the items tell.
    """

    fields: dict[str, Any]
    request_id: str
    items: list[dict[str, Any]]
    model_version: str
    arm: str
    propensities: list[float] | None
    relevance: list[float] | None

    @staticmethod
    def of(
        model: Recommender,
        arm: str,
        query: Query,
        items: list[dict[str, Any]],
        unknown: list[str],
        propensities: list[float] | None,
        relevance: list[float] | None = None,
    ) -> Answer:
        """Make the answer of the current request, and note it in its trace.

        Args:
            model: ranked the items.
            arm: as above.
            query: what was known of the user.
            items: as above.
            unknown: ids of the request that the catalogue does not hold, beside the query's.
            propensities: as above.
            relevance: as above.
        """
        trace, version = current(), model.version
        fields = {
            "items": items,
            "model_version": version,
            "arm": arm,
            "fallback": trace.failed_arm is not None,
            "basis": query.basis,
            "degraded": query.degraded,
            "unknown_items": list(dict.fromkeys([*query.unknown_items, *unknown])),
        }
        trace.arm, trace.model_version = arm, version
        trace.basis, trace.num_items = query.basis, len(items)
        return Answer(fields, trace.id, items, version, arm, propensities, relevance)
