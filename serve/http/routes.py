"""The HTTP application: routes, their documentation and the middleware around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, TypeAlias

from fastapi import Depends, FastAPI, Security
from fastapi.security import HTTPBearer
from pydantic import TypeAdapter
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from serve.access.middleware import AccessMiddleware
from serve.core.middleware import ObservabilityMiddleware
from serve.core.service import Service
from serve.http.body_limit import BodyLimit
from serve.http.fast_lane import FastLane, Lanes
from serve.http.headers import SecurityHeaders
from serve.http.request_form import RequestForm
from serve.schemas import problems
from serve.schemas.events import EventsRequest
from serve.schemas.ids import id_in_path, text_schema
from serve.schemas.requests import (
    EraseRequest,
    ItemsRequest,
    ItemUpdate,
    KnownRankRequest,
    RankRequest,
    RecommendRequest,
    UserTokenRequest,
)
from serve.schemas.responses import (
    Alive,
    ErasedAnswer,
    EventsAnswer,
    ItemAnswer,
    ItemsAnswer,
    ModelAnswer,
    Problems,
    RankAnswer,
    Ready,
    RecommendAnswer,
    RemovedAnswer,
    UserTokenAnswer,
)
from serve.web.tracker import tracker

Responses = dict[int | str, dict[str, Any]]

_REFUSED: Responses = {
    status: {"model": Problems, "description": text}
    for status, text in (
        (400, "The body is no JSON."),
        (401, "Send a key that the service knows, if it asks for keys."),
        (403, "The key does not open this path, or not for this user."),
        (404, "There is no such thing."),
        (408, "The body came too slowly."),
        (409, "Another event is held under this id."),
        (413, "The body is too large."),
        (415, "The body is encoded, or not `application/json`."),
        (422, "The request is wrong; `field` names where."),
        (429, "The key asks too often; wait `Retry-After` seconds."),
        (503, "Try again, after `Retry-After` seconds."),
    )
}


_WITH_BODY: Responses = {
    status: text for status, text in _REFUSED.items() if status not in (404, 409)
}
_BY_ID: Responses = {status: _REFUSED[status] for status in (401, 403, 422, 429, 503)}
_NO_BODY: Responses = {status: _REFUSED[status] for status in (401, 403, 429, 503)}

ItemId: TypeAlias = Annotated[str, Depends(id_in_path)]
UserId: TypeAlias = Annotated[str, Depends(id_in_path)]


def _of_path(name: str) -> dict[str, Any]:
    """OpenAPI's entry for an id that ends a path."""
    parameter = {"name": name, "in": "path", "required": True, "schema": text_schema()}
    parameter["description"] = "The id, percent-encoded; a slash in it as %2F."
    return {"parameters": [parameter]}


_user, _item = _of_path("user_id"), _of_path("item_id")
#: For the documentation alone: `AccessMiddleware` has answered before a route is looked for.
_KEYED = [Security(HTTPBearer(auto_error=False, description="An API key, see `recsys keys`."))]


def build_http(service: Service, *, answers_id: bool = True) -> ASGIApp:
    """The HTTP application of a service; its pages are `/docs` and `/redoc`.

    Args:
        service: answers.
        answers_id: see `ObservabilityMiddleware`.
    """

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="Raycommend",
        lifespan=life,
        version=_release(),
        description="Recommendations and rankings for a shop, and its live events.",
        # They lead to whatever host the request names.
        redirect_slashes=False,
    )
    problems.install(app)
    lanes = _add_routes(app, service)
    with_body = {
        route.path
        for route in app.routes
        if isinstance(route, Route) and "POST" in (route.methods or ())
    }
    middleware: ASGIApp = RequestForm(BodyLimit(FastLane(app, lanes)), with_body)
    if service.keys is not None:
        middleware = AccessMiddleware(middleware, service.keys)
    middleware = SecurityHeaders(middleware)
    if service.origins:
        middleware = CORSMiddleware(
            middleware, allow_origins=service.origins, allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-Id"],
            expose_headers=["X-Request-Id"],
        )  # fmt: skip
    return ObservabilityMiddleware(middleware, service, answers_id=answers_id)


