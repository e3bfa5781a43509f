"""The part of the recipe that the replicas need, as data that travels to them.

Nothing else: a change of other keys, such as how the next model is trained, must not restart the
service. Paths are absolute, since replicas run in folders of their own.
"""

from __future__ import annotations

from pathlib import Path

from recsys.config import (
    Autoscaling,
    EventName,
    Privacy,
    Recipe,
    Retraction,
    Section,
    Serve,
    Storage,
)
from recsys.data.feedback import Feedback
from recsys.state import Tombstone, state_of
from recsys.storage.location import Location, Place, place_of
from recsys.storage.shared import SharedFolder


class Settings(Section):
    """The settings of a replica."""

    run_dir: str
    run_uri: str | None = None
    event_types: dict[str, EventName | Retraction | None]
    max_clock_skew_s: int
    privacy: Privacy
    serve: Serve
    storage: Storage = Storage()

    @staticmethod
    def of(recipe: Recipe) -> Settings:
        """The settings of a recipe."""
        state, access, privacy = state_of(recipe), recipe.serve.access, recipe.privacy
        run, feedback = recipe.shared, recipe.feedback
        access = access.model_copy(update={"keys": _absolute(access.keys)})
        return Settings(
            run_dir=str(run.folder),
            run_uri=run.location and run.location.uri,
            event_types=recipe.data.event_types,
            max_clock_skew_s=recipe.data.max_clock_skew_s,
            storage=recipe.storage.model_copy(
                update={
                    "cache_dir": _absolute(recipe.storage.cache_dir),
                    "feedback": feedback and feedback.uri,
                }
            ),
            privacy=privacy.model_copy(update={"key_file": _absolute(privacy.key_file)}),
            serve=recipe.serve.model_copy(
                update={
                    "state": state,
                    "access": access,
                    "autoscaling": _unscaled(recipe.serve),
                    "arms": (),  # they come with the bundle: a change restarts nobody
                }
            ),
        )

    @property
    def root(self) -> Path:
        """The run's folder."""
        return Path(self.run_dir)

    @property
    def shared(self) -> SharedFolder:
        """The same, with what makes all nodes see what lies in it."""
        location = None if self.run_uri is None else Location(self.run_uri)
        return SharedFolder(self.root, location, self.storage.cache)

    def read_erased(self) -> dict[str, Tombstone]:
        """The tombstones of users that `compact` knows of.

        Raises:
            StorageError: they lie in a store that fails.
        """
        feedback = Feedback.of(self.root)
        if self.storage.feedback is not None:
            feedback.bring_erased(Location(self.storage.feedback))
        return feedback.erased()

    @property
    def impressions(self) -> Place:
        """Where the replicas write them."""
        if self.storage.feedback is None:
            return Feedback.of(self.root).impressions
        return place_of(f"{self.storage.feedback}/impressions")

    @property
    def max_skew_us(self) -> int:
        """How far a timestamp may lie in the future, in microseconds."""
        return self.max_clock_skew_s * 1_000_000


def _unscaled(serve: Serve) -> Autoscaling:
    """In place of the recipe's: how many replicas there are is not theirs to know."""
    limit = serve.max_ongoing_requests
    return Autoscaling(min_replicas=1, max_replicas=1, target_ongoing_requests=limit)


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).expanduser().absolute())
