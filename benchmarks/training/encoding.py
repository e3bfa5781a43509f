"""How fast training is beside encoding every occurrence, and beside the textbook's cross-encoder.

    python -m benchmarks.training.encoding DIR [--json FILE] [--epochs N] [--seconds S]

DIR is a folder of `benchmarks.quality`. Three ways (see `benchmarks.training.ways`) train on the
same batches, in one process and by turns, since the speed of a shared machine changes: rates are
medians over rounds, and ratios are those of CPU time as well. Then each trains for a while and they
rank the same validation questions: what is faster must not be worse.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.command import run_report
from benchmarks.training.data import add_data_options, data_of
from benchmarks.training.quality import METRIC, rank_all, rerank_all
from benchmarks.training.rates import (
    Rate,
    batches_of,
    for_ever,
    frozen_cost,
    measure,
    rate_figures,
    sample,
    with_store,
)
from benchmarks.training.ways import (
    EVERY,
    EXACT,
    ONCE,
    ONCE_ALIKE,
    PAIRED_EXAMPLES,
    TEXTBOOK,
    EveryOccurrence,
    Once,
    Textbook,
    fresh,
    num_layers,
    say,
)
from recsys.config import Recipe, target_codes
from recsys.evaluation.gate import comparison
from recsys.features.windows import TrainingBatch
from recsys.preparation.prepared import Prepared
from recsys.text.text_store import TextStore

#: Negatives of `EVERY`. With ours it would encode the whole catalogue in every step.
NEGATIVES = 128


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_report(run, render, _parser().parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training.encoding",
        description="Examples trained a second: ours, every occurrence encoded, the textbook.",
    )
    add_data_options(parser, "encoding")
    parser.add_argument(
        "--epochs", type=int, default=3, metavar="N", help="of each way, at most (default 3)"
    )
    parser.add_argument(
        "--seconds", type=float, default=90, metavar="S",
        help="each way's training, about; a round of rates takes an eighth of it (default 90)",
    )  # fmt: skip
    parser.add_argument("--users", type=int, default=600, metavar="N", help="learned from (600)")
    parser.add_argument(
        "--questions",
        type=int,
        default=100,
        metavar="N",
        help="that the textbook answers, if it can in the time of its training (100)",
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of torch (1)")
    return parser


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Prepare the folder, then compare."""
    torch.set_num_threads(options.threads)
    benchmark, recipe, prepared, store = data_of(options, "encoding")
    name = options.folder.resolve().name
    return {"dataset": name, "protocol": benchmark.protocol} | compare(
        recipe, prepared, store,
        epochs=options.epochs, seconds=options.seconds, num_users=options.users,
        num_questions=options.questions,
    )  # fmt: skip


def compare(
    recipe: Recipe,
    prepared: Prepared,
    store: TextStore,
    *,
    epochs: int,
    seconds: float,
    num_users: int,
    num_questions: int,
) -> dict[str, Any]:
    """Rates, then quality; see the module.

    Args:
        recipe: ours; `EVERY` and `EXACT` have fewer negatives.
        prepared: the data.
        store: their texts' states.
        epochs: that a way trains at most.
        seconds: that a way trains at most, about: as many steps as its rate allows.
        num_users: learned from.
        num_questions: that the textbook answers, if it can in the time of its training.
    """
    make = _ways(recipe, prepared, store)
    ways = {name: make[name]() for name in (ONCE, EVERY, TEXTBOOK, EXACT)}
    ours = ways[ONCE]
    learners = sample(prepared.users().before(ours.cut_us), num_users, recipe.seed)
    batches = batches_of(ours, learners)
    num_examples = sum(len(batch.target_items) for batch in batches)
    say(f"{len(learners):,} users, {len(batches)} batches, {num_examples:,} examples")
    ours.age()
    rates = measure(ways, batches, seconds / 8)
    of_store = _store_figures(ours, rates, prepared, recipe)
    trained = train_all(make, rates, batches, epochs, seconds)
    workers = {name: each.way for name, each in trained.items() if name != TEXTBOOK}
    quality = rank_all(workers, prepared, recipe)
    reranked = rerank_all(workers, trained[TEXTBOOK].way, prepared, recipe, num_questions, seconds)
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "num_items": prepared.catalogue.num_items,
        "num_texts": prepared.catalogue.num_texts,
        "num_users": len(learners),
        "num_batches": len(batches),
        "num_examples": num_examples,
        "layers": {
            "trained": len(ours.model.language.trained_layers),
            "all": num_layers(ours.model.language),
        },
        "textbook_tokens": ways[TEXTBOOK].width,
        "negatives": _num_negatives(recipe, prepared.catalogue.num_items),
        "rates": {name: rate_figures(rate, rates[ONCE]) for name, rate in rates.items()},
        "store": of_store,
        "trained": {
            name: {"steps": each.steps, "examples": each.examples, "seconds": each.seconds}
            for name, each in trained.items()
        },
        "quality": quality,
        "reranked": reranked,
    }


