"""Steps of Ray Train beside the same steps of bare processes, and of two workers beside one.

    python -m benchmarks.training.workers RUN [--json FILE] [--rounds N] [--steps N]

RUN is a run's folder, prepared (`recsys prepare`). The ways take turns: two workers of Ray Train,
two processes as `torchrun` would start them, one worker of Ray Train. All call the same `Worker`
with the recipe's batches of the same users in the same order, DDP over gloo, one thread each. Ray's
workers read through Ray Data; the processes hold all shards in memory before their first step.
Counted are the steps after the first. Where other work shares the machine, CPU seconds tell more
than the clock.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.spawn import spawn

from benchmarks.command import add_json, run_report
from benchmarks.training.ways import say
from ray_jobs.common.cluster import connected
from ray_jobs.common.giving_up import giving_up
from ray_jobs.common.texts import ensure_store
from ray_jobs.common.training_group import group_of_workers, summing
from recsys.artifacts.run import Run
from recsys.config import Recipe, recipe_from_dict
from recsys.data.histories import UserEvents
from recsys.errors import DataError
from recsys.preparation.prepared import Prepared
from recsys.preparation.shards import read_shard
from recsys.text.text_store import TextStore
from recsys.training.build import build_two_tower
from recsys.training.epoch_order import EpochOrder, Share, dealt
from recsys.training.worker import Worker

#: What Ray gives its workers; the bare processes take the same.
RAY_NICENESS = 15
TWO, BARE, ONE = "Ray Train, 2 workers", "bare processes, 2", "Ray Train, 1 worker"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training.workers",
        description="Ray Train beside bare processes, and two workers beside one.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder, e.g. runs/demo")
    add_json(parser)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of each way (3)")
    parser.add_argument("--steps", type=int, default=30, metavar="N", help="in a round (30)")
    return run_report(run, render, parser.parse_args(argv))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Let the ways take turns."""
    prepared = Prepared.open(options.run)
    raw = prepared.summary["recipe"] | {"run_dir": str(options.run.resolve())}
    rounds: dict[str, list[dict[str, Any]]] = {TWO: [], BARE: [], ONE: []}
    recipe = recipe_from_dict(raw)
    whole = prepared.summary["counts"]["users"] // (
        2 * recipe.train.batch_size * recipe.train.accumulate
    )
    if options.steps > whole:
        raise DataError(
            f"an epoch of two workers has {whole} whole steps", where=options.run,
            field="--steps", value=options.steps, fix="take fewer, or a run of more users",
        )  # fmt: skip
    with connected(recipe.ray, dashboard=True), tempfile.TemporaryDirectory() as scratch:
        ensure_store(Run.open(recipe).trained)
        for number in range(options.rounds):
            for way, told in rounds.items():
                out = Path(scratch) / f"{number}-{len(told)}-{way}"
                out.mkdir()
                config = {
                    "recipe": raw | {"train": raw["train"] | {"num_workers": 1 + (way != ONE)}},
                    "steps": options.steps, "out": str(out),
                }  # fmt: skip
                (_bare if way == BARE else _on_ray)(config)
                told.append(_together(out))
            say(f"round {number + 1} of {options.rounds}")
    return {"run": recipe.name, "torch": torch.__version__, **_summary(rounds)}


def _on_ray(config: dict[str, Any]) -> None:
    recipe, out = recipe_from_dict(config["recipe"]), Path(config["out"])
    callback = giving_up(0, out / "remarks.txt")
    group_of_workers(recipe, _ray_worker, config, "steps", out, callback).fit()


def _ray_worker(config: dict[str, Any]) -> None:
    import ray.train.torch

    from ray_jobs.common.training_loop import Group

    recipe = recipe_from_dict(config["recipe"])
    run = Run.open(recipe)
    group = Group(recipe.shared, run.prepared.folder, run.trained.text_store_folder)
    mine = _worker(recipe, group.prepared, group.store, group.rank, group.world)
    if group.world > 1:
        mine.wrapped = ray.train.torch.prepare_model(mine.model, move_to_device=False)
    share = _share(group.feed.num_users, group.rank, group.world)
    users = group.feed.batches(recipe.seed, 0, share, recipe.train.batch_size)
    _take_steps(mine, users, config)


def _bare(config: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        meet = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    spawn(_bare_worker, args=(config, meet), nprocs=2)  # type: ignore[no-untyped-call]


def _bare_worker(rank: int, config: dict[str, Any], meet: str) -> None:
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    os.nice(RAY_NICENESS)
    timeout = dt.timedelta(minutes=5)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=timeout)
    recipe = recipe_from_dict(config["recipe"])
    run = Run.open(recipe)
    store = TextStore.open(run.trained.text_store_folder)
    mine = _worker(recipe, run.prepared, store, rank, 2)
    mine.wrapped = DistributedDataParallel(mine.model)
    _take_steps(mine, _users(recipe, run.prepared, rank), config)
    dist.barrier()
    os._exit(0)  # torch 2.13 may wait for ever for the group's thread


def _worker(recipe: Recipe, prepared: Prepared, store: TextStore, rank: int, world: int) -> Worker:
    torch.set_num_threads(1)
    model, item_rows = build_two_tower(recipe, prepared)
    model.items.start_from(store.vectors, recipe.model.whitening)
    return Worker(recipe, prepared, store, model, item_rows, rank, world)


