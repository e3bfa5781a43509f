"""MLflow: a run for a training or a search, and one below it for each trial."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from recsys.artifacts.run import Run
from recsys.artifacts.trials import read_trials
from recsys.config import Recipe
from recsys.errors import RaycommendError, RecipeError
from recsys.evaluation.report import METRIC
from recsys.storage.reading import read_json
from recsys.storage.seals import json_sha256

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

STORE_FILE, ARTIFACTS_DIR = "mlflow.db", "mlflow"
#: Tag by which a run is found again: what was trained.
TRAINING_TAG, TRIAL_TAG = "raycommend.training", "raycommend.trial"
PARENT_TAG, NAME_TAG = "mlflow.parentRunId", "mlflow.runName"
#: Figures of an epoch, beside the metric.
FIGURES = ("loss", "train_s", "valid_s", "seconds")
#: MLflow's limit of a batch of parameters.
BATCH = 100


class MlflowTracker:
    """A tracker on an MLflow server or store.

    The experiment has the recipe's name.

    Args:
        recipe: whose `tracking` says where.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        beside = recipe.root.parent
        given = recipe.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
        self.uri = given or f"sqlite:///{beside / STORE_FILE}"
        #: A server decides by itself where artefacts lie.
        self.artifacts = None if _is_server(self.uri) else (beside / ARTIFACTS_DIR).as_uri()

    def check(self) -> None:
        """Find or make the experiment.

        Raises:
            RecipeError: MLflow is not installed.
            RaycommendError: it does not answer.
        """
        if importlib.util.find_spec("mlflow") is None:
            raise RecipeError(
                "needs MLflow, which is not installed", field="tracking.kind", value="mlflow",
                fix="pip install 'raycommend[mlflow]', or set tracking.kind to none",
            )  # fmt: skip
        with self._telling() as client:
            self._experiment(client)

    def training(self, run: Run) -> None:
        """Tell of the winner, its recipe and curve, and of all trials with theirs."""
        winner = _winner(run)
        with self._telling() as client:
            if _find(client, self._experiment(client), winner["key"]) is not None:
                return
            recipe = winner["recipe"]
            # Under no tag yet: a run that was told by half is not found, and told anew.
            top = self._start(client, {NAME_TAG: f"{recipe['name']}-{winner['key']}"})
            self._params(client, top, {"seed": recipe["seed"], **_flat(recipe, "model", "train")})
            _points(client, top, winner["curve"])
            client.log_dict(top, recipe, "recipe.json")
            client.log_artifact(top, str(run.winner_file))
            if winner["trials"]:
                self._trials(client, run, top)
            client.set_tag(top, TRAINING_TAG, winner["key"])
            client.set_terminated(top)

    def bundle(self, run: Run) -> None:
        """Keep the bundle as an artefact of its training's run."""
        with self._telling() as client:
            found = _find(client, self._experiment(client), _winner(run)["key"])
            if found is None:
                raise RaycommendError(
                    "MLflow has no run of this training", where=_shown(self.uri),
                    fix="run `recsys tune` or `recsys train` again: it is told, and not trained",
                )  # fmt: skip
            client.log_artifacts(found, str(run.bundle_folder), "bundle")
            client.set_tag(found, "raycommend.bundle", run.bundle(verify=False).version)

    def _trials(self, client: MlflowClient, run: Run, top: str) -> None:
        for path in (run.trials_file, run.trials_page):
            if path.is_file():
                client.log_artifact(top, str(path))
        table = read_trials(run.trials_file)
        names = [name for name in table.columns if "." in name]
        for (trial,), rows in table.group_by("trial", maintain_order=True):
            first = rows.row(0, named=True)
            tags = {NAME_TAG: str(trial), TRIAL_TAG: str(trial), PARENT_TAG: top}
            tags |= {"raycommend.reason": first["reason"]} if first["reason"] else {}
            below = self._start(client, tags)
            self._params(client, below, {name: first[name] for name in names})
            if first["epoch"] is not None:
                _points(client, below, rows.to_dicts())
            is_failed = first["status"] == "failed"
            client.set_terminated(below, "FAILED" if is_failed else "FINISHED")

    def _experiment(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(self.recipe.name)
        if found is not None:
            return str(found.experiment_id)
        return client.create_experiment(self.recipe.name, artifact_location=self.artifacts)

    def _start(self, client: MlflowClient, tags: dict[str, str]) -> str:
        return str(client.create_run(self._experiment(client), tags=tags).info.run_id)

    def _params(self, client: MlflowClient, run_id: str, params: dict[str, Any]) -> None:
        from mlflow.entities import Param

        told = [Param(name, str(value)) for name, value in params.items()]
        for begin in range(0, len(told), BATCH):
            client.log_batch(run_id, params=told[begin : begin + BATCH])

    @contextmanager
    def _telling(self) -> Iterator[MlflowClient]:
        """A client; whatever MLflow raises is told as an error of ours."""
        # MLflow tells its makers how it is used, and tries for minutes.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        if self.uri.startswith("sqlite:///"):
            Path(self.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        try:
            yield MlflowClient(self.uri)
        except (MlflowException, OSError) as error:
            raise RaycommendError(
                f"MLflow cannot be told: {_first_line(error)}", where=_shown(self.uri),
                field="tracking.uri",
                fix="correct it, or see to the server; the same command goes on",
            ) from None  # fmt: skip


def _is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def _shown(uri: str) -> str:
    """A URI without the name and password that the environment's may hold."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _winner(run: Run) -> dict[str, Any]:
    """What `winner.json` holds, and a key of it: the recipe, the data and the checkpoint."""
    told = {"recipe": dict, "recipe_hash": str, "checkpoint": str, "curve": list, "trials": list}
    data = read_json(run.winner_file, "run `recsys tune` or `recsys train` again", told)
    parts = [data["recipe_hash"], data["data_fingerprint"], data["checkpoint"]]
    return {**data, "key": json_sha256(parts)[:16]}


def _find(client: MlflowClient, experiment: str, key: str) -> str | None:
    found = client.search_runs([experiment], f"tags.`{TRAINING_TAG}` = '{key}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def _flat(recipe: dict[str, Any], *sections: str) -> dict[str, Any]:
    return {f"{name}.{key}": value for name in sections for key, value in recipe[name].items()}


def _points(client: MlflowClient, run_id: str, points: list[dict[str, Any]]) -> None:
    """Tell the figures of each epoch, at the epoch as the step."""
    for point in points:
        for name in (METRIC, *FIGURES):
            if point.get(name) is not None:
                # MLflow takes no "@" in a name.
                key = name.replace("@", "_at_")
                client.log_metric(run_id, key, float(point[name]), step=int(point["epoch"]))
