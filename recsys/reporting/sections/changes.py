"""What changed against the champion: metrics, recipe, items, lists."""

from __future__ import annotations

import json
from typing import Any

from recsys.reporting.blocks import Block, Folded, Section, Table, interval
from recsys.reporting.figures import Axis, whisker
from recsys.reporting.findings import Findings
from recsys.reporting.sections.ranking import NAMES, slice_told
from recsys.reporting.sections.verdict import judged

_NAME, _TITLE = "changes", "What changed against the champion"


def section(found: Findings) -> Section:
    """Each difference to the champion that the gate compared it with."""
    if not found.decision:
        return Section(_NAME, _TITLE, absent="the gate was not asked yet: `recsys promote` asks it")
    champion, changes = found.decision["evidence"]["champion"], found.decision["changes"]
    if changes is None:
        told = f"not compared with {champion}" if champion else "there was no champion before"
        return Section(_NAME, _TITLE, absent=told)
    items = changes["items"]
    blocks: list[Block] = [
        f"The champion was {champion}.",
        _metrics(changes["metrics"]),
        f"Items: {items['both']:,} are in both catalogues, {items['new']:,} came and "
        f"{items['gone']:,} went.",
    ]
    shared = shared_places(found)
    if shared:
        mean = sum(len(both) for both in shared.values()) / len(shared)
        blocks.append(
            f"Of the lists of the {len(shared)} users below, {mean:.1f} of 10 items are in the "
            "champion's lists too (overlap@10)."
        )
    return Section(_NAME, _TITLE, [*blocks, _recipe(changes["recipe"])])


def shared_places(found: Findings) -> dict[str, set[str]]:
    """User of the examples -> ids of the list that the champion's list had too."""
    theirs = (found.decision.get("changes") or {}).get("lists", {})
    return {
        user["user"]: {item["item_id"] for item in user["list"]} & set(theirs[user["user"]])
        for user in found.examples.get("users", [])
        if user["user"] in theirs
    }


def _metrics(metrics: list[dict[str, Any]]) -> Table:
    judged_ones = [each for each in metrics if each["judged"]]
    ends = [each[end] for each in judged_ones for end in ("low", "high")]
    axis = Axis.of(ends, with_zero=True)
    return Table(
        "Difference to the champion on the same baskets, with its interval over users",
        ("Baskets", "Metric", "Difference", "Verdict", "", "Interval"),
        [
            (
                slice_told(each["slice"]),
                NAMES.get(each["metric"], each["metric"]),
                "–" if each["difference"] is None else f"{each['difference']:+.4f}",
                judged(each),
                whisker(each["difference"], each["low"], each["high"], axis, number)
                if each["judged"]
                else "",
                interval(each["low"], each["high"], "+.4f"),
            )
            for number, each in enumerate(metrics)
        ],
        numbers=(2, 5),
    )


def _recipe(changed: list[list[Any]]) -> Block:
    if not changed:
        return "No key of the recipe differs."
    rows = [(key, json.dumps(then), json.dumps(now)) for key, then, now in changed]
    table = Table("Keys of the recipe that differ", ("Key", "Champion", "This run"), rows)
    return Folded(f"Recipe: {len(rows)} keys differ", [table])
