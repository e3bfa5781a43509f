"""How the last night went."""

from __future__ import annotations

from recsys.reporting.blocks import Block, Section, Table
from recsys.reporting.findings import Findings

_NAME, _TITLE = "night", "The last night"


def section(found: Findings) -> Section:
    """The stages of the latest `night.json`."""
    night = found.night
    if not night:
        return Section(_NAME, _TITLE, absent="no night was run: `recsys nightly` does")
    way, failed = night["way"], night["failed"]
    told = f"Night of {night['day']}: {night['verdict'] or 'not at its end'}."
    blocks: list[Block] = [told]
    if way:
        blocks.append(f"It trained by the way `{way['kind']}`: {way['why']}.")
    if failed:
        blocks.append(f"It failed in `{failed['stage']}`: {failed['error']}")
    if night["refused"]:
        blocks.append(f"The gate refused: {night['refused']}")
    rows = [(name, f"{stage['seconds']:,.0f}") for name, stage in night["stages"].items()]
    return Section(_NAME, _TITLE, [*blocks, Table("Stages", ("Stage", "Seconds"), rows, (1,))])
