"""A cache of text vectors of bounded age, used in place of encoding.

The idea is SpeedyFeed's (arXiv 2102.09268): between two steps the language model changes little, so
a vector computed some steps ago is nearly right. A step encodes few texts and reads the rest from
here.

Legend: T texts, N distinct texts of a batch, H width of the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from recsys.arrays import Float32s, Int64s
from recsys.storage.reading import to_be_changed


class VectorCache:
    """Vectors [T, H] of all texts and the step at which each was computed.

    Args:
        vectors: float32, at the start, of age 0; of a memory-mapped file those that change take
            memory.
        max_age: steps after which a vector is refreshed before it is used.
    """

    def __init__(self, vectors: Float32s, max_age: int) -> None:
        self.vectors = torch.from_numpy(to_be_changed(vectors))
        self._computed_at = np.zeros(len(vectors), dtype=np.int64)
        self._is_changed = np.zeros(len(vectors), dtype=bool)
        self._max_age = max_age

    def split(
        self, rows: Int64s, budget: int | None, step: int, rng: np.random.Generator
    ) -> tuple[Int64s, Int64s]:
        """Of a batch's distinct texts, those to encode with gradient, and those too old to be used.

        Args:
            rows: [N] distinct text rows, most wanted first.
            budget: how many may be encoded with gradient; None means all.
            step: the step to come.
            rng: samples the fresh ones uniformly from the first `4 * budget` rows.
        """
        if budget is None or budget >= len(rows):
            return rows, rows[:0]
        wanted = rows[: 4 * budget]
        fresh = rng.choice(wanted, size=min(budget, len(wanted)), replace=False)
        stale = rows[step - self._computed_at[rows] > self._max_age]
        return fresh, np.setdiff1d(stale, fresh)

    def stale(self, step: int) -> Int64s:
        """The texts whose vectors are too old to be used."""
        return np.flatnonzero(step - self._computed_at > self._max_age)

    @torch.no_grad()
    def refresh(self, rows: Int64s, step: int, encode: Callable[[Int64s], Tensor]) -> None:
        """Encode some texts again, without gradient."""
        if len(rows):
            self.put(rows, encode(rows), step)

    @torch.no_grad()
    def put(self, rows: Int64s, vectors: Tensor, step: int) -> None:
        """Store vectors [n, H] computed at `step`."""
        self.vectors[torch.from_numpy(rows)] = vectors.detach().to("cpu", torch.float32)
        self._computed_at[rows] = step
        self._is_changed[rows] = True

    @property
    def changed_bytes(self) -> int:
        """Size of `changed`'s vectors."""
        return int(self._is_changed.sum()) * self.vectors.shape[1] * self.vectors.itemsize

    def changed(self) -> dict[str, Tensor]:
        """All that is not as it was at the start: `rows` [n], `vectors` [n, H], `steps` [n]."""
        rows = torch.from_numpy(np.flatnonzero(self._is_changed))
        steps = torch.from_numpy(self._computed_at)[rows]
        return {"rows": rows, "vectors": self.vectors[rows], "steps": steps}

    def restore(self, changed: Mapping[str, Tensor]) -> None:
        """Take over what `changed` gave."""
        rows = changed["rows"]
        self.vectors[rows] = changed["vectors"]
        self._computed_at[rows.numpy()] = changed["steps"].numpy()
        self._is_changed[rows.numpy()] = True

    def expire(self, step: int) -> None:
        """Make every vector too old at `step`: after a resume they may be the untuned model's."""
        self._computed_at[:] = step - self._max_age - 1
        self._is_changed[:] = False

    def age(self, rows: Int64s, step: int) -> Int64s:
        """Age of some vectors in steps."""
        return step - self._computed_at[rows]
