"""64-bit keys of users, items and what they share: the same in every process and version."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

UInt64s = NDArray[np.uint64]
#: Of nobody and nothing; no name hashes to it.
NONE: Final = np.uint64(0)
_HIGH: Final = np.uint64(0xFFFFFFFF00000000)
_LOW: Final = np.uint64(0x00000000FFFFFFFF)


def key_of(kind: str, name: str) -> int:
    """The key of a thing: the first 8 bytes of BLAKE2b of its kind and name; never 0."""
    digest = hashlib.blake2b(f"{kind}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


def keys_of(kind: str, names: pl.Series) -> UInt64s:
    """[N] keys of names, hashed once each; `NONE` for null."""
    distinct = names.drop_nulls().unique()
    table = pl.DataFrame(
        {
            "name": distinct.cast(pl.String),
            "key": np.array([key_of(kind, name) for name in distinct.cast(pl.String)], np.uint64),
        }
    )
    asked = names.cast(pl.String).alias("name").to_frame()
    return (
        asked.join(table, on="name", how="left", maintain_order="left")["key"]
        .fill_null(0)
        .to_numpy()
    )


def both(one: NDArray[Any], other: NDArray[Any]) -> UInt64s:
    """[N] key of two things together; `NONE` where either is."""
    mixed = one ^ (other * np.uint64(0x9E3779B97F4A7C15))
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return np.where((one == NONE) | (other == NONE), NONE, mixed ^ (mixed >> np.uint64(29)))


def of_user(user: NDArray[Any], thing: NDArray[Any]) -> UInt64s:
    """[N] key of a user's own counts of a thing: sorted, those of a user lie together.

    It is half of each key: of a million users some hundred share theirs with another user, and so
    their counts of what both know. `NONE` where either is.
    """
    pair = (user & _HIGH) | (thing & _LOW)
    return np.where((user == NONE) | (thing == NONE), NONE, pair)
