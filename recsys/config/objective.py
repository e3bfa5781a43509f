"""What lists are ordered by: the score of relevance, or what is expected to come of an item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from recsys.config.base import ALTERNATIVE

ObjectiveName = Literal["relevance", "click", "purchase", "revenue", "dwell"]

_Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NAME, _WEIGHTS = f"{ALTERNATIVE}name", f"{ALTERNATIVE}weights"
#: One of them, or weights over them.
Objective = Annotated[
    Annotated[ObjectiveName, Tag(_NAME)]
    | Annotated[dict[ObjectiveName, _Weight], Field(min_length=1), Tag(_WEIGHTS)],
    Discriminator(lambda value: _WEIGHTS if isinstance(value, Mapping) else _NAME),
]


def weights_of(objective: Objective) -> dict[ObjectiveName, float]:
    """An objective as weights over names."""
    return {objective: 1.0} if isinstance(objective, str) else dict(objective)
