"""Memory, disk and time of each job: formulas over the rates.

Legend: E events, I items, T texts, U users, C cores of all nodes, W workers of a training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from recsys.config import Recipe
from recsys.errors import RecipeError
from recsys.planning import rates
from recsys.planning.workload import Machines, Workload
from recsys.preparation.memory import TASK_GB, buckets_of

_GB: Final = 1e9


@dataclass(frozen=True)
class Estimate:
    """What one job takes.

    Attributes:
        job: its name.
        seconds: wall time, by part.
        process_gb: memory of its largest process, by part.
        num_processes: of that kind on one node at a time.
        disk_gb: what it leaves on disk, or in a store, by part.
        beside_gb: memory of other processes on that node.
    """

    job: str
    seconds: dict[str, float]
    process_gb: dict[str, float]
    num_processes: int
    disk_gb: dict[str, float]
    beside_gb: float = 0

    @property
    def hours(self) -> float:
        """Wall time."""
        return sum(self.seconds.values()) / 3600

    @property
    def largest_gb(self) -> float:
        """Memory of the largest process."""
        return sum(self.process_gb.values())

    @property
    def node_gb(self) -> float:
        """Memory of the node that holds most: its processes at a time, others', and Ray's own."""
        return rates.RAY_GB + self.beside_gb + self.num_processes * self.largest_gb


def estimates(log: Workload, machines: Machines, recipe: Recipe) -> list[Estimate]:
    """All jobs of the pipeline and the service, in order.

    Raises:
        RecipeError: the machines do not hold the workers of one training.
    """
    trials_at_once(machines, recipe)  # refuses
    jobs = [prepare(log, machines, recipe)]
    if recipe.pretrain.epochs:
        jobs.append(pretrain(log, machines, recipe))
    jobs += [make(log, machines, recipe) for make in (text_store, tune, embed, evaluate, serve)]
    return jobs


def prepare(log: Workload, machines: Machines, recipe: Recipe) -> Estimate:
    """The steps of `prepare`: split, build, relate.

    Time: E (split + build + relate) / C. Memory: that of the step which needs most on a node, with
    as many tasks at once as `data.memory_gb` allows. A task that splits holds a part, one that
    builds a bucket, one of relations a range of pairs; none grows with E.
    Disk: histories, daily counts and what is kept for the next run grow with E, relations with I a
    cut.
    """
    buckets = buckets_of(recipe.data, log.events)
    bucket = log.events / buckets * rates.BUCKET_BYTES / _GB
    steps = [
        (math.ceil(log.events / rates.PART_ROWS), {"a part of the log": rates.SPLIT_GB}),
        (buckets, {"a task": rates.BUILD_GB, "a bucket": bucket}),
        (machines.cores, {"a range of pairs": rates.RELATE_GB}),
    ]
    allowed = machines.memory_gb / 2 if recipe.data.memory_gb is None else recipe.data.memory_gb
    at_once = max(1, min(machines.cores, int(allowed / TASK_GB)))
    on_a_node = [(min(at_once, number), parts) for number, parts in steps]
    processes, largest = max(on_a_node, key=lambda step: step[0] * sum(step[1].values()))
    return Estimate(
        "prepare",
        {
            "start": rates.PREPARE_FIXED_S,
            "split and build": log.events * (rates.SPLIT_S + rates.BUILD_S) / machines.all_cores,
            "relations": log.events * rates.RELATE_S / machines.all_cores,
        },
        largest,
        processes,
        {
            "histories": log.events * rates.EVENT_DISK / _GB,
            "kept for the next run": log.events * rates.KEPT_DISK / _GB,
            "relations": log.items * rates.RELATIONS_DISK * rates.NUM_CUTS / _GB,
        },
    )


def pretrain(log: Workload, machines: Machines, recipe: Recipe) -> Estimate:
    """`pretrain`: T epochs / rate, over the cores of W workers; each holds the texts' tokens."""
    speed = _worker_speed(recipe) * recipe.train.most_workers
    return Estimate(
        "pretrain",
        {
            "start": rates.GROUP_START_S,
            "epochs": log.texts * recipe.pretrain.epochs / rates.PRETRAIN_TEXTS / speed,
        },
        {"a worker": rates.TRAIN_WORKER_GB, "tokens": log.texts * recipe.data.max_tokens * 4 / _GB},
        _workers_on_a_node(machines, recipe),
        {},
    )


