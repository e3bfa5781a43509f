"""What a bundle would have earned on the lists that were logged."""

from __future__ import annotations

from typing import Any

from recsys.reporting.blocks import Block, Section, Table, number
from recsys.reporting.findings import Findings

_NAME, _TITLE = "policy-value", "What it would have earned"


def section(found: Findings) -> Section:
    """The estimates of `policy_value.json`."""
    value = found.policy_value
    if not value:
        return Section(_NAME, _TITLE, absent="not estimated: `recsys policy-value` does")
    told = (
        f"{value['bundle']}, {value['policy']}, on {value['lists']:,} logged lists of "
        f"{value['users']:,} users: estimated from the lists that the service drew by chance."
    )
    rows, refusals = [], []
    for name, outcome in value["outcomes"].items():
        logged, estimated, difference = (
            outcome[each] for each in ("logged", value["default"], "difference")
        )
        refused = list(difference["refusals"])
        rows.append(
            (name, *(_told(each) for each in (logged, estimated, difference)), _verdict(difference))
        )
        refusals += [f"No verdict on {name}: {why}." for why in refused]
    table = Table(
        f"Per list, with 95 % intervals ({value['default'].replace('_', ' ')})",
        ("Outcome", "As logged", "Estimated", "Difference", "Verdict"), rows, (1, 2, 3),
    )  # fmt: skip
    blocks: list[Block] = [told, table, *refusals]
    return Section(_NAME, _TITLE, blocks)


def _told(found: dict[str, Any]) -> str:
    low, high = ("?" if end is None else f"{end:.4g}" for end in found["interval"])
    return f"{number(found['value'], '.4g')} ({low} to {high})"


def _verdict(difference: dict[str, Any]) -> str:
    low, high = difference["interval"]
    if difference["refusals"] or low is None or high is None:
        return "not judged"
    return "surely more" if low > 0 else "surely less" if high < 0 else "not surely more or less"
