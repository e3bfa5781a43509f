"""SHA-256 hashes and seals: checks that a file or an object is what was written.

A seal is a hash inside a JSON object, over the rest of it. It detects damage, not forgery: anyone
can seal a changed object again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

#: Key of the seal.
SEAL: Final = "seal"
#: What a reader says of an object that is not what was sealed.
BROKEN_SEAL: Final = "the content is not what was written (the seal does not fit)"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hashes(folder: Path, pattern: str = "**/*") -> dict[str, str]:
    """Relative path -> SHA-256 of the files in a folder, sorted by path."""
    return {
        str(path.relative_to(folder)): file_sha256(path)
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    }


def text_sha256(text: str) -> str:
    """SHA-256 of a text in UTF-8, its first 16 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def json_sha256(data: Any) -> str:
    """SHA-256 of plain data as JSON with sorted keys, 64 hex digits."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def sealed(data: Mapping[str, Any]) -> dict[str, Any]:
    """An object with its seal, in place of one that it may have."""
    rest = {key: value for key, value in data.items() if key != SEAL}
    return {**rest, SEAL: json_sha256(rest)}


def is_sealed(data: Mapping[str, Any]) -> bool:
    """Whether an object has the seal of its content."""
    return SEAL in data and sealed(data)[SEAL] == data[SEAL]
