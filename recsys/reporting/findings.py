"""What the jobs of a run have found: its files, as far as they are there and whole."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import polars as pl

from recsys.artifacts.run import Run
from recsys.artifacts.trials import read_trials
from recsys.errors import RaycommendError
from recsys.preparation.prepared import SUMMARY_FILE
from recsys.storage.reading import BROKEN, read_json

#: Files of a run's folder beside those that `Run` names.
OUTCOMES, POLICY_VALUE, DRIFT = "outcomes.json", "policy_value.json", "drift.json"
#: Of each night one, by its day.
NIGHTS: Final = "nightly/*/night.json"
_FIX: Final = "run its job again"


@dataclass
class Findings:
    """The files of a run. One that is not there is empty, and so is one that cannot be read.

    Attributes:
        name: of the recipe.
        prepared: what `prepare` made.
        winner: what was trained.
        trials: all epochs of a search; None: there was none.
        report: of `evaluate`.
        examples: ten users; those of another bundle than the report's are left out.
        decision: of the gate, on the report's bundle; of another one it is left out.
        outcomes: of `outcomes`.
        policy_value: of `policy-value`.
        drift: of `drift`.
        night: the latest of `nightly`.
        has_trials_page: whether the page of a search lies beside this one.
        unread: names of files that cannot be read, and why.
    """

    name: str
    prepared: dict[str, Any] = field(default_factory=dict)
    winner: dict[str, Any] = field(default_factory=dict)
    trials: pl.DataFrame | None = None
    report: dict[str, Any] = field(default_factory=dict)
    examples: dict[str, Any] = field(default_factory=dict)
    decision: dict[str, Any] = field(default_factory=dict)
    outcomes: dict[str, Any] = field(default_factory=dict)
    policy_value: dict[str, Any] = field(default_factory=dict)
    drift: dict[str, Any] = field(default_factory=dict)
    night: dict[str, Any] = field(default_factory=dict)
    has_trials_page: bool = False
    unread: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def of(run: Run) -> Findings:
        """Read the files of a run; of one in a store, the newest."""
        others = [run.root / name for name in (OUTCOMES, POLICY_VALUE, DRIFT)]
        run.bring_results()
        run.recipe.shared.bring_files(others)
        found = Findings(run.recipe.name, has_trials_page=run.trials_page.is_file())
        found.prepared = found._prepared(run)
        found.winner = found._json(run.winner_file)
        found.report = found._json(run.report_file)
        found.examples, found.decision = (
            each if each.get("bundle") == found.report.get("bundle") else {}
            for each in map(found._json, (run.examples_file, run.decision_file))
        )
        found.outcomes, found.policy_value, found.drift = map(found._json, others)
        if nights := sorted(run.root.glob(NIGHTS)):
            found.night = found._json(nights[-1])
        if run.trials_file.is_file():
            try:
                found.trials = read_trials(run.trials_file)
            except RaycommendError as error:
                found.unread[run.trials_file.name] = error.problem
        return found

    def _prepared(self, run: Run) -> dict[str, Any]:
        """The summary alone: prepared data in a store are not fetched for it."""
        try:
            data = run.recipe.shared.read(run.prepared_folder, SUMMARY_FILE)
            found = {} if data is None else json.loads(data)
            if not isinstance(found, dict):
                raise ValueError("no JSON object")
            return found
        except BROKEN as error:
            self.unread[SUMMARY_FILE] = str(error)
            return {}

    def _json(self, path: Path) -> dict[str, Any]:
        if not path.is_file():
            return {}
        try:
            return read_json(path, _FIX, {})
        except RaycommendError as error:
            self.unread[path.name] = error.problem
            return {}
