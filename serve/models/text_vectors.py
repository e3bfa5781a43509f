"""Language-model vectors of items that the catalogue does not hold.

Legend: M items, H width of the language model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.models.added_items import Encode, texts_of
from serve.models.arms import ServedBundle
from serve.observability.metrics import Metrics
from serve.observability.trace import current
from serve.schemas.problems import Refused
from serve.schemas.requests import MAX_NEW_ITEMS, NewItem


class TextVectors:
    """Has the items of a request encoded.

    Args:
        encode: see `Encode`.
        metrics: counts the items that a request sends.
    """

    def __init__(self, encode: Encode, metrics: Metrics) -> None:
        self._encode, self._metrics = encode, metrics

    async def of_candidates(
        self, served: ServedBundle, new: Mapping[int, NewItem]
    ) -> NDArray[np.float32]:
        """[M, H] vectors of the new items among a request's candidates.

        Args:
            served: the bundle whose language model reads them.
            new: the items, by their places in the request.

        Raises:
            Refused: there are too many, or one has no text.
            Unavailable: the encoder does not answer.
        """
        if not new:
            return np.zeros((0, 0), dtype=np.float32)
        if len(new) > MAX_NEW_ITEMS:
            raise Refused(("candidates",), f"at most {MAX_NEW_ITEMS} new items", kind="too_many")
        return await self.of(
            served, {("candidates", place): item.model_dump() for place, item in new.items()}
        )

    async def of(
        self, served: ServedBundle, items: Mapping[tuple[str | int, ...], Mapping[str, Any]]
    ) -> NDArray[np.float32]:
        """[M, H] vectors of items.

        Args:
            served: the bundle whose language model reads them.
            items: the fields of each, by its place in the request.

        Raises:
            Refused: one has no text.
            Unavailable: the encoder does not answer.
        """
        if not items:
            return np.zeros((0, 0), dtype=np.float32)
        fields = [texts_of(item) for item in items.values()]
        self._metrics.observe("text_batch_items", len(fields))
        trace = current()
        trace.record_stage("receive")
        vectors = await self._encode(served.place, served.bundle.version, fields)
        trace.record_stage("text")
        for loc, vector in zip(items, vectors, strict=True):
            if np.isnan(vector).any():
                raise Refused(loc, "no field that the model reads is filled", kind="text")
        return vectors
