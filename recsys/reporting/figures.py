"""Figures of the page as SVG that stands in HTML: no script, no file beside it.

A line is told apart by its colour, its dashes and its marker, so that it is read in grey too. The
colours are those of Okabe and Ito (jfly.uni-koeln.de/color), which all kinds of colour vision tell
apart; `page.css` names them, for light and for dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

#: Of a figure, in units that are about a pixel on a phone.
WIDTH, HEIGHT = 400, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 10, 22, 38
_DASHES: Final = ("none", "6 3", "2 3", "8 3 2 3", "12 4")
#: Around (0, 0): circle, square, triangle, diamond, triangle upside down.
_MARKERS: Final = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0", "M-3.6 -3.6h7.2v7.2h-7.2z", "M0 -4.6L4.6 3.6H-4.6z",
    "M0 -5L5 0L0 5L-5 0z", "M0 4.6L4.6 -3.6H-4.6z",
)  # fmt: skip
#: Of `page.css`: c0 to c6.
_NUM_COLOURS: Final = 7


@dataclass(frozen=True)
class Line:
    """One line of a figure.

    Attributes:
        name: in the legend; empty for none.
        points: (across, up), in the order to be joined.
        labels: of the points, above them where there is room; none by default.
    """

    name: str
    points: Sequence[tuple[float, float]]
    labels: Sequence[str] = ()


@dataclass(frozen=True)
class Axis:
    """A linear scale.

    Attributes:
        low, high: its ends.
    """

    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float], *, with_zero: bool = False) -> Axis:
        """The scale that holds some values with a little room on both sides.

        Args:
            values: finite.
            with_zero: let it hold zero.
        """
        low, high = min(values, default=0.0), max(values, default=1.0)
        if with_zero:
            low, high = min(low, 0.0), max(high, 0.0)
        room = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
        return Axis(low - room * (low != 0 or not with_zero), high + room)

    def share(self, value: float) -> float:
        """Where a value lies, 0 at the lower end and 1 at the upper."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values on the scale: multiples of 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(n * power for n in (1, 2, 5, 10) if n * power >= rough * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def figure(
    lines: Sequence[Line],
    *,
    caption: str,
    across: str,
    up: str,
    axes: tuple[Axis, Axis] | None = None,
    diagonal: bool = False,
    markers: bool = True,
) -> Markup:
    """A line chart with a legend; values show when a marker is pointed at.

    Args:
        lines: finite points; a line without any is left out.
        caption: what is seen, for those too who do not see it.
        across: title of the axis across.
        up: title of the axis upwards.
        axes: across and upwards; None: what the points need.
        diagonal: draw where both axes have the same value (calibration, or a guess in ROC).
        markers: on each point; without for lines of many points.
    """
    drawn = [line for line in lines if line.points]
    points = [point for line in drawn for point in line.points]
    x_axis, y_axis = axes or (Axis.of([x for x, _ in points]), Axis.of([y for _, y in points]))

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + x_axis.share(x) * (WIDTH - _LEFT - _RIGHT),
            HEIGHT - _BOTTOM - y_axis.share(y) * (HEIGHT - _TOP - _BOTTOM),
        )

    parts = [_grid(x_axis, y_axis, place(x_axis.low, y_axis.low), across, up)]
    if diagonal:
        ends = max(x_axis.low, y_axis.low), min(x_axis.high, y_axis.high)
        d = "M{:.1f} {:.1f}L{:.1f} {:.1f}".format(*place(ends[0], ends[0]), *place(*ends[1:] * 2))
        parts.append(Markup('<path class="guide" d="{}"/>').format(d))
    for number, line in enumerate(drawn):
        places = [place(*point) for point in line.points]
        parts.append(_drawn(number, line, places, markers=markers or len(places) == 1))
    return Markup(
        '<figure><svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
        "<figcaption>{}{}</figcaption></figure>"
    ).format(WIDTH, HEIGHT, caption, Markup().join(parts), caption, _legend(drawn))


