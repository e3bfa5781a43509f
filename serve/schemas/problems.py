"""Refusals: every 4xx names the field, and repeats no input, so that none can break it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from recsys.errors import RaycommendError

logger = logging.getLogger("ray.serve")

_MAX_PROBLEMS, _MAX_NAME = 20, 100


class Refused(Exception):
    """A request that is well-formed and cannot be answered.

    Args:
        loc: path to the field, e.g. `("candidates", 3)`.
        msg: what is wrong and what to do.
        kind: short name of the kind of mistake.
    """

    def __init__(self, loc: Sequence[str | int], msg: str, *, kind: str) -> None:
        super().__init__(msg)
        self.loc, self.msg, self.kind = tuple(loc), msg, kind

    #: HTTP status of the answer.
    status: ClassVar[int] = 422


class Forbidden(Refused):
    """The caller may not ask this."""

    status = 403

    def __init__(self, loc: Sequence[str | int], msg: str) -> None:
        super().__init__(loc, msg, kind="forbidden")


class NotFound(Refused):
    """What the path names is not there."""

    status = 404

    def __init__(self, msg: str) -> None:
        super().__init__((), msg, kind="not_found")


class Conflict(Refused):
    """Something else is held under the name that the request gives."""

    status = 409

    def __init__(self, loc: Sequence[str | int], msg: str) -> None:
        super().__init__(loc, msg, kind="conflict")


#: Of an event whose id another one bears.
CONFLICT = "another event is held under this id: give each one of its own"


class Unavailable(Exception):
    """The service cannot answer now, through no fault of the request."""


def field_name(loc: Sequence[str | int]) -> str:
    """`("candidates", 3, "price")` -> `candidates[3].price`; the request as a whole is `body`."""
    name = ""
    for part in loc:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name or "body"


def sent_name(loc: Sequence[str | int]) -> str:
    """The same, short, as text that can be sent: the name of a field may be a lone surrogate."""
    path = [part[:_MAX_NAME] if isinstance(part, str) else part for part in loc]
    return field_name(path).encode(errors="backslashreplace").decode()


def refusal(status: int, problems: Sequence[tuple[Sequence[str | int], str, str]]) -> Response:
    """The answer to a bad request.

    Args:
        status: HTTP status.
        problems: (path, message, kind) of each.
    """
    detail = []
    for loc, msg, kind in problems[:_MAX_PROBLEMS]:
        path = [part[:_MAX_NAME] if isinstance(part, str) else part for part in loc]
        detail.append({"field": field_name(path), "loc": ["body", *path], "msg": msg, "type": kind})
    # ASCII escapes: a lone surrogate, sent as the name of a field, cannot be encoded as UTF-8.
    return Response(json.dumps({"detail": detail}), status, media_type="application/json")


def unavailable(msg: str) -> Response:
    """503, with a hint to try again."""
    problem = {"detail": [{"field": "", "loc": [], "msg": msg, "type": "unavailable"}]}
    return Response(
        json.dumps(problem), 503, headers={"Retry-After": "1"}, media_type="application/json"
    )


def invalid(error: ValidationError) -> Response:
    """The answer to a request that its model does not take."""
    problems = error.errors(include_url=False, include_input=False)
    return refusal(422, [(_path(("body", *e["loc"])), e["msg"], e["type"]) for e in problems])


def failed() -> Response:
    """500, without details: those are for the log."""
    return refusal(500, [((), "the service has failed", "internal")])


def answer_to(error: Refused | Unavailable | RaycommendError) -> Response:
    """The response to a request that cannot be answered, by its fault or ours."""
    if isinstance(error, Refused):
        return refusal(error.status, [(error.loc, error.msg, error.kind)])
    if isinstance(error, Unavailable):
        return unavailable(str(error))
    logger.error("%s", error)  # with paths and fix: for the operator, not for the caller
    return unavailable(error.problem)


def install(app: FastAPI) -> None:
    """Make `app` answer all mistakes in one form."""
    app.add_exception_handler(HTTPException, _refused_by_framework)
    app.add_exception_handler(RequestValidationError, _invalid)
    for kind in (Refused, Unavailable, RaycommendError):
        app.add_exception_handler(kind, _answer_to)


def _no_json() -> Response:
    return refusal(400, [((), "cannot be read as JSON", "json_invalid")])


def _path(loc: Sequence[str | int]) -> list[str | int]:
    # `<...>` names a branch of a union, see `api`.
    return [part for part in loc[1:] if not (isinstance(part, str) and part[:1] == "<")]


async def _refused_by_framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:
        # Numbers of thousands of digits, thousands of brackets, bytes that are no text.
        return _no_json()
    kind = {404: "no_route", 405: "method"}.get(error.status_code, "http")
    answer = refusal(error.status_code, [((), str(error.detail), kind)])
    answer.headers.update(error.headers or {})
    if error.status_code == 405:  # the router names those of one route alone
        answer.headers["Allow"] = ", ".join(_methods(request))
    return answer


def _methods(request: Request) -> list[str]:
    """Those that a request's path takes."""
    fit = [each for each in request.app.routes if each.matches(request.scope)[0] is not Match.NONE]
    same = [each for each in fit if each.path == fit[0].path]
    methods = {method for each in same for method in getattr(each, "methods", None) or ()}
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    kinds = {(e["type"], tuple(e["loc"])) for e in error.errors()}
    if any(kind == "json_invalid" for kind, _ in kinds):
        return _no_json()
    if ("missing", ("body",)) in kinds:
        return refusal(400, [((), "the body is empty, and has to be JSON", "json_invalid")])
    return refusal(422, [(_path(e["loc"]), e["msg"], e["type"]) for e in error.errors()])


async def _answer_to(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused | Unavailable | RaycommendError)
    return answer_to(error)
