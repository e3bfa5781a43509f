"""What the last `recsys drift` of the run found, as gauges."""

from __future__ import annotations

import datetime as dt
import logging
import time
from typing import Any

from recsys.drift.findings import DRIFT_FILE, VERDICTS, read_findings
from recsys.errors import RaycommendError
from recsys.storage.shared import SharedFolder
from serve.observability.metrics import Metrics

logger = logging.getLogger("ray.serve")

#: Seconds between two looks at the file.
LOOK_S = 60.0


class DriftGauges:
    """Sets the gauges from `drift.json`; without one there are none.

    Args:
        run: the run's folder.
        metrics: where they are set.
    """

    def __init__(self, run: SharedFolder, metrics: Metrics) -> None:
        self._run, self._metrics = run, metrics
        self._found: dict[str, Any] | None = None
        self._looked = float("-inf")

    def set(self) -> None:
        """Set them; the file is read anew each `LOOK_S`, and a broken one is as good as none."""
        if time.monotonic() - self._looked > LOOK_S:
            self._looked, self._found = time.monotonic(), self._read()
        if self._found is None:
            return
        checked = dt.datetime.fromisoformat(self._found["checked_at"])
        self._metrics.set("drift_check_timestamp_seconds", checked.timestamp())
        self._metrics.set("drift_asks_full_run", self._found["asks_full_run"])
        for told in self._found["quantities"]:
            name = told["name"]
            self._metrics.set("drift_verdict", VERDICTS.index(told["verdict"]), quantity=name)
            if told.get("psi") is not None:
                self._metrics.set("drift_psi", told["psi"], quantity=name)
            for window, figure in (("then", "reference"), ("now", "now")):
                if isinstance(told.get(figure), float):  # of a distribution it is a list
                    self._metrics.set("drift_share", told[figure], quantity=name, window=window)

    def look_again(self) -> None:
        """Read the file at the next `set`."""
        self._looked = float("-inf")

    def _read(self) -> dict[str, Any] | None:
        path = self._run.folder / DRIFT_FILE
        try:
            self._run.bring_files([path])
            return read_findings(path) if path.is_file() else None
        except RaycommendError as error:
            logger.error("no gauges of drift: %s", error)
            return None
