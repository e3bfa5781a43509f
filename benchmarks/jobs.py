"""What each job costs beside the least it could: its bare reads, encodings and products.

    python -m benchmarks.jobs [--users N] [--rounds N] [--json FILE]

By default on some households of the demo's log (extra `demo`), all their events, and the items they
had. Each job's own work runs in this process, without Ray, on one thread; times are CPU seconds, so
that other work on the machine changes them little. `benchmarks.floors` says what each floor is.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks import floors
from benchmarks.command import add_json, add_overrides, overridden, run_report
from benchmarks.quality.completejourney import write
from benchmarks.training.rates import take_users
from benchmarks.training.ways import say
from ray_jobs.common.texts import ensure_store, text_vectors
from ray_jobs.embed import assemble
from recsys.artifacts.checkpoint import save
from recsys.artifacts.progress import Progress
from recsys.artifacts.run import Run
from recsys.config import Recipe, target_codes
from recsys.evaluation.baselines import TrainingLog, fit_baselines
from recsys.evaluation.judge import Judge, known_users
from recsys.evaluation.report import COLUMNS, OURS, summarise
from recsys.model.language import load_language_model
from recsys.model.ranking_head import HeadExamples, ScoringHead
from recsys.preparation.prepared import Prepared
from recsys.preparation.preparing import prepare
from recsys.ranking.scorer import Scorer
from recsys.recommender.loading import scorer_on
from recsys.schema import Col
from recsys.training.build import build_two_tower
from recsys.training.worker import Worker

#: The demo's settings, for one worker and one epoch.
SETTINGS: dict[str, Any] = {
    "name": "jobs",
    "data": {"text_fields": ["title", "brand", "tags"], "max_tokens": 24},
    "model": {"dim": 64, "max_history": 100},
    "train": {
        "num_workers": 1, "windows_per_user": 1, "num_negatives": 2048, "batch_size": 8,
        "fresh_texts_per_step": 48, "head_rows": 1000, "new_item_weight": 1, "valid_rows": 750,
    },
}  # fmt: skip
METRIC = "times_floor"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.jobs",
        description="What each job costs beside the least it could.",
    )
    parser.add_argument("--log", type=Path, metavar="DIR",
                        help="another log, as `benchmarks.quality` reads it")  # fmt: skip
    parser.add_argument("--users", type=int, default=150, metavar="N",
                        help="of the log, the first by id (150)")  # fmt: skip
    for name, cut in (("valid", "2017-11-01"), ("test", "2017-12-01")):
        parser.add_argument(f"--{name}", type=date.fromisoformat, default=cut, metavar="DATE",
                            help=f"the cut ({cut})")  # fmt: skip
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="of training (20)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N",
                        help="of what is done more than once: head, validation, evaluation (3)"
                        )  # fmt: skip
    parser.add_argument("--work", type=Path, metavar="DIR", help="for files (a temporary folder)")
    add_overrides(parser)
    add_json(parser)
    return run_report(run, render, parser.parse_args(argv))


@dataclass
class Clock:
    """CPU seconds of jobs and of their floors.

    Attributes:
        found: job -> rounds of (seconds, seconds of its floor).
    """

    found: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def time(self, job: str, work: Callable[[], Any], floor: Callable[[Any], Any]) -> Any:
        """Do some work, then its floor, which is told what the work returned."""
        spent, made = _timed(work)
        least, _ = _timed(lambda: floor(made))
        self.found.setdefault(job, []).append((spent, least))
        say(f"{job}: {spent:.2f} s, the floor {least:.2f} s")
        return made


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Time all jobs."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        files = _part_of_log(options, work)
        raw = SETTINGS | {"run_dir": str(work / "run")}
        raw["data"] = SETTINGS["data"] | {
            "source": str(work / "log"),
            "cuts": {"valid": str(options.valid), "test": str(options.test)},
        }
        raw["train"] = dict(SETTINGS["train"])
        recipe = overridden(raw, options.overrides)
        return _time_all(recipe, files, options)


def _part_of_log(options: argparse.Namespace, work: Path) -> list[Path]:
    """Files of the log of some users, with the items they had."""
    source, target = options.log, work / "log"
    if source is None:
        source = work / "whole"
        write(source, options.valid)
    events = pl.read_parquet(source / "events.parquet")
    users = events[Col.user].unique().sort().head(options.users)
    events = events.filter(pl.col(Col.user).is_in(users.implode()))
    items = pl.read_parquet(source / "items.parquet")
    items = items.filter(pl.col(Col.item).is_in(events[Col.item].unique().implode()))
    target.mkdir(parents=True)
    paths = [target / "events.parquet", target / "items.parquet"]
    for frame, path in zip((events, items), paths, strict=True):
        frame.write_parquet(path)
    return paths


def _time_all(recipe: Recipe, files: Sequence[Path], options: argparse.Namespace) -> dict[str, Any]:
    clock, job = Clock(), Run.open(recipe)
    clock.time("prepare", lambda: prepare(recipe), lambda _: floors.read(files))
    prepared, size = Prepared.open(recipe.root), recipe.embed.batch_size
    language = load_language_model(recipe.model).eval()
    store = clock.time(
        "text store", lambda: ensure_store(job, _here),
        lambda _: floors.encode_tokens(language, prepared, size),
    )  # fmt: skip
    model, item_rows = build_two_tower(recipe, prepared)
    model.items.start_from(store.vectors, recipe.model.whitening)
    worker = Worker(recipe, prepared, store, model, item_rows)
    _time_epoch(clock, worker, options)
    checkpoint = recipe.root / "checkpoint"
    checkpoint.mkdir()
    save(checkpoint, model, worker.head, worker.optimizer, Progress(until="head", epoch=1))

    def embed() -> Any:
        found = text_vectors(job, checkpoint, _here)
        bundle = assemble(job.bundle_folder, recipe, prepared, checkpoint, found.vectors, store)
        recipe.shared.drop(found.folder)  # the next round is to encode them, too
        return bundle

    bundle = clock.time("embed", embed, lambda _: floors.encode_states(model.language, store, size))
    _time_evaluation(clock, recipe, prepared, store, bundle, options.rounds)
    return {
        "dataset": "jobs",
        "torch": torch.__version__,
        "counts": prepared.summary["counts"],
        "num_items": prepared.catalogue.num_items,
        "seconds": clock.found,
        "rows": [
            {"model": name, "slice": "all", "metric": METRIC} | _spread(rounds)
            for name, rounds in clock.found.items()
        ],
    }


def _time_epoch(clock: Clock, worker: Worker, options: argparse.Namespace) -> None:
    """Steps, then the head's fit and the validation; the first time they find their candidates."""
    recipe, prepared = worker.recipe, worker.prepared
    train, codes = recipe.train, target_codes(recipe)
    users = prepared.users()
    head, valid = (
        prepared.questions(window, codes, most=most, seed=recipe.seed)[1]
        for window, most in (("head", train.head_rows), ("valid", train.valid_rows))
    )
    order, size = worker.rng(12).permutation(len(users)), train.batch_size
    num_steps = min(options.steps, -(-len(users) // size))
    batches = [take_users(users, order[n * size : (n + 1) * size]) for n in range(num_steps)]
    language = worker.model.language
    clock.time(
        "training",
        lambda: worker.train_epoch(batches, 10 * num_steps),
        lambda _: floors.encode_with_gradient(
            language, worker.store, train.fresh_texts_per_step or 1, num_steps
        ),
    )
    for number in range(options.rounds):
        _time_first_fit(clock, worker, worker.head_examples(head))
        clock.time(
            "validation" if number else "first validation",
            lambda: worker.validate(valid),
            lambda _: floors.products_and_top(worker.scorer("valid"), len(valid), 64),
        )


def _time_first_fit(clock: Clock, worker: Worker, examples: HeadExamples) -> None:
    """Fit an unfitted head; the floor has as many evaluations of the loss."""
    unfitted = ScoringHead(worker.recipe.model.temperature)
    worker.head.load_state_dict(unfitted.state_dict())
    sums: list[None] = []
    clock.time(
        "head's first fit",
        lambda: worker.fit_head(examples, reduce=lambda _: sums.append(None)),
        lambda _: floors.head_products(worker.head, examples, len(sums) - 1),
    )


def _time_evaluation(
    clock: Clock, recipe: Recipe, prepared: Prepared, store: Any, bundle: Any, rounds: int
) -> None:
    """Fit the baselines; all models answer the test window."""
    codes, cut_us = target_codes(recipe), prepared.summary["cuts_us"]["test"]
    settings, scorer = (
        recipe.evaluate,
        scorer_on(bundle, prepared, "test", store.content_similarity),
    )
    users, questions = prepared.questions("test", codes)
    known, judge = known_users(users, questions, cut_us), Judge.of(prepared.stats("test"), 7)

    def fit() -> dict[str, Any]:
        log = TrainingLog(
            users.before(cut_us), prepared.catalogue.num_items, codes, store.vectors,
            prepared.catalogue.text_rows, prepared.daily_counts(), recipe.data.count_every_days,
        )  # fmt: skip
        return fit_baselines(settings.baselines, log)

    spent, baselines = _timed(fit)
    say(f"baselines: {spent:.2f} s")
    user_ids = np.array(users.user_ids)[questions.user_index]
    every = {OURS: scorer, **baselines}
    for name, models in {"evaluate, ours alone": {OURS: scorer}, "evaluate": every}.items():
        answers = partial(judge.answers, models, questions, known, settings.batch_size)
        floor = partial(_floor_of_answers, scorer, len(questions), settings.batch_size, len(models))
        for _ in range(rounds):
            values = clock.time(name, answers, floor)
    clock.time(
        "intervals",
        lambda: summarise(values, user_ids, num_bootstrap=settings.num_bootstrap, seed=7),
        lambda _: floors.resample(len(every), len(COLUMNS), len(users), settings.num_bootstrap),
    )


def _floor_of_answers(scorer: Scorer, num: int, size: int, num_models: int, _: object) -> None:
    for _ in range(num_models):
        floors.products_and_top(scorer, num, size)


def _here(_: Recipe, task: Any, num_texts: int) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """All texts by a task, in this process."""
    task.load()
    yield 0, num_texts, task.encode(0, num_texts)


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of some work, and what it returned."""
    started = time.process_time()
    found = work()
    return time.process_time() - started, found


def _spread(rounds: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Job over floor: the median over rounds, and its ends."""
    ratios = [spent / max(floor, 1e-9) for spent, floor in rounds]
    return {"value": float(np.median(ratios)), "low": min(ratios), "high": max(ratios)}


def render(report: dict[str, Any]) -> list[str]:
    """The report as text."""
    counts = report["counts"]
    lines = [
        f"{counts['users']:,} users, {counts['events']:,} events, {report['num_items']:,} items, "
        f"{counts['test_baskets']:,} test baskets; CPU seconds on one thread",
        f"{'job':<24}{'job':>9}{'floor':>9}{'ratio':>8}  spread",
    ]
    for row in report["rows"]:
        job, floor = np.median(report["seconds"][row["model"]], axis=0)
        lines.append(
            f"{row['model']:<24}{job:>9.2f}{floor:>9.3f}{row['value']:>8.1f}  "
            f"{row['low']:.1f} to {row['high']:.1f}"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
