"""What it was made from: counts, windows, and what was left out of the log."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from recsys.preparation.prepared import WINDOWS
from recsys.reporting.blocks import Block, Section, Table
from recsys.reporting.findings import Findings

_NAME, _TITLE = "data", "Data"
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
#: Key of the counts -> what it is called.
_COUNTS: Final = {
    "rows": "rows read", "events": "events kept", "users": "users", "items": "items",
    "texts": "distinct texts of items", "live": "rows that the service took in",
    "duplicates": "duplicates dropped", "superseded": "rows of items superseded by newer ones",
    "left_out": "rows of event types that the recipe leaves out",
    "erased": "rows of erased users left out",
}  # fmt: skip


def section(found: Findings) -> Section:
    """What `prepare` counted."""
    if not found.prepared:
        return Section(_NAME, _TITLE, absent="nothing is prepared: `recsys prepare` does")
    summary = found.prepared
    counts, cuts = summary["counts"], summary["cuts_us"]
    counted = [(told, f"{counts[key]:,}") for key, told in _COUNTS.items() if counts.get(key)]
    blocks: list[Block] = [Table("Counts", ("What", "Number"), counted, (1,))]
    if span := summary.get("log_us"):
        blocks.insert(0, f"Events from {_day(span[0])} to {_day(span[1])}, by UTC.")
    windows = [
        (name, _day(cuts[start]), _day(cuts[end]), f"{counts[f'{name}_baskets']:,}")
        for name, (start, end) in WINDOWS.items()
    ]
    blocks.append(
        Table(
            "Windows: the model learns from what lies before them, and never from the test window",
            ("Window", "From", "Until", "Baskets"), windows, (3,),
        )
    )  # fmt: skip
    blocks += _shares("Events by type", summary.get("event_types"))
    blocks += _shares("Rows in quarantine, by reason", summary.get("quarantined"))
    return Section(
        _NAME, _TITLE, [*blocks, *(f"Warning: {w}" for w in summary.get("warnings", []))]
    )


def _shares(caption: str, counted: dict[str, int] | None) -> list[Block]:
    """A table of numbers and their shares; none of nothing."""
    if not counted:
        return []
    whole = sum(counted.values())
    most = sorted(counted.items(), key=lambda each: -each[1])
    rows = [(name, f"{count:,}", f"{count / whole:.1%}") for name, count in most]
    return [Table(caption, ("What", "Number", "Share"), rows, (1, 2))]


def _day(us: Any) -> str:
    return "the end" if us is None else f"{_EPOCH + dt.timedelta(microseconds=us):%Y-%m-%d}"
