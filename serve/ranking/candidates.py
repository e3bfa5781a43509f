"""The candidates of a `/rank` request, as a model knows them.

Legend: C known candidates, M new items that come as text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.recommender import Recommender
from recsys.schema import Col
from serve.schemas.requests import NewItem, RankRequest


@dataclass(frozen=True)
class Candidates:
    """The candidates of a request, looked up in a model's catalogue.

    Attributes:
        rows: [C] catalogue rows of the known items.
        new: the M items that come as text, by their places in the request.
        places: [C + M] places of the known items, then of the new ones.
        unknown: ids that the catalogue does not hold.
    """

    rows: NDArray[np.int32]
    new: dict[int, NewItem]
    places: NDArray[np.int64]
    unknown: list[str]

    @staticmethod
    def of(model: Recommender, request: RankRequest) -> Candidates:
        """Look a request's candidates up."""
        given, new = request.candidates, {}
        places = np.arange(len(given))
        if list(map(type, given)).count(str) < len(given):  # seldom, and there may be thousands
            new = {i: item for i, item in enumerate(given) if not isinstance(item, str)}
            known = [place for place in places.tolist() if place not in new]
            given, places = [given[place] for place in known], np.array([*known, *new])
        rows, unknown = model.rows_of(cast(list[str], given)), []
        if rows.min(initial=0) < 0:
            unknown = [str(given[number]) for number in np.flatnonzero(rows < 0)]
            held = np.append(rows >= 0, np.full(len(new), True))
            rows, places = rows[rows >= 0], places[held]
        return Candidates(rows, new, places, unknown)


def fields_of(items: Iterable[NewItem]) -> pl.DataFrame:
    """Brand, category and price of new items, as the catalogue has them."""
    names = {Col.brand: pl.String, Col.category: pl.String, Col.price: pl.Float64}
    return pl.DataFrame([item.model_dump(include=set(names)) for item in items], schema=names)
