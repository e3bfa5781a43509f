"""The shop's nights: what the service took in becomes the next champion, or the last one stays.

The log lies in `log/` of the work folder, the run in `run/`, the bundles in `registry/`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import polars as pl
import yaml

from benchmarks.shop.catalogue import Catalogue
from benchmarks.shop.visits import FIRST_DAY, Event
from ray_jobs import nightly
from recsys import nightly as kept
from recsys.artifacts.run import Run
from recsys.config import load_recipe
from recsys.drift.findings import DRIFT_FILE, read_findings
from recsys.errors import RaycommendError
from recsys.evaluation.report import METRIC
from recsys.schema import Col
from recsys.storage.reading import read_json

#: Where the windows of the first night begin; later ones are as long. Its test window is that day
#: and the one before.
CUTS: Final = {
    name: FIRST_DAY - dt.timedelta(days=days)
    for name, days in {"head": 8, "valid": 4, "test": 2}.items()
}


@dataclass
class Night:
    """What came of a night.

    Attributes:
        day: after which it was; -1: before the first.
        champion: the version that is served from then on.
        is_new: whether it became champion in this night.
        way: how it trained, `full` or `warm`; None: it did not come to that.
        refused: why there is no new champion: what the gate said, or the error that ended it.
        seconds: by stage.
        ndcg: nDCG@10 of the night's own evaluation, by model; empty if it was not reached.
        drift: quantity -> the 95 % interval of its PSI between the champion's log and the day.
    """

    day: int
    champion: str | None
    is_new: bool
    way: str | None
    refused: str | None
    seconds: dict[str, float]
    ndcg: dict[str, float] = field(default_factory=dict)
    drift: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Nights:
    """The log, the recipe and the jobs of the shop.

    Attributes:
        work: folder of all.
        settings: sections of the recipe.
    """

    work: Path
    settings: Mapping[str, Mapping[str, Any]]

    @property
    def config(self) -> Path:
        """The recipe's file."""
        return self.work / "shop.yaml"

    @property
    def _broken(self) -> Path:
        return self.work / "log" / "events" / "broken.parquet"

    def write_items(self, catalogue: Catalogue, day: int) -> None:
        """Write the items that are sold on a day."""
        path = self.work / "log" / "items.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        catalogue.table[catalogue.sold_on(day)].write_parquet(path)

    def write_events(self, events: Sequence[Event], name: str) -> None:
        """Write a file of the log."""
        names = [Col.user, Col.item, Col.event_type, Col.timestamp, Col.dwell_ms, Col.value]
        path = self.work / "log" / "events" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [[event.get(name) for name in names] for event in events]
        table = pl.DataFrame(rows, schema=names, orient="row", infer_schema_length=None)
        table.with_columns(pl.col(Col.timestamp).cast(pl.Datetime("us", "UTC"))).write_parquet(path)

    def break_export(self) -> None:
        """Leave a file in the log that is cut off."""
        self._broken.write_bytes(b"PAR1 and no more")

    def mend_export(self) -> None:
        """Take it away."""
        self._broken.unlink(missing_ok=True)

    def run(self, arms: Sequence[Mapping[str, Any]] = ()) -> Run:
        """The run, whose recipe is written."""
        raw = {
            "name": "shop",
            "run_dir": str(self.work / "run"),
            **self.settings,
            "data": {"source": str(self.work / "log"), "cuts": CUTS, **self.settings["data"]},
            "nightly": {"test_days": 1},
            "drift": {"days": 1},
            "promote": {"registry": str(self.work / "registry"), **self.settings["promote"]},
            "serve": {**self.settings["serve"], "arms": list(arms)},
        }
        self.config.write_text(yaml.safe_dump(raw, sort_keys=False))
        return Run.open(load_recipe(self.config))

    def as_of(self, run: Run, day: int) -> Run:
        """The run under the recipe of the night after a day."""
        date = (FIRST_DAY + dt.timedelta(days=day)).date()
        return Run.open(kept.recipe_of(run.recipe, date, dt.datetime.now(dt.UTC).date()))

    def night(self, run: Run, day: int) -> Night:
        """Run `recsys nightly` after a day; what it refuses or fails at leaves the champion."""
        date = (FIRST_DAY + dt.timedelta(days=day)).date()
        before, refused = run.registry.champion(), None
        try:
            nightly.execute(run, day=date)
        except RaycommendError as error:
            refused = str(error)
        found = kept.Nights(run.recipe.shared).read(date.isoformat())
        assert found is not None
        champion = run.registry.champion()
        return Night(
            day, champion, champion != before, found.way["kind"] if found.way else None, refused,
            found.seconds,
            _ndcg(run) if "evaluate" in found.stages else {},
            _drift(run) if before is not None and "drift" in found.stages else {},
        )  # fmt: skip


def _drift(run: Run) -> dict[str, tuple[float, float]]:
    found = read_findings(run.root / DRIFT_FILE)["quantities"]
    return {
        each["name"]: (each["interval"][0], each["interval"][1])
        for each in found
        if each["kind"] == "distribution" and each["interval"] is not None
    }


def _ndcg(run: Run) -> dict[str, float]:
    report = read_json(run.report_file, "run `recsys evaluate` again", {"rows": list})
    return {
        row["model"]: row["value"]
        for row in report["rows"]
        if row["metric"] == METRIC and row["slice"] == "all"
    }
