"""Figures are well-formed, hold every value, and take no text for markup."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from recsys.reporting.figures import HEIGHT, WIDTH, Axis, Line, figure, whisker

UNIT = (Axis(0, 1), Axis(0, 1))


def drawn(*lines: Line, **options: object) -> ElementTree.Element:
    options = {"caption": "c", "across": "x", "up": "y", **options}
    return ElementTree.fromstring(figure(lines, **options))


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis(0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (Axis(-0.013, 0.021), [-0.01, 0, 0.01, 0.02]),
        (Axis(1, 3), [1, 1.5, 2, 2.5, 3]),
        (Axis(995_000, 1_005_000), [996_000, 998_000, 1_000_000, 1_002_000, 1_004_000]),
    ],
)
def test_ticks_are_round_and_on_the_scale(axis: Axis, ticks: list[float]) -> None:
    assert axis.ticks() == pytest.approx(ticks)


def test_a_scale_holds_its_values_and_zero_where_asked() -> None:
    assert Axis.of([3.0]).low < 3 < Axis.of([3.0]).high
    assert Axis.of([0.0]).low < 0 < Axis.of([0.0]).high
    axis = Axis.of([0.2, 0.4], with_zero=True)
    assert axis.low == 0 and axis.high > 0.4
    axis = Axis.of([-0.2, -0.1], with_zero=True)
    assert axis.low < -0.2 and axis.high >= 0
    assert 0 < Axis.of([]).share(0.5) < 1


def test_points_lie_where_the_axes_say() -> None:
    found = drawn(Line("a", [(0, 0), (1, 1)]), axes=UNIT, diagonal=True)
    (line,) = found.iter("polyline")
    (left, bottom), (right, top) = (map(float, p.split(",")) for p in line.get("points").split())
    assert 0 < left < right < WIDTH and 0 < top < bottom < HEIGHT
    (guide,) = (path for path in found.iter("path") if path.get("class") == "guide")
    assert guide.get("d") == f"M{left:.1f} {bottom:.1f}L{right:.1f} {top:.1f}"


def test_lines_differ_without_colour_and_values_can_be_read() -> None:
    found = drawn(*(Line(f"line {n}", [(0, n), (1, n + 0.5)]) for n in range(4)))
    lines = list(found.iter("polyline"))
    assert len({line.get("stroke-dasharray") for line in lines}) == 4
    assert [each.text for each in found.iter("title")][:2] == ["line 0: 0, 0", "line 0: 1, 0.5"]
    assert ["".join(each.itertext()) for each in found.iter("li")] == [
        f"line {n}" for n in range(4)
    ]
    bare = drawn(Line("", [(0, 1), (1, 2)]), markers=False)
    assert not list(bare.iter("title")) and not list(bare.iter("li"))


def test_no_text_becomes_markup() -> None:
    hostile = '"><script>alert(1)</script>'
    found = drawn(
        Line(hostile, [(0, 1)], labels=[hostile]), Line("none", []),
        caption=hostile, across=hostile, up=hostile,
    )  # fmt: skip
    assert not list(found.iter("script"))
    assert found.find("svg").get("aria-label") == hostile
    assert len(list(found.iter("polyline"))) == 1, "a line without points is left out"


def test_a_whisker_marks_zero_where_the_scale_holds_it() -> None:
    axis = Axis(-1, 1)
    found = ElementTree.fromstring(whisker(0.5, 0.0, 1.0, axis, 1))
    zero, interval = found.findall("line")
    assert (zero.get("x1"), interval.get("x1"), interval.get("x2")) == (
        "50.00%",
        "50.00%",
        "100.00%",
    )
    assert found.find("svg").get("x") == "75.00%"
    bare = whisker(0.5, None, None, Axis(0, 1), 0)
    assert isinstance(bare, Markup) and "<line" not in bare
