"""Rates of what was shown, such as clicks by exposures: of an arm, a model, a placement, a day.

    rows of a day -> sums by group and unit -> rates of each group, with intervals by unit

A unit is a user; where none was told the request, else the exposure itself. Sums add up, so a day's
rows are read and forgotten: what is kept grows with the units of the groups, not with the rows.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import polars as pl

from recsys.evaluation.metrics.ratio import MIN_OUTCOMES, Ratio, ratio
from recsys.schema import Col

GROUP, UNIT = "group", "unit"
_VALUE = pl.col(Col.value)
#: Sums by unit; `revenue` is that of rows with a request.
SUMS: Final = {
    "exposures": pl.len(),
    "requests": pl.col(Col.request).drop_nulls().n_unique(),
    "clicks": pl.col(Col.clicked).sum(),
    "carts": pl.col(Col.carted).sum(),
    "purchases": pl.col(Col.purchased).sum(),
    "clicked_purchases": (pl.col(Col.clicked) & pl.col(Col.purchased)).sum(),
    "purchases_without_value": (pl.col(Col.purchased) & _VALUE.is_null()).sum(),
    "dwells": pl.col(Col.dwell_ms).count(),
    "dwell_ms": pl.col(Col.dwell_ms).sum(),
    "revenue": _VALUE.filter(pl.col(Col.request).is_not_null()).sum(),
}
#: Rate -> the sums that it is the ratio of.
RATES: Final = {
    "ctr": ("clicks", "exposures"),
    "cart_rate": ("carts", "exposures"),
    "cvr": ("purchases", "exposures"),
    "cvr_of_clicks": ("clicked_purchases", "clicks"),
    "mean_dwell_ms": ("dwell_ms", "dwells"),
    "revenue_per_request": ("revenue", "requests"),
}


class Tally:
    """What is added up of the groups of one dimension.

    Args:
        column: that tells the group; None: all rows are one.
        num_items: of the catalogue; None: coverage is not told.

    Attributes:
        sums: a row a group and unit, with `SUMS`.
    """

    def __init__(self, column: str | None, num_items: int | None = None) -> None:
        self._group = (pl.lit("all") if column is None else pl.col(column)).alias(GROUP)
        self._num_items = num_items
        self._sums: list[pl.DataFrame] = []
        self._shown: list[pl.DataFrame] = []

    def add(self, rows: pl.DataFrame) -> None:
        """Add all exposures of a day.

        Args:
            rows: columns of `schema.EXPOSURES`, the group's, and `in_catalogue` of the item.
        """
        unit = pl.coalesce(Col.user, Col.request, Col.exposure).alias(UNIT)
        new = rows.group_by(self._group, unit).agg(
            total.cast(pl.Float64).alias(name) for name, total in SUMS.items()
        )
        every = pl.concat([*self._sums, new])
        self._sums = [every.group_by(GROUP, UNIT).agg(pl.col(list(SUMS)).sum())]
        shown = rows.filter("in_catalogue").select(self._group, Col.item)
        self._shown = [pl.concat([*self._shown, shown]).unique()]

    @property
    def sums(self) -> pl.DataFrame:
        """A row a group and unit, sorted: sums of floats are those of any other run."""
        return pl.concat(self._sums).sort(GROUP, UNIT, nulls_last=True)

    def groups(self) -> list[dict[str, Any]]:
        """Each group's name (None: not told), counts, rates and coverage, by name."""
        if not self._sums:
            return []
        by_group = self._shown[0].group_by(GROUP).len()
        shown: dict[Any, int] = {name: number for name, number in by_group.iter_rows()}
        found: list[dict[str, Any]] = []
        for part in self.sums.partition_by(GROUP):
            name, totals = part[GROUP][0], part.select(pl.col(list(SUMS)).sum()).row(0, named=True)
            counts = {each: int(total) for each, total in totals.items() if each != "revenue"}
            found.append(
                {
                    "name": name,
                    **counts,
                    "users": part.height,
                    "revenue": totals["revenue"],
                    "rates": {each: _told(rate(part, each)) for each in RATES},
                    "coverage": shown.get(name, 0) / self._num_items if self._num_items else None,
                }
            )
        return found


def rate(sums: pl.DataFrame, name: str, *, of_all: bool = False) -> Ratio:
    """A rate of one group; NaN where nobody told what its purchases came to.

    Args:
        sums: a row a unit.
        name: of `RATES`.
        of_all: count the units too that the rate is not of, such as who never clicked. They were
            split between arms as well; but two who clicked are not worth more for being among many.
    """
    above, below = RATES[name]
    purchases, without = (sums[each].sum() for each in ("purchases", "purchases_without_value"))
    rows = sums if of_all else sums.filter(pl.col(below) > 0)
    if name == "revenue_per_request" and 0 < purchases == without:
        return Ratio(math.nan, math.nan, math.nan, rows.height)
    return ratio(rows[above].to_numpy(), rows[below].to_numpy(), np.arange(rows.height))


def known(value: float) -> float | None:
    """A number for JSON, which has no NaN and no infinity."""
    return value if math.isfinite(value) else None


def bounds(low: float, high: float) -> list[float | None]:
    """An interval for JSON; an end that is not finite is no bound."""
    return [known(low), known(high)]


def _told(found: Ratio) -> dict[str, Any]:
    """A rate for JSON: an interval only where the effective outcomes suffice."""
    suffices = found.effective_outcomes >= MIN_OUTCOMES
    return {
        "value": known(found.value),
        "interval": bounds(*found.interval()) if suffices else None,
        "effective_outcomes": found.effective_outcomes,
    }
