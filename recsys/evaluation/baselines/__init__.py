"""Simple models behind one interface; the ranker is reported beside them, always."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recsys.data.histories import UserEvents
from recsys.evaluation.baselines.als import Als
from recsys.evaluation.baselines.base import Recommends
from recsys.evaluation.baselines.item_knn import ItemKnn
from recsys.evaluation.baselines.last_item import LastItem
from recsys.evaluation.baselines.personal_frequency import PersonalFrequency
from recsys.evaluation.baselines.popularity import Popularity
from recsys.evaluation.baselines.sasrec import SasRec
from recsys.evaluation.baselines.trending import Trending
from recsys.evaluation.baselines.zero_shot import ZeroShot
from recsys.features.popularity import DailyCounts

__all__ = [
    "Als", "ItemKnn", "LastItem", "PersonalFrequency", "Popularity", "Recommends", "SasRec",
    "Trending", "ZeroShot", "fit_baselines",
]  # fmt: skip

_FIT: Final[dict[str, Callable[[UserEvents, int, Sequence[int]], Recommends]]] = {
    Popularity.name: Popularity.fit,
    PersonalFrequency.name: PersonalFrequency.fit,
    LastItem.name: LastItem.fit,
    ItemKnn.name: ItemKnn.fit,
    Als.name: Als.fit,
    SasRec.name: SasRec.fit,
}


def fit_baselines(
    names: Sequence[str],
    train: UserEvents,
    num_items: int,
    target_codes: Sequence[int],
    text_vectors: NDArray[np.float32] | None = None,
    text_rows: NDArray[np.int32] | None = None,
    counts: DailyCounts | None = None,
    every_days: int | None = None,
) -> dict[str, Recommends]:
    """Fit the named baselines on exactly the events given: the caller cuts the time.

    Args:
        names: of `popularity, trending, personal_frequency, last_item, item_knn, als, sasrec,
            zero_shot`.
        train: the events to learn from.
        num_items: size of the catalogue; events of items outside it are left out.
        target_codes: event codes that make an item wanted.
        text_vectors: [T, D] float32, an untuned language model's vector of each distinct text;
            needed for `zero_shot` alone, as is `text_rows`.
        text_rows: [I] int32, each item's row in `text_vectors`.
        counts: of every day, for `trending`.
        every_days: how often it may count anew; None: never.

    Returns:
        The fitted models by name, in the order of `names`.

    Raises:
        ValueError: a name is unknown, or `zero_shot` lacks its vectors.
    """
    fitted: dict[str, Recommends] = {}
    for name in names:
        if name == ZeroShot.name:
            if text_vectors is None or text_rows is None:
                raise ValueError("the baseline zero_shot needs text_vectors and text_rows")
            popularity = Popularity.fit(train, num_items, target_codes)
            fitted[name] = ZeroShot.of(text_vectors, text_rows, popularity)
        elif name == Trending.name:
            fitted[name] = Trending.fit(
                train, num_items, target_codes, counts if every_days else None, every_days or 1
            )
        elif name in _FIT:
            fitted[name] = _FIT[name](train, num_items, target_codes)
        else:
            known = ", ".join([*_FIT, Trending.name, ZeroShot.name])
            raise ValueError(f"unknown baseline {name!r}; use {known}")
    return fitted
