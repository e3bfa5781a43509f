"""What a section of the page is made of; `page.html` alone turns it into markup."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

#: Text is escaped, markup of `figures` stands as it is.
Cell = str | Markup


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its heading.

    Attributes:
        caption: what it tells.
        columns: headings.
        rows: as many cells as there are columns.
        numbers: places of columns that are aligned to the right.
        marked: places of rows that stand out.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numbers: Sequence[int] = ()
    marked: Sequence[int] = ()


@dataclass(frozen=True)
class Folded:
    """Blocks under a line that opens and closes them."""

    summary: str
    blocks: Sequence[Block]
    is_open: bool = False


Block = str | Markup | Table | Folded


@dataclass(frozen=True)
class Section:
    """A part of the page under its own heading.

    Attributes:
        name: of its anchor.
        title: heading.
        blocks: a text is a paragraph.
        absent: why there is nothing; None: there is.
    """

    name: str
    title: str
    blocks: Sequence[Block] = field(default_factory=list)
    absent: str | None = None


def known(value: float | None) -> bool:
    """Whether it is a number; NaN is none."""
    return value is not None and math.isfinite(value)


def number(value: float | None, form: str = ".4f") -> str:
    """A number, or a dash where it is not known."""
    return f"{value:{form}}" if known(value) else "–"


def interval(low: float | None, high: float | None, form: str = ".4f") -> str:
    """An interval, or a dash where it is not known."""
    return f"{low:{form}} to {high:{form}}" if known(low) and known(high) else "–"
