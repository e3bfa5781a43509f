"""The recipe: everything that decides a run, as data, checked once at load.

A recipe is a YAML file, read into frozen models. A key it does not know is an error that names the
nearest key it does; settings that contradict each other are refused here, not an hour later.
"""

from __future__ import annotations

import datetime as dt
import difflib
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from recsys.errors import RecipeError
from recsys.schema import EVENT_CODE, EVENT_TYPES, EVENTS, ITEMS, TEXT_FIELDS

EventName = Literal["impression", "view", "click", "add_to_cart", "purchase"]
ItemField = Literal["brand", "category", "price"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Section(BaseModel):
    """Base of every section: immutable, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Cuts(Section):
    """The global time cut, UTC: train < valid <= validation < test <= test window (< end).

    The last part of the training window, [head, valid), teaches the scoring head and not the
    encoders: the head must see the encoders' scores as they are on baskets they have not learned.
    """

    head: dt.datetime | None = None
    """Default: 28 days before `valid`."""
    valid: dt.datetime
    test: dt.datetime
    end: dt.datetime | None = None

    @field_validator("head", "valid", "test", "end")
    @classmethod
    def _utc(cls, value: dt.datetime | None) -> dt.datetime | None:
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=dt.UTC)

    @model_validator(mode="after")
    def _ordered(self) -> Cuts:
        if self.test <= self.valid:
            raise ValueError(
                f"data.cuts.test ({self.test}) must lie after data.cuts.valid ({self.valid})"
            )
        if self.head is not None and self.head >= self.valid:
            raise ValueError(
                f"data.cuts.head ({self.head}) must lie before data.cuts.valid ({self.valid})"
            )
        if self.end is not None and self.end <= self.test:
            raise ValueError(
                f"data.cuts.end ({self.end}) must lie after data.cuts.test ({self.test})"
            )
        return self

    @property
    def head_at(self) -> dt.datetime:
        """Start of the head's window."""
        return self.head or self.valid - dt.timedelta(days=28)


class Columns(Section):
    """Columns that a log calls otherwise: our name -> the log's; a folder's key counts as one."""

    events: dict[str, str] = {}
    items: dict[str, str] = {}

    @field_validator("events", "items")
    @classmethod
    def _ours(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        known = (EVENTS if info.field_name == "events" else ITEMS).names
        for name in value:
            if name not in known:
                near = difflib.get_close_matches(name.lower(), known, n=1)
                raise ValueError(
                    f"unknown column {name!r} on the left, where our names stand; "
                    + (f"did you mean {near[0]!r}?" if near else f"use {', '.join(known)}")
                )
        return value


class Data(Section):
    """Where the log lies and how it is read."""

    adapter: Literal["completejourney", "canonical"] = "canonical"
    source: str | None = None
    """Folder or URI that holds `events/` and `items/` (or `events.parquet`, `items.parquet`)."""
    columns: Columns = Columns()
    """With the canonical adapter: what the log calls our columns, where it is not our name."""
    items_by: Annotated[str, Field(min_length=1)] | None = None
    """With the canonical adapter: a column of the items files, whose largest value marks the newest
    row of an item. None: the folders say (`dt=`, `version=`, ...), if they have such keys."""
    event_types: dict[str, EventName | None] = {}
    """The log's own event names -> canonical ones; `null` leaves an event type out."""
    target_events: Annotated[tuple[EventName, ...], Field(min_length=1)] = ("purchase",)
    """The events that count as the wish fulfilled: training targets and relevant items."""
    cuts: Cuts
    count_every_days: Positive | None = 1
    """Popularity is counted anew every so many days: as often as a bundle is written and promoted.
    None: at the cuts alone."""
    text_fields: tuple[str, ...] = TEXT_FIELDS
    max_tokens: Annotated[int, Field(ge=3)] = 32
    """Of a text, the two that enclose it included; longer ones are cut."""
    num_buckets: Positive = 16
    max_events_per_user: Positive = 20_000
    max_quarantine_fraction: Fraction = 0.01
    max_clock_skew_s: Annotated[int, Field(ge=0)] = 300
    """How far a timestamp may lie in the future before its row is quarantined."""

    @field_validator("text_fields")
    @classmethod
    def _known_fields(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in TEXT_FIELDS:
                raise ValueError(f"unknown text field {name!r}; use {', '.join(TEXT_FIELDS)}")
        return value

    @model_validator(mode="after")
    def _source_given(self) -> Data:
        if self.adapter == "canonical" and not self.source:
            raise ValueError("data.source is needed with data.adapter=canonical")
        return self

    @model_validator(mode="after")
    def _columns_of_the_canonical(self) -> Data:
        for key, given in (("columns", self.columns != Columns()), ("items_by", self.items_by)):
            if given and self.adapter != "canonical":
                raise ValueError(
                    f"data.{key} is of data.adapter=canonical, and data.adapter is {self.adapter}"
                )
        return self


class Privacy(Section):
    """The key that turns user ids into pseudonyms."""

    key_env: str = "RAYCOMMEND_PSEUDONYM_KEY"
    """Environment variable with the key; it wins over the file."""
    key_file: str | None = None
    """File with the key; made (mode 0600) if missing. Default: the run's `pseudonym.key`."""


class Pretrain(Section):
    """Adaptation of the language model to the shop's texts by masked words, before training.

    It runs on the workers of `train`.
    """

    epochs: Annotated[int, Field(ge=0)] = 0
    """Over all texts; 0: the language model is used as it is."""
    last_n: Positive = 2
    """Layers that learn."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    batch_size: Positive = 64
    """Texts in a step of one worker."""
    mask_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    behaviour_share: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the steps that read behaviour sentences: texts in the order a user met them."""
    max_tokens: Annotated[int, Field(ge=3)] = 128
    """Of a behaviour sentence; a text alone has at most `data.max_tokens`."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of the texts that measure the perplexity and are never learned from."""


class Model(Section):
    """The item encoder, the user encoder and the scoring head."""

    language_model: str = "minilm"
    """`minilm` (comes with the package), or a BERT-like encoder: a folder or Hugging Face name."""
    tuning: Literal["frozen", "lora", "last_n", "full"] = "last_n"
    last_n: Positive = 1
    lora_rank: Positive = 8
    dim: Positive = 128
    num_layers: Positive = 2
    num_heads: Positive = 4
    dropout: Fraction = 0.1
    max_history: Positive = 128
    """Events of a user that the encoder reads (the side features read them all)."""
    id_dropout: Fraction = 0.3
    """Share of items whose id vector is hidden in a training step, so that text alone works too."""
    min_events_for_id: Positive = 5
    """Items with fewer training events have no id vector: too little to learn one from."""
    item_fields: tuple[ItemField, ...] = ("brand", "category", "price")
    """Fields of an item whose values have vectors of their own, beside the text's and the id's."""
    whitening: Fraction = 0.5
    """How far the text vectors' axes start at an equal spread: 0 as the language model has them, 1
    wholly. The few widest axes say what all texts share, and little of what is personal."""
    temperature: Annotated[float, Field(gt=0)] = 0.07
    side_features: bool = True
    """False: the score is the cosine of user and item alone, without popularity or own counts."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Model:
        if self.dim % self.num_heads:
            raise ValueError(
                f"model.dim ({self.dim}) must be a multiple of model.num_heads ({self.num_heads})"
            )
        return self


class Train(Section):
    """One training run."""

    num_workers: Positive = 2
    use_gpu: bool = False
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the language model's trained layers: `bfloat16` is mixed precision, for recent GPUs."""
    epochs: Positive = 3
    batch_size: Positive = 32
    """Users in a step of one worker."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    language_model_lr_factor: Annotated[float, Field(ge=0)] = 0.005
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_fraction: Fraction = 0.1
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    patience: Positive = 2
    """Epochs without a better validation nDCG@10 before training stops."""
    num_negatives: Positive = 4096
    fresh_texts_per_step: Positive | None = 96
    """Distinct texts a worker encodes with gradient in a step; `null`: all of the batch's."""
    max_vector_age: Positive = 400
    """Steps after which a cached text vector is encoded anew when a batch needs it."""
    event_weights: dict[EventName, Annotated[float, Field(ge=0)]] = {}
    """Loss weight of a target by its event type; 1 where not given."""
    windows_per_user: Positive = 2
    """Windows of `model.max_history` events from a user in an epoch, if there are that many."""
    head_rows: Positive = 8000
    """Baskets that the scoring head is fitted on (a seeded sample if there are more)."""
    new_item_weight: Annotated[float, Field(gt=0)] = 3.0
    """Weight, in the head's fit, of a relevant item that nobody wanted before the last 28 days,
    beside the others of its basket: above 1, new items get more room than their chances alone."""
    valid_rows: Positive = 2000
    """Validation baskets ranked after each epoch (a seeded sample if there are more)."""
    retrain: bool = False
    """Once the best epoch is known, train as many again on everything before `data.cuts.valid`, and
    fit the head on the validation window: nothing before the test window is left unused."""
    max_failures: Annotated[int, Field(ge=0)] = 2


class Range(Section):
    """A log-uniform range."""

    low: Annotated[float, Field(gt=0)]
    high: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.high < self.low:
            raise ValueError(f"high ({self.high}) lies below low ({self.low})")
        return self


class Tune(Section):
    """The search over learning rate and batch size."""

    num_trials: Positive = 4
    learning_rate: Range = Range(low=3e-4, high=5e-3)
    batch_size: Annotated[tuple[Positive, ...], Field(min_length=1)] = (16, 32)
    grace_epochs: Positive = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 2
    max_concurrent: Positive | None = None
    """Trials at once; default: as many as the cluster's CPUs and GPUs can hold."""


class Embed(Section):
    """Encoding of the catalogue."""

    num_actors: Positive = 2
    batch_size: Positive = 64
    index_above: Positive | None = 200_000
    """Catalogues of more items get an index: `/recommend` reads the part of them that holds 99 % of
    the best by the first stage. `null`: all items are always read."""


BaselineName = Literal[
    "popularity",
    "trending",
    "personal_frequency",
    "last_item",
    "item_knn",
    "als",
    "sasrec",
    "zero_shot",
]


class Evaluate(Section):
    """Whole-catalogue ranking of the test window."""

    baselines: tuple[BaselineName, ...] = (
        "popularity",
        "trending",
        "personal_frequency",
        "last_item",
        "item_knn",
        "zero_shot",
    )
    max_rows: Positive | None = None
    """Rank a seeded sample of the window's baskets; default: all of them."""
    num_bootstrap: Positive = 1000
    num_actors: Positive = 2
    batch_size: Positive = 64


class Promote(Section):
    """The gate in front of the registry."""

    registry: str = "runs/registry/{name}"
    """Folder of the bundles; one product's line, see `recsys.artifacts.lineage`."""
    metric: Literal["ndcg@10"] = "ndcg@10"
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


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
    """Folder; by default the bundle that the service is started with: the champion."""
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Share of the users, as a part of the sum over all arms that answer."""
    shadow: bool = False
    """Ranks what an other arm has answered and is compared with it; never answers."""
    exploration: Literal["none", "epsilon", "plackett_luce"] = "none"
    """How lists are drawn, and not only sorted; see `recsys.ranking.exploration`."""
    epsilon: Annotated[float, Field(gt=0, le=1)] | None = None
    """With `epsilon`: chance that a place goes to an item drawn evenly from those that are left."""
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """With `plackett_luce`: scores are divided by it; towards 0 lists are those of the scores."""

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
    """Whether items with a target event in the asker's history stay out of `/recommend`."""
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


class RayCluster(Section):
    """The Ray cluster that the jobs run on."""

    address: str | None = None
    """`auto` or an address joins a running cluster; default: `RAY_ADDRESS`, else a local one."""
    num_cpus: Positive | None = None
    """CPUs of a local cluster; default: all."""


class Recipe(Section):
    """A whole run, from the raw log to the service."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0)] = 7
    run_dir: str = "runs/{name}"
    data: Data
    privacy: Privacy = Privacy()
    pretrain: Pretrain = Pretrain()
    model: Model = Model()
    train: Train = Train()
    tune: Tune = Tune()
    embed: Embed = Embed()
    evaluate: Evaluate = Evaluate()
    promote: Promote = Promote()
    serve: Serve = Serve()
    ray: RayCluster = RayCluster()

    @property
    def root(self) -> Path:
        """The run's folder, absolute (Ray workers run elsewhere)."""
        return self._folder(self.run_dir)

    @property
    def registry(self) -> Path:
        """The registry's folder, absolute."""
        return self._folder(self.promote.registry)

    def _folder(self, text: str) -> Path:
        return Path(text.replace("{name}", self.name)).expanduser().absolute()

    def resolved(self) -> dict[str, Any]:
        """The recipe with every default filled in, as plain JSON data."""
        return self.model_dump(mode="json")

    def fingerprint(self, *sections: str) -> str:
        """SHA-256 over the named sections (all if none) and the seed; 16 hex digits."""
        data = self.resolved()
        picked = {name: data[name] for name in (*sections, "seed")} if sections else data
        return hashlib.sha256(json.dumps(picked, sort_keys=True).encode()).hexdigest()[:16]


def target_codes(recipe: Recipe) -> list[int]:
    """Codes of the events that count as the wish fulfilled."""
    return [EVENT_CODE[name] for name in recipe.data.target_events]


def load_recipe(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Read a recipe and apply `a.b=value` overrides (values are YAML).

    Raises:
        RecipeError: the file is missing or not YAML, a key is unknown, a value is wrong, two
            values contradict each other.
    """
    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise RecipeError(
            "no such recipe", where=path, mend="name a file, e.g. recipes/demo.yaml"
        ) from None
    except OSError as error:
        raise RecipeError(
            f"cannot be read: {error.strerror}", where=path, mend="name a readable file"
        ) from None
    # A day that no month has, a number of thousands of digits; thousands of brackets.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(
            f"not valid YAML: {error}", where=path, mend="correct the syntax"
        ) from None
    if not isinstance(raw, dict):
        raise RecipeError(
            "a recipe is a mapping of sections", where=path, mend="start with `name:` and `data:`"
        )
    for override in overrides:
        apply_override(raw, override)
    recipe = recipe_from_dict(raw, where=path)
    # Not of the model itself: a bundle that such a recipe once made is still served.
    buckets, workers = recipe.data.num_buckets, recipe.train.num_workers
    if buckets < workers:
        raise RecipeError(
            f"data.num_buckets ({buckets}) lies below train.num_workers ({workers}): each worker "
            "reads history shards of its own, and a bucket is one shard",
            where=path, field="data.num_buckets", value=buckets,
            mend=f"set data.num_buckets to {workers} or more, or train.num_workers to at most "
            f"{buckets}",
        )  # fmt: skip
    return recipe


def recipe_from_dict(raw: dict[str, Any], where: object = "recipe") -> Recipe:
    """Check plain data and make a `Recipe` of it; errors name `where`."""
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise RecipeError(
                "unknown key", where=where, field=field, mend=_nearest(field)
            ) from None
        if first["type"] == "missing":
            raise RecipeError(
                "missing key", where=where, field=field, mend=f"add `{field}`"
            ) from None
        problem = first["msg"].removeprefix("Value error, ")
        value = first["input"] if not isinstance(first["input"], dict | BaseModel) else None
        raise RecipeError(
            problem, where=where, field=field or None, value=value, mend="correct the value"
        ) from None


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set one key of plain data, in place, by `a.b=value` (the value is YAML).

    Raises:
        RecipeError: it is no override.
    """
    dotted, separator, text = override.partition("=")
    if not separator or not dotted:
        raise RecipeError(
            "not an override", where="--set", value=override, mend="write --set section.key=value"
        )
    node = raw
    *parents, leaf = dotted.split(".")
    for part in parents:
        child = node.get(part)
        if child is None:
            child = node[part] = {}
        if not isinstance(child, dict):
            raise RecipeError(
                "is a value, not a section", where="--set", field=dotted, mend=f"set {part} itself"
            )
        node = child
    try:
        node[leaf] = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise RecipeError(
            "not a YAML value", where="--set", field=dotted, value=text, mend="quote it"
        ) from None


def known_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> list[str]:
    """Every dotted key that a recipe may hold."""
    keys = []
    for name, info in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            keys += known_keys(info.annotation, f"{prefix}{name}.")
    return keys


def _nearest(field: str) -> str:
    known = known_keys()
    near = difflib.get_close_matches(field, known, n=1, cutoff=0.6)
    if not near:
        leaf = {key.rsplit(".", 1)[-1]: key for key in known}
        near = [
            leaf[name] for name in difflib.get_close_matches(field.rsplit(".", 1)[-1], leaf, n=1)
        ]
    return (
        f"did you mean `{near[0]}`?"
        if near
        else f"remove it; known sections: {', '.join(Recipe.model_fields)}"
    )


assert set(EVENT_TYPES) == set(EventName.__args__)  # type: ignore[attr-defined]
