"""`tune`: the search for the best recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from recsys.config.base import Positive, Section
from recsys.config.space import Distribution, Space

RATE, BATCH = "train.learning_rate", "train.batch_size"


class Tune(Section):
    """The search: what is drawn, how, and when a trial is given up.

    See [Search](search.md).
    """

    space: Space = {
        RATE: Distribution(loguniform=(3e-4, 5e-3)),
        BATCH: Distribution(choice=(16, 32)),
    }
    """Fields of `train` and `model` by their dotted names, each with a distribution: `{loguniform:
    [low, high]}`, `{uniform: [low, high]}`, `{int: [low, high]}` or `{choice: [...]}`. A space that
    is given replaces this one."""
    num_trials: Positive = 4
    search: Literal["random", "tpe"] = "random"
    """`tpe`: Optuna's tree-structured Parzen estimator, which draws near what was good (needs
    `raycommend[tune]`). The run's `seed` decides what is drawn."""
    scheduler: Literal["asha", "median", "none"] = "asha"
    """What ends trials that lag, after an epoch. `asha`: goes on with the best one in
    `reduction_factor` of those that came as far. `median`: with those above the median of the
    others' means. `none`: all are trained to their end."""
    grace_epochs: Positive = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 2
    max_concurrent: Positive | None = None
    """Trials at once; default: as many as the cluster's free CPUs and GPUs hold, and more when it
    has grown."""
    time_budget_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which no trial goes on; the best until then wins."""

    @model_validator(mode="before")
    @classmethod
    def _of_before(cls, given: Any) -> Any:
        """Read recipes and bundles of before 0.2, which searched two fields by keys of their own.

        Raises:
            ValueError: there is a space too.
        """
        if not isinstance(given, dict) or not given.keys() & {"learning_rate", "batch_size"}:
            return given
        given = dict(given)
        rate, batch = given.pop("learning_rate", {}), given.pop("batch_size", [16, 32])
        if "space" in given:
            raise ValueError(f"tune.space says what is searched: move {RATE} and {BATCH} there")
        if not isinstance(rate, dict):
            raise ValueError(f"write tune.space, with {RATE}: {{loguniform: [low, high]}}")
        ends = [rate.get("low", 3e-4), rate.get("high", 5e-3)]
        return given | {"space": {RATE: {"loguniform": ends}, BATCH: {"choice": batch}}}
