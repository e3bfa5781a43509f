"""Loss and validation nDCG@10 of every trial, epoch by epoch, as one picture.

    python -m benchmarks.quality.curves runs/demo --svg curves.svg

Reads what training has left in a run's folder; nothing is trained.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import run_command
from benchmarks.picture import Line, document, panel
from ray_jobs.common.kept import Checkpoints
from recsys.artifacts.run import TRAININGS
from recsys.errors import DataError
from recsys.evaluation.report import METRIC
from recsys.storage.shared import SharedFolder


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality.curves",
        description="Loss and nDCG per epoch of every trial.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder, e.g. runs/demo")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the curves")
    return run_command(_run, parser.parse_args(argv))


def _run(options: argparse.Namespace) -> None:
    curves = read_curves(options.run)
    for name, curve in curves.items():
        print(name)
        for point in curve:
            found = f", validation {METRIC} {point[METRIC]:.4f}" if METRIC in point else ""
            print(f"    epoch {point['epoch']}: loss {point['loss']:.4f}{found}")
    if options.svg:
        options.svg.write_text(draw(curves))
        print(f"wrote {options.svg}")


def read_curves(run: Path) -> dict[str, list[dict[str, Any]]]:
    """Name of a trial -> its epochs. A retraining has no validation and is left out.

    Raises:
        DataError: nothing was trained here.
    """
    folders = {path.parents[1] for path in (run / TRAININGS).rglob("checkpoint_*/progress.json")}
    shared = SharedFolder(run)
    curves = {path.name: Checkpoints(path, shared).curve_now() for path in sorted(folders)}
    curves = {name: curve for name, curve in curves.items() if curve and METRIC in curve[0]}
    if not curves:
        raise DataError(
            "no curve of a training", where=run / TRAININGS, fix="run `recsys tune` first"
        )
    return curves


def draw(curves: dict[str, list[dict[str, Any]]]) -> str:
    """Loss on the left, nDCG@10 on the right."""
    titles = {"loss": "training loss", METRIC: f"validation {METRIC}"}
    return document(
        [
            panel(
                [
                    Line(name, [(point["epoch"], point[key]) for point in curve])
                    for name, curve in curves.items()
                ],
                across="epoch",
                up=title,
            )
            for key, title in titles.items()
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
