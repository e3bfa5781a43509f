"""What the workers of a training are told, and whom they tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from recsys.config import Recipe
from recsys.errors import RecipeError
from recsys.evaluation.report import METRIC


@dataclass(frozen=True)
class Start:
    """What workers are told of a training that starts from a bundle.

    The first checkpoint holds its weights, and is judged before the first epoch; its language model
    is held fixed.

    Attributes:
        text_vectors: folder of the vectors of all texts.
        users: share of all users that an epoch reads.
    """

    text_vectors: str
    users: float


@dataclass(frozen=True)
class Training:
    """What workers are told of one training.

    Attributes:
        recipe: resolved.
        run: folder of its checkpoints.
        again: epochs of a retraining, which does not validate; None: a training that does.
        start: of a training that starts from a bundle.
    """

    recipe: dict[str, Any]
    run: str
    again: int | None = None
    start: Start | None = None

    @property
    def name(self) -> str:
        """Of its folder."""
        return Path(self.run).name


class Work(Protocol):
    """Where the workers' trainings come from, and who hears of them; every worker calls alike."""

    def trainings(self, life: float) -> Iterator[Training]:
        """Trainings in turn; `life` is when the group of workers started."""

    def wants_more(self, training: Training, point: dict[str, Any], rank: int) -> bool:
        """Tell of an epoch; returns whether there is to be another one."""

    def done(self, training: Training, rank: int) -> None:
        """Tell that a training has all its epochs."""

    def failed(self, training: Training, error: RecipeError, rank: int) -> None:
        """Tell why a training ends."""


@dataclass(frozen=True)
class One:
    """One training alone, of which the checkpoints tell."""

    training: Training

    def trainings(self, life: float) -> Iterator[Training]:
        """That one."""
        yield self.training

    def wants_more(self, training: Training, point: dict[str, Any], rank: int) -> bool:
        """All epochs are wanted."""
        return True

    def done(self, training: Training, rank: int) -> None:
        """Nobody waits for it."""

    def failed(self, training: Training, error: RecipeError, rank: int) -> None:
        """End the workers."""
        raise error


def is_done(curve: list[dict[str, Any]], recipe: Recipe, again: int | None = None) -> bool:
    """Whether a training has its last epoch: it was, or the last ones were no better.

    Args:
        curve: of the epochs so far.
        recipe: of the training.
        again: see `Training`.
    """
    from recsys.training.optim import should_stop

    # The curve of a warm training begins with epoch 0.
    if curve and curve[-1]["epoch"] >= (again or recipe.train.epochs):
        return True
    if again:
        return False
    return should_stop([point[METRIC] for point in curve], recipe.train.patience)