def whisker(value: float, low: float | None, high: float | None, axis: Axis, style: int) -> Markup:
    """A value and its interval as a dot on a line, as wide as the table's cell.

    The numbers stand in the cell beside it: it is hidden from screen readers.

    Args:
        value: finite.
        low: lower end of the interval; None: unknown.
        high: upper end.
        axis: shared by the rows of the table; zero is marked where it holds it.
        style: number of colour and marker.
    """
    parts = []
    if axis.low < 0 < axis.high:
        zero = f"{axis.share(0):.2%}"
        parts.append(
            Markup('<line class="guide" x1="{0}" x2="{0}" y1="0" y2="100%"/>').format(zero)
        )
    if low is not None and high is not None:
        ends = f"{axis.share(low):.2%}", f"{axis.share(high):.2%}"
        parts.append(
            Markup('<line class="c{}" x1="{}" x2="{}" y1="50%" y2="50%"/>').format(
                style % _NUM_COLOURS, *ends
            )
        )
    parts.append(
        Markup(
            '<svg x="{}" y="50%" overflow="visible"><path class="c{} mark" d="{}"/></svg>'
        ).format(f"{axis.share(value):.2%}", style % _NUM_COLOURS, _MARKERS[style % len(_MARKERS)])
    )
    return Markup('<svg class="whisker" aria-hidden="true">{}</svg>').format(Markup().join(parts))


def _grid(x: Axis, y: Axis, corner: tuple[float, float], across: str, up: str) -> Markup:
    """Axes, ticks and titles."""
    left, bottom = corner
    parts = []
    for tick in x.ticks():
        at = left + x.share(tick) * (WIDTH - _LEFT - _RIGHT)
        parts.append(
            Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{:.4g}</text>').format(
                at, bottom + 14, tick
            )
        )
    for tick in y.ticks():
        at = bottom - y.share(tick) * (HEIGHT - _TOP - _BOTTOM)
        parts.append(
            Markup(
                '<path class="grid" d="M{} {:.1f}H{}"/>'
                '<text x="{}" y="{:.1f}" text-anchor="end">{:.4g}</text>'
            ).format(left, at, WIDTH - _RIGHT, left - 5, at + 4, tick)
        )
    return Markup(
        '{}<path class="axis" d="M{} {}V{}H{}"/><text x="{}" y="{}" text-anchor="end">{}</text>'
        '<text x="2" y="12">{}</text>'
    ).format(
        Markup().join(parts), left, _TOP, bottom, WIDTH - _RIGHT, WIDTH - _RIGHT, HEIGHT - 6,
        across, up,
    )  # fmt: skip


def _drawn(
    number: int, line: Line, places: Sequence[tuple[float, float]], *, markers: bool
) -> Markup:
    """A line, its markers and their labels."""
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    colour, dash = f"c{number % _NUM_COLOURS}", _DASHES[number % len(_DASHES)]
    parts = [
        Markup('<polyline class="{} line" stroke-dasharray="{}" points="{}"/>').format(
            colour, dash, joined
        )
    ]
    if markers:
        shape = _MARKERS[number % len(_MARKERS)]
        for (x, y), point in zip(places, line.points, strict=True):
            told = f"{line.name}: {point[0]:.4g}, {point[1]:.4g}".removeprefix(": ")
            parts.append(
                Markup(
                    '<path class="{} mark" transform="translate({:.1f} {:.1f})" d="{}">'
                    "<title>{}</title></path>"
                ).format(colour, x, y, shape, told)
            )
    free = -math.inf
    for (x, y), label in zip(places, line.labels, strict=False):
        if x >= free:  # else it would stand on the one before
            parts.append(
                Markup('<text x="{:.1f}" y="{:.1f}">{}</text>').format(x - 3, y - 8, label)
            )
            free = x + 4 + 7 * len(label)
    return Markup().join(parts)


def _legend(lines: Sequence[Line]) -> Markup:
    named = [(number, line.name) for number, line in enumerate(lines) if line.name]
    entries = [
        Markup(
            '<li><svg class="key" viewBox="-15 -6 30 12" aria-hidden="true"><path class="c{0} line"'
            ' stroke-dasharray="{1}" d="M-14 0H14"/><path class="c{0} mark" d="{2}"/></svg>{3}</li>'
        ).format(
            number % _NUM_COLOURS,
            _DASHES[number % len(_DASHES)],
            _MARKERS[number % len(_MARKERS)],
            name,
        )  # fmt: skip
        for number, name in named
    ]
    return (
        Markup('<ul class="legend">{}</ul>').format(Markup().join(entries)) if entries else Markup()
    )
