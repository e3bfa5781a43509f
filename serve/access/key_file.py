"""The file of API keys: hashed at rest, each with the rights it opens.

A key is 256 random bits, so its plain SHA-256 cannot be guessed back; nothing slower is needed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from recsys.config import Section
from recsys.errors import DataError
from recsys.storage.outputs import write_json
from serve.schemas.callers import Right

#: Rights of files that an earlier release wrote -> today's.
_EARLIER: dict[str, tuple[Right, ...]] = {
    "admin": ("explain", "items", "erase", "tokens", "monitor"),
}
#: Begin of every key: a leaked one is recognised, by people and by scanners of repositories.
PREFIX = "rck_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Key(Section):
    """One key, as the file holds it.

    Attributes:
        name: of its owner; shown in logs and lists.
        sha256: of the key, hexadecimal.
        rights: what it opens.
    """

    name: Annotated[str, Field(pattern=f"^{_NAME.pattern}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    rights: Annotated[tuple[Right, ...], Field(min_length=1)]

    @field_validator("rights", mode="before")
    @classmethod
    def _of_today(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return tuple(right for each in value for right in _EARLIER.get(str(each), (each,)))


class KeyFile(Section):
    """The file of keys."""

    format: Literal[1] = 1
    keys: tuple[Key, ...] = ()

    @staticmethod
    def read(path: Path) -> KeyFile:
        """The keys of a file.

        Raises:
            DataError: it is missing, unreadable or not a file of keys.
        """
        try:
            found = KeyFile.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise DataError(
                "no file of API keys", where=path, field="serve.access.keys",
                fix="make a key with `recsys keys add`, or set serve.access.keys to null",
            ) from None  # fmt: skip
        except OSError as error:
            raise DataError(
                f"the file of API keys cannot be read: {error.strerror}", where=path,
                field="serve.access.keys", fix="correct its permissions",
            ) from error  # fmt: skip
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise _no_key_file(path, first["msg"], ".".join(map(str, first["loc"]))) from None
        if "keys" not in found.model_fields_set:
            raise _no_key_file(path, "Field required", "keys")
        return found

    def write(self, path: Path) -> None:
        """Replace the file whole; only its owner can read it."""
        write_json(path, self.model_dump(mode="json"), mode=0o600)

    def with_key(self, name: str, rights: tuple[Right, ...]) -> tuple[KeyFile, str]:
        """These keys and a new one, and the new one's text: it is kept nowhere.

        Raises:
            DataError: there is a key of this name, or it is no name.
        """
        if not _NAME.fullmatch(name):
            raise DataError(
                "not a name for a key", where="keys", field="name", value=name,
                fix="use letters, digits, '.', '_' and '-', at most 64 of them, and begin with a "
                "letter or digit",
            )  # fmt: skip
        if any(key.name == name for key in self.keys):
            raise DataError(
                "there is a key of this name", where="keys", field="name", value=name,
                fix="take another name, or remove that key first",
            )  # fmt: skip
        text = PREFIX + secrets.token_urlsafe(32)
        key = Key(name=name, sha256=digest(text), rights=rights)
        return KeyFile(keys=(*self.keys, key)), text

    def without(self, name: str) -> KeyFile:
        """These keys less one.

        Raises:
            DataError: there is none of this name.
        """
        kept = tuple(key for key in self.keys if key.name != name)
        if len(kept) == len(self.keys):
            raise DataError(
                "there is no key of this name", where="keys", field="name", value=name,
                fix="see `recsys keys list`",
            )  # fmt: skip
        return KeyFile(keys=kept)


def digest(text: str) -> str:
    """SHA-256 of a key, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def own_key(pseudonym_key: bytes) -> str:
    """The service's own key, derived from the pseudonym key; `recsys serve` sends it."""
    return PREFIX + hmac.digest(pseudonym_key, b"raycommend service", "sha256").hex()


def _no_key_file(path: Path, problem: str, field: str) -> DataError:
    return DataError(
        f"not a file of API keys: {problem}", where=path, field=field,
        fix="restore it from a copy, or make the keys again with `recsys keys add`",
    )  # fmt: skip
