"""What a bundle was made from, as counts: `reference.json`.

It covers the last days of the log that the bundle was made from. It holds sums alone: of no user
and of no item.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from recsys.arrays import Float64s
from recsys.artifacts.bundle import REFERENCE, Bundle
from recsys.config import Recipe
from recsys.drift.counts import Counts
from recsys.drift.measuring import Window, count_clicks, last_whole_day, measure
from recsys.drift.quantities import (
    CATEGORY,
    CTR,
    NEED_A_PAST,
    PRICE,
    TEXT_LENGTH,
    TOP_SCORE,
    Bins,
    ItemFacts,
    fixed_bins,
    labels_of,
)
from recsys.drift.scores import score_counts
from recsys.errors import BundleError
from recsys.features.popularity import DailyCounts
from recsys.preparation.prepared import Prepared
from recsys.preparation.preparing import RunTasks
from recsys.ranking.scorer import Scorer
from recsys.storage.reading import read_json, reading

FORMAT: Final = 1
#: Four of each day of the week.
REFERENCE_DAYS: Final = 28
_FIX: Final = "write the bundle again with `recsys embed`, and promote it"


@dataclass(frozen=True)
class Reference:
    """The counts of a window.

    Attributes:
        window: the days.
        counts: by name of `QUANTITIES`; what was not to be had is left out.
        bins: of the quantities that are numbers.
    """

    window: Window
    counts: dict[str, Counts]
    bins: dict[str, Bins] = field(default_factory=dict)

    @staticmethod
    def measure(recipe: Recipe, prepared: Prepared, run_tasks: RunTasks) -> Reference:
        """Count the last days of prepared data.

        Args:
            recipe: of the run.
            prepared: what the bundle is made from.
            run_tasks: one task a history shard.

        Raises:
            DataError: a file is missing or broken.
        """
        daily = prepared.daily_counts()
        first, last = int(daily.days[0]), last_whole_day(daily.days)
        days = min(REFERENCE_DAYS, last - first + 1)
        window, facts = Window(last - days + 1, days), ItemFacts.of(prepared, daily)
        weights = _events_of_items(daily, window)
        bins = fixed_bins() | {
            CATEGORY: Bins.of_names(facts.categories, weights),
            PRICE: Bins.of_mass(facts.prices, weights),
            TEXT_LENGTH: Bins.of_mass(facts.text_lengths, weights),
        }
        counts = measure(recipe, prepared, window, bins, facts, run_tasks)
        if window.first - first < REFERENCE_DAYS:
            # In the first weeks of a log everything looks newer than it is.
            counts = {name: each for name, each in counts.items() if name not in NEED_A_PAST}
        clicks = count_clicks(recipe, window)
        return Reference(window, counts if clicks is None else counts | {CTR: clicks}, bins)

    def with_scores(self, scorer: Scorer, prepared: Prepared, seed: int) -> Reference:
        """The same with the scores of the lists of some visits."""
        found = score_counts(scorer, prepared, self.window, seed)
        if found is None:
            return self
        bins, counts = found
        return replace(
            self, counts=self.counts | {TOP_SCORE: counts}, bins=self.bins | {TOP_SCORE: bins}
        )

    def as_json(self) -> dict[str, Any]:
        """Plain data; docs/formats.md lists it."""
        return {
            "format": FORMAT,
            "first_day": self.window.first,
            "days": self.window.days,
            "edges": {name: list(bins.edges) for name, bins in self.bins.items()},
            "names": {name: list(bins.names) for name, bins in self.bins.items() if bins.names},
            "counts": {name: counts.as_json() for name, counts in self.counts.items()},
        }

    @staticmethod
    def of(bundle: Bundle) -> Reference:
        """The reference of a bundle.

        Raises:
            BundleError: it has none, or it is broken.
        """
        path = bundle.folder / REFERENCE
        if REFERENCE not in bundle.meta["files"]:
            raise BundleError(
                f"{bundle.version} was written before bundles told what they were made from",
                where=path, fix=_FIX,
            )  # fmt: skip
        kinds = {"format": int, "first_day": int, "days": int, "edges": dict, "names": dict,
                 "counts": dict}  # fmt: skip
        data = read_json(path, _FIX, kinds, BundleError)
        with reading(path, _FIX, BundleError):
            if data["format"] != FORMAT:
                raise ValueError(f"a reference of format {data['format']}, not {FORMAT}")
            bins = {
                name: Bins(tuple(map(float, edges)), tuple(map(str, data["names"].get(name, []))))
                for name, edges in data["edges"].items()
            }
            counts = {name: Counts.from_json(each) for name, each in data["counts"].items()}
            for name, each in counts.items():
                if each.by_day.shape != (data["days"], len(labels_of(name, bins))):
                    raise ValueError(f"`{name}` is counted in other bins")
            return Reference(Window(data["first_day"], data["days"]), counts, bins)


def _events_of_items(daily: DailyCounts, window: Window) -> Float64s:
    """[I] events in the window."""
    inside = (daily.days >= window.first) & (daily.days <= window.last)
    rows, events = daily.item_rows[inside], daily.events[inside]
    return np.bincount(rows, events, minlength=daily.num_items).astype(np.float64)