def _add_routes(app: FastAPI, service: Service) -> Lanes:
    """Add all routes; returns those that `FastLane` answers."""
    keyed = _KEYED if service.keys is not None else []

    @app.post(
        "/recommend", response_model=RecommendAnswer, responses=_WITH_BODY, dependencies=keyed
    )
    async def recommend(request: RecommendRequest) -> Response:
        """The best items of the whole catalogue, for a user or for a session."""
        return _json(await service.recommend(request))

    @app.post("/rank", response_model=RankAnswer, responses=_WITH_BODY, dependencies=keyed)
    async def rank(request: RankRequest) -> Response:
        """An order of the given items, known or new, for a user or for a session."""
        return _json(await service.rank(request))

    @app.post(
        "/events", response_model=EventsAnswer, responses=_WITH_BODY | {409: _REFUSED[409]},
        dependencies=keyed,
    )  # fmt: skip
    async def events(request: EventsRequest) -> Response:
        """Store what users did: one event, or `{"events": [...]}`. The next answer knows of it.

        Of several each is judged by itself, see `results`; with `atomic` all are stored or none.
        """
        return _json(await service.store(request))

    @app.post("/items", response_model=ItemsAnswer, responses=_WITH_BODY, dependencies=keyed)
    async def items(request: ItemsRequest) -> Response:
        """Say what is known of items from now on: one, or `{"items": [...]}`; new ones too."""
        if isinstance(request, ItemUpdate):
            return _json(await service.update_items([request], single=True))
        return _json(await service.update_items(request.items, single=False))

    @app.get(
        "/items/{item_id:path}", response_model=ItemAnswer,
        responses=_BY_ID | {404: _REFUSED[404]}, dependencies=keyed, openapi_extra=_item,
    )  # fmt: skip
    async def item(item_id: ItemId) -> Response:
        """What is known of an item."""
        return _json(await service.item(item_id))

    @app.delete(
        "/items/{item_id:path}", response_model=RemovedAnswer, responses=_BY_ID,
        dependencies=keyed, openapi_extra=_item,
    )  # fmt: skip
    async def remove_item(item_id: ItemId) -> Response:
        """Take back what `POST /items` has said of an item; an added one is gone."""
        return _json(await service.remove_item(item_id))

    @app.post("/users/erase", response_model=ErasedAnswer, responses=_WITH_BODY, dependencies=keyed)
    async def erase_user(request: EraseRequest) -> Response:
        """Erase a user: nothing from before comes back; what happens later is a new history."""
        return _json(await service.erase(request.user_id))

    # Before the next, or a wrong method would be answered with that one's.
    if service.keys is not None:

        @app.post(
            "/users/token", response_model=UserTokenAnswer, responses=_WITH_BODY, dependencies=keyed
        )
        async def user_token(request: UserTokenRequest) -> Response:
            """A token with which a browser asks for one user, until it expires."""
            return _json(service.user_token(request.user_id, request.lives_s))

    else:

        @app.post("/users/token", include_in_schema=False)
        async def no_user_token() -> Response:
            """Say what is missing: nobody may be let in by a token where everybody is."""
            raise problems.NotFound("no user tokens: they need API keys, see serve.access.keys")

    @app.delete(
        "/users/{user_id:path}", response_model=ErasedAnswer, responses=_BY_ID,
        dependencies=keyed, openapi_extra=_user,
    )  # fmt: skip
    async def erase(user_id: UserId) -> Response:
        """The same with the id in the path, where proxies may log it."""
        return _json(await service.erase(user_id))

    app.add_route("/tracker.js", tracker, include_in_schema=False)

    @app.get("/healthz", response_model=Alive)
    async def healthz() -> Alive:
        """Whether the process lives: nothing is looked at."""
        return Alive(status="ok")

    @app.get("/readyz", response_model=Ready, responses={503: _REFUSED[503]})
    async def readyz() -> Ready:
        """Whether requests can be answered: a model is loaded and the store can be read."""
        return Ready(status="ok", model_version=await service.check())

    @app.get("/model", response_model=ModelAnswer, responses=_NO_BODY, dependencies=keyed)
    async def model() -> ModelAnswer:
        """What is served."""
        return ModelAnswer(**service.describe())

    return {
        "/recommend": (TypeAdapter(RecommendRequest), recommend),
        "/rank": (TypeAdapter(KnownRankRequest), rank),
        "/events": (TypeAdapter(EventsRequest), events),
    }


def _json(answer: bytes) -> Response:
    return Response(answer, media_type="application/json")


def _release() -> str:
    try:
        return version("raycommend")
    except PackageNotFoundError:  # run from a checkout
        return "0"
