"""Errors that a user can act on: where it is wrong, what is wrong, and the fix."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class RaycommendError(Exception):
    """Bad input or bad circumstances; printed as one message, without a stack trace.

    Args:
        problem: what is wrong, in one clause.
        where: the file, folder or recipe that holds the mistake.
        field: the column or key.
        value: the offending value.
        fix: what to do about it.
    """

    exit_code = 2

    def __init__(
        self,
        problem: str,
        *,
        where: object = None,
        field: str | None = None,
        value: object = None,
        fix: str,
    ) -> None:
        # Of other libraries' messages some run over several lines; ours is one.
        problem = " ".join(problem.split())
        self.problem, self.where, self.field = problem, where, field
        self.value, self.fix = value, fix
        parts = []
        if where is not None:
            parts.append(f"{where}:")
        if field is not None:
            parts.append(f"[{field}]")
        parts.append(problem)
        if value is not None:
            parts.append(f"(got {value!r})")
        super().__init__(" ".join(parts) + f". Fix: {fix}")

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the fields when the error crosses a process boundary."""
        return _rebuild, (
            type(self),
            self.problem,
            {
                "where": str(self.where) if self.where is not None else None,
                "field": self.field,
                "value": self.value,
                "fix": self.fix,
            },
        )


def _rebuild(cls: type[RaycommendError], problem: str, kw: dict[str, object]) -> RaycommendError:
    return cls(problem, **kw)  # type: ignore[arg-type]


def cause_of(error: BaseException | None, *folders: Path) -> RaycommendError | None:
    """The error of ours behind another: Ray wraps what its tasks raise, more than once.

    A wrapper may pass for the type of what it wraps, with a stack trace as its text: what it holds
    (`cause`; of a training run, `controller_failure` or `worker_failures`) is looked at instead. Of
    several workers' errors one may be ours and the others only follow from it.

    A full disk is one of ours too, whichever library came upon it.

    Args:
        error: what was raised.
        folders: what is written to; a full disk that has no name is taken for the fullest of them.
    """
    chain = _chain(error)
    for each in chain:
        if _is_full(each):
            return NoSpaceError.on(_file_of(each), folders)
    ours = next((each for each in chain if isinstance(each, RaycommendError)), None)
    if isinstance(ours, NoSpaceError) and ours.where is None:
        return NoSpaceError.on(None, folders)
    return ours


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error and those behind it, without wrappers that pass for what they hold."""
    seen: set[int] = set()
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop(0)
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        held = [getattr(each, name, None) for name in ("cause", "controller_failure")]
        failures = list((getattr(each, "worker_failures", None) or {}).values())
        if not any(held) and not failures:
            found.append(each)
        waiting += [*held, *failures, each.__cause__, each.__context__]
    return found


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _NO_SPACE
    if isinstance(error, sqlite3.Error):
        # The second: of a disk so full that there is no room for the log's index.
        full = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
        return getattr(error, "sqlite_errorcode", None) in full
    # Polars, Arrow and safetensors say it in words.
    text = "" if isinstance(error, RaycommendError) else str(error)
    return any(os.strerror(code) in text for code in _NO_SPACE)


def _file_of(error: BaseException) -> Path | None:
    """The file that an error names, if it does; what Ray makes of one may name anything else."""
    name = getattr(error, "filename", None)
    if not isinstance(name, str) or not name.startswith("/") or "\n" in name:
        return None
    return Path(name)


class RecipeError(RaycommendError):
    """The recipe cannot be read or contradicts itself."""


class DataError(RaycommendError):
    """The log or the catalogue cannot be used as it is."""


class DataErrors(DataError):
    """Several things that are wrong with the log or the recipe, told at once."""

    def __init__(self, errors: Sequence[RaycommendError]) -> None:
        self.errors = list(errors)
        super().__init__(f"{len(self.errors)} problems", fix="correct them all")

    def __str__(self) -> str:
        return f"{self.problem}:" + "".join(
            f"\n  {number}. {error}" for number, error in enumerate(self.errors, start=1)
        )

    def __reduce__(self) -> tuple[object, ...]:
        return DataErrors, (self.errors,)


def raise_all(errors: Sequence[RaycommendError]) -> None:
    """Raise the error, or all of them as one; without any do nothing."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise DataErrors(errors)


class BundleError(RaycommendError):
    """A bundle or a registry is missing, broken or of another format."""


class StorageError(RaycommendError):
    """A store of files lets nobody in, does not answer, or holds other things than it should."""


class NoSpaceError(RaycommendError):
    """A disk or a quota is full."""

    @staticmethod
    def on(path: Path | None, folders: Sequence[Path]) -> NoSpaceError:
        """The error of a full disk.

        Args:
            path: of the file that could not be written, if that is known.
            folders: what may have been written to otherwise.
        """
        where: Path | None = min(folders, key=_free, default=None)
        if path is not None:
            where = next((each for each in folders if path.is_relative_to(each)), path.parent)
        return NoSpaceError(
            "no space is left on this disk, or none of its quota", where=where,
            fix="make room there; then the same command goes on",
        )  # fmt: skip


def _free(folder: Path) -> int:
    """Bytes that are free where a folder lies, or would."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    return shutil.disk_usage(there).free


class GateRefused(RaycommendError):
    """The gate lets a challenger not pass; the champion stays."""

    exit_code = 3


class NotJudged(RaycommendError):
    """What was logged does not suffice for a verdict."""

    exit_code = 3
