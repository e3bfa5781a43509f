"""`embed`, `evaluate`, `promote`, `outcomes`, `drift`: the bundle and how it is judged."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from pydantic import Field, field_validator

from recsys.config.base import Positive, Section
from recsys.config.outcome_heads import Heads
from recsys.storage.location import place_of


class Embed(Section):
    """Encoding of the catalogue."""

    num_actors: Positive = 2
    batch_size: Positive = 64
    index_above: Positive | None = 200_000
    """Catalogues of more items get an index: `/recommend` reads the part of them that holds 99 % of
    the best by the first stage. `null`: all items are always read."""


BaselineName = Literal[
    "popularity",
    "trending",
    "personal_frequency",
    "last_item",
    "item_knn",
    "als",
    "sasrec",
    "zero_shot",
]


class Evaluate(Section):
    """Whole-catalogue ranking of the test window."""

    baselines: tuple[BaselineName, ...] = (
        "popularity",
        "trending",
        "personal_frequency",
        "last_item",
        "item_knn",
        "zero_shot",
    )
    max_rows: Positive | None = None
    """Rank a seeded sample of the window's baskets; default: all of them."""
    num_bootstrap: Positive = 1000
    num_actors: Positive = 2
    batch_size: Positive = 64


class Promote(Section):
    """The gate in front of the registry."""

    registry: str = "runs/registry/{name}"
    """Folder or URI of the bundles; one product's line, see `recsys.artifacts.lineage`."""
    metric: Literal["ndcg@10", "clicks", "carts", "purchases", "dwell_ms", "revenue"] = "ndcg@10"
    """What a challenger is compared with the champion on: the evaluation's metric, or what came of
    what was shown, see [the gate](evaluation.md#promote-on-outcomes)."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of the intervals of paired differences."""
    rule: Literal["better", "not_worse"] | None = None
    """What the interval of the difference to the champion must lie above: `better` zero,
    `not_worse` minus the margin. Null: `not_worse` for a refresh, whose recipe is the champion's
    but for dates and places, `better` for a changed recipe; see [the gate](evaluation.md#the-gate).
    """
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Of `not_worse`: the share of the champion's metric that a refresh may lose."""

    @field_validator("registry")
    @classmethod
    def _a_place(cls, value: str) -> str:
        place_of(value)
        return value


class Outcomes(Section):
    """Arms side by side, and other policies on the logged lists; see [Outcomes](outcomes.md)."""

    smallest_effect: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.05
    """The smallest difference that matters, as a share of the incumbent's rate: how many users are
    still needed is told for it. Fixed before the test."""
    tuned_for_users: Positive = 10_000
    """Users of two arms at which the interval of their difference is tightest. Fixed before the
    test."""
    arms_since: dt.date | None = None
    """The UTC day from which arms are compared: the first whole one after `serve.arms` or its salt
    changed. Null: all days."""
    max_lists: Positive | None = None
    """Lists that another policy is judged on: all those of a sample of users. Null: all lists."""
    places: Positive | None = None
    """The first places of each list that count there. The further down, the less two policies
    overlap. Null: all places."""
    heads: Heads = Heads()
    """How the [outcome heads](outcomes.md#a-model-of-outcomes) are fitted."""


class Drift(Section):
    """What came since the champion was made; see [Drift](drift.md)."""

    days: Positive = 7
    """The last days that are looked at, at most: of those after the champion's log."""
    full_run_psi: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 0.25
    """A full run is asked for where the 95 % interval of a quantity's PSI lies above. Null: never.
    """
    full_run_ctr_loss: Annotated[float, Field(gt=0, lt=1)] | None = 0.25
    """And where the click-through rate has surely lost this share of what it was. Null: never."""
