from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.quality.diversity import draw, main


def test_the_picture_is_a_picture() -> None:
    points = [
        {"diversity": 0.0, "ndcg@10": 0.2, "intra_list": 0.4, "coverage": 0.1},
        {"diversity": 0.5, "ndcg@10": 0.1, "intra_list": 0.7, "coverage": 0.2},
    ]
    root = ElementTree.fromstring(draw(points))
    circles = root.findall(".//{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 2
    assert float(circles[0].attrib["cx"]) < float(circles[1].attrib["cx"])
    assert float(circles[0].attrib["cy"]) < float(circles[1].attrib["cy"])


def test_a_folder_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "recsys prepare" in capsys.readouterr().err
