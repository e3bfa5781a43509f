"""What is known of a night while it runs and afterwards.

nightly/{day}/night.json    in the run's folder or its store; written after each stage
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recsys.errors import DataError
from recsys.storage.outputs import whole_file
from recsys.storage.reading import read_json, reading
from recsys.storage.shared import SharedFolder

FOLDER, FILE = "nightly", "night.json"
_KINDS: dict[str, type | tuple[type, ...]] = {
    "day": str, "recipe": str, "started_at": str, "settings": dict, "stages": dict,
    "drift": (str, type(None)), "way": (dict, type(None)), "champion_before": (str, type(None)),
    "refused": (str, type(None)), "failed": (dict, type(None)), "ended_at": (str, type(None)),
    "verdict": (str, type(None)),
}  # fmt: skip


@dataclass
class Night:
    """The night of a day.

    Attributes:
        day: UTC.
        recipe: fingerprint of the recipe that it runs under.
        started_at: ISO 8601, UTC.
        settings: of the champion, which a search found: dotted name -> value.
        champion_before: the version that was champion when it began.
        stages: of each that is done, in order: `seconds`, and what it told, line by line.
        drift: why it asks for a full run; None: it does not.
        way: `kind` and `why` of the training, once it is decided.
        refused: what the gate had against the bundle.
        failed: `stage` and `error` of the last attempt, until all stages are done.
        ended_at: when they were; ISO 8601, UTC.
        verdict: how it went, in a sentence.
    """

    day: str
    recipe: str
    started_at: str
    settings: dict[str, Any] = field(default_factory=dict)
    champion_before: str | None = None
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    drift: str | None = None
    way: dict[str, str] | None = None
    refused: str | None = None
    failed: dict[str, str] | None = None
    ended_at: str | None = None
    verdict: str | None = None

    @property
    def date(self) -> dt.date:
        """The day."""
        return dt.date.fromisoformat(self.day)

    @property
    def seconds(self) -> dict[str, float]:
        """What each stage took."""
        return {name: stage["seconds"] for name, stage in self.stages.items()}


@dataclass(frozen=True)
class Nights:
    """The nights of a run.

    Attributes:
        shared: the run's folder.
    """

    shared: SharedFolder

    def file(self, day: str) -> Path:
        """Where the night of a day is written."""
        return self.shared.folder / FOLDER / day / FILE

    def days(self) -> list[str]:
        """The days that have a night, the oldest first."""
        if self.shared.location is not None:
            return (self.shared.location / FOLDER).folders()
        return sorted(path.parent.name for path in self.shared.folder.glob(f"{FOLDER}/*/{FILE}"))

    def read(self, day: str) -> Night | None:
        """The night of a day, as far as it has come; None: it has not begun.

        Raises:
            DataError: the file is damaged.
            StorageError: the store fails.
        """
        path = self.file(day)
        self.shared.bring_files([path])
        if not path.is_file():
            return None
        fix = "remove it: the night begins anew"
        data = read_json(path, fix, _KINDS)
        with reading(path, fix, DataError):
            if data["day"] != day or not all(
                isinstance(stage["seconds"], int | float) for stage in data["stages"].values()
            ):
                raise ValueError("no night of this day")
            return Night(**data)

    def every(self) -> list[Night]:
        """All nights, the oldest first; see `read`."""
        return [night for day in self.days() if (night := self.read(day))]

    def last_full(self, before: str) -> dt.date | None:
        """The day of the last ended night, before a day, that trained from nothing."""
        full = [
            night.date
            for night in self.every()
            if night.day < before and night.ended_at and night.way and night.way["kind"] == "full"
        ]
        return max(full, default=None)

    def write(self, night: Night) -> Path:
        """Keep a night as it is now; returns the file."""
        path = self.file(night.day)
        with whole_file(path) as aside:  # in its order: that of the stages tells something
            aside.write_text(f"{json.dumps(asdict(night), indent=2)}\n")
        self.shared.hand_in(path)
        return path


def now() -> str:
    """ISO 8601, UTC."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
