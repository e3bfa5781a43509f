"""`outcomes.heads`: how the outcome heads are fitted."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recsys.config.base import Positive, Section


class Heads(Section):
    """The heads that tell the probability of a click, a cart and a purchase of what is shown."""

    min_clicks: Positive = 200
    """With fewer clicks in `exposures/` none are fitted: their calibration could not be judged."""
    half_life_days: Annotated[float, Field(gt=0)] = 30.0
    """After so many days what happened counts half in the rates of items and users."""
    epochs: Positive = 8
    """At most; the learning rate falls to 0 over so many."""
    patience: Positive = 3
    """Epochs without a better loss on the later window before the fit ends."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Of AdamW."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Of AdamW."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Of the hidden layers."""
