"""Exposures -> fitted heads, a day at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from recsys.config import Heads
from recsys.outcome_heads.card import card_of
from recsys.outcome_heads.examples import batch_of, clipped_share, joined
from recsys.outcome_heads.fit import FitSettings
from recsys.outcome_heads.inputs import Inputs, InputSpec
from recsys.outcome_heads.learn import SHAPE, Examples, learn
from recsys.outcome_heads.rates.item_fields import ItemFields
from recsys.outcome_heads.rates.keys import keys_of
from recsys.outcome_heads.rates.tables import RateTables, through_days
from recsys.outcome_heads.served import FIELDS, ServedHeads
from recsys.schema import Col

#: The latest days that hold this share of the exposures are the later window.
LATER_SHARE: Final = 0.2
#: The earliest days with at most this share of the exposures are counted and not learned from: on
#: them everybody is unknown, and those who are served are not.
WARM_UP: Final = 0.3
#: What the inputs depend on.
_TOLD: Final = [
    Col.clicked, Col.carted, Col.purchased, Col.long_view, Col.score, Col.model_version,
    Col.dwell_ms, Col.placement, Col.propensity,
]  # fmt: skip


def fit_heads(
    days: Sequence[Path], items: pl.DataFrame, settings: Heads, *, seed: int, window_h: float = 24.0
) -> ServedHeads:
    """Fit heads on a log of exposures; the same log and seed give the same heads.

    Args:
        days: files of exposures of a UTC day each, in order; see `num_days_needed`.
        items: of the catalogue, in the order of its rows.
        settings: see there.
        seed: of order, dropout and first weights.
        window_h: hours after an exposure in which its outcomes come.
    """
    fields = ItemFields.of(items, FIELDS)
    newest = pl.read_parquet(days[-1], columns=[Col.timestamp], glob=False)[Col.timestamp].max()
    # What may still come of later exposures would be learned as nothing.
    whole = pl.col(Col.timestamp) <= newest - pl.duration(hours=window_h)
    read = [pl.scan_parquet(path, glob=False).filter(whole) for path in days]
    sizes = [size for rows in read if (size := rows.select(pl.len()).collect().item())]
    num_warm = warm_up_days(sizes)
    told = pl.concat([rows.select(_TOLD).collect() for rows in read[num_warm : len(sizes)]])
    spec = InputSpec.of(told, fields)
    placements = told[Col.placement].drop_nulls().unique().sort().to_list()
    numbers = {name: number for number, name in enumerate(placements, start=1)}
    frames = (pl.read_parquet(path, glob=False) for path in days)
    first = pl.read_parquet(days[0], columns=[Col.timestamp], glob=False)[Col.timestamp]
    empty = RateTables.empty(
        int(first.dt.epoch("us").min()),  # type: ignore[arg-type]
        spec.fields,
        half_life_days=settings.half_life_days,
    )
    batches, users, moments = [], [], []
    window_days = math.ceil(window_h / 24)
    through = through_days(empty, frames, fields, attribution_days=window_days)
    for number, (tables, every) in enumerate(through):
        if number >= num_warm and (rows := every.filter(whole)).height:
            batches.append(batch_of(rows, Inputs(spec, tables, fields), numbers))
            users.append(keys_of("user", rows[Col.user]))
            moments.append(rows[Col.timestamp].dt.epoch("us").to_numpy())
    examples = Examples(joined(batches), np.concatenate(users), _later(sizes[num_warm:]))
    model = learn(
        examples, spec, numbers,
        settings=FitSettings(
            max_epochs=settings.epochs, patience=settings.patience, lr=settings.learning_rate,
            weight_decay=settings.weight_decay, seed=seed,
        ),
        shape={**SHAPE, "dropout": settings.dropout},
    )  # fmt: skip
    card = card_of(model, examples, np.concatenate(moments), clipped_share(told))
    return ServedHeads(replace(model, card=card), tables, fields)


def num_days_needed(window_h: float) -> int:
    """So that two days are left whose outcomes have all come."""
    return 3 + math.ceil(window_h / 24)


def warm_up_days(sizes: Sequence[int]) -> int:
    """How many days are not learned from, by the rows of each; two are left. See `WARM_UP`."""
    within = np.cumsum(sizes) <= WARM_UP * sum(sizes)
    return min(int(within.sum()), len(sizes) - 2)


def _later(sizes: Sequence[int]) -> np.ndarray:
    """[N] which rows are of the later window, by the rows of each day; never the first day's."""
    before = np.cumsum(sizes) - sizes
    later = before >= (1 - LATER_SHARE) * sum(sizes)
    later[-1], later[0] = True, False
    return np.repeat(later, sizes)
