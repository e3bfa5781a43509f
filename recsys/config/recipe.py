"""A whole recipe, as frozen data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, field_validator, model_validator

from recsys.config.base import Positive, Section
from recsys.config.data import Data
from recsys.config.evaluation import Drift, Embed, Evaluate, Outcomes, Promote
from recsys.config.model import Model
from recsys.config.nightly import Nightly
from recsys.config.privacy import Privacy
from recsys.config.search import Tune
from recsys.config.serving import Serve
from recsys.config.storage import Storage
from recsys.config.tracking import Tracking
from recsys.config.training import Pretrain, Train
from recsys.schema import EVENT_CODE
from recsys.storage.location import Location, Place, place_of
from recsys.storage.seals import json_sha256
from recsys.storage.shared import SharedFolder

#: Folder in that of the node's cache: what runs in a store have on this node.
RUNS: Final = "runs"


class RayCluster(Section):
    """The Ray cluster that the jobs run on."""

    address: str | None = None
    """`auto` or an address joins a running cluster; default: `RAY_ADDRESS`, else a local one."""
    num_cpus: Positive | None = None
    """CPUs of a local cluster; default: all."""


class Recipe(Section):
    """A whole run, from the raw log to the service."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0)] = 7
    run_dir: str = "runs/{name}"
    """Everything that the jobs write: a folder that all nodes see, or a URI such as
    s3://bucket/runs/{name}, of which each node has what it needs in its cache (`storage`)."""
    data: Data
    privacy: Privacy = Privacy()
    pretrain: Pretrain = Pretrain()
    model: Model = Model()
    train: Train = Train()
    tune: Tune = Tune()
    tracking: Tracking = Tracking()
    embed: Embed = Embed()
    evaluate: Evaluate = Evaluate()
    promote: Promote = Promote()
    outcomes: Outcomes = Outcomes()
    drift: Drift = Drift()
    serve: Serve = Serve()
    # No part of the recipe that outputs hold: it changes none of them, and may name what is secret.
    nightly: Annotated[Nightly, Field(exclude=True)] = Nightly()
    ray: RayCluster = RayCluster()
    storage: Storage = Storage()

    @field_validator("run_dir")
    @classmethod
    def _a_place(cls, value: str) -> str:
        place_of(value)
        return value

    @model_validator(mode="after")
    def _has_layers_to_shard(self) -> Recipe:
        if self.train.sharding == "full" and self.model.tuning in ("frozen", "lora"):
            raise ValueError(
                "train.sharding=full shards layers that are trained whole, and with "
                f"model.tuning={self.model.tuning} none is: use last_n or full, or "
                "train.sharding=none"
            )
        return self

    @property
    def root(self) -> Path:
        """The run's folder, absolute (Ray workers run elsewhere); one of each node, see `shared`.

        Where the run lies in a store, it is named by it in the folder of the node's cache.
        """
        place = self.named_place(self.run_dir)
        if isinstance(place, Path):
            return place
        return self.storage.cache.folder / RUNS / f"{self.name}-{json_sha256(place.uri)[:16]}"

    @property
    def shared(self) -> SharedFolder:
        """The run's folder, with what makes all nodes see what lies in it."""
        place = self.named_place(self.run_dir)
        if isinstance(place, Path):
            return SharedFolder(place)
        return SharedFolder(self.root, place, self.storage.cache)

    @property
    def registry(self) -> Place:
        """The registry's folder, absolute, or its location in a store."""
        return self.named_place(self.promote.registry)

    @property
    def feedback(self) -> Location | None:
        """Where what the service gives back lies, if in a store and not in the run's folder."""
        if self.storage.feedback is not None:
            place = self.named_place(self.storage.feedback)
            assert isinstance(place, Location)
            return place
        run = self.shared.location
        return None if run is None else run / "feedback"

    @property
    def service_folder(self) -> Path:
        """What a service on this machine, at the recipe's port, keeps in the run's folder."""
        return self.root / f"service-{self.serve.port}"

    @property
    def service_address_file(self) -> Path:
        """Ray's address of that service, while it runs."""
        return self.service_folder / "ray_address"

    def named_place(self, text: str) -> Place:
        """The place of a path or URI, in which `{name}` is the recipe's."""
        return place_of(self._named(text))

    def _named(self, text: str) -> str:
        return text.replace("{name}", self.name)

    def resolved(self) -> dict[str, Any]:
        """The recipe with every default filled in, as plain JSON data."""
        return self.model_dump(mode="json")

    def fingerprint(self, *sections: str) -> str:
        """SHA-256 over the named sections (all if none) and the seed; 16 hex digits."""
        data = self.resolved()
        picked = {name: data[name] for name in (*sections, "seed")} if sections else data
        return json_sha256(picked)[:16]


def target_codes(recipe: Recipe) -> list[int]:
    """Codes of the target events."""
    return [EVENT_CODE[name] for name in recipe.data.target_events]
