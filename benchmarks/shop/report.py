"""What the nights brought: rates by day and arm with intervals by user, and their differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import polars as pl
from scipy.special import ndtri

from benchmarks.shop.catalogue import Catalogue
from benchmarks.shop.days import ARMS, FROZEN, LOOP, POPULAR
from benchmarks.shop.nights import Night
from recsys.evaluation.metrics.ratio import Ratio, ratio
from recsys.evaluation.report import finite
from recsys.schema import Col

#: Rate -> its numerator, by shown item and by list.
RATES: Final = {"ctr": Col.clicked, "true_ctr": "click", "revenue_per_request": Col.value}


def rate_of(shown: pl.DataFrame, rate: str) -> Ratio:
    """A rate of what was shown, with its error by shopper.

    Args:
        shown: of `Days.serve`.
        rate: of `RATES`; `true_ctr` is the mean of the true probabilities.
    """
    lists = shown.group_by(Col.request).agg(
        pl.col("shopper").first(), pl.col(RATES[rate]).sum().cast(pl.Float64).alias("sum"), pl.len()
    )
    below = lists["len"] if rate != "revenue_per_request" else pl.ones(len(lists), eager=True)
    return ratio(
        lists["sum"].to_numpy(), below.cast(pl.Float64).to_numpy(), lists["shopper"].to_numpy()
    )


def summary(shown: pl.DataFrame, catalogue: Catalogue) -> list[dict[str, Any]]:
    """Rows by day and arm, and of all days (`day` null): each rate, its interval, the coverage."""
    rows = []
    for day in [*sorted(shown["day"].unique().to_list()), None]:
        of_day = shown if day is None else shown.filter(pl.col("day") == day)
        sold = len(catalogue.sold_on(int(of_day["day"].max())))  # type: ignore[arg-type]
        for arm in ARMS:
            part = of_day.filter(pl.col(Col.arm) == arm)
            row: dict[str, Any] = {
                "day": day, "arm": arm, "requests": part[Col.request].n_unique(),
                "users": part["shopper"].n_unique(),
                "coverage": part[Col.item_row].n_unique() / sold,
            }  # fmt: skip
            rows.append(row | {name: _told(rate_of(part, name)) for name in RATES})
    return rows


def differences(shown: pl.DataFrame) -> list[dict[str, Any]]:
    """The loop's rates less the frozen model's and less those of what is popular, over all days."""
    rows = []
    for other in (FROZEN, POPULAR):
        for name in RATES:
            ours, theirs = (
                rate_of(shown.filter(pl.col(Col.arm) == arm), name) for arm in (LOOP, other)
            )
            half = float(ndtri(0.975)) * float(np.hypot(ours.error, theirs.error))
            value = ours.value - theirs.value
            ends = {"value": value, "low": value - half, "high": value + half}
            told = {end: finite(each) for end, each in ends.items()}
            relative = value / theirs.value if theirs.value else None
            rows.append({"over": other, "rate": name, "relative": relative, **told})
    return rows


def noticed(nights: Sequence[Night], shift_day: int) -> list[str]:
    """Quantities whose PSI on the planted day surely exceeds that of the last night before."""
    drift = {night.day: night.drift for night in nights}
    before = next((drift[day] for day in range(shift_day - 1, -1, -1) if drift[day]), {})
    return sorted(
        name
        for name, (low, _) in drift[shift_day].items()
        if name in before and low > before[name][1]
    )


def report_of(
    shown: pl.DataFrame, nights: Sequence[Night], catalogue: Catalogue, shift_day: int, **more: Any
) -> dict[str, Any]:
    """The whole report as plain data."""
    return {
        "generated": True,
        **more,
        "shift_day": shift_day,
        "noticed": noticed(nights, shift_day),
        "nights": [asdict(night) for night in nights],
        "days": summary(shown, catalogue),
        "differences": differences(shown),
    }


def render(report: dict[str, Any]) -> list[str]:
    """The report as text."""
    lines = ["A generated shop: no real shop's figures.", ""]
    lines.append(
        f"{'day':<6}{'arm':<9}{'lists':>6}{'CTR':>26}{'true CTR':>26}"
        f"{'revenue a list':>24}{'coverage':>10}"
    )
    for row in report["days"]:
        day = "all" if row["day"] is None else row["day"]
        cells = (
            _cell(row["ctr"], 4),
            _cell(row["true_ctr"], 4),
            _cell(row["revenue_per_request"], 2),
        )
        lines.append(f"{day:<6}{row['arm']:<9}{row['requests']:>6}{cells[0]:>26}{cells[1]:>26}"
                     f"{cells[2]:>24}{row['coverage']:>10.3f}")  # fmt: skip
    lines.append("")
    for row in report["differences"]:
        relative = "" if row["relative"] is None else f"{row['relative']:+.1%}, "
        lines.append(f"{LOOP} over {row['over']}: {row['rate']} {relative}{_cell(row, 4)}")
    lines.append("")
    for night in report["nights"]:
        became = (
            f"champion {night['champion']} ({night['way']})"
            if night["is_new"]
            else "no new champion"
        )
        why = f" ({night['refused']})" if night["refused"] else ""
        lines.append(f"night {night['day']}: {became}, {sum(night['seconds'].values()):.0f} s{why}")
    lines += ["", *_promises(report["promises"], report["by_objective"])]
    lines += ["", f"tastes shifted on day {report['shift_day']}; drift surely above that of the "
              f"night before: {', '.join(report['noticed']) or 'none'}", ""]  # fmt: skip
    for row in report["judged"]:
        if row["refused"]:
            told = f"refused ({'; '.join(row['refused'])})"
        else:
            told = f"{_cell(row, 3)} on {row['lists']} lists"
        lines.append(
            f"policy-value of {row['bundle']} at temperature {row['temperature']:g}: {told} clicks "
            f"a list, in truth {row['truth']:.3f}"
        )
    return lines


def _promises(days: Sequence[dict[str, Any]], lists: dict[str, Any] | None) -> list[str]:
    """What heads promised beside the truth; what lists by their P(click) are worth."""
    if not days:
        return ["no day's champion had outcome heads"]
    lines = [
        "P(click) as the champion promised it, and as the smoothed rate of the item has it, beside "
        "the truth:",
        f"{'day':<6}{'by':<11}{'items':>7}{'promised':>10}{'truth':>8}{'abs. error':>12}"
        f"{'correlation':>13}{'calibration error':>19}",
    ]
    for row in days:
        for name in ("heads", "item rate"):
            told = row[name]
            agrees = "?" if told["correlation"] is None else f"{told['correlation']:.3f}"
            lines.append(
                f"{row['day']:<6}{name:<11}{row['items']:>7}{told['promised']:>10.4f}"
                f"{row['truth']:>8.4f}{told['absolute_error']:>12.4f}{agrees:>13}"
                f"{told['calibration_error']:>19.4f}"
            )
    if lists is not None:
        lines.append(
            f"lists by `objective: click` of {lists['bundle']} on day {lists['day']}, "
            f"{lists['lists']} lists: truly {lists['click']:.3f} clicks a list, by relevance "
            f"{lists['relevance']:.3f}; difference {_cell(lists['difference'], 3)}"
        )
    return lines


def _told(found: Ratio) -> dict[str, float | None]:
    low, high = found.interval()
    return {"value": finite(found.value), "low": finite(low), "high": finite(high)}


def _cell(told: dict[str, float | None], digits: int) -> str:
    ends = (told["value"], told["low"], told["high"])
    value, low, high = ("?" if end is None else f"{end:.{digits}f}" for end in ends)
    return f"{value} [{low}, {high}]"