def text_store(log: Workload, machines: Machines, recipe: Recipe) -> Estimate:
    """The first step of a search: all texts through the language model's frozen layers.

    Time: T / rate, over `embed.num_actors` processes; then T x T pairs of texts are compared, in
    one process. Memory: that process holds T x 384 floats. Disk: 12 KB a text.
    """
    vectors = log.texts * rates.TEXT_WIDTH * 4 / _GB
    return Estimate(
        "text store",
        {
            "encode": log.texts / rates.ENCODE_TEXTS / _encoders(machines, recipe),
            "similar texts": log.texts**2 * rates.SIMILAR_PAIR_S,
        },
        {"a process": rates.WORKER_GB, "vectors of all texts": vectors},
        1,
        {
            "states and vectors": log.texts * rates.TEXT_DISK / _GB,
            "similar items": log.items * rates.SIMILAR_DISK / _GB,
        },
    )


def tune(log: Workload, machines: Machines, recipe: Recipe) -> Estimate:
    """`tune`: every trial runs all its epochs; ASHA would stop some.

    Time: the start of the workers, which take one trial after another, and waves of trials x
    epochs. An epoch has U / (batch x W) steps; a step encodes
    `fresh_texts_per_step` texts with gradient and reads a window or more of each user. Then the
    head is fitted and the validation ranked, on at most `head_rows` and `valid_rows` baskets; the
    ranking grows with I.
    Memory of a worker: the cache of text vectors, T x 384 floats; an id vector an item with its
    gradient and two moments; item vectors and one block of scores while it validates.
    Disk: checkpoints hold the ids' vectors and moments; two a trial.
    """
    train, model = recipe.train, recipe.model
    fit = trials_at_once(machines, recipe)
    concurrent = min(recipe.tune.num_trials, recipe.tune.max_concurrent or fit, fit)
    waves = math.ceil(recipe.tune.num_trials / concurrent)
    batches = batch_sizes(recipe)
    epochs = sum(_epochs_s(log, recipe, batch) for batch in batches) / len(batches)
    ids = log.items * model.dim * 4 / _GB
    return Estimate(
        "tune",
        {"start": rates.GROUP_START_S, "epochs": waves * epochs},
        {
            "a worker": rates.TRAIN_WORKER_GB,
            "vectors of all texts": log.texts * (rates.TEXT_WIDTH * 4 + 8) / _GB,
            "ids and their moments": 4 * ids,
            "item vectors": ids,
            "scores": recipe.evaluate.batch_size * log.items * 4 / _GB,
        },
        min(concurrent * train.most_workers, _workers_on_a_node(machines, recipe)),
        {"checkpoints": recipe.tune.num_trials * 2 * 3 * ids},
        rates.WORKER_GB + math.ceil(concurrent / machines.nodes) * rates.TRIAL_GB,
    )


def batch_sizes(recipe: Recipe) -> tuple[int, ...]:
    """Sizes that a search draws from, each as often; of a range its ends."""
    space = recipe.tune.space.get("train.batch_size")
    return (recipe.train.batch_size,) if space is None else space.values


def _epochs_s(log: Workload, recipe: Recipe, batch_size: int) -> float:
    """Seconds of all epochs of one trial: steps, examples and fit of the head, validation."""
    train = recipe.train
    speed, workers = _worker_speed(recipe), train.most_workers
    windows = log.events / log.users / recipe.model.max_history
    windows = min(max(windows, 1), train.windows_per_user)
    steps = math.ceil(log.users / (batch_size * workers))
    fresh = train.fresh_texts_per_step or batch_size * windows * recipe.model.max_history
    trained = rates.GRADIENT_TEXTS / _trained_layers(recipe)
    step = min(fresh, log.texts) / trained + batch_size * windows * rates.WINDOW_S
    head = train.head_rows / workers * (rates.EXAMPLE_S + rates.HEAD_FIT_S)
    first = train.head_rows / workers * (rates.FIRST_EXAMPLE_S - rates.EXAMPLE_S)
    validation = train.valid_rows / workers * log.items * rates.VALIDATE_S
    return first + train.epochs * (steps * step / speed + head + validation / speed)


def embed(log: Workload, machines: Machines, recipe: Recipe) -> Estimate:
    """`embed`: T through the trained layers, then the index if there is one.

    Time: T x trained layers / rate over `embed.num_actors`; the index compares each item with
    4 sqrt(I) cells, in one process. Memory: the driver holds all text and item vectors.
    """
    trained = _trained_layers(recipe)
    texts = log.texts * trained / rates.NUM_LAYERS / rates.ENCODE_TEXTS
    has_index = recipe.embed.index_above is not None and log.items > recipe.embed.index_above
    cells = 4 * log.items**0.5 if has_index else 0
    items = log.items * recipe.model.dim * 4 / _GB
    return Estimate(
        "embed",
        {
            "start": rates.EMBED_FIXED_S,
            "encode": texts / _encoders(machines, recipe),
            "index": (log.items + rates.INDEX_SAMPLE) * cells * rates.INDEX_S,
        },
        {
            "the driver": rates.WORKER_GB,
            "vectors of all texts": log.texts * rates.TEXT_WIDTH * 4 / _GB,
            "ids, item vectors, index": (4 if has_index else 3) * items,
        },
        1,
        {"bundle": log.items * rates.BUNDLE_DISK / _GB},
    )


