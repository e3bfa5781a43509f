"""What MLflow is told: in its SQLite store, and on a server of its own on loopback."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle, make_language_model
from tiny import tiny_recipe

from benchmarks.ports import free_ports
from recsys.artifacts.run import Run
from recsys.artifacts.trials import write_trials
from recsys.config import recipe_from_dict
from recsys.errors import RaycommendError, RecipeError
from recsys.evaluation.report import METRIC
from recsys.tracking import NoTracker, tracker_of

pytestmark = pytest.mark.slow  # MLflow alone takes seconds to import

SETTINGS = {"train.learning_rate": 0.01, "train.batch_size": 8}


def ended(folder: Path, uri: str | None, **winner: Any) -> Run:
    """A run as a search leaves it: three trials, the first of which won; and its bundle."""
    raw = tiny_recipe(folder).resolved()
    run = Run.open(recipe_from_dict(raw | {"tracking": {"kind": "mlflow", "uri": uri}}))
    run.root.mkdir(exist_ok=True)
    curve = [
        {"epoch": number, METRIC: 0.1 * number, "loss": 1.0, "train_s": 2.0, "valid_s": 1.0}
        for number in (1, 2)
    ]  # fmt: skip
    none = {"status": "finished", "reason": None, "settings": SETTINGS}
    trials = [
        {"trial": "trial-a", **none, "curve": curve},
        {"trial": "trial-b", **none, "curve": curve[:1], "status": "stopped", "reason": "by asha"},
        {"trial": "trial-c", **none, "curve": [], "status": "failed", "reason": "diverged"},
    ]
    write_trials(run.trials_file, trials)
    data = {
        "recipe": run.recipe.resolved(), "recipe_hash": "h", "data_fingerprint": "d",
        "checkpoint": "checkpoint-1", "curve": curve, "trials": [{"trial": "trial-a"}], **winner,
    }  # fmt: skip
    run.winner_file.write_text(json.dumps(data))
    if not run.bundle_folder.exists():
        make_bundle(run.bundle_folder, run.recipe, seed=0)
    return run


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An MLflow server with a store of its own."""
    folder = tmp_path_factory.mktemp("mlflow")
    (port,) = free_ports(1)
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | quiet, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 180
            while not _answers(f"{uri}/health"):
                assert process.poll() is None and time.monotonic() < deadline, (
                    folder / "log"
                ).read_text()
                time.sleep(0.5)
            yield uri
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(params=["store", "server"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """None: the SQLite store that is taken where none is named."""
    return str(request.getfixturevalue("server")) if request.param == "server" else None


def test_a_search_is_told_once_with_all_that_it_is(tmp_path: Path, uri: str | None) -> None:
    from mlflow.tracking import MlflowClient

    run = ended(tmp_path, uri)
    tracker = tracker_of(run.recipe)
    tracker.check()
    for _ in range(2):
        tracker.training(run)
    tracker.bundle(run)
    client = MlflowClient(uri or f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    told = {
        each.data.tags["mlflow.runName"]: each
        for each in client.search_runs([experiment.experiment_id])
    }
    below = {name for name in told if name.startswith("trial-")}
    assert below == {"trial-a", "trial-b", "trial-c"}
    (name,) = told.keys() - below
    top = told[name]
    assert name.startswith("tiny-") and top.info.status == "FINISHED"
    assert top.data.params["train.learning_rate"] == "0.01"
    assert top.data.params["model.dim"] == "16" and top.data.params["seed"] == "7"
    assert top.data.tags["raycommend.bundle"] == run.bundle().version
    for trial in below:
        assert told[trial].data.tags["mlflow.parentRunId"] == top.info.run_id
        assert told[trial].data.params == {key: str(value) for key, value in SETTINGS.items()}
    assert told["trial-c"].info.status == "FAILED" and not told["trial-c"].data.metrics
    assert told["trial-c"].data.tags["raycommend.reason"] == "diverged"
    curve = client.get_metric_history(told["trial-a"].info.run_id, "ndcg_at_10")
    assert [(point.step, point.value) for point in curve] == [(1, 0.1), (2, 0.2)]
    assert told["trial-a"].data.metrics["seconds"] == 6
    there = {each.path for each in client.list_artifacts(top.info.run_id)}
    assert there == {"bundle", "recipe.json", "trials.parquet", "winner.json"}
    copy = Path(client.download_artifacts(top.info.run_id, "bundle", str(tmp_path)))
    assert {file.name for file in copy.iterdir()} == {
        file.name for file in run.bundle_folder.iterdir()
    }
    assert (copy / "bundle.json").read_bytes() == (run.bundle_folder / "bundle.json").read_bytes()


def test_another_winner_is_another_run(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    run = ended(tmp_path, None)
    tracker_of(run.recipe).training(run)
    alone = ended(tmp_path, None, checkpoint="checkpoint-2", trials=[])  # of `recsys train`
    with pytest.raises(RaycommendError, match="MLflow has no run of this training"):
        tracker_of(run.recipe).bundle(alone)
    tracker_of(run.recipe).training(alone)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'tiny'")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2 + 3
    assert sum("raycommend.training" in each.data.tags for each in runs) == 2


def test_a_server_that_does_not_answer_is_named_at_once(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    run = ended(tmp_path, f"http://127.0.0.1:{port}")
    started = time.monotonic()
    with pytest.raises(RaycommendError, match=f"http://127.0.0.1:{port}.*tracking.uri") as error:
        tracker_of(run.recipe).check()
    assert "\n" not in str(error.value)
    assert time.monotonic() - started < 30


def test_without_mlflow_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, found = ended(tmp_path, None), importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "mlflow" else found(name)
    )
    with pytest.raises(RecipeError, match=r"pip install 'raycommend\[mlflow\]'"):
        tracker_of(run.recipe).check()


def test_by_default_nobody_is_told(tmp_path: Path) -> None:
    make_language_model(tmp_path / "language")
    tracker = tracker_of(tiny_recipe(tmp_path))
    assert isinstance(tracker, NoTracker)
    tracker.check()


def test_a_password_has_no_place_in_a_recipe(tmp_path: Path) -> None:
    raw = tiny_recipe(tmp_path).resolved()
    with pytest.raises(RecipeError, match="MLFLOW_TRACKING_PASSWORD") as error:
        recipe_from_dict(raw | {"tracking": {"uri": "https://me:secret@host"}})
    assert "secret" not in str(error.value)
