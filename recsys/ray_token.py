"""Ray's token, which opens a cluster to whoever has it: where it lies, and who may read it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from recsys.errors import DataError


def check_token() -> None:
    """See that Ray can read its token, or make one, before anything is started.

    Raises:
        DataError: the home folder takes no file.
    """
    if "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        return
    path = _path()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("a"):
            pass
        if not path.stat().st_size:
            path.unlink()  # Ray makes one where there is none
    except OSError as error:
        raise DataError(
            f"Ray's token cannot be kept there: {error.strerror}", where=path, field="HOME",
            value=os.environ.get("HOME"),
            mend="set HOME to a folder that this process may write to, or RAY_AUTH_TOKEN_PATH to a "
            "file that `ray get-auth-token --generate` has written",
        ) from None  # fmt: skip


def hide_token() -> None:
    """Take the token away from others: Ray writes it so that every user of the machine reads it."""
    with suppress(OSError):
        _path().chmod(0o600)


def _path() -> Path:
    return Path(os.path.expanduser("~"), ".ray", "auth_token")
