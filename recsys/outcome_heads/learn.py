"""From examples to a model: fit, calibrate on a later window, fit again on all of it.

    rows before the later window -> heads -> epochs and calibration on the later window
    all rows, as many epochs     -> the heads that are served, with that calibration

So the newest day is learned from, and what calibrates was not learned from when it was predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.outcome_heads.calibration import Calibration, calibrate
from recsys.outcome_heads.fit import Epoch, FitSettings, fit, shuffled
from recsys.outcome_heads.heads import OUTCOMES, Batch, OutcomeHeads
from recsys.outcome_heads.inputs import InputSpec
from recsys.outcome_heads.model import OutcomeModel

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
    first = _fresh(examples, placements, shape, settings)
    size = settings.batch_rows

    def steps(rows: Batch) -> int:
        return max(1, len(rows) // size)

    num_epochs = fit(
        first, shuffled(early_rows, size, settings.seed), steps(early_rows), settings,
        valid=lambda: [later_rows], tell=tell,
    )  # fmt: skip
    heads = _fresh(examples, placements, shape, settings)
    fit(
        heads, shuffled(examples.batch, size, settings.seed), steps(examples.batch), settings,
        num_epochs=max(1, num_epochs), tell=tell,
    )  # fmt: skip
    calibrations = calibrations_of(first, later_rows, examples.users[examples.later], spec)
    has_value = bool((~examples.batch.value.isnan()).any())
    before = OutcomeModel(spec, placements, first, shape, calibrations, has_value, {})
    judged = before.probabilities(later_rows.inputs.numpy()).of
    return OutcomeModel(spec, placements, heads, shape, calibrations, has_value, {}, judged)


@torch.no_grad()
def calibrations_of(
    heads: OutcomeHeads, rows: Batch, users: NDArray[Any], spec: InputSpec
) -> dict[str, Calibration]:
    """Of each outcome that the log has, on rows that the heads have not learned from."""
    raw = heads(rows.inputs).log_probabilities.exp().numpy().astype(np.float64)
    labels = rows.labels.numpy()
    found = {}
    for place, name in enumerate(OUTCOMES):
        if name in spec.rates:
            told = ~np.isnan(labels[:, place])
            found[name] = calibrate(raw[told, place], labels[told, place], users[told])
    return found


def _fresh(
    examples: Examples, placements: Mapping[str, int], shape: Mapping[str, Any],
    settings: FitSettings,
) -> OutcomeHeads:  # fmt: skip
    torch.manual_seed(settings.seed)
    return OutcomeHeads(examples.batch.inputs.shape[1], len(placements), **shape)
