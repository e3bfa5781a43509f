"""`pretrain` and `train`: how the language model is adapted, and how the model is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from recsys.config.base import ALTERNATIVE, EventName, Fraction, Positive, Section


class Pretrain(Section):
    """Adaptation of the language model to the shop's texts by masked words, before training.

    It runs on the workers of `train`.
    """

    epochs: Annotated[int, Field(ge=0)] = 0
    """Over all texts; 0: the language model is used as it is."""
    last_n: Positive = 2
    """Layers that learn."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    batch_size: Positive = 64
    """Texts in a step of one worker."""
    mask_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    behaviour_share: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the steps that read behaviour sentences: texts in the order a user met them."""
    max_tokens: Annotated[int, Field(ge=3)] = 128
    """Of a behaviour sentence; a text alone has at most `data.max_tokens`."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of the texts that measure the perplexity and are never learned from."""


class Workers(Section):
    """How many workers train, at least and at most."""

    min: Positive
    max: Positive

    @model_validator(mode="after")
    def _check(self) -> Workers:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max}): exchange them")
        return self


def _kind(value: object) -> str:
    return RANGE if isinstance(value, Mapping | Workers) else NUMBER


NUMBER, RANGE = f"{ALTERNATIVE}number", f"{ALTERNATIVE}range"
OneOrRange = Annotated[
    Annotated[Positive, Tag(NUMBER)] | Annotated[Workers, Tag(RANGE)], Discriminator(_kind)
]


class Train(Section):
    """One training run."""

    num_workers: OneOrRange = 2
    """Data-parallel workers. On a cluster also `{min: 1, max: 2}`: where the larger number cannot
    be had, or a node is lost, fewer train on, and each does the work of several. That takes longer
    and gives the same model, but for the order of sums (`pretrain`'s depends on the number)."""
    use_gpu: bool = False
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the language model's trained layers: `bfloat16` is mixed precision, for recent GPUs."""
    sharding: Literal["none", "full"] = "none"
    """`full`: the language model's layers are sharded over the workers (FSDP2), for one that does
    not fit one device; it takes two workers at least. `pretrain` shards nothing."""
    epochs: Positive = 3
    batch_size: Positive = 32
    """Users in a step of one worker."""
    accumulate: Positive = 1
    """Batches of a worker whose gradients make one step: that of one batch as many times as large,
    in the memory of one. Each encodes `fresh_texts_per_step` texts of its own."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    language_model_lr_factor: Annotated[float, Field(ge=0)] = 0.005
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_fraction: Fraction = 0.1
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    patience: Positive = 2
    """Epochs without a better validation nDCG@10 before training stops."""
    num_negatives: Positive = 4096
    fresh_texts_per_step: Positive | None = 96
    """Distinct texts a worker encodes with gradient in a step; `null`: all of the batch's."""
    max_vector_age: Positive = 400
    """Steps after which a cached text vector is encoded anew when a batch needs it."""
    event_weights: dict[EventName, Annotated[float, Field(ge=0)]] = {}
    """Loss weight of a target by its event type; 1 where not given."""
    windows_per_user: Positive = 2
    """Windows of `model.max_history` events from a user in an epoch, if there are that many."""
    head_rows: Positive = 8000
    """Baskets that the scoring head is fitted on (a seeded sample if there are more)."""
    new_item_weight: Annotated[float, Field(gt=0)] = 3.0
    """Weight, in the head's fit, of a relevant item that nobody wanted before the last 28 days,
    beside the others of its basket: above 1, new items get more room than their chances alone."""
    valid_rows: Positive = 2000
    """Validation baskets ranked after each epoch (a seeded sample if there are more)."""
    retrain: bool = False
    """Once the best epoch is known, train as many again on everything before `data.cuts.valid`, and
    fit the head on the validation window: nothing before the test window is left unused."""
    warm_epochs: Annotated[Positive, Field(exclude=True)] = 1
    """At most, where training starts from a bundle (`train --from`). As the next two, it is no part
    of the recipe that outputs hold: a refreshed model has the recipe of the model."""
    warm_rate: Annotated[float, Field(gt=0, exclude=True)] = 0.3
    """Times `learning_rate`, where training starts from a bundle."""
    warm_users: Annotated[float, Field(gt=0, le=1, exclude=True)] = 0.3
    """Share of the users that such a training reads in an epoch, others each night."""
    checkpoint_minutes: Annotated[float, Field(ge=0)] | None = 15
    """A checkpoint is kept after each epoch, and within one when so long has passed. Null: after
    epochs alone. What a lost worker or machine costs is at most this."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    """How often a training's lost workers are replaced."""
    hang_minutes: Annotated[float, Field(gt=0)] = 15
    """A worker hangs that has not answered for so long, has kept the others waiting, or, alone, has
    not called the model: all are replaced, as where one was lost. More than the slowest thing that
    one worker does while the others wait, such as writing a checkpoint."""

    @model_validator(mode="after")
    def _has_whom_to_share_with(self) -> Train:
        if self.sharding == "full" and self.fewest_workers < 2:
            raise ValueError(
                "train.sharding=full shares the language model between workers, and "
                f"train.num_workers lets {self.fewest_workers} train alone: use at least 2"
            )
        return self

    @property
    def is_elastic(self) -> bool:
        """Whether it takes the workers that there is room for."""
        return not isinstance(self.num_workers, int)

    @property
    def most_workers(self) -> int:
        """Workers that the training is made for."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers.max

    @property
    def fewest_workers(self) -> int:
        """Workers that it goes on with."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers.min
