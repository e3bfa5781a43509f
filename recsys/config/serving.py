"""`serve`: the service, its scaling, stores, access and arms."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from recsys.config.base import EventName, Fraction, Port, Positive, Section
from recsys.config.objective import Objective
from recsys.schema import PLACEMENT
from recsys.storage.location import place_of


class Autoscaling(Section):
    """Ray Serve's `autoscaling_config` for the ranking deployment."""

    _key: ClassVar[str] = "serve.autoscaling"

    min_replicas: Positive = 1
    max_replicas: Positive = 2
    target_ongoing_requests: Annotated[float, Field(gt=0)] = 4
    upscale_delay_s: Annotated[float, Field(ge=0)] = 3
    downscale_delay_s: Annotated[float, Field(ge=0)] = 60

    @model_validator(mode="after")
    def _ordered(self) -> Autoscaling:
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"{self._key}.max_replicas ({self.max_replicas}) lies below "
                f"{self._key}.min_replicas ({self.min_replicas})"
            )
        return self


class TextEncoderAutoscaling(Autoscaling):
    """The same for the deployment of the language model, which reads items that come as text."""

    _key: ClassVar[str] = "serve.text_encoder"

    min_replicas: Annotated[int, Field(ge=0)] = 1
    """With 0 none runs while no item comes as text, and the first one waits for its start."""


class State(Section):
    """The store of user histories that the service reads and writes."""

    backend: Literal["sqlite", "redis", "memory"] = "sqlite"
    path: str | None = None
    """SQLite file; default: `state.sqlite` in the run folder."""
    url: str | None = None
    """Redis or Valkey server; default: environment variable `RAYCOMMEND_REDIS_URL`."""
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._{}-]+$")] = "{name}"
    """Begin of the server's keys; services that share a server have one each."""
    max_events_per_user: Positive = 20_000
    """With fewer than `data.max_events_per_user` the service knows less of a user than training
    and evaluation did."""
    max_age_days: Annotated[float, Field(gt=0)] | None = None
    """Older events are not answered from, and are deleted in time; None: never."""

    @model_validator(mode="after")
    def _no_password(self) -> State:
        """Keep passwords out of what the recipe is copied into; the message repeats no value."""
        if self.url is not None and ("@" in self.url or "password" in self.url):
            raise ValueError(
                "serve.state.url holds a user or a password, and recipes are copied into bundles; "
                "leave it null and give the URL in the environment variable RAYCOMMEND_REDIS_URL"
            )
        return self


class Access(Section):
    """Who may ask the service."""

    keys: str | None = None
    """File of API keys (`recsys keys`); without it whoever reaches the service may ask."""
    requests_per_s: Annotated[float, Field(gt=0)] | None = None
    """What each key may ask of each replica; with two seconds' worth saved up."""
    origins: tuple[Annotated[str, Field(pattern=r"^https?://[^/*\s]+$")], ...] = ()
    """Web pages of these origins may ask from a browser (CORS); by default of none."""

    @model_validator(mode="after")
    def _rate_of_keys(self) -> Access:
        if self.requests_per_s is not None and self.keys is None:
            raise ValueError(
                "serve.access.requests_per_s counts by key: set serve.access.keys, or leave it out"
            )
        return self


class Arm(Section):
    """One of several bundles, or ways to answer with a bundle, behind one service."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    """Told by answers, metrics and impressions."""
    bundle: str | None = None
    """Folder or URI; by default the bundle that the service is started with: the champion."""
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Share of the users, as a part of the sum over all arms that answer."""
    shadow: bool = False
    """Ranks what an other arm has answered and is compared with it; never answers."""
    exploration: Literal["none", "epsilon", "plackett_luce"] = "none"
    """How lists are drawn, and not only sorted; see `recsys.ranking.exploration`."""
    epsilon: Annotated[float, Field(gt=0, le=1)] | None = None
    """With `epsilon`: probability that a place goes to an item sampled uniformly from the rest."""
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """With `plackett_luce`: scores are divided by it; towards 0 lists are those of the scores."""
    objective: Objective | None = None
    """What the arm orders lists by, at every placement; null: as `serve.objectives` and
    `serve.objective` say."""

    @field_validator("bundle")
    @classmethod
    def _a_place(cls, value: str | None) -> str | None:
        if value is not None:
            place_of(value)
        return value

    @model_validator(mode="after")
    def _of_its_exploration(self) -> Arm:
        for name, way in (("epsilon", "epsilon"), ("temperature", "plackett_luce")):
            if (getattr(self, name) is not None) != (self.exploration == way):
                raise ValueError(
                    f"serve.arms, {self.name}: `{name}` is needed with exploration: {way}, and "
                    f"with it alone (exploration is {self.exploration})"
                )
        if self.shadow and self.explores:
            raise ValueError(
                f"serve.arms, {self.name}: a shadow arm never answers, so it cannot explore; "
                "leave out `shadow` or `exploration`"
            )
        return self

    @property
    def explores(self) -> bool:
        """Whether lists are drawn."""
        return self.exploration != "none"


