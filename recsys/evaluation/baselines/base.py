"""The one interface: what every model that ranks a catalogue can be asked.

Legend: Q queries, I items of the catalogue.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsys.data.histories import Histories

Float32s = NDArray[np.float32]


class Recommends(Protocol):
    """A fitted model: plain arrays, so that Ray ships it and nothing needs pickle."""

    @property
    def name(self) -> str:
        """The name that recipes and reports know the model by."""
        ...

    def scores(self, histories: Histories) -> Float32s:
        """[Q, I] finite scores of all items for each query, higher is better.

        A query without history gets the order of popularity. Events that share a moment have no
        order: permuting them changes nothing.
        """
        ...
