from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from bundles import item_id
from tiny import (
    NUM_DAYS,
    day,
    tiny_items,
    tiny_log,
    tiny_recipe,
    tiny_recipe_file,
    tiny_settings,
    trainable_here,
    user_id,
    write_log,
)

from ray_jobs import cli, prepare, tune
from ray_jobs.common.kept import Checkpoints
from ray_jobs.searching.trials import all_failed
from recsys.artifacts.run import Run
from recsys.artifacts.trials import read_trials
from recsys.config import Recipe, load_recipe
from recsys.errors import DataError, RecipeError
from recsys.evaluation.report import METRIC
from recsys.schema import Col

ROOT = Path(__file__).parents[2]


def rounds(num_users: int = 200, num_items: int = 40) -> pl.DataFrame:
    """Purchases by people who go round the shop by seven: what comes next is never a favourite."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(num_users):
        item, visit, at = int(rng.integers(num_items)), 0, rng.uniform(0, 6)
        while at < NUM_DAYS:
            session = f"visit-{user}-{visit}"
            rows.append((user_id(user), item_id(item), "purchase", day(at), session, 1.0))
            item, visit, at = (item + 7) % num_items, visit + 1, at + rng.uniform(2, 8)
    names = [Col.user, Col.item, Col.event_type, Col.timestamp, Col.session, Col.quantity]
    return pl.DataFrame(rows, schema=names, orient="row").with_columns(
        pl.col(Col.timestamp).cast(pl.Datetime("us", "UTC"))
    )


def space(low: float, high: float) -> dict[str, Any]:
    """Learning rates of a range, and two batch sizes."""
    return {
        "train.learning_rate": {"loguniform": [low, high]},
        "train.batch_size": {"choice": [8, 16]},
    }


def row(name: str, best: float | None, error: str | None = None, epochs: int = 2) -> dict[str, Any]:
    return {
        "trial": name, "settings": {"train.learning_rate": 0.01, "train.batch_size": 16},
        "status": "failed" if error else "finished", "reason": error, "epochs": epochs,
        METRIC: best, "path": None,
    }  # fmt: skip


class TestFailedTrials:
    """Each one's reason is told, in one clause, wherever trials are told of."""

    DIVERGED = RecipeError(
        "training has diverged: the loss of step 2 is nan", field="train.learning_rate", fix="x"
    )

    def test_it_stands_in_the_table(self, tmp_path: Path) -> None:
        recipe = tiny_recipe(tmp_path)
        recipe.root.mkdir()
        trials = [row("trial-a", 0.5), row("trial-b", None, "training has diverged", epochs=0)]
        Run.open(recipe).winner_file.write_text(json.dumps({"trials": trials}))
        _, good, bad = tune.report(Run.open(recipe))
        assert good.endswith("0.5000  <- winner")
        assert bad.endswith("failed  (training has diverged)")

    def test_without_a_winner_all_reasons_are_told(self) -> None:
        trials = [row("trial-a", None, "training has diverged"), row("trial-b", None, "lost")]
        error = all_failed(trials, Path("/runs/ray/tune-1"))
        assert isinstance(error, DataError) and error.exit_code == 2
        assert error.problem == (
            "no trial finished an epoch: trial-a (train.learning_rate 0.01, train.batch_size 16): "
            "training has diverged; trial-b (train.learning_rate 0.01, train.batch_size 16): lost"
        )

    @pytest.mark.ray
    def test_one_among_good_ones(self, tmp_path: Path) -> None:
        """This seed's rates are 5e20 and .04. Nothing but our lines is printed."""
        tiny_log(tmp_path / "log")
        config = tiny_recipe_file(
            tmp_path, seed=0, train={"epochs": 1},
            tune={"num_trials": 2, "space": space(1e-3, 1e35)},
        )  # fmt: skip
        trainable_here(load_recipe(config))
        command = [sys.executable, "-m", "ray_jobs.tune", "--config", str(config)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        good, bad = _winner(load_recipe(config))["trials"]
        assert (good["status"], bad["status"], bad[METRIC]) == ("finished", "failed", None)
        assert bad["reason"].startswith("training has diverged: the loss of step")
        assert done.stdout.count(bad["reason"]) == 2, "when it failed, and in the table"
        assert f"failed  ({bad['reason']})" in done.stdout
        assert "Traceback" not in done.stdout + done.stderr
        assert [line for line in done.stderr.splitlines() if "logging.cc" not in line] == []

    @pytest.mark.ray
    @pytest.mark.usefixtures("cluster")
    def test_all_of_them(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        tiny_log(tmp_path / "log")
        config = tiny_recipe_file(tmp_path, tune={"num_trials": 1, "space": space(1e20, 1e20)})
        trainable_here(load_recipe(config))
        with pytest.raises(SystemExit) as end:
            cli.main(["tune", "--config", str(config)])
        done = capsys.readouterr()
        assert end.value.code == 2, done.out + done.err
        (line,) = [line for line in done.err.splitlines() if line.startswith("tune: ")]
        assert "no trial finished an epoch: trial-" in line
        assert "(train.learning_rate 1e+20, train.batch_size" in line
        assert "): training has diverged: the loss of step 2 is nan." in line
        assert "Traceback" not in done.out
        folder = Path(line.split(": ")[1])
        assert len(list(folder.glob("trial-*/error.txt"))) == 1


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, cluster: None) -> Recipe:
    """A finished search, one trial after another."""
    folder = tmp_path_factory.mktemp("tune")
    write_log(folder / "log", rounds(), tiny_items())
    # This seed's rates are .03, 1.7e-5 and 1.2e-5. What has learned nothing shows people what they
    # had, which is never what comes next: .01 of nDCG@10, where chance alone gives .1.
    recipe = tiny_recipe(
        folder,
        seed=0,
        train={"epochs": 3},
        model=tiny_settings(folder)["model"] | {"side_features": False},
        tune={"num_trials": 3, "space": space(1e-5, 3), "max_concurrent": 1},
        tracking={"kind": "mlflow"},
    )
    prepare.execute(Run.open(recipe))
    tune.execute(Run.open(recipe))
    return recipe


def _winner(recipe: Recipe) -> dict[str, Any]:
    return dict(json.loads(Run.open(recipe).winner_file.read_text()))


@pytest.mark.ray
def test_the_search_ends_with_a_table_of_trials(searched: Recipe) -> None:
    data = _winner(searched)
    trials = data["trials"]
    assert len(trials) == 3
    assert all(trial["status"] != "failed" for trial in trials)
    rates = [trial["settings"]["train.learning_rate"] for trial in trials]
    assert all(1e-5 <= rate <= 3 for rate in rates)
    assert all(trial["settings"]["train.batch_size"] in (8, 16) for trial in trials)
    assert len(set(rates)) == 3
    scores = [trial[METRIC] for trial in trials]
    assert scores == sorted(scores, reverse=True)
    assert data["recipe"]["train"]["learning_rate"] == rates[0]
    assert data["metrics"][METRIC] == scores[0]
    table = tune.report(Run.open(searched))
    assert len(table) == 4
    assert "<- winner" in table[1]
    epochs = read_trials(Run.open(searched).trials_file)
    assert epochs["trial"].unique(maintain_order=True).to_list() == [t["trial"] for t in trials]
    assert epochs.group_by("trial").len()["len"].sum() == sum(t["epochs"] for t in trials)
    assert epochs[METRIC].max() == scores[0]
    page = Run.open(searched).trials_page.read_text()
    assert all(trial["trial"] in page for trial in trials)


@pytest.mark.ray
def test_mlflow_is_told_of_the_search(searched: Recipe) -> None:
    from mlflow.tracking import MlflowClient

    trials = _winner(searched)["trials"]
    client = MlflowClient(f"sqlite:///{searched.root.parent / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'tiny'")
    told = {each.info.run_name: each for each in client.search_runs([experiment.experiment_id])}
    assert len(told) == 1 + len(trials)
    for trial in trials:
        data = told[trial["trial"]].data
        assert data.params == {name: str(value) for name, value in trial["settings"].items()}
        points = client.get_metric_history(told[trial["trial"]].info.run_id, "ndcg_at_10")
        assert max(point.value for point in points) == pytest.approx(trial[METRIC])


@pytest.mark.ray
def test_a_trial_that_lags_is_stopped_after_its_epoch(searched: Recipe) -> None:
    """ASHA sees every epoch: a trial below the median of those before it ends there and then."""
    trials = _winner(searched)["trials"]
    folders = [Path(trial["path"]).with_name(trial["trial"]) for trial in trials]
    seen = [len((folder / "result.json").read_text().splitlines()) for folder in folders]
    assert seen == [searched.train.epochs] + 2 * [searched.tune.grace_epochs]
    # While it was stopped it may have trained on, and that counts.
    assert all(trial["epochs"] >= told for trial, told in zip(trials, seen, strict=True))
    assert [trial["status"] for trial in trials] == ["finished", "stopped", "stopped"]
    assert "(stopped by asha after epoch" in "\n".join(tune.report(Run.open(searched)))


@pytest.mark.ray
def test_the_cluster_gets_its_cpus_back(searched: Recipe) -> None:
    """Trials that ASHA stopped have leaked their workers in older releases (ray#54305)."""
    import ray

    total = ray.cluster_resources()["CPU"]
    deadline = time.monotonic() + 60
    while ray.available_resources().get("CPU", 0) < total and time.monotonic() < deadline:
        time.sleep(0.5)
    assert ray.available_resources().get("CPU", 0) == total


@pytest.mark.ray
def test_a_finished_search_is_not_run_again(searched: Recipe) -> None:
    before = Run.open(searched).winner_file.read_bytes()
    tune.execute(Run.open(searched))
    assert Run.open(searched).winner_file.read_bytes() == before
    test_mlflow_is_told_of_the_search(searched)  # nothing is told twice


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
@pytest.mark.chaos
def test_an_interrupted_search_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C in the second trial; the same command keeps the first, and all epochs of both."""
    tiny_log(tmp_path / "log")
    config = tiny_recipe_file(
        tmp_path, train={"epochs": 4, "patience": 4}, tune={"num_trials": 2, "grace_epochs": 4}
    )
    trainable_here(load_recipe(config))
    command = [sys.executable, "-m", "ray_jobs.tune", "--config", str(config)]
    first = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    seen = []
    for line in first.stdout:
        seen.append(line)
        if "epoch 1/4" in line and any("(2 of 2)" in before for before in seen):
            break
    first.send_signal(signal.SIGINT)
    _, error = first.communicate(timeout=120)
    assert first.returncode == 130, "".join(seen) + error
    assert "run the same command to go on" in error
    (done,) = [line.split(":")[0].strip() for line in seen if "epoch 4/4" in line]

    with pytest.raises(SystemExit) as end:
        cli.main(["tune", "--config", str(config)])
    second = capsys.readouterr()
    assert not end.value.code, second.out + second.err
    assert f"{done} (" not in second.out, f"{done} was run again"
    recipe = load_recipe(config)
    trials = _winner(recipe)["trials"]
    assert done in {trial["trial"] for trial in trials}
    assert len(trials) == 2
    assert all(trial["epochs"] == 4 and trial["status"] == "finished" for trial in trials)
    for trial in trials:
        curve = Checkpoints(Path(trial["path"]), recipe.shared).curve_now()
        assert [point["epoch"] for point in curve] == [1, 2, 3, 4]
        assert trial[METRIC] == max(point[METRIC] for point in curve)
