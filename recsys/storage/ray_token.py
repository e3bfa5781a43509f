"""Ray's token, which opens a cluster to whoever has it: where it lies, and who may read it."""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path

from recsys.errors import DataError


def check_token() -> None:
    """See that Ray can read its token, or that one can be made; nothing is written.

    Raises:
        DataError: neither.
    """
    path = _needed()
    if path is None:
        return
    if _is_there(path):
        fits = os.access(path, os.R_OK)
    else:
        folder = next(each for each in path.parents if each.exists())
        fits = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    if not fits:
        raise _no_place(path, "no right to")


def make_token() -> None:
    """Make a token where there is none, for a cluster that is about to start.

    Ray would make it too, but so that for some seconds every user of the machine reads it.

    Raises:
        DataError: the home folder takes no file, or the token cannot be read.
    """
    path = _needed()
    if path is None:
        return
    try:
        if _is_there(path):
            path.read_bytes()
            with suppress(PermissionError):  # another's, who sees to it
                path.chmod(0o600)  # one that Ray has made is for all to read
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # two starts at once make one token
            if not file.read(1):
                file.write(secrets.token_hex(32))  # as Ray's
    except OSError as error:
        raise _no_place(path, error.strerror) from None


def _is_there(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _needed() -> Path | None:
    """The file that Ray reads; None if it reads another one, or none."""
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        return None
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return None
    return Path(os.path.expanduser("~"), ".ray", "auth_token")


def _no_place(path: Path, why: str | None) -> DataError:
    return DataError(
        f"Ray's token cannot be kept there: {why}", where=path, field="HOME",
        value=os.environ.get("HOME"),
        fix="set HOME to a folder that this process may write to, or RAY_AUTH_TOKEN_PATH to a "
        "file that `ray get-auth-token --generate` has written",
    )  # fmt: skip
