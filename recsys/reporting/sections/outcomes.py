"""What came of what was shown: rates, by group and by day, and arms side by side."""

from __future__ import annotations

from typing import Any, Final

from recsys.outcomes.rates import RATES
from recsys.reporting.blocks import Block, Folded, Section, Table, number
from recsys.reporting.figures import Axis, Line, figure, whisker
from recsys.reporting.findings import Findings

_NAME, _TITLE = "outcomes", "What came of what was shown"
#: Rate -> what it is called, and how it is written.
_RATES: Final = {
    "ctr": ("Clicks per item shown", ".2%"),
    "cart_rate": ("Carts per item shown", ".2%"),
    "cvr": ("Purchases per item shown", ".2%"),
    "cvr_of_clicks": ("Purchases per click", ".2%"),
    "mean_dwell_ms": ("Mean dwell, ms", ",.0f"),
    "revenue_per_request": ("Revenue per list", ".4g"),
}


def section(found: Findings) -> Section:
    """The rates of `outcomes.json`."""
    if not found.outcomes:
        return Section(_NAME, _TITLE, absent="not measured: `recsys outcomes` does")
    if not found.outcomes["all"]:
        return Section(_NAME, _TITLE, absent="nothing was shown yet")
    (whole,), by = found.outcomes["all"], found.outcomes["by"]
    told = (
        f"{whole['exposures']:,} items shown to {whole['users']:,} users on "
        f"{found.outcomes['days']:,} days."
    )
    every = Table(
        "All that was shown, with 95 % intervals over users",
        ("Rate", "Value", "95 % interval"),
        [(_RATES[rate][0], *_cells(whole["rates"][rate], rate)) for rate in RATES],
        (1, 2),
    )
    groups = [_group(name, by[name]) for name in ("arm", "model", "placement", "position")
              if len(by.get(name, [])) > 1]  # fmt: skip
    compared = [_compared(each) for each in found.outcomes["comparisons"]]
    return Section(_NAME, _TITLE, [told, every, *compared, *_by_day(by.get("day", [])), *groups])


def _cells(rate: dict[str, Any], name: str) -> tuple[str, str]:
    form = _RATES[name][1]
    return number(rate["value"], form), _interval(rate["interval"], form)


def _interval(bounds: list[float | None] | None, form: str) -> str:
    if bounds is None:
        return "–"
    low, high = ("?" if bound is None else f"{bound:{form}}" for bound in bounds)
    return f"{low} to {high}"


def _by_day(days: list[dict[str, Any]]) -> list[Block]:
    """The click rate by day."""
    rates = [day["rates"]["ctr"]["value"] for day in days]
    points = [(float(place), rate) for place, rate in enumerate(rates) if rate is not None]
    if len(points) < 2:
        return []
    caption = f"Clicks per item shown by day, {days[0]['name']} to {days[-1]['name']}"
    return [figure([Line("", points)], caption=caption, across="days", up="clicks per item shown")]


def _group(name: str, groups: list[dict[str, Any]]) -> Block:
    """The click rate and the purchase rate of each group."""
    bounds = [_bounds(group["rates"]["ctr"]) for group in groups]
    axis = Axis.of([each for ends in bounds for each in ends if each is not None], with_zero=True)
    rows = [
        (
            "not told" if group["name"] is None else str(group["name"]),
            f"{group['exposures']:,}",
            (clicks := _cells(group["rates"]["ctr"], "ctr"))[0],
            "" if value is None else whisker(value, low, high, axis, place),
            clicks[1],
            *_cells(group["rates"]["cvr"], "cvr"),
        )
        for place, (group, (low, value, high)) in enumerate(zip(groups, bounds, strict=True))
    ]
    columns = (name.capitalize(), "Shown", "Clicks per item shown", "", "95 % interval",
               "Purchases per item shown", "95 % interval")  # fmt: skip
    table = Table(f"Rates by {name}", columns, rows, (1, 2, 4, 5, 6))
    return Folded(f"By {name}: {len(groups)} groups", [table])


def _bounds(rate: dict[str, Any]) -> tuple[float | None, float | None, float | None]:
    low, high = rate["interval"] or (None, None)
    return low, rate["value"], high


def _compared(found: dict[str, Any]) -> Block:
    """Two arms on each rate."""
    rows = []
    for name in RATES:
        rate, (told, form) = found["rates"][name], _RATES[name]
        signed = f"+{form}"
        verdict = "; ".join(rate["refusals"]) if rate["refusals"] else str(rate["verdict"])
        if rate["users_needed"]:
            verdict += f", {rate['users_needed']:,} more users needed"
        rows.append(
            (told, number(rate["difference"], signed), _interval(rate["interval"], signed), verdict)
        )
    names = found["challenger"], found["incumbent"]
    return Table(
        "{} less {}; the intervals hold however often one looks".format(*names),
        ("Rate", "Difference", "Interval", "Verdict"), rows, (1, 2),
    )  # fmt: skip
