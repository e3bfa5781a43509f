"""What the libraries of stores raise, in a few kinds."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from enum import Enum, auto

#: Words of the errors of a bucket (a container, a name node's folder) that is not there.
_NO_BUCKET = ("nosuchbucket", "bucket does not exist", "containernotfound", "bucket not found")
#: Classes of the errors of credentials, by name: their packages need not be installed.
_NO_CREDENTIALS = {
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError",
    "TokenRetrievalError", "ProfileNotFound", "DefaultCredentialsError", "RefreshError",
    "ClientAuthenticationError", "CredentialUnavailableError",
}  # fmt: skip
#: Classes of the errors of what passes, beside `OSError`.
_PASSING = {
    "BotoCoreError", "ClientError", "ClientPayloadError", "HttpError", "AzureError",
    "FSTimeoutError", "ResponseParserError", "IncompleteRead",
}  # fmt: skip
_ARROW_PASSING = {
    "NETWORK_CONNECTION", "INTERNAL_FAILURE", "SERVICE_UNAVAILABLE", "SLOW_DOWN", "THROTTLING",
    "REQUEST_TIMEOUT",
}  # fmt: skip
_WRONG = {"ParamValidationError", "InvalidEndpointConfigurationError", "NoRegionError"}
_FULL = (errno.ENOSPC, errno.EDQUOT)
#: Of a store's answers: the request is none that it ever takes.
_REFUSED = (errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.ENAMETOOLONG, errno.EMSGSIZE)


class Fault(Enum):
    """What went wrong."""

    ABSENT = auto()
    TAKEN = auto()
    NO_BUCKET = auto()
    DENIED = auto()
    REFUSED = auto()
    PASSING = auto()
    #: Of this machine or of the code, not of the store.
    OTHER = auto()


#: Answers of a store -> what they mean; others of 400 to 499 refuse.
_HTTP = {
    401: Fault.DENIED, 403: Fault.DENIED, 404: Fault.ABSENT, 412: Fault.TAKEN,
    408: Fault.PASSING, 429: Fault.PASSING,
}  # fmt: skip


def fault_of(error: BaseException) -> Fault:
    """The kind of an error that a file system of fsspec raised."""
    chain = list(_chain(error))
    names = {kind.__name__ for each in chain for kind in type(each).__mro__}
    told = " ".join(str(each).lower() for each in chain)
    if any(words in told for words in _NO_BUCKET):
        return Fault.NO_BUCKET
    if names & _NO_CREDENTIALS or isinstance(error, PermissionError):
        return Fault.DENIED
    if isinstance(error, FileNotFoundError):
        return Fault.ABSENT
    if isinstance(error, FileExistsError):
        return Fault.TAKEN
    if (code := _http_code(error)) is not None:  # of Google's store
        return _HTTP.get(code, Fault.PASSING if code >= 500 else Fault.REFUSED)
    if isinstance(error, OSError):
        if error.errno in _FULL:
            return Fault.OTHER
        return Fault.REFUSED if error.errno in _REFUSED else Fault.PASSING
    if names & _WRONG:
        return Fault.REFUSED
    return Fault.PASSING if names & _PASSING else Fault.OTHER


def _http_code(error: BaseException) -> int | None:
    try:
        code = int(getattr(error, "code", None) or 0)
    except (TypeError, ValueError):
        return None
    return code if 400 <= code < 600 else None


def arrow_fault(error: BaseException) -> Fault:
    """The kind of an error of `pyarrow.fs`, which tells of S3 in words; of others it is `OTHER`."""
    found = re.search(r"AWS Error (\w+)", str(error))
    if not isinstance(error, OSError) or found is None:
        return Fault.OTHER
    if "BUCKET" in found[1]:
        return Fault.NO_BUCKET
    return Fault.PASSING if found[1] in _ARROW_PASSING else Fault.DENIED


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
