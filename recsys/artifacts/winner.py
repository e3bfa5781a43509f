"""The winner of a search, or of a single training: which checkpoint goes on to the bundle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.artifacts.progress import PROGRESS
from recsys.config import Recipe, recipe_from_dict
from recsys.errors import DataError
from recsys.evaluation.report import METRIC
from recsys.preparation.prepared import Prepared
from recsys.storage.outputs import write_json
from recsys.storage.reading import read_json
from recsys.storage.shared import SharedFolder
from recsys.text.pretrained import fingerprint, locate

_FIX = "run `recsys tune` or `recsys train` again"


@dataclass(frozen=True)
class Winner:
    """What was chosen.

    Attributes:
        recipe: that it was trained under; its language model is the one that training began from.
        checkpoint: folder of the weights.
        searched: whether a search chose the recipe's settings.
        started_from: version of the bundle whose weights training began from, if any.
    """

    recipe: Recipe
    checkpoint: Path
    searched: bool = False
    started_from: str | None = None

    @staticmethod
    def read(path: Path, prepared: Prepared, shared: SharedFolder) -> Winner:
        """Read what `write_winner` wrote.

        Args:
            path: of the file.
            prepared: the data that it must have been trained on.
            shared: the run's folder, which its checkpoint lies in.

        Raises:
            DataError: nothing was trained yet, or not on these data, or on another language model.
        """
        if not path.is_file():
            raise DataError(
                "no trained model", where=path, fix="run `recsys tune` or `recsys train` first"
            )
        texts = dict.fromkeys(("checkpoint", "data_fingerprint", "language_model"), str)
        data = read_json(path, _FIX, {**texts, "recipe": dict})
        checkpoint = path.parent / data["checkpoint"]
        shared.bring(checkpoint)
        if not (checkpoint / PROGRESS).is_file():
            raise DataError(
                "the winner's checkpoint is gone", where=path, field="checkpoint",
                value=str(checkpoint), fix=_FIX,
            )  # fmt: skip
        if data["data_fingerprint"] != prepared.summary["data_fingerprint"]:
            raise DataError(
                "the winner was trained on other data than are prepared now", where=path,
                field="data_fingerprint", value=data["data_fingerprint"], fix=_FIX,
            )  # fmt: skip
        recipe = recipe_from_dict(data["recipe"], where=path)
        language = recipe.model.language_model
        if data.get("language_model") != fingerprint(locate(language)):
            raise DataError(
                "the language model is not the one that the winner was trained on", where=path,
                field="language_model", value=language, fix=_FIX,
            )  # fmt: skip
        searched = bool(data.get("searched", data.get("trials")))
        return Winner(recipe, checkpoint, searched, data.get("started_from"))


def write_winner(
    path: Path,
    winner: Winner,
    prepared: Prepared,
    chosen: Path,
    metrics: dict[str, Any],
    trials: list[dict[str, Any]],
) -> None:
    """Name the winner.

    Args:
        path: of the file.
        winner: its checkpoint, retrained or not, is what `embed` goes on from.
        prepared: the data that it was trained on.
        chosen: the checkpoint that was the best on the validation window.
        metrics: of that one, there.
        trials: of the search, best first.
    """
    recipe = winner.recipe
    write_json(
        path,
        {
            "checkpoint": winner.checkpoint.relative_to(path.parent).as_posix(),
            "retrained": winner.checkpoint != chosen,
            "recipe": recipe.resolved(),
            "recipe_hash": recipe.fingerprint(),
            "data_fingerprint": prepared.summary["data_fingerprint"],
            "language_model": fingerprint(locate(recipe.model.language_model)),
            "metrics": {
                key: value for key, value in metrics.items() if key in (METRIC, "loss", "epoch")
            },
            "curve": json.loads((chosen / PROGRESS).read_text())["curve"],
            "trials": trials,
            "searched": winner.searched,
            "started_from": winner.started_from,
        },
    )
