"""What the jobs cost beside their floors: the report on a small log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import CUTS, KEY, KEY_ENV, day, tiny_log, tiny_settings

from benchmarks import jobs

pytestmark = pytest.mark.slow

#: Jobs as the report names them.
JOBS = (
    "prepare", "text store", "training", "head's first fit", "first validation", "validation",
    "embed", "evaluate, ours alone", "evaluate", "intervals",
)  # fmt: skip


def test_every_job_is_timed_beside_its_floor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    tiny_log(tmp_path / "log")
    settings = tiny_settings(tmp_path)
    report = tmp_path / "report.json"
    overrides = [
        "data.max_tokens=16", "model.dim=16", "model.num_layers=1", "model.num_heads=2",
        f"model.language_model={settings['model']['language_model']}",
        "train.fresh_texts_per_step=16", "train.num_negatives=32", "evaluate.num_bootstrap=20",
    ]  # fmt: skip
    told = [word for override in overrides for word in ("--set", override)]
    cuts = [f"--valid={day(CUTS['valid']).date()}", f"--test={day(CUTS['test']).date()}"]
    options = ["--log", str(tmp_path / "log"), "--users", "60", "--rounds", "2", "--steps", "2"]
    assert jobs.main([*options, *cuts, *told, "--json", str(report)]) == 0
    data = json.loads(report.read_text())
    assert [row["model"] for row in data["rows"]] == list(JOBS)
    assert all(0 < row["low"] <= row["value"] <= row["high"] for row in data["rows"])
    assert all(len(data["seconds"][name]) == 2 for name in ("evaluate", "head's first fit"))
    printed = capsys.readouterr().out
    assert all(name in printed for name in JOBS)
