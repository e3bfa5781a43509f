"""What has drifted: the last days beside those that the bundle was made from."""

from __future__ import annotations

from typing import Any

from recsys.reporting.blocks import Folded, Section, Table, interval, number
from recsys.reporting.figures import Axis, whisker
from recsys.reporting.findings import Findings

_NAME, _TITLE = "drift", "Drift"


def section(found: Findings) -> Section:
    """The quantities of `drift.json`."""
    drift = found.drift
    if not drift:
        return Section(_NAME, _TITLE, absent="not looked at: `recsys drift` does")
    if drift["days"] is None:
        return Section(_NAME, _TITLE, absent=f"no event since the log of {drift['bundle']}")
    then, now = (" to ".join(drift[name]) for name in ("reference_days", "days"))
    asked = f"A full run is asked for: {drift['reason']}." if drift["asks_full_run"] else (
        "No full run is asked for."
    )  # fmt: skip
    told = f"{now} beside {then}, the reference of {drift['bundle']}: {drift['verdict']}. {asked}"
    indices = [each for each in drift["quantities"] if each["kind"] == "distribution"]
    shares = [each for each in drift["quantities"] if each["kind"] != "distribution"]
    return Section(
        _NAME, _TITLE,
        [
            told, _indices(indices), _shares(shares),
            *(Folded(f"{each['name'].replace('_', ' ')}: {each['text']}", [_bins(each)])
              for each in indices),
        ],
    )  # fmt: skip


def _indices(quantities: list[dict[str, Any]]) -> Table:
    """The population stability index of each distribution."""
    known = [end for each in quantities for end in (*(each["interval"] or ()), each["psi"] or 0)]
    axis = Axis.of(known, with_zero=True)
    rows = [
        (
            each["text"],
            number(each["psi"], ".3f"),
            "" if each["psi"] is None else whisker(each["psi"], *_ends(each), axis, 0),
            interval(*_ends(each), form=".3f"),
            each["verdict"],
        )
        for each in quantities
    ]
    return Table(
        "Distributions: PSI, 0 where nothing has changed",
        ("Quantity", "PSI", "", "95 % interval", "Verdict"), rows, (1, 3),
    )  # fmt: skip


def _shares(quantities: list[dict[str, Any]]) -> Table:
    rows = [
        (
            each["text"],
            number(each["reference"], ".2%"),
            number(each["now"], ".2%"),
            interval(*_ends(each), form="+.2%"),
            each["verdict"],
        )
        for each in quantities
    ]
    return Table(
        "Shares and ratios, and the interval of their change",
        ("Share", "Then", "Now", "95 % interval", "Verdict"), rows, (1, 2, 3),
    )  # fmt: skip


def _ends(told: dict[str, Any]) -> tuple[float | None, float | None]:
    low, high = told["interval"] or (None, None)
    return low, high


def _bins(told: dict[str, Any]) -> Table:
    each = zip(told["labels"], told["reference"], told["now"], strict=True)
    rows = [(label, f"{then:.1%}", f"{now:.1%}") for label, then, now in each]
    return Table("Share of each part", ("Part", "Then", "Now"), rows, (1, 2))
