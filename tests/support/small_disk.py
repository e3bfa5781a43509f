"""A disk that can really be filled: a small file system, mounted for a test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of some megabytes in a new folder; the test is skipped if we may not mount."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, *, leave: int = 0) -> Path:
    """A file that takes all bytes but `leave`, or the very last one."""
    path = disk / "other"
    with path.open("wb", buffering=0) as file:
        stat = os.statvfs(disk)
        left = stat.f_bavail * stat.f_frsize - leave
        for size in (1 << 16, 1 << 12, 1):
            try:
                while left > 0 or not leave:
                    left -= file.write(b" " * min(size, left if leave else size))
            except OSError:
                continue
    return path