def _ways(recipe: Recipe, prepared: Prepared, store: TextStore) -> dict[str, Callable[[], Any]]:
    """Name -> makes the untrained way, in the order of training."""
    alike = _training(recipe, num_negatives=NEGATIVES)
    exact = _training(alike, fresh_texts_per_step=None)
    return {
        ONCE: lambda: fresh(Once, recipe, prepared, store),
        EXACT: lambda: fresh(Once, exact, prepared, store),
        EVERY: lambda: fresh(EveryOccurrence, alike, prepared, store),
        TEXTBOOK: lambda: Textbook(recipe, prepared),
        ONCE_ALIKE: lambda: fresh(Once, alike, prepared, store),
    }


def _store_figures(
    ours: Once, rates: dict[str, Rate], prepared: Prepared, recipe: Recipe
) -> dict[str, Any]:
    """Rates with the frozen layers' work counted in, see `with_store`."""
    cpu_s = frozen_cost(ours) * prepared.catalogue.num_texts
    in_log = np.isin(prepared.users().before(ours.cut_us).event_codes, target_codes(recipe))
    return with_store(rates, cpu_s, int(in_log.sum()), recipe.train.epochs)


def _num_negatives(recipe: Recipe, num_items: int) -> dict[str, int]:
    """Way -> negatives of a step, or of an example where it is paired."""
    return {
        ONCE: min(recipe.train.num_negatives, num_items),
        EXACT: min(NEGATIVES, num_items),
        EVERY: min(NEGATIVES, num_items),
        TEXTBOOK: 1,
    }


def _training(recipe: Recipe, **changes: object) -> Recipe:
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=changes)})


@dataclass(frozen=True)
class Trained:
    """A way after its training."""

    way: Any
    steps: int
    examples: int
    seconds: float


def train_all(
    make: dict[str, Callable[[], Any]],
    rates: dict[str, Rate],
    batches: list[TrainingBatch],
    epochs: int,
    seconds: float,
) -> dict[str, Trained]:
    """Each way anew: the epochs given, or the steps that fit into the time if they are fewer."""
    trained: dict[str, Trained] = {}
    per_batch = {name: 1.0 for name in make}
    per_batch[TEXTBOOK] = float(
        np.mean([-(-len(batch.target_items) // PAIRED_EXAMPLES) for batch in batches])
    )
    for name, start in make.items():
        if name == ONCE_ALIKE:
            most = trained[EXACT].steps
        else:
            one_s = sum(rates[name].seconds) / rates[name].num_steps
            whole = round(epochs * len(batches) * per_batch[name])
            most = max(1, min(whole, int(seconds / one_s)))
        way, examples, started = start(), 0, time.monotonic()
        for number in itertools.islice(for_ever(way, batches, most), most):
            examples += number
        spent = time.monotonic() - started
        trained[name] = Trained(way, most, examples, spent)
        say(f"trained {name}: {most} steps, {examples:,} examples, {spent:.0f} s")
    return trained


def render(report: dict[str, Any]) -> list[str]:
    """The report as text."""
    layers, store = report["layers"], report["store"]
    lines = [
        f"{report['dataset']}: {report['num_users']:,} users, {report['num_examples']:,} examples, "
        f"{report['num_texts']:,} texts; torch {report['torch']}, {report['threads']} thread(s), "
        f"{os.cpu_count()} CPUs",
        f"trained by all three: the last {layers['trained']} of {layers['all']} layers; negatives: "
        + ", ".join(f"{name} {number}" for name, number in report["negatives"].items()),
        "",
        f"{'way':<26}{'examples/s':>24}{'ours is x faster':>26}{'in CPU time':>26}"
        f"{'layer tokens':>14}{'MB':>7}",
    ]
    for name, rate in report["rates"].items():
        lines.append(
            f"{name:<26}{_range(rate['examples_per_s']):>24}{_range(rate['ours_is_faster']):>26}"
            f"{_range(rate['ours_is_faster_cpu']):>26}"
            f"{rate['layer_tokens_per_example']:>14,.0f}{rate['peak_mb']:>7.0f}"
        )
    lines += [
        "medians and ranges over the rounds; layer tokens: places that went through a layer of the "
        "language model, for an example",
        f"with the frozen layers' {store['cpu_s']:.0f} s CPU, once for the catalogue, counted into "
        f"{store['epochs']} epochs of the whole log: "
        + ", ".join(f"{x:.3g} x {name}" for name, x in store["ours_is_faster_cpu"].items()),
        "",
    ]
    lines += [
        f"{name}: trained {each['steps']} steps, {each['examples']:,} examples, "
        f"{each['seconds']:.0f} s"
        for name, each in report["trained"].items()
    ]
    quality, reranked = report["quality"], report["reranked"]
    lines += [
        "",
        f"{METRIC} on {quality['num_questions']:,} validation questions, all "
        f"{report['num_items']:,} items ranked by cosine and popularity prior:",
        *_figures(quality),
        "",
        f"{METRIC} on {reranked['num_questions']} of them, {reranked['num_candidates']} sampled "
        "candidates ranked (here alone, since a cross-encoder cannot rank a catalogue):",
        *_figures(reranked),
    ]
    return lines


def _range(spread: dict[str, float]) -> str:
    return f"{spread['median']:,.3g} [{spread['low']:,.3g}, {spread['high']:,.3g}]"


def _figures(part: dict[str, Any]) -> list[str]:
    lines = [f"    {name:<28}{value:.4f}" for name, value in part[METRIC].items()]
    return lines + [f"    {name}: {comparison(each)}" for name, each in part["differences"].items()]


if __name__ == "__main__":
    sys.exit(main())
