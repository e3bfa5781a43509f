"""Telling a tracker of trainings: one interface, and what a recipe's `tracking` asks for.

Called when a training or a search has ended, and when its bundle was made. What was told once is
not told again: the same command may be run again.
"""

from __future__ import annotations

from typing import Protocol

from recsys.artifacts.run import Run
from recsys.config import Recipe


class Tracker(Protocol):
    """What is told of a run; all errors are of ours."""

    def check(self) -> None:
        """Refuse a tracker that cannot be told anything, before anything is trained."""

    def training(self, run: Run) -> None:
        """Tell of the run's winner, and of the trials that it was chosen from."""

    def bundle(self, run: Run) -> None:
        """Keep the bundle of the run's winner."""


class NoTracker:
    """Tells nobody."""

    def check(self) -> None:
        """Refuse nothing."""

    def training(self, run: Run) -> None:
        """Do nothing."""

    def bundle(self, run: Run) -> None:
        """Do nothing."""


def tracker_of(recipe: Recipe) -> Tracker:
    """The recipe's tracker."""
    if recipe.tracking.kind == "none":
        return NoTracker()
    from recsys.tracking.mlflow import MlflowTracker

    return MlflowTracker(recipe)