def _share(num_users: int, rank: int, world: int) -> Share:
    return dealt([[(0, num_users)]], world)[rank]


def _users(recipe: Recipe, prepared: Prepared, rank: int) -> Iterator[UserEvents]:
    """The batches that `Feed` gives, without Ray."""
    import pyarrow as pa

    shards = prepared.shards
    tables = [read_shard(path, prepared.catalogue.num_items) for path in shards]
    order = EpochOrder([table.num_rows for table in tables], recipe.seed, 0)
    left, size = None, recipe.train.batch_size
    for piece in order.pieces(_share(order.num_users, rank, 2)):
        rows = order.within(piece.shard)[piece.low : piece.high]
        table = tables[piece.shard].take(pa.array(rows))
        left = table if left is None else pa.concat_tables([left, table])
        while left.num_rows >= size:
            yield UserEvents.from_arrow(left[:size])
            left = left[size:]


def _take_steps(mine: Worker, users: Iterator[UserEvents], config: dict[str, Any]) -> None:
    """Take steps, and write what each took."""
    import psutil

    total = summing(mine.world, mine.device)
    waits: list[float] = []
    moments: list[tuple[float, float]] = []

    def waited_for() -> Iterator[UserEvents]:
        for _ in range(config["steps"] * mine.recipe.train.accumulate):
            started = time.perf_counter()
            batch = next(users, None)
            waits.append(time.perf_counter() - started)
            if batch is None:
                return
            yield batch

    def agree(more: bool, loss: float | None) -> bool:
        goes_on = total(float(more))[0] == mine.world
        if loss is not None:
            moments.append((time.perf_counter(), time.process_time()))
        return goes_on

    loss = mine.train_parts([waited_for()], config["steps"], agree)
    first, last = moments[1], moments[-1]
    told = {
        "rank": mine.rank,
        "loss": loss,
        "steps": len(moments) - 2,
        "wall_s": last[0] - first[0],
        "cpu_s": last[1] - first[1],
        "waited_s": sum(waits[2 * mine.recipe.train.accumulate :]),
        "pss": psutil.Process().memory_full_info().pss,
        "users_a_step": mine.recipe.train.batch_size * mine.recipe.train.accumulate,
    }
    Path(config["out"], f"{mine.rank}.json").write_text(json.dumps(told))


def _together(out: Path) -> dict[str, Any]:
    """A round of all workers of a way."""
    told = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    users = sum(each["steps"] * each["users_a_step"] for each in told)
    wall_s = max(each["wall_s"] for each in told)
    return {
        "loss": sum(each["loss"] for each in told),
        "users_per_s": users / wall_s,
        "cpu_ms_a_user": 1e3 * sum(each["cpu_s"] for each in told) / users,
        "waiting": sum(each["waited_s"] for each in told) / sum(each["wall_s"] for each in told),
        "pss_mb": statistics.mean(each["pss"] for each in told) / 1e6,
    }


def _summary(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    pairs = list(zip(rounds[TWO], rounds[BARE], rounds[ONE], strict=True))
    losses = [each["loss"] for way in (TWO, BARE) for each in rounds[way]]
    assert max(losses) - min(losses) < 1e-4 * abs(losses[0]), f"not the same steps: {losses}"
    ratios = {
        "users/s, Ray Train over bare processes": [
            ray["users_per_s"] / bare["users_per_s"] for ray, bare, _ in pairs
        ],
        "CPU seconds, bare processes over Ray Train": [
            bare["cpu_ms_a_user"] / ray["cpu_ms_a_user"] for ray, bare, _ in pairs
        ],
        "users/s, 2 workers over 1": [
            two["users_per_s"] / one["users_per_s"] for two, _, one in pairs
        ],
    }
    keys = ("users_per_s", "cpu_ms_a_user", "waiting", "pss_mb")
    return {
        "ways": {
            way: {key: _spread([each[key] for each in told]) for key in keys}
            for way, told in rounds.items()
        },
        "ratios": {name: _spread(values) for name, values in ratios.items()},
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def render(report: dict[str, Any]) -> list[str]:
    """The report as text."""
    lines = [
        f"{report['run']}, torch {report['torch']}; medians, and ranges over rounds",
        f"{'':<24}{'users/s':>22}{'CPU ms a user':>20}{'waiting for data':>20}{'PSS a worker':>14}",
    ]
    for way, told in report["ways"].items():
        users, cpu, waiting = (told[key] for key in ("users_per_s", "cpu_ms_a_user", "waiting"))
        lines.append(
            f"{way:<24}{_told(users, '.0f'):>22}{_told(cpu, '.2f'):>20}"
            f"{_told(waiting, '.1%'):>20}{told['pss_mb']['median']:>11.0f} MB"
        )
    width = max(map(len, report["ratios"]))
    lines += [f"{name:<{width}}  {_told(each, '.2f')}" for name, each in report["ratios"].items()]
    return lines


def _told(each: dict[str, float], form: str) -> str:
    return f"{each['median']:{form}} [{each['low']:{form}}, {each['high']:{form}}]"


if __name__ == "__main__":
    sys.exit(main())
