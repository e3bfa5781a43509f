"""Fitted heads with their calibration: what a bundle holds of outcomes.

Legend: N rows or items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from recsys.errors import DataError, RaycommendError
from recsys.outcome_heads.calibration import Calibration
from recsys.outcome_heads.heads import OUTCOMES, Batch, OutcomeHeads, Outputs, outputs_of
from recsys.outcome_heads.inputs import InputSpec
from recsys.outcome_heads.rates.tables import RateTables
from recsys.storage.outputs import write_json
from recsys.storage.reading import read_json, reading
from recsys.storage.seals import BROKEN_SEAL, file_hashes, is_sealed, sealed
from recsys.storage.weights import save_weights

Floats = NDArray[np.floating[Any]]
_META: Final = "outcomes.json"
_WEIGHTS: Final = "heads.safetensors"
_FIX: Final = "train again"


@dataclass(frozen=True)
class Probabilities:
    """What is expected of showing items.

    Attributes:
        of: outcome -> [N] calibrated probability, of the outcomes that the log has.
        dwell_ms: [N] E[dwell | click]; None where the log does not tell.
        value: [N] E[value | purchase]; None where the log does not tell.
    """

    of: Mapping[str, Floats]
    dwell_ms: Floats | None
    value: Floats | None


def implied(of: Mapping[str, Floats]) -> dict[str, Floats]:
    """Probabilities that are calibrated each by itself; a cart and a purchase imply a click."""
    products = ("cart", "purchase")
    return {name: np.minimum(p, of["click"]) if name in products else p for name, p in of.items()}


@dataclass(frozen=True)
class OutcomeModel:
    """Heads, and how their probabilities are calibrated.

    Attributes:
        spec: of the inputs.
        placements: number of each, from 1, that positions are biased by.
        heads: in evaluation mode.
        shape: arguments of `OutcomeHeads` beside the numbers of inputs and placements.
        calibrations: of each outcome that the log has.
        placed: of a click at the place where the item was shown.
        has_value: whether the log tells what purchases came to.
        card: plain data, see `card`.
        judged: outcome -> probabilities on the later window, calibrated on other users; for the
            card, not written.
    """

    spec: InputSpec
    placements: Mapping[str, int]
    heads: OutcomeHeads
    shape: Mapping[str, Any]
    calibrations: Mapping[str, Calibration]
    placed: Calibration
    has_value: bool
    card: Mapping[str, Any]
    judged: Mapping[str, Floats] = field(default_factory=dict)

    @torch.inference_mode()
    def outputs(self, inputs: NDArray[np.float32]) -> Outputs:
        """Of [N, F] inputs, before calibration."""
        return self.heads(torch.from_numpy(inputs))

    def probabilities(self, inputs: NDArray[np.float32]) -> Probabilities:
        """Of [N, F] inputs."""
        found = self.outputs(inputs)
        raw = found.log_probabilities.exp().numpy()
        of = {
            name: calibration(raw[:, OUTCOMES.index(name)])
            for name, calibration in self.calibrations.items()
        }
        of = implied(of)
        dwell = found.dwell_seconds().numpy() * 1000 if self.spec.dwell else None
        return Probabilities(of, dwell, found.value().numpy() if self.has_value else None)

    @torch.inference_mode()
    def clicks_at_places(self, rows: Batch) -> Floats:
        """[N] P(click) of rows that were shown, each at its place: a longer list promises less."""
        logs = []
        for part in rows.parts():
            bias = self.heads.bias(part.placement, part.position)
            found = outputs_of(self.heads.raw(part.inputs).mean(0), bias)
            logs.append(found.log_probabilities[:, 0])
        return self.placed(torch.cat(logs).exp().numpy().astype(np.float64))

    def save(self, folder: Path, tables: RateTables, users_folder: Path) -> None:
        """Write all that a bundle needs, and the counts of users beside it.

        Args:
            folder: new, `outcomes/` of the bundle.
            tables: as of the end of the log.
            users_folder: new, of the run; see `RateTables.save`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        users_folder.mkdir(parents=True, exist_ok=True)
        save_weights(self.heads.state_dict(), folder / _WEIGHTS)
        tables.save(folder, users_folder)
        data = {
            "spec": self.spec.plain(), "placements": dict(self.placements),
            "num_inputs": len(self.heads.mean), "shape": dict(self.shape),
            "calibrations": {name: each.plain() for name, each in self.calibrations.items()},
            "placed": self.placed.plain(),
            "has_value": self.has_value, "card": dict(self.card), "files": file_hashes(folder),
        }  # fmt: skip
        write_json(folder / _META, sealed(data))

    @classmethod
    def open(
        cls, folder: Path, users_folder: Path | None, error: type[RaycommendError] = DataError
    ) -> tuple[OutcomeModel, RateTables]:
        """Read what `save` wrote; hashes are checked.

        Args:
            folder: of the bundle.
            users_folder: None: no user is known.
            error: class of the errors.

        Raises:
            error: a file is missing, damaged or another thing.
        """
        keys = {
            "spec": dict, "placements": dict, "num_inputs": int, "shape": dict,
            "calibrations": dict, "placed": dict, "has_value": bool, "card": dict, "files": dict,
        }  # fmt: skip
        path = folder / _META
        data = read_json(path, _FIX, keys, error)
        with reading(path, _FIX, error):
            if not is_sealed(data):
                raise ValueError(BROKEN_SEAL)
            spec = InputSpec.from_plain(data["spec"])
            calibrations = {k: Calibration.from_plain(v) for k, v in data["calibrations"].items()}
            placed = Calibration.from_plain(data["placed"])
            heads = OutcomeHeads(data["num_inputs"], len(data["placements"]), **data["shape"])
        hashes = file_hashes(folder)
        for name, expected in data["files"].items():
            with reading(folder / name, _FIX, error):
                if name not in hashes:
                    raise FileNotFoundError
                if hashes[name] != expected:
                    raise ValueError("the content is not what was written (the hash does not fit)")
        with reading(folder / _WEIGHTS, _FIX, error):
            heads.load_state_dict(load_file(folder / _WEIGHTS))
        tables = RateTables.open(folder, users_folder, error)
        rest = (placed, data["has_value"], data["card"])
        return cls(
            spec, data["placements"], heads.eval(), data["shape"], calibrations, *rest
        ), tables
