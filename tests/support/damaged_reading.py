"""Readers on damaged files: each refuses them as it should, or reads what was written.

Whatever is wrong with a file, there is an error of ours that names it (or its folder) and a fix, or
the content of the undamaged one: never another exception, a crash, or NaN.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from damage import damages, spoil, wrong_values

from recsys.errors import RaycommendError

#: How many times the damage: `make fuzz` does more of it.
SCALE = 8 if "RAYCOMMEND_FUZZ_CASES" in os.environ else 1
NOW = 1_780_000_000_000_000
Read = Callable[[Path], Any]


def finite(*arrays: Any) -> list[Any]:
    """The arrays as lists; they hold numbers alone."""
    for array in arrays:
        assert np.isfinite(np.asarray(array)).all()
    return [np.asarray(array).tolist() for array in arrays]


def outcome(read: Read, folder: Path, name: str) -> Any:
    """What a reader makes of a folder with a damaged file; None if it refuses as it should."""
    try:
        return read(folder)
    except RaycommendError as error:
        told = str(error)
        # Of two files that do not fit each other either may be named.
        assert Path(name).name in told or str(folder) in told, told
        assert error.fix and len(told) < 1500, told
        return None


class Tally:
    """What a reader makes of one damage after another.

    Args:
        read: reads a folder; what it returns tells the content.
        folder: undamaged now.
    """

    def __init__(self, read: Read, folder: Path) -> None:
        self._read, self._folder, self.whole = read, folder, read(folder)
        self.damaged: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def take(self, name: str, what: str, *, may_change: bool = False) -> Any:
        """Read now: the file is refused, or its damage is harmless.

        Args:
            name: of the damaged file.
            what: the damage.
            may_change: nothing in the file could tell of it, so that other content is right too.

        Returns:
            The content; None if it was refused.
        """
        found = outcome(self._read, self._folder, name)
        if not may_change:
            self.damaged[name] += 1
            self.refused[name] += found is None
        assert found is None or found == self.whole or may_change, (name, what)
        return found

    def must_have_refused(self, least: float) -> None:
        """Of every file at least this share of the damages was refused.

        Those that may change the content do not count.
        """
        assert self.damaged
        for name, number in self.damaged.items():
            assert self.refused[name] >= max(1, least * number), (name, self.refused[name], number)


def is_flip(what: str) -> bool:
    """Whether a damage changes bits alone: a file without checksums cannot tell of all of them."""
    return what.startswith("flip")


def each_damage(
    folder: Path,
    names: list[str],
    num_flips: int,
    most: int = 10**9,
    after: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[str, str]]:
    """Damage each file in each way (a sample of `most` ways), and fix it; (file, damage)."""
    for name in names:
        path, whole = folder / name, (folder / name).read_bytes()
        others = [other for other in names if Path(other).suffix == path.suffix and other != name]
        swapped = [(f"{other} in its place", (folder / other).read_bytes()) for other in others[:2]]
        ways = [*damages(whole, name, num_flips), *swapped, ("gone", b"")]
        for what, content in random.Random(name).sample(ways, min(most, len(ways))):
            if content == whole:
                continue
            spoil(path, content)
            if what == "gone":
                path.unlink()
            after(name)
            yield name, what
            spoil(path, whole)
            after(name)


def each_value(path: Path, seed: int, most: int) -> Iterator[str]:
    """Put wrong values into a JSON file, a sample of all that might be."""
    whole = path.read_bytes()
    every = list(wrong_values(json.loads(whole)))
    for what, value in random.Random(seed).sample(every, min(most, len(every))):
        path.write_text(json.dumps(value))
        yield what
    path.write_bytes(whole)
