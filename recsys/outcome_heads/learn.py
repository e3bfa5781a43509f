"""From examples to a model: fit, then calibrate on a later window.

What is served is what was calibrated. Heads that are fitted again on the later window too promise
otherwise than those that the calibration was fitted to; the newest days come in by the rates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.outcome_heads.calibration import Calibration, Floats, calibrate
from recsys.outcome_heads.fit import Epoch, FitSettings, fit, shuffled
from recsys.outcome_heads.heads import OUTCOMES, Batch, OutcomeHeads
from recsys.outcome_heads.inputs import InputSpec
from recsys.outcome_heads.model import OutcomeModel, implied

SHAPE: Final = {"hidden": [128, 64], "dropout": 0.3, "members": 3}


@dataclass(frozen=True)
class Examples:
    """Rows to learn from, whole days.

    Attributes:
        batch: [N] rows.
        users: [N] keys.
        later: [N] whether the row is of the later window.
    """

    batch: Batch
    users: NDArray[np.uint64]
    later: NDArray[np.bool_]


def learn(
    examples: Examples,
    spec: InputSpec,
    placements: Mapping[str, int],
    *,
    settings: FitSettings,
    shape: Mapping[str, Any] = SHAPE,
    tell: Callable[[Epoch], None] = lambda _: None,
) -> OutcomeModel:
    """A model without its card.

    Args:
        examples: see there.
        spec: of the inputs.
        placements: see `OutcomeModel`.
        settings: of fitting.
        shape: of the heads.
        tell: called after each epoch.
    """
    later = torch.from_numpy(examples.later)
    early_rows, later_rows = examples.batch.at(~later), examples.batch.at(later)
    torch.manual_seed(settings.seed)
    heads = OutcomeHeads(examples.batch.inputs.shape[1], len(placements), **shape)
    size = settings.batch_rows
    fit(
        heads, shuffled(early_rows, size, settings.seed), max(1, len(early_rows) // size), settings,
        valid=lambda: later_rows.parts(), tell=tell,
    )  # fmt: skip
    users = examples.users[examples.later]
    calibrations, judged = _calibrated(heads, later_rows, users, spec)
    has_value = bool((~examples.batch.value.isnan()).any())
    uncalibrated = OutcomeModel(
        spec, placements, heads, shape, calibrations, Calibration(), has_value, {}, judged
    )
    raw, clicked = uncalibrated.clicks_at_places(later_rows), later_rows.labels[:, 0].numpy()
    return replace(uncalibrated, placed=calibrate(raw, clicked, users)[0])


@torch.no_grad()
def _calibrated(
    heads: OutcomeHeads, rows: Batch, users: NDArray[Any], spec: InputSpec
) -> tuple[dict[str, Calibration], dict[str, Floats]]:
    """Of each outcome that the log has: the map, and [N] probabilities to judge it by."""
    logs = torch.cat([heads(part.inputs).log_probabilities for part in rows.parts()])
    raw = logs.exp().numpy().astype(np.float64)
    labels = rows.labels.numpy()
    maps, judged = {}, {}
    for place, name in enumerate(OUTCOMES):
        if name in spec.rates:
            told = ~np.isnan(labels[:, place])
            judged[name] = raw[:, place]
            maps[name], judged[name][told] = calibrate(
                raw[told, place], labels[told, place], users[told]
            )
    return maps, implied(judged)