def evaluate(log: Workload, machines: Machines, recipe: Recipe) -> Estimate:
    """`evaluate`: every test basket ranks all I items, once a model.

    Time: baskets x I x (ours + baselines), over `evaluate.num_actors` processes. Memory: a block of
    baskets x I scores, and the vectors; the driver, which fits the baselines, holds all histories.
    """
    settings = recipe.evaluate
    baskets = log.events * rates.BASKETS_PER_EVENT
    baskets = min(baskets, settings.max_rows or baskets)
    model = rates.RANK_S + len(settings.baselines) * rates.BASELINE_S
    actors = min(settings.num_actors, machines.all_cores)
    scores = rates.RANK_MATRICES * settings.batch_size * log.items * 4 / _GB
    vectors = log.items * recipe.model.dim * 4 / _GB
    driver = log.events * rates.HISTORY_BYTES / _GB
    on_a_node = math.ceil(actors / machines.nodes)
    parts = {"a process": rates.WORKER_GB, "blocks of scores": scores, "item vectors": vectors}
    if driver > on_a_node * (scores + vectors):
        parts, on_a_node = {"the driver": rates.WORKER_GB, "all histories": driver}, 1
    return Estimate(
        "evaluate",
        {
            "start": rates.EVALUATE_FIXED_S,
            "rank": baskets * log.items * model / actors,
        },
        parts,
        on_a_node,
        {},
    )


def serve(log: Workload, machines: Machines, recipe: Recipe) -> Estimate:
    """`serve`: the first start takes the log's users over into the store, in one thread.

    Memory of a node: Ray, HAProxy, text encoder, the bundle's pages once, and a share for each of
    its replicas. In the store: histories of at most `serve.state.max_events_per_user` events.
    """
    state = recipe.serve.state
    events = min(log.events, log.users * state.max_events_per_user)
    per_node = math.ceil(recipe.serve.autoscaling.max_replicas / machines.nodes)
    bundle = log.items * rates.BUNDLE_DISK / _GB
    redis = log.users * rates.REDIS_USER + events * rates.REDIS_EVENT
    is_redis = state.backend == "redis"
    seed = events / (rates.REDIS_SEED if is_redis else rates.SQLITE_SEED)
    return Estimate(
        "serve",
        {"take over the log's users": seed},
        {
            "Ray, HAProxy, text encoder": rates.SERVE_NODE_GB - rates.RAY_GB,
            "the bundle": bundle,
            "further replicas": (per_node - 1) * rates.REPLICA_GB,
        },
        1,
        {
            "users, in Redis's memory": redis / _GB
        } if is_redis else {"users, in SQLite": events * rates.SQLITE_EVENT / _GB},
    )  # fmt: skip


def trials_at_once(machines: Machines, recipe: Recipe) -> int:
    """Groups of workers that the machines hold.

    Raises:
        RecipeError: not even one.
    """
    train = recipe.train
    fit = int(machines.all_cores // (train.most_workers * train.cpus_per_worker))
    if train.use_gpu:
        fit = min(fit, machines.all_gpus // train.most_workers)
    if fit < 1:
        what = "GPUs" if train.use_gpu and machines.all_gpus < train.most_workers else "cores"
        raise RecipeError(
            f"these machines have too few {what} for the workers of one training",
            field="train.num_workers", value=train.most_workers,
            fix="give more machines, or set train.num_workers, train.cpus_per_worker and "
            "train.use_gpu to what there is",
        )  # fmt: skip
    return fit


def _workers_on_a_node(machines: Machines, recipe: Recipe) -> int:
    """Workers of trainings that one node may hold at a time."""
    train = recipe.train
    fit = int(machines.cores // train.cpus_per_worker)
    return max(1, min(fit, machines.gpus) if train.use_gpu else fit)


def _worker_speed(recipe: Recipe) -> float:
    """Cores that one worker is worth."""
    train = recipe.train
    return rates.GPU_CORES[train.precision] if train.use_gpu else train.cpus_per_worker


def _encoders(machines: Machines, recipe: Recipe) -> float:
    """Cores that the processes which encode texts are worth: one core each, or one GPU."""
    if recipe.train.use_gpu:
        return min(recipe.embed.num_actors, machines.all_gpus) * rates.GPU_CORES["float32"]
    return min(recipe.embed.num_actors, machines.all_cores)


def _trained_layers(recipe: Recipe) -> int:
    """Layers of the language model that a step runs with gradient; at least one is run."""
    if recipe.model.tuning == "full":
        return rates.NUM_LAYERS
    return min(recipe.model.last_n, rates.NUM_LAYERS)
