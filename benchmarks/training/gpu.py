"""Training steps on a GPU: float32, TF32, bfloat16 and compiled, beside the machine's CPU.

    python -m benchmarks.training.gpu DIR --set model.tuning=full --set train.batch_size=256

All take the same batches by turns. What they learn is compared too: the loss of the first steps,
each beside the CPU's.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from benchmarks.command import run_report
from benchmarks.training.data import add_data_options, data_of
from benchmarks.training.rates import Rate, batches_of, measure, sample
from benchmarks.training.ways import Once, Way
from recsys.config import Recipe
from recsys.features.windows import TrainingBatch
from recsys.preparation.prepared import Prepared
from recsys.text.text_store import TextStore
from recsys.training.build import build_two_tower

CPU, HIGHEST, TF32 = "CPU, float32", "GPU, float32", "GPU, TF32"
BFLOAT16, COMPILED = "GPU, bfloat16", "GPU, bfloat16, compiled"
#: Steps whose losses are compared.
COMPARED = 20


class OnDevice(Once):
    """The product's worker somewhere, with one way to multiply."""

    matmul = "highest"

    def train_step(self, batch: TrainingBatch, num_steps: int) -> float:
        """See `Worker.train_step`."""
        torch.set_float32_matmul_precision(self.matmul)
        return super().train_step(batch, num_steps)


def make(name: str, recipe: Recipe, prepared: Prepared, store: TextStore) -> OnDevice:
    """An untrained worker of one of the ways, as `recsys train` would start it."""
    precision = "bfloat16" if name in (BFLOAT16, COMPILED) else "float32"
    train = recipe.train.model_copy(update={"precision": precision})
    recipe = recipe.model_copy(update={"train": train})
    model, item_rows = build_two_tower(recipe, prepared)
    model.items.start_from(store.vectors, recipe.model.whitening)
    device = torch.device("cpu" if name == CPU else "cuda")
    worker = OnDevice(recipe, prepared, store, model.to(device), item_rows, device=device)
    worker.matmul = "high" if name == TF32 else "highest"
    if name == COMPILED:
        worker.model.language.compile(dynamic=True)
    return worker


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_report(run, render, _parser().parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training.gpu",
        description="Examples trained a second on a GPU, by precision, and beside the CPU.",
    )
    add_data_options(parser, "gpu")
    parser.add_argument("--seconds", type=float, default=10, metavar="S", help="of a round (10)")
    parser.add_argument("--users", type=int, default=20_000, metavar="N", help="at most (20,000)")
    return parser


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Prepare the folder, then compare."""
    _, recipe, prepared, store = data_of(options, "gpu")
    name = options.folder.resolve().name
    return {"dataset": name} | compare(
        recipe, prepared, store, num_users=options.users, seconds=options.seconds
    )


def compare(
    recipe: Recipe, prepared: Prepared, store: TextStore, *, num_users: int, seconds: float
) -> dict[str, Any]:
    """The first losses of each way, then what they do by turns, so many seconds a round."""
    names = [CPU, HIGHEST, TF32, BFLOAT16, COMPILED] if torch.cuda.is_available() else [CPU]
    learners = make(CPU, recipe, prepared, store)
    users = sample(prepared.users().before(learners.cut_us), num_users, recipe.seed)
    batches = batches_of(learners, users)
    losses = {
        name: list(first_losses(make(name, recipe, prepared, store), batches)) for name in names
    }
    ways: dict[str, Way] = {name: make(name, recipe, prepared, store) for name in names}
    rates = measure(ways, batches, seconds)
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "threads": torch.get_num_threads(),
        "tuning": recipe.model.tuning,
        "batch_size": recipe.train.batch_size,
        "fresh_texts_per_step": recipe.train.fresh_texts_per_step,
        "rates": {name: figures(rate) for name, rate in rates.items()},
        "losses": losses,
    }


def first_losses(worker: OnDevice, batches: list[TrainingBatch]) -> Iterator[float]:
    """The loss of each of the first steps."""
    for batch in itertools.islice(itertools.cycle(batches), COMPARED):
        yield worker.train_step(batch, 10_000)


def figures(rate: Rate) -> dict[str, float]:
    """Median over the rounds, and the spread."""
    per_s = rate.per(rate.seconds)
    return {
        "examples_per_s": float(sorted(per_s)[len(per_s) // 2]),
        "low": float(per_s.min()),
        "high": float(per_s.max()),
        "steps_per_s": rate.num_steps / sum(rate.seconds),
        "layer_tokens_per_s": rate.num_tokens / sum(rate.seconds),
    }


def render(report: dict[str, Any]) -> list[str]:
    """The report as text."""
    lines = [
        f"{report['dataset']}: {report['device']}, torch {report['torch']}, "
        f"{report['threads']} threads, tuning {report['tuning']}, batches of "
        f"{report['batch_size']} users, fresh texts {report['fresh_texts_per_step']}",
        f"{'way':<26}{'examples/s':>26}{'steps/s':>10}{'layer tokens/s':>16}"
        f"{'loss, first and last':>24}{'off the CPU, at most':>22}",
    ]
    expected = report["losses"][CPU]
    for name, rate in report["rates"].items():
        losses = report["losses"][name]
        off = max(abs(loss - other) for loss, other in zip(losses, expected, strict=True))
        spread = f"{rate['examples_per_s']:,.0f} [{rate['low']:,.0f}, {rate['high']:,.0f}]"
        lines.append(
            f"{name:<26}{spread:>26}{rate['steps_per_s']:>10.1f}"
            f"{rate['layer_tokens_per_s']:>16,.0f}{losses[0]:>14.4f}{losses[-1]:>10.4f}{off:>22.4f}"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
