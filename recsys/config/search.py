"""`tune`: the search for learning rate and batch size."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from recsys.config.base import Positive, Section


class Range(Section):
    """A log-uniform range."""

    low: Annotated[float, Field(gt=0)]
    high: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.high < self.low:
            raise ValueError(f"high ({self.high}) lies below low ({self.low})")
        return self


class Tune(Section):
    """The search over learning rate and batch size."""

    num_trials: Positive = 4
    learning_rate: Range = Range(low=3e-4, high=5e-3)
    batch_size: Annotated[tuple[Positive, ...], Field(min_length=1)] = (16, 32)
    grace_epochs: Positive = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 2
    max_concurrent: Positive | None = None
    """Trials at once; default: as many as the cluster's CPUs and GPUs can hold."""
