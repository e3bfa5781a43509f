"""What an epoch's parts and the evaluation cost in one process, beside the least they could.

    python -m benchmarks.training.epoch RUN [--json FILE] [--rounds N]

RUN is a run's folder, prepared and with its text store (after `recsys train` or `tune`). One of
`train.num_workers` workers trains on its own shards, alone: it waits for no other and reads through
no Ray. All times are CPU seconds on one thread, as medians over rounds; the floor of an evaluation
is the bare matrix product of its questions and the items, and the ten best of each row.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.command import add_json, run_report
from benchmarks.training.rates import take_users
from benchmarks.training.ways import say
from recsys.artifacts.run import Run
from recsys.config import recipe_from_dict, target_codes
from recsys.evaluation.baselines import Recommends, TrainingLog, fit_baselines
from recsys.evaluation.judge import Judge, known_users
from recsys.evaluation.report import OURS
from recsys.preparation.prepared import Prepared
from recsys.ranking.scorer import Scorer
from recsys.text.text_store import TextStore
from recsys.training.build import build_two_tower
from recsys.training.worker import Worker

#: Baselines of the evaluation: those that are fitted in seconds.
BASELINES = ("popularity", "trending", "personal_frequency", "last_item", "zero_shot")
FLOOR = "bare product and top 10"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training.epoch",
        description="What an epoch's parts and the evaluation cost, beside the least they could.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder, e.g. runs/demo")
    add_json(parser)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of each part (3)")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="of training (20)")
    parser.add_argument("--baskets", type=int, default=512, metavar="N", help="evaluated (512)")
    return run_report(run, render, parser.parse_args(argv))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Time all parts."""
    torch.set_num_threads(1)
    prepared = Prepared.open(options.run)
    recipe = recipe_from_dict(prepared.summary["recipe"] | {"run_dir": str(options.run.resolve())})
    store = TextStore.open(Run.open(recipe).trained.text_store_folder)
    model, item_rows = build_two_tower(recipe, prepared)
    model.items.start_from(store.vectors, recipe.model.whitening)
    worker = Worker(recipe, prepared, store, model, item_rows, 0, recipe.train.most_workers)
    return {
        "run": recipe.name,
        "num_items": prepared.catalogue.num_items,
        "torch": torch.__version__,
        **_epoch(worker, options.steps, options.rounds),
        "evaluation": _evaluation(worker, options.baskets, options.rounds),
    }


def _epoch(worker: Worker, num_steps: int, rounds: int) -> dict[str, Any]:
    """An epoch's parts: the first time, when candidates are found, and from then on."""
    recipe, prepared = worker.recipe, worker.prepared
    shards, codes = prepared.shards[:: worker.world], target_codes(recipe)
    users = prepared.users(shards)
    head, validation = (
        prepared.questions(window, codes, shards=shards, most=most, seed=recipe.seed)[1]
        for window, most in (("head", recipe.train.head_rows), ("valid", recipe.train.valid_rows))
    )
    order, size = worker.rng(12).permutation(len(users)), recipe.train.batch_size
    steps = -(-len(users) // size)
    timed = min(num_steps, steps)
    batches = [take_users(users, order[n * size : (n + 1) * size]) for n in range(timed)]
    worker.world = 1  # it asks no other for the texts it encodes
    parts: dict[str, list[float]] = {"training": [], "examples": [], "fit": [], "validation": []}
    for number in range(rounds + 1):
        spent, _ = _timed(lambda: worker.train_epoch(batches, steps * rounds))
        parts["training"].append(spent * steps / timed)
        spent, examples = _timed(lambda: worker.head_examples(head))
        parts["examples"].append(spent)
        parts["fit"].append(_timed(partial(worker.fit_head, examples))[0])
        parts["validation"].append(_timed(lambda: worker.validate(validation))[0])
        say(f"epoch {number + 1} of {rounds + 1}")
    return {
        "steps": steps,
        "head_baskets": len(head),
        "validation_baskets": len(validation),
        "first": {name: values[0] for name, values in parts.items()},
        "later": {name: _spread(values[1:]) for name, values in parts.items()},
    }


def _evaluation(worker: Worker, num_baskets: int, rounds: int) -> dict[str, Any]:
    """CPU milliseconds a basket of each model, and of the floor."""
    recipe, prepared = worker.recipe, worker.prepared
    codes, cut_us = target_codes(recipe), prepared.summary["cuts_us"]["test"]
    users, questions = prepared.questions("test", codes)
    questions = questions[:num_baskets]
    known = known_users(users, questions, cut_us)
    scorer = worker.scorer("test")
    log = TrainingLog(
        users.before(cut_us), prepared.catalogue.num_items, codes, worker.store.vectors,
        prepared.catalogue.text_rows, prepared.daily_counts(), recipe.data.count_every_days,
    )  # fmt: skip
    models: dict[str, Recommends] = {OURS: scorer, **fit_baselines(BASELINES, log)}
    judge = Judge.of(prepared.stats("test"), recipe.seed)
    size = recipe.evaluate.batch_size
    ways: dict[str, Callable[[], object]] = {
        FLOOR: lambda: _product_and_top(scorer, len(questions), size),
        **{
            name: partial(judge.answers, {name: model}, questions, known, size)
            for name, model in models.items()
        },
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            found[name].append(_timed(way)[0] / max(len(questions), 1) * 1e3)
        say(f"evaluation {number + 1} of {rounds}")
    return {
        "baskets": len(questions),
        "cpu_ms": {name: _spread(values) for name, values in found.items()},
        "over_floor": {
            name: _spread(np.divide(values, found[FLOOR]).tolist())
            for name, values in found.items()
            if name != FLOOR
        },
    }


def _product_and_top(scorer: Scorer, num_baskets: int, size: int) -> None:
    part = scorer.item_part
    assert isinstance(part, torch.Tensor)
    asked = torch.ones((min(size, num_baskets), part.shape[1]))
    for _ in range(0, num_baskets, size):
        (asked @ part.T).topk(min(10, len(part)))


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of some work, and what it returned."""
    started = time.process_time()
    found = work()
    return time.process_time() - started, found


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "low": min(values), "high": max(values)}


def render(report: dict[str, Any]) -> list[str]:
    """The report as text."""
    first, later = report["first"], report["later"]
    training = later["training"]["median"]
    lines = [
        f"an epoch of one worker, {report['steps']:,} steps, CPU seconds",
        f"{'':<28}{'first':>8}{'later':>8}  spread",
        *(
            f"{name:<28}{first[name]:>8.2f}{each['median']:>8.2f}  "
            f"{each['low']:.2f} to {each['high']:.2f}"
            for name, each in later.items()
        ),
    ]
    rest = sum(later[name]["median"] for name in later) - training
    lines.append(f"head and validation are {rest / training:.0%} of the training's time")
    evaluation = report["evaluation"]
    lines += [
        "",
        f"evaluation, {report['num_items']:,} items, CPU milliseconds a basket",
        *(
            f"{name:<28}{each['median']:>8.2f}  {each['low']:.2f} to {each['high']:.2f}"
            + (f"  {over['median']:.1f} x" if (over := evaluation["over_floor"].get(name)) else "")
            for name, each in evaluation["cpu_ms"].items()
        ),
    ]
    return lines


if __name__ == "__main__":
    sys.exit(main())
