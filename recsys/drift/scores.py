"""Scores of the best items at sampled visits: what the lists of a service begin with.

Legend: V visits, Q queries, k places.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from recsys.arrays import Int32s
from recsys.data.histories import US_PER_DAY, Histories
from recsys.drift.counts import Counts
from recsys.drift.measuring import Window, visit_starts
from recsys.drift.quantities import Bins
from recsys.preparation.prepared import Prepared
from recsys.ranking.scorer import Scorer

NUM_VISITS: Final = 500
NUM_PLACES: Final = 10
#: Queries scored at once.
_AT_ONCE: Final = 32


def score_counts(
    scorer: Scorer,
    prepared: Prepared,
    window: Window,
    seed: int,
    bins: Bins | None = None,
    rows: Int32s | None = None,
) -> tuple[Bins, Counts] | None:
    """Ask for the lists of some visits, with what was known before them.

    Args:
        scorer: of the bundle.
        prepared: the histories; shards are read until there are visits enough.
        window: of the visits; those of new users are left out.
        seed: of the sample.
        bins: of the scores; None: quantiles of what is found.
        rows: [I] the row that the scorer has for each prepared item, -1 for none; None: the same.

    Returns:
        The bins and the counts; None where there is no such visit.
    """
    days: list[int] = []
    users: list[int] = []
    queries: list[Histories] = []
    rng = np.random.default_rng(seed)
    for number, path in enumerate(prepared.shards):
        if len(days) >= NUM_VISITS:
            break
        events = prepared.users([path])
        starts, owners = visit_starts(events), events.user_of_event
        at = events.timestamps[starts] // US_PER_DAY
        begins = events.offsets[owners[starts]]
        asked = np.flatnonzero((at >= window.first) & (at <= window.last) & (begins < starts))
        most = min(len(asked), NUM_VISITS - len(days))
        asked = np.sort(rng.choice(asked, most, replace=False))
        items = events.item_rows if rows is None else rows[events.item_rows]
        histories = Histories.gather(
            items, events.event_codes, events.timestamps, begins[asked], starts[asked],
            events.timestamps[starts[asked]],
        )  # fmt: skip
        queries.append(histories.known(scorer.num_items))
        days += (at[asked] - window.first).tolist()
        users += (owners[starts[asked]] * len(prepared.shards) + number).tolist()
    if not days:
        return None
    every, places = Histories.joined(queries), min(NUM_PLACES, scorer.num_items)
    best = np.concatenate(
        [
            np.partition(scorer.scores(every[low : low + _AT_ONCE]), -places, axis=1)[:, -places:]
            for low in range(0, len(days), _AT_ONCE)
        ]
    ).astype(np.float64)
    bins = bins or Bins.of_mass(best.ravel(), np.ones(best.size))
    counts = Counts.of(
        np.repeat(days, places), bins.of(best.ravel()), np.repeat(users, places), window.days,
        len(bins.labels),
    )  # fmt: skip
    return bins, counts
