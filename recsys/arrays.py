"""NumPy array types, one name a dtype, and the letters of their shapes.

Docstrings give shapes in brackets. A module that needs other letters says so in its own legend.

    I  items of the catalogue          M  new items, which the catalogue does not hold
    T  distinct item texts             Q  queries: one history and one moment each
    U  users                           N  events, end to end
    K  (query, item) pairs, ragged     C  candidates of one query
    D  width of the item vectors       H  width of the language model
    G  user-independent item features  k  places of a list
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float16s = NDArray[np.float16]
Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
Int8s = NDArray[np.int8]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
Bools = NDArray[np.bool_]
Strings = NDArray[np.str_]
