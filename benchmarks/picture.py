"""Line charts as SVG, without a plotting library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT, EDGE = 560, 340, 60
COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4b5563")


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: in the legend; empty for none.
        points: (across, up), in the order to be joined.
        labels: beside the points; empty for none.
    """

    name: str
    points: Sequence[tuple[float, float]]
    labels: Sequence[str] = ()


def chart(lines: Sequence[Line], *, across: str, up: str, from_zero: bool = False) -> str:
    """An SVG document.

    Args:
        lines: at least one, with at least one point.
        across: title of the axis across.
        up: title of the axis upwards.
        from_zero: let the upward axis begin at zero.
    """
    return document([panel(lines, across=across, up=up, from_zero=from_zero)])


def document(panels: Sequence[str]) -> str:
    """Panels side by side as one SVG document."""
    width = WIDTH * len(panels)
    placed = "".join(
        f'<g transform="translate({number * WIDTH} 0)">{content}</g>'
        for number, content in enumerate(panels)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">'
        f'<rect width="{width}" height="{HEIGHT}" fill="white"/>{placed}</svg>\n'
    )


def panel(
    lines: Sequence[Line], *, across: str, up: str, from_zero: bool = False, dots: bool = True
) -> str:
    """The inside of a chart; see `chart`. Without `dots` for lines of many points."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    left, right = min(xs), max(xs)
    low, high = (0.0 if from_zero else min(ys)), max(ys)
    bottom = HEIGHT - EDGE

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            EDGE + (x - left) / ((right - left) or 1) * (WIDTH - 2 * EDGE),
            bottom - (y - low) / ((high - low) or 1) * (HEIGHT - 2 * EDGE - 10),
        )

    parts = [
        f'<path d="M{EDGE} {EDGE - 20}V{bottom}H{WIDTH - EDGE + 20}" fill="none" stroke="#444"/>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 18}" text-anchor="middle">{escape(across)}</text>',
        f'<text x="{EDGE - 44}" y="{EDGE - 28}">{escape(up)}</text>',
        f'<text x="{EDGE}" y="{bottom + 18}">{left:.3g}</text>',
        f'<text x="{WIDTH - EDGE}" y="{bottom + 18}" text-anchor="end">{right:.3g}</text>',
        *(
            f'<text x="{EDGE - 6}" y="{place(left, value)[1] + 4:.1f}" text-anchor="end">'
            f"{value:.3g}</text>"
            for value in (low, high)
        ),
    ]
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        places = [place(x, y) for x, y in line.points]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(
            f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        if dots:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in places
            ]
        parts += [
            f'<text x="{x + 7:.1f}" y="{y - 7:.1f}">{escape(label)}</text>'
            for (x, y), label in zip(places, line.labels, strict=False)
        ]
        if line.name:
            parts.append(
                f'<text x="{WIDTH - EDGE}" y="{EDGE - 28 + 15 * number}" text-anchor="end" '
                f'fill="{colour}">{escape(line.name)}</text>'
            )
    return "".join(parts)
