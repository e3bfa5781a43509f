"""Exposures as rows to learn from: inputs, labels, weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from recsys.outcome_heads.heads import MAX_POSITION, Batch
from recsys.outcome_heads.inputs import Asked, Inputs
from recsys.outcome_heads.rates.tables import log_seconds
from recsys.schema import Col


def batch_of(
    rows: pl.DataFrame, inputs: Inputs, placements: Mapping[str, int], *, clip: float = 10.0
) -> Batch:
    """One day's exposures.

    An outcome implies a click, see `heads`; a long view does not.

    Args:
        rows: columns of `schema.EXPOSURES`.
        inputs: as of the begin of their day.
        placements: number of each, from 1.
        clip: of the weights.
    """
    clicked = pl.col(Col.clicked) | pl.col(Col.carted) | pl.col(Col.purchased)
    worth = pl.col(Col.purchased) & (pl.col(Col.value) > 0)
    floats = rows.select(
        clicked.alias("click"), pl.col(Col.carted), pl.col(Col.purchased), pl.col(Col.long_view),
        pl.when(Col.clicked).then(log_seconds(pl.col(Col.dwell_ms))).alias("dwell"),
        pl.when(worth).then(pl.col(Col.value).log()).alias("value"),
    ).with_columns(pl.all().cast(pl.Float32).fill_null(float("nan")))  # fmt: skip
    columns = torch.from_numpy(floats.to_numpy().astype(np.float32))
    placed = rows[Col.placement].replace_strict(dict(placements), default=0, return_dtype=pl.Int64)
    position = rows[Col.position].cast(pl.Int64).fill_null(0).clip(0, MAX_POSITION)
    return Batch(
        torch.from_numpy(inputs.of(Asked.of(inputs.spec, inputs.items, rows))),
        columns[:, :4], columns[:, 4], columns[:, 5],
        torch.from_numpy(placed.fill_null(0).to_numpy().copy()),
        torch.from_numpy(position.to_numpy().copy()),
        torch.from_numpy(weights_of(rows[Col.propensity], clip)),
    )  # fmt: skip


def joined(batches: list[Batch]) -> Batch:
    """Batches end to end."""
    return Batch(
        **{name: torch.cat([getattr(b, name) for b in batches]) for name in vars(batches[0])}
    )


def weights_of(propensities: pl.Series, clip: float) -> NDArray[np.float32]:
    """[N] 1 / propensity, at most `clip`; 1 where it is unknown."""
    known = propensities.cast(pl.Float64).fill_null(1.0).to_numpy()
    return np.minimum(1 / np.maximum(known, 1e-9), clip).astype(np.float32)


def clipped_share(rows: pl.DataFrame, clip: float = 10.0) -> float | None:
    """The share of rows with a propensity whose weight is clipped; None without any."""
    known: Any = rows[Col.propensity].drop_nulls()
    return float((known < 1 / clip).mean()) if len(known) else None
