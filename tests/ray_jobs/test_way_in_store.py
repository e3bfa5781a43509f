"""The whole way of a run in a store, each job on a node that has seen nothing of it before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from object_store import ObjectStore
from tiny import KEY, KEY_ENV, tiny_log, tiny_recipe

from ray_jobs import embed, evaluate, prepare, pretrain, promote, tune
from ray_jobs.common.cluster import connected
from recsys.artifacts.run import Run
from recsys.evaluation.report import OURS
from recsys.preparation.prepared import PREPARED

GOLDEN = Path(__file__).with_name("golden_report.json")


@pytest.mark.ray
def test_the_report_is_that_of_a_run_in_a_folder(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    tiny_log(tmp_path / "log")
    for path in (tmp_path / "log").iterdir():
        store.write(f"log/{path.name}", path.read_bytes())
    recipe = tiny_recipe(
        tmp_path,
        data={"source": "s3://shop/log"},
        run_dir="s3://shop/runs/{name}",
        storage={"cache_dir": str(tmp_path / "node")},
        promote={"registry": "s3://shop/registry"},
        tune={"num_trials": 1},
        train={"epochs": 2},
        pretrain={"epochs": 1, "max_tokens": 32},
    )
    with connected(recipe.ray):
        for job in (prepare, pretrain, tune, embed, evaluate, promote):
            run = Run.open(recipe)
            job.execute(run)
            assert job.report(run)
            if job is tune:  # a search that has ended is not run again, wherever it is asked for
                before = store.read("runs/tiny/winner.json")
                shutil.rmtree(recipe.storage.cache.folder)
                tune.execute(Run.open(recipe))
                assert store.read("runs/tiny/winner.json") == before
            shutil.rmtree(recipe.storage.cache.folder)
    run = Run.open(recipe)
    assert run.registry.champion() == run.bundle().version
    report = json.loads(store.read("runs/tiny/report.json"))
    golden = json.loads(GOLDEN.read_text())
    key = ("model", "slice", "metric")
    assert [[row[k] for k in key] for row in report["rows"]] == [
        [row[k] for k in key] for row in golden["rows"]
    ]
    for row, was in zip(report["rows"], golden["rows"], strict=True):
        trained = row["model"] in (OURS, "sasrec", "als")
        assert row["value"] == pytest.approx(was["value"], abs=5e-3 if trained else 1e-6), row
    keys = store.stored("runs/tiny/")
    assert not [key for key in keys if "/relating/" in key or ".lock" in key]
    tops = {key.split("/")[2] for key in keys}
    assert {PREPARED, "split", "ray", "bundle", "winner.json", "report.json"} <= tops
