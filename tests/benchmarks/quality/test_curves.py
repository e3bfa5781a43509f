from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.quality.curves import main, read_curves

SVG = "{http://www.w3.org/2000/svg}"


def checkpoint(trial: Path, name: str, losses: list[float], *, validated: bool = True) -> None:
    curve = [
        {"epoch": number, "loss": loss} | ({"ndcg@10": 1 / loss} if validated else {})
        for number, loss in enumerate(losses, start=1)
    ]
    folder = trial / f"checkpoint_{name}"
    folder.mkdir(parents=True)
    (folder / "progress.json").write_text(json.dumps({"curve": curve}))


def test_every_trials_longest_curve_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ray = tmp_path / "ray"
    checkpoint(ray / "tune-1" / "train-a", "1", [9.0])
    checkpoint(ray / "tune-1" / "train-a", "2", [9.0, 8.0, 7.5])
    checkpoint(ray / "train-<b>", "1", [9.5, 9.0])
    checkpoint(ray / "retrain-1", "1", [9.0, 8.0], validated=False)
    curves = read_curves(tmp_path)
    assert {name: len(curve) for name, curve in curves.items()} == {"train-a": 3, "train-<b>": 2}
    assert main([str(tmp_path), "--svg", str(tmp_path / "curves.svg")]) == 0
    assert "epoch 3: loss 7.5000, validation ndcg@10 0.1333" in capsys.readouterr().out
    root = ElementTree.fromstring((tmp_path / "curves.svg").read_text())
    panels = root.findall(f"{SVG}g")
    assert [len(each.findall(f"{SVG}polyline")) for each in panels] == [2, 2]
    # A loss that falls goes down, as what it gains goes up.
    for each, sign in zip(panels, (1, -1), strict=True):
        points = each.findall(f"{SVG}polyline")[1].attrib["points"].split()
        heights = [float(point.split(",")[1]) for point in points]
        assert all(sign * (b - a) > 0 for a, b in zip(heights, heights[1:], strict=False))


def test_where_nothing_was_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "recsys tune" in capsys.readouterr().err
