from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality import ablation
from benchmarks.quality.product import NO_IDS
from recsys.config import apply_override, recipe_from_dict

MINIMAL: dict[str, Any] = {
    "name": "shop",
    "data": {"source": "log", "cuts": {"valid": "2024-01-01", "test": "2024-02-01"}},
}


@pytest.mark.parametrize("name", ablation.VARIANTS)
def test_every_variant_is_a_recipe_other_than_the_usual(name: str) -> None:
    raw = json.loads(json.dumps(MINIMAL)) | {"train": {"retrain": True}}
    usual = recipe_from_dict(raw)
    for override in ablation.VARIANTS[name]:
        apply_override(raw, override)
    changed = recipe_from_dict(raw) != usual
    assert changed == (name != ablation.AS_IT_IS)


def test_what_is_there_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[list[str]] = []

    def quality(arguments: list[str]) -> int:
        ran.append(arguments)
        row = {"model": "raycommend", "slice": "all", "metric": "ndcg@10"}
        report = {"seeds": [0.2, 0.3], "rows": [row | {"value": 0.25, "low": 0.2, "high": 0.3}]}
        Path(arguments[arguments.index("--json") + 1]).write_text(json.dumps(report))
        return 0

    monkeypatch.setattr(ablation.measure, "main", quality)
    reports = tmp_path / "reports"
    first = ["log", "--reports", str(reports), "--only", "no ids", "--seeds", "2"]
    assert ablation.main(first) == 0
    assert ablation.main([*first, "--only", "no dropout"]) == 0
    assert len(ran) == 2
    assert ran[0][:3] == ["log", "--seeds", "2"]
    assert f"model.min_events_for_id={NO_IDS}" in ran[0]
    assert "model.dropout=0" in ran[1]
    table = capsys.readouterr().out.strip().split("\n")[-2:]
    assert table[0].startswith("| no ids | 0.2500 [0.2000, 0.3000] |")
    assert table[1].endswith("| 0.2000, 0.3000 |")


def test_a_variant_that_fails_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation.measure, "main", lambda arguments: 2)
    assert ablation.main(["log", "--reports", str(tmp_path)]) == 2
    assert ablation.read_reports(tmp_path) == {}
