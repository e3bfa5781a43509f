"""`model`: the language model, the encoders, the features."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from recsys.config.base import Fraction, ItemField, Positive, Section


class Model(Section):
    """The item encoder, the user encoder and the scoring head."""

    language_model: str = "minilm"
    """`minilm` (comes with the package), or a BERT-like encoder: a folder or Hugging Face name."""
    tuning: Literal["frozen", "lora", "last_n", "full"] = "last_n"
    last_n: Positive = 1
    lora_rank: Positive = 8
    dim: Positive = 128
    num_layers: Positive = 2
    num_heads: Positive = 4
    dropout: Fraction = 0.1
    max_history: Positive = 128
    """Events of a user that the encoder reads (the side features read them all)."""
    id_dropout: Fraction = 0.3
    """Share of items whose id vector is hidden in a training step, so that text alone works too."""
    min_events_for_id: Positive = 5
    """Items with fewer training events have no id vector: too little to learn one from."""
    item_fields: tuple[ItemField, ...] = ("brand", "category", "price")
    """Fields of an item whose values have vectors of their own, beside the text's and the id's."""
    whitening: Fraction = 0.5
    """How far the text vectors' axes start at an equal spread: 0 as the language model has them, 1
    wholly. The few widest axes say what all texts share, and little of what is personal."""
    temperature: Annotated[float, Field(gt=0)] = 0.07
    side_features: bool = True
    """False: the score is the cosine of user and item alone, without popularity or own counts."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Model:
        if self.dim % self.num_heads:
            raise ValueError(
                f"model.dim ({self.dim}) must be a multiple of model.num_heads ({self.num_heads})"
            )
        return self
