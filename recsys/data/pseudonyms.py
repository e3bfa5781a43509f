"""Keyed pseudonyms: raw user ids end here, before anything is stored or trained on.

A bare hash would not hide them: user ids are few and guessable (numbers, e-mail addresses), so
anyone with the hashes can hash every candidate and match. With a keyed hash the guess needs the
key as well, and destroying the key makes every pseudonym anonymous for good.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from pathlib import Path

import polars as pl
import pyarrow as pa

from recsys.config import Privacy
from recsys.errors import DataError

KEY_FILE = "pseudonym.key"
MIN_KEY_BYTES = 16
_NEW_KEY_BYTES = 32
_PSEUDONYM_BYTES = 16


def load_key(privacy: Privacy, run_dir: Path, *, create: bool) -> bytes:
    """The key of the pseudonyms: from the environment variable, else from the key file.

    The key is the text itself, as UTF-8 without the white space around it, so the file's content
    may be copied into the environment variable and gives the same pseudonyms.

    Args:
        privacy: names the environment variable and the file (default: `pseudonym.key` in
            `run_dir`).
        run_dir: the run's folder.
        create: make the file (mode 0600, 32 random bytes in hex) if there is neither. `prepare`
            does; whoever reads pseudonyms must not, for a new key would match none of them.

    Raises:
        DataError: there is no key, it is shorter than 16 bytes, or its file cannot be read or made.
    """
    text = os.environ.get(privacy.key_env)
    if text is not None:
        return _checked(text.encode(), f"environment variable {privacy.key_env}")
    path = key_path(privacy, run_dir)
    try:
        if create and not path.exists():
            _make(path)
        return _checked(path.read_bytes(), path)
    except FileNotFoundError:
        raise DataError(
            f"no pseudonym key: neither this file nor the environment variable {privacy.key_env}",
            where=path,
            fix=f"restore the file, or set {privacy.key_env} to the key that the data were "
            "prepared with; where nothing is prepared yet, `recsys prepare` makes one",
        ) from None
    except OSError as error:
        raise DataError(
            f"the pseudonym key cannot be read or made: {error.strerror}",
            where=path,
            fix=f"fix the file's permissions, or set {privacy.key_env}",
        ) from error


def has_key(privacy: Privacy, run_dir: Path) -> bool:
    """Whether a key is there, good or not: `load_key` would neither make nor miss one."""
    return privacy.key_env in os.environ or key_path(privacy, run_dir).exists()


def find_key(privacy: Privacy, run_dir: Path) -> bytes | None:
    """The key if there is one yet, see `load_key`; None: `prepare` is still to make it.

    Raises:
        DataError: there is one that is too short or cannot be read.
    """
    return load_key(privacy, run_dir, create=False) if has_key(privacy, run_dir) else None


def key_check(key: bytes) -> str:
    """Check value of a key, which does not reveal it: the start of an HMAC, 16 hex digits.

    It is stored beside what was made with the key, so that another key is noticed.
    """
    return hmac.digest(key, b"raycommend key check", "sha256")[:8].hex()


def pseudonym(user_id: str, key: bytes) -> str:
    """The pseudonym of one user: HMAC-SHA256, its first 128 bits, as 32 hex digits.

    Source: RFC 2104; section 5 allows cutting the output to no less than half of the hash.
    """
    return hmac.digest(key, user_id.encode(), "sha256")[:_PSEUDONYM_BYTES].hex()


def pseudonymise(ids: pl.Series, key: bytes) -> pl.Series:
    """The pseudonyms of a column of user ids; each distinct id is hashed once.

    Args:
        ids: [N] strings; nulls stay null.
        key: see `load_key`.

    Returns:
        [N] strings, under the same name.
    """
    encoded = ids.to_arrow().dictionary_encode()
    hashed = [pseudonym(user_id, key) for user_id in encoded.dictionary.to_pylist()]
    return pl.Series(ids.name, pa.array(hashed, pa.large_string()).take(encoded.indices))


def key_path(privacy: Privacy, run_dir: Path) -> Path:
    """Where the key lies if no environment variable holds it."""
    return Path(privacy.key_file).expanduser() if privacy.key_file else run_dir / KEY_FILE


def _checked(raw: bytes, where: object) -> bytes:
    key = raw.strip()
    if len(key) < MIN_KEY_BYTES:
        raise DataError(
            f"the pseudonym key has {len(key)} bytes, too few to withstand guessing",
            where=where,
            fix=f"give at least {MIN_KEY_BYTES} random bytes, e.g. of `openssl rand -hex 32`",
        )
    return key


def _make(path: Path) -> None:
    """Write a key aside, then link it into place: none is seen half written, none is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(_NEW_KEY_BYTES) + "\n")
            file.flush()
            os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):  # another process was faster: its key counts
            os.link(aside, path)
    finally:
        aside.unlink(missing_ok=True)
