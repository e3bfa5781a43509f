from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import check
from recsys.errors import DataError

REPORT: dict[str, Any] = {
    "dataset": "shop",
    "rows": [
        {"model": "raycommend", "slice": "all", "metric": "ndcg@10", "value": 0.2504},
        {"model": "popularity", "slice": "all", "metric": "ndcg@10", "value": 0.1},
    ],
}


def figure(expected: float, model: str = "raycommend") -> check.Figure:
    return check.Figure(model, "all", "ndcg@10", expected, 0.01)


def test_a_figure_may_move_within_its_tolerance_either_way() -> None:
    assert figure(0.25).holds(REPORT)
    assert figure(0.26).holds(REPORT)
    assert not figure(0.23).holds(REPORT)
    assert not figure(0.27).holds(REPORT)
    assert figure(0.25).line(REPORT).endswith("ok")
    assert figure(0.27).line(REPORT).endswith("FAILED")


def test_a_figure_that_is_not_there_is_no_agreement() -> None:
    with pytest.raises(DataError, match="lacks a figure"):
        figure(0.25, "als").holds(REPORT)


def test_what_is_expected_can_be_read() -> None:
    expected = check.read_expected()
    assert len(expected) > 1
    for benchmark in expected.values():
        assert benchmark.figures
        assert all(0 < each.tolerance < each.expected for each in benchmark.figures)


def test_what_has_moved_fails_and_what_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = {
        "here": check.Benchmark("here", [], [figure(0.25)]),
        "gone": check.Benchmark("gone", [], [figure(0.25)]),
        "jobs": check.Benchmark(None, ["--users", "9"], [figure(0.25)]),
    }
    (tmp_path / "here").mkdir()

    asked: list[list[str]] = []

    def quality(arguments: list[str]) -> int:
        Path(arguments[arguments.index("--json") + 1]).write_text(json.dumps(REPORT))
        return 0

    monkeypatch.setattr(check.measure, "main", quality)
    monkeypatch.setattr(check.jobs, "main", lambda words: asked.append(words) or quality(words))
    monkeypatch.setattr(check, "read_expected", lambda: expected)
    assert check.main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "gone: left out" in printed
    assert [words[:2] for words in asked] == [["--users", "9"]]
    assert "0.2504" in printed
    expected["here"] = check.Benchmark("here", [], [figure(0.3)])
    assert check.main([str(tmp_path)]) == 1
