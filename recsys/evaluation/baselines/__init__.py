"""Baselines behind one interface; every report compares the model with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from recsys.evaluation.baselines.als import Als
from recsys.evaluation.baselines.base import Recommends, TrainingLog
from recsys.evaluation.baselines.item_knn import ItemKnn
from recsys.evaluation.baselines.last_item import LastItem
from recsys.evaluation.baselines.personal_frequency import PersonalFrequency
from recsys.evaluation.baselines.popularity import Popularity
from recsys.evaluation.baselines.sasrec import SasRec
from recsys.evaluation.baselines.trending import Trending
from recsys.evaluation.baselines.zero_shot import ZeroShot

__all__ = [
    "Als", "ItemKnn", "LastItem", "PersonalFrequency", "Popularity", "Recommends", "SasRec",
    "TrainingLog", "Trending", "ZeroShot", "fit_baselines",
]  # fmt: skip

_FIT: Final[dict[str, Callable[[TrainingLog], Recommends]]] = {
    Popularity.name: Popularity.fit,
    Trending.name: Trending.fit,
    PersonalFrequency.name: PersonalFrequency.fit,
    LastItem.name: LastItem.fit,
    ItemKnn.name: ItemKnn.fit,
    Als.name: Als.fit,
    SasRec.name: SasRec.fit,
    ZeroShot.name: ZeroShot.fit,
}


def fit_baselines(names: Sequence[str], log: TrainingLog) -> dict[str, Recommends]:
    """Fit the named baselines.

    Args:
        names: of `popularity, trending, personal_frequency, last_item, item_knn, als, sasrec,
            zero_shot`.
        log: what they learn from.

    Returns:
        The fitted models by name, in the order of `names`.

    Raises:
        ValueError: a name is unknown, or `zero_shot` lacks its vectors.
        RecipeError: `als` lacks its package.
    """
    for name in names:
        if name not in _FIT:
            raise ValueError(f"unknown baseline {name!r}; use {', '.join(_FIT)}")
    return {name: _FIT[name](log) for name in names}
