from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from tiny_logs import queries

from benchmarks.quality.diversity import _ndcg, draw, main
from recsys.data.time_split import Questions


def test_a_list_that_stops_at_ten() -> None:
    histories = queries([], [])
    questions = Questions(
        np.arange(2), np.zeros(2, dtype=np.int32), histories.item_rows, histories.event_codes,
        histories.timestamps, histories.offsets[:-1], histories.offsets[1:], histories.now,
        np.array([3, 40, 7], dtype=np.int32), np.array([0, 2, 3]),
    )  # fmt: skip
    lists = np.array([range(10), range(7, 17)])
    # Item 3 at rank 4 of two relevant ones; item 7 at rank 1.
    first = (1 / np.log2(5)) / (1 + 1 / np.log2(3))
    assert _ndcg(lists, questions) == pytest.approx((first + 1) / 2)


def test_the_picture_is_a_picture() -> None:
    points = {0.0: (0.2, 0.4, 0.1), 0.5: (0.1, 0.7, 0.2)}
    root = ElementTree.fromstring(draw(points))
    circles = root.findall(".//{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 2
    assert float(circles[0].attrib["cx"]) < float(circles[1].attrib["cx"])
    assert float(circles[0].attrib["cy"]) < float(circles[1].attrib["cy"])


def test_a_folder_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "recsys prepare" in capsys.readouterr().err
