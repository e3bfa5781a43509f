"""Damage to files, the same in every run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def damages(content: bytes, seed: str, num_flips: int = 6) -> Iterator[tuple[str, bytes | None]]:
    """What may become of a file: its name, and the new content; None: a folder lies there."""
    rng = random.Random(seed)
    size = len(content)
    for cut in sorted({0, 1, 7, size // 3, size // 2, size - 9, size - 1}):
        if 0 <= cut < size:
            yield f"cut to {cut} bytes", content[:cut]
    for number in range(num_flips if size else 0):
        spoilt = bytearray(content)
        # The ends hold what the rest is read by.
        low, high = [(0, min(size, 128)), (max(0, size - 600), size), (0, size)][number % 3]
        for _ in range(1 + number % 4):
            spoilt[rng.randrange(low, high)] ^= 1 << rng.randrange(8)
        yield f"flip {number}", bytes(spoilt)
    yield "noise", rng.randbytes(max(size, 64))
    yield "a ZIP file", b"PK\x03\x04" + content[4:]
    yield "a folder", None
    for value in (b"null", b"[]", b"{}", b'{"format": "x"}', b"[" * 100_000):
        yield f"JSON {value[:20]!r}", value


def wrong_values(data: Any) -> Iterator[tuple[str, Any]]:
    """JSON with one value replaced by one of another type, or gone; of lists the first alone."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield f"without {key}", {k: v for k, v in data.items() if k != key}
            for name, other in wrong_values(value):
                yield f"{key}.{name}", {**data, key: other}
    elif isinstance(data, list) and data:
        for name, other in wrong_values(data[0]):
            yield f"[0].{name}", [other, *data[1:]]
    for other in (None, True, -1, 1e308, "x", [], {}, [[]]):
        if type(other) is not type(data):
            yield f"= {other!r}", other


def spoil(path: Path, content: bytes | None) -> None:
    """Put new content, or a folder, where a file lies or lay."""
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)


def files(folder: Path) -> list[str]:
    """Every file below a folder, by its relative path."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
