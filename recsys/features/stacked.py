"""Two arrays read as one, without a copy: a catalogue with added items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stacked:
    """[I + M, ...] two arrays, or two tensors, one below the other.

    Attributes:
        upper: [I, ...].
        lower: [M, ...].
    """

    upper: Any
    lower: Any

    def __len__(self) -> int:
        return len(self.upper) + len(self.lower)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole."""
        return (len(self), *self.upper.shape[1:])

    def __getitem__(self, rows: Any) -> Any:
        """Some rows; `rows` holds integers from 0 up, of the arrays' own kind and any shape."""
        late = rows >= len(self.upper)
        if not late.any():
            return self.upper[rows]
        found = self.upper[rows * ~late]
        found[late] = self.lower[rows[late] - len(self.upper)]
        return found

    def take(self, rows: Any, axis: int) -> Any:
        """Rows of arrays, as `numpy.take`: several times faster than an index."""
        assert axis == 0
        late = rows >= len(self.upper)
        if not late.any():
            return self.upper.take(rows, axis=0)
        return self[rows]

    def numpy(self) -> Stacked:
        """Tensors as arrays."""
        return Stacked(self.upper.numpy(), self.lower.numpy())
