"""Any model on the whole-catalogue protocol, beside the baselines, in this process.

`recsys evaluate` does the same for a bundle, on Ray.

Legend: Q questions, I items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recsys.arrays import Float32s
from recsys.data.histories import Histories
from recsys.errors import DataError
from recsys.evaluation.baselines import Recommends, TrainingLog, fit_baselines
from recsys.evaluation.judge import Judge, known_users
from recsys.evaluation.report import summarise
from recsys.preparation.prepared import Prepared
from recsys.schema import EVENT_CODE

#: [Q, I] scores of Q histories, higher is better.
Scores = Callable[[Histories], NDArray[Any]]

#: The baselines that need no text store and no further package.
BASELINES = ("popularity", "trending", "personal_frequency", "last_item", "item_knn")


def evaluate(
    prepared: Prepared,
    models: Mapping[str, Recommends | Scores],
    *,
    baselines: Sequence[str] = BASELINES,
    window: Literal["valid", "test"] = "test",
    max_rows: int | None = None,
    num_bootstrap: int = 1000,
    batch_size: int = 64,
    seed: int = 7,
) -> list[dict[str, Any]]:
    """Rank the whole catalogue for every basket of a window, by every model.

    Args:
        prepared: what `recsys prepare` left: catalogue, histories, cuts.
        models: name -> a function of histories to [Q, I] scores, or an object with such a method
            `scores`. A model must have learned from events before the window alone.
        baselines: fitted here, on everything before the window.
        window: choose on `valid`, report `test`.
        max_rows: about so many baskets, a seeded sample; None: all.
        num_bootstrap: resamples of the users behind each interval.
        batch_size: baskets ranked together.
        seed: of the sample, of ties and of the resamples.

    Returns:
        The rows of `report.json`: model, slice, metric, value, low, high, num_rows.
        `recsys.evaluation.report.table` prints them.

    Raises:
        DataError: a name is given twice, scores are of another shape or not finite, or the window
            holds no basket.
    """
    data = prepared.summary["recipe"]["data"]
    codes = [EVENT_CODE[name] for name in data["target_events"]]
    num_items, cut = prepared.catalogue.num_items, prepared.summary["cuts_us"][window]
    if twice := sorted(models.keys() & set(baselines)):
        raise DataError(
            "is the name of a baseline", field="models", value=twice[0], fix="name it otherwise"
        )
    users, questions = prepared.questions(window, codes, most=max_rows, seed=seed)
    if not len(questions):
        raise DataError(
            f"the window {window} holds no basket", where=prepared.folder, field="max_rows",
            value=max_rows, fix="take a larger sample, or cuts that leave targets in the window",
        )  # fmt: skip
    log = TrainingLog(
        users.before(cut), num_items, codes, daily_counts=prepared.daily_counts(),
        count_every_days=data.get("count_every_days", 1),
    )  # fmt: skip
    fitted = fit_baselines(baselines, log)
    asked = {name: _Checked(name, model, num_items) for name, model in {**models, **fitted}.items()}
    judge = Judge.of(prepared.stats(window), seed)
    return summarise(
        judge.answers(asked, questions, known_users(users, questions, cut), batch_size),
        np.array(users.user_ids)[questions.user_index],
        num_bootstrap=num_bootstrap,
        seed=seed,
    )


@dataclass(frozen=True)
class _Checked:
    """A model whose scores are looked at before they are ranked."""

    name: str
    model: Recommends | Scores
    num_items: int

    def scores(self, histories: Histories) -> Float32s:
        """[Q, I] checked."""
        function: Any = getattr(self.model, "scores", self.model)
        scores = np.asarray(function(histories), dtype=np.float32)
        wanted = (len(histories), self.num_items)
        if scores.shape != wanted or not np.isfinite(scores).all():
            raise DataError(
                f"scores of shape {wanted} are wanted, all finite", field=f"models.{self.name}",
                value=scores.shape, fix="score every item of the catalogue for every history",
            )  # fmt: skip
        return scores
