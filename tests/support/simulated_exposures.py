"""Exposures whose true probabilities are known: logits of item, user, brand and position add up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch

from recsys.outcome_heads.examples import batch_of, joined
from recsys.outcome_heads.heads import Batch
from recsys.outcome_heads.inputs import Inputs, InputSpec
from recsys.outcome_heads.learn import Examples
from recsys.outcome_heads.rates.item_fields import ItemFields
from recsys.outcome_heads.rates.keys import keys_of
from recsys.outcome_heads.rates.tables import DAY_US, RateTables, days_of, through_days
from recsys.outcomes.adapters.labelled import exposures_of
from recsys.schema import Col

#: 1 March 2024, midnight UTC.
BEGIN = 1_709_251_200_000_000
#: What a place less adds to the logit of a click.
PER_PLACE = -0.3
PLACES = 6


@dataclass(frozen=True)
class Simulated:
    """Exposures of some days, and of each row P(click) at the middle of the list."""

    rows: pl.DataFrame
    items: ItemFields
    truth: np.ndarray


def simulate(
    num_rows: int, *, num_days: int = 6, num_users: int = 400, num_items: int = 60, seed: int = 0
) -> Simulated:
    """A log in which good items are not shown higher than others."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(num_users, size=num_rows), rng.integers(num_items, size=num_rows)
    position = rng.integers(1, PLACES + 1, size=num_rows)
    logit = -0.8 + rng.normal(0, 0.8, num_users)[users] + rng.normal(0, 0.8, num_items)[items]
    clicked = rng.random(num_rows) < _sigmoid(logit + PER_PLACE * (position - (PLACES + 1) / 2))
    bought = clicked & (rng.random(num_rows) < 0.2)
    us = np.sort(BEGIN + rng.integers(num_days * DAY_US, size=num_rows))
    moment = pl.Series(us).cast(pl.Datetime("us", "UTC"))
    rows = exposures_of(
        pl.DataFrame(
            {
                Col.exposure: [f"x{n:07}" for n in range(num_rows)],
                Col.user: [f"u{n}" for n in users],
                Col.item: [f"i{n}" for n in items],
                Col.timestamp: moment,
                Col.position: position,
                Col.placement: ["home"] * num_rows,
                Col.clicked_ts: moment,
                Col.purchased_ts: moment + pl.Series([3_600_000_000] * num_rows).cast(pl.Duration),
                Col.dwell_ms: (np.exp(rng.normal(2.5, 1.0, num_rows)) * 1000).astype(int),
                Col.value: np.exp(rng.normal(3.0, 0.5, num_rows)),
            }
        ).with_columns(
            pl.when(pl.Series(clicked)).then(pl.col(Col.clicked_ts, Col.dwell_ms)),
            pl.when(pl.Series(bought)).then(pl.col(Col.purchased_ts, Col.value)),
        )
    )
    table = pl.DataFrame(
        {
            Col.item: [f"i{n}" for n in range(num_items)],
            Col.brand: [f"b{n % 7}" for n in range(num_items)],
            Col.tags: [f"t{n % 3}, t{3 + n % 2}" for n in range(num_items)],
            Col.price: np.linspace(1, 50, num_items),
        }
    )
    return Simulated(rows, ItemFields.of(table, [Col.brand, Col.tags]), _sigmoid(logit))


def examples_of(
    log: Simulated, later_days: int = 1
) -> tuple[Examples, InputSpec, dict[str, int], RateTables]:
    """What is learned from all of a log, with the tables as of its end."""
    spec, placements = InputSpec.of(log.rows, log.items), {"home": 1}
    batches: list[Batch] = []
    empty = RateTables.empty(BEGIN, log.items.groups)
    for tables, rows in through_days(empty, days_of(log.rows), log.items):
        if rows.height:
            batches.append(batch_of(rows, Inputs(spec, tables, log.items), placements))
    moments = log.rows[Col.timestamp].dt.epoch("us").to_numpy()
    later = moments >= tables.as_of - later_days * DAY_US
    examples = Examples(joined(batches), keys_of("user", log.rows[Col.user]), later)
    assert len(examples.batch) == log.rows.height
    assert not bool(torch.isnan(examples.batch.inputs).any())
    return examples, spec, placements, tables


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))
