"""Decayed counts by 64-bit key: sorted, so that they are found in a memory-mapped file too.

Legend: K keys, C counts of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DataError, RaycommendError
from recsys.outcome_heads.rates.keys import UInt64s
from recsys.storage.reading import map_array, reading

#: What is counted of each key. `seen` are events before the log of exposures, and
#: `strong` those of them that tell of more than a look.
COUNTS: Final = (
    "shows", "clicks", "carts", "purchases", "long_views", "dwells", "log_dwell", "values",
    "log_value", "seen", "strong",
)  # fmt: skip
PLACE: Final = {name: place for place, name in enumerate(COUNTS)}
_PARTS: Final = ("keys", "kinds", "first", "counts")


@dataclass(frozen=True)
class Counts:
    """What happened to each thing so far.

    Attributes:
        keys: [K] ascending, distinct.
        kinds: [K] what kind of thing each is.
        first: [K] the day (since 1970) that it was first counted on.
        counts: [K, C] float32.
    """

    keys: UInt64s
    kinds: NDArray[np.uint8]
    first: NDArray[np.int32]
    counts: NDArray[np.float32]

    @classmethod
    def empty(cls) -> Counts:
        """Nothing counted."""
        return cls(
            np.zeros(0, np.uint64), np.zeros(0, np.uint8), np.zeros(0, np.int32),
            np.zeros((0, len(COUNTS)), np.float32),
        )  # fmt: skip

    def decayed(self, factor: float, least: float = 0.0) -> Counts:
        """The counts times a factor; things with fewer shows and events than `least` are left out.

        Events before the log stay: trees and networks would take their decay for a change of days.
        """
        counts = np.array(self.counts)
        counts[:, : PLACE["seen"]] *= np.float32(factor)
        if not least:
            return Counts(self.keys, self.kinds, self.first, counts)
        return self._kept(counts[:, PLACE["shows"]] + counts[:, PLACE["seen"]] >= least, counts)

    def without(self, rows: NDArray[np.bool_]) -> Counts:
        """All but some."""
        return self._kept(~rows, self.counts)

    def _kept(self, rows: NDArray[np.bool_], counts: NDArray[np.float32]) -> Counts:
        return Counts(self.keys[rows], self.kinds[rows], self.first[rows], counts[rows])

    def plus(self, more: Counts) -> Counts:
        """Both together; `first` is that of the earlier of them, which is this one's."""
        place = np.searchsorted(self.keys, more.keys)
        known = np.zeros(len(place), np.bool_)
        inside = place < len(self.keys)
        known[inside] = self.keys[place[inside]] == more.keys[inside]
        counts = np.array(self.counts)
        counts[place[known]] += more.counts[known]
        at, new = place[~known], ~known
        return Counts(
            np.insert(self.keys, at, more.keys[new]), np.insert(self.kinds, at, more.kinds[new]),
            np.insert(self.first, at, more.first[new]),
            np.insert(counts, at, more.counts[new], axis=0),
        )  # fmt: skip

    def find(self, keys: UInt64s) -> NDArray[np.intp]:
        """Rows of keys, of the same shape; -1 where there is none."""
        if not len(self.keys):
            return np.full(keys.shape, -1, np.intp)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, place, -1)

    def between(self, low: int, high: int) -> Counts:
        """Those with keys in [low, high], as views."""
        bounds = np.array([low, high], np.uint64)
        first = int(np.searchsorted(self.keys, bounds[0]))
        last = int(np.searchsorted(self.keys, bounds[1], side="right"))
        return Counts(
            self.keys[first:last], self.kinds[first:last], self.first[first:last],
            self.counts[first:last],
        )  # fmt: skip

    def at(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """[..., C] counts of rows of `find`; 0 where there is none."""
        if not len(self.keys):
            return np.zeros((*rows.shape, len(COUNTS)), np.float32)
        return np.where((rows >= 0)[..., None], self.counts[rows], np.float32(0))

    def save(self, folder: Path, name: str) -> None:
        """Write four NumPy files."""
        for part in _PARTS:
            np.save(folder / f"{name}.{part}.npy", getattr(self, part))

    @classmethod
    def open(
        cls, folder: Path, name: str, fix: str, error: type[RaycommendError] = DataError
    ) -> Counts:
        """Map what `save` wrote into memory.

        Raises:
            error: a file is missing or broken, or they do not fit together.
        """
        types: dict[str, tuple[Any, int]] = {
            "keys": (np.uint64, 1), "kinds": (np.uint8, 1), "first": (np.int32, 1),
            "counts": (np.float32, 2),
        }  # fmt: skip
        path = {part: folder / f"{name}.{part}.npy" for part in _PARTS}
        parts = {
            part: map_array(path[part], fix, kind, num_dims, error)
            for part, (kind, num_dims) in types.items()
        }
        found = cls(**parts)
        with reading(path["keys"], fix, error):
            if (found.keys[1:] <= found.keys[:-1]).any():
                raise ValueError("keys that do not rise")
        with reading(path["counts"], fix, error):
            if found.counts.shape != (len(found.keys), len(COUNTS)):
                raise ValueError(f"counts of shape {found.counts.shape}")
            if not len(found.keys) == len(found.kinds) == len(found.first):
                raise ValueError("files of different lengths")
            if not np.isfinite(found.counts).all():
                raise ValueError("counts that are not finite")
        return found