class Serve(Section):
    """The service."""

    host: str = "127.0.0.1"
    port: Port = 8000
    grpc_port: Port | None = None
    """Where the hot routes are answered over gRPC as well; null: nowhere."""
    autoscaling: Autoscaling = Autoscaling()
    max_ongoing_requests: Positive = 16
    max_queued_requests: Positive = 256
    cpus_per_replica: Annotated[float, Field(ge=0)] = 0.5
    text_encoder: TextEncoderAutoscaling = TextEncoderAutoscaling()
    diversity: Fraction = 0.0
    """0 shows the best scores; towards 1 a list's items differ more (`recsys.ranking.rerank`)."""
    max_per_category: Positive | None = None
    """Items of one category in a list, at most."""
    exclude_owned: bool = False
    """Leave items with a target event in the user's history out of `/recommend`."""
    objective: Objective = "relevance"
    """What lists are ordered by: `relevance`, the score; or, of a bundle with outcome heads, the
    expected `click`, `purchase`, `revenue` or `dwell` of showing an item, or weights over them:
    `{click: 1, purchase: 20}`. See [objectives](serving/objectives.md)."""
    objectives: dict[Annotated[str, Field(pattern=PLACEMENT)], Objective] = {}
    """The same by placement, for requests that tell theirs."""
    objective_candidates: Positive = 300
    """Of the catalogue, so many items of the best score compete for the objective."""
    grace_s: Annotated[float, Field(ge=0)] = 2.0
    """Between the signal to end and the closing of the port: `/readyz` says 503 and everything is
    answered, so that a balancer turns away first."""
    verbs: dict[EventName, Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")]] = {}
    """What explanations say that a user did, by event type, `{}` for the item's title: `purchase:
    "played {}"`. By default by the name in `data.event_types`, where it is the only one for its
    type and a verb of the past ("played"), else "bought {}" and the like."""
    default_k: Positive = 10
    max_k: Positive = 1000
    max_candidates: Annotated[int, Field(ge=1, le=100_000)] = 10_000
    log_requests: Fraction = 0.01
    """Share of requests that is logged; failures (5xx) and those above a second always are."""
    max_added_items: Positive = 10_000
    """Items that `POST /items` may add to the served bundle's catalogue: each is scored in each
    request, and read by each replica when it starts."""
    state: State = State()
    impressions: bool = True
    """Whether every answered list is logged, in `feedback/impressions` of the run's folder."""
    access: Access = Access()
    arms: tuple[Arm, ...] = ()
    """Several bundles behind one service, by the share of users that each answers; none: one."""
    arms_salt: str = "raycommend"
    """With another one, users are assigned to arms anew."""

    @model_validator(mode="after")
    def _two_ports(self) -> Serve:
        if self.grpc_port == self.port:
            raise ValueError(f"serve.port and serve.grpc_port are the same: {self.port}")
        return self

    @model_validator(mode="after")
    def _arms_fit(self) -> Serve:
        names = [arm.name for arm in self.arms]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"serve.arms: name given twice: {', '.join(sorted(twice))}")
        answering = [arm for arm in self.arms if not arm.shadow]
        if self.arms and not any(arm.weight for arm in answering):
            raise ValueError(
                "serve.arms: no arm would answer; give one that is no shadow a weight above 0"
            )
        drawn = [arm.name for arm in answering if arm.explores]
        if drawn and (self.diversity or self.max_per_category is not None):
            raise ValueError(
                f"serve.arms: {', '.join(drawn)} explores, and the propensities of a list that "
                "serve.diversity or serve.max_per_category has rearranged are not known; set "
                "diversity to 0 and max_per_category to null, or exploration to none"
            )
        return self

    @model_validator(mode="after")
    def _shared_state(self) -> Serve:
        if self.state.backend == "memory" and self.autoscaling.max_replicas > 1:
            raise ValueError(
                "serve.state.backend=memory keeps users in one replica, but "
                f"serve.autoscaling.max_replicas is {self.autoscaling.max_replicas}; "
                "use sqlite, redis or one replica"
            )
        if self.default_k > self.max_k:
            raise ValueError(
                f"serve.default_k ({self.default_k}) lies above serve.max_k ({self.max_k})"
            )
        if self.max_ongoing_requests < self.autoscaling.target_ongoing_requests:
            raise ValueError(
                f"serve.max_ongoing_requests ({self.max_ongoing_requests}) lies below "
                "serve.autoscaling.target_ongoing_requests "
                f"({self.autoscaling.target_ongoing_requests}): the deployment could never scale up"
            )
        return self
