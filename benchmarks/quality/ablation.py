"""Ablation: the benchmark with one part of the model switched off, or another on.

    python -m benchmarks.quality.ablation DIR --reports FOLDER [options of benchmarks.quality]

Every variant is `benchmarks.quality` with a few keys of the recipe overridden, the same seeds, and
no baselines. A variant whose report lies in FOLDER is not run again, so that an interrupted run
goes on; the table is of all that are there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.quality import measure
from benchmarks.quality.product import NO_IDS
from recsys.evaluation.report import OURS

AS_IT_IS: Final = "as it is"
#: Variant -> what it overrides. `quality`'s own `--set` come first.
VARIANTS: Final[dict[str, tuple[str, ...]]] = {
    AS_IT_IS: (),
    "popularity at the cuts alone": ("data.count_every_days=null",),
    "new items weigh like others": ("train.new_item_weight=1",),
    "no side features, no second stage": ("model.side_features=false",),
    "no ids": (f"model.min_events_for_id={NO_IDS}",),
    "no vectors of brand, category and price": ("model.item_fields=[]",),
    "text vectors not whitened": ("model.whitening=0",),
    "ids never hidden": ("model.id_dropout=0",),
    "not retrained": ("train.retrain=false",),
    "language model frozen": ("model.tuning=frozen",),
    "low-rank updates of the last layer": ("model.tuning=lora",),
    "last two layers trained": ("model.tuning=last_n", "model.last_n=2"),
    "language model adapted first": ("pretrain.epochs=2",),
    "512 sampled negatives": ("train.num_negatives=512",),
    "one layer of the user encoder": ("model.num_layers=1",),
    "no dropout": ("model.dropout=0",),
    "no weight decay": ("train.weight_decay=0",),
}
#: Slice and metric of each column.
SHOWN: Final = (
    ("all", "ndcg@10"),
    ("all", "hr@50"),
    ("first_time", "ndcg@10"),
    ("new_item", "ndcg@10"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality.ablation",
        description="The benchmark with one part of the model off, or another on.",
        epilog="All other options are those of benchmarks.quality.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument(
        "--reports", type=Path, required=True, metavar="FOLDER", help="where reports are kept"
    )
    parser.add_argument(
        "--only", action="append", choices=VARIANTS, metavar="VARIANT",
        help=f"run this one; may be given again. Of: {', '.join(VARIANTS)}",
    )  # fmt: skip
    options, rest = parser.parse_known_args(argv)
    options.reports.mkdir(parents=True, exist_ok=True)
    wanted = options.only or list(VARIANTS)
    for number, name in enumerate(wanted, start=1):
        path = report_path(options.reports, name)
        if path.is_file():
            continue
        print(f"[{number}/{len(wanted)}] {name}", flush=True)
        overrides = [part for key in VARIANTS[name] for part in ("--set", key)]
        work = options.reports / "work" / path.stem
        arguments = [
            str(options.folder), *rest, *overrides, "--baselines", "none", "--json", str(path),
            "--work", str(work),
        ]  # fmt: skip
        code = measure.main(arguments)
        if code:
            return code
    print("\n" + "\n".join(render(read_reports(options.reports))))
    return 0


def report_path(folder: Path, name: str) -> Path:
    """Where the report of a variant lies."""
    return folder / ("-".join(name.replace(",", "").split()) + ".json")


def read_reports(folder: Path) -> dict[str, dict[str, Any]]:
    """The reports there are, by variant, in the order of `VARIANTS`."""
    paths = {name: report_path(folder, name) for name in VARIANTS}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.is_file()}


def render(reports: dict[str, dict[str, Any]]) -> list[str]:
    """A Markdown table: mean and interval over users of each column, and nDCG@10 of each seed."""
    titles = [f"{metric}, {slice_}" for slice_, metric in SHOWN]
    lines = [
        f"| variant | {' | '.join(titles)} | seeds |",
        "|---|" + "---|" * (len(SHOWN) + 1),
    ]
    for name, report in reports.items():
        rows = {
            (row["slice"], row["metric"]): row for row in report["rows"] if row["model"] == OURS
        }
        cells = [_cell(rows.get(column)) for column in SHOWN]
        seeds = ", ".join(f"{value:.4f}" for value in report["seeds"])
        lines.append(f"| {name} | {' | '.join(cells)} | {seeds} |")
    return lines


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if row["low"] is None:
        return f"{row['value']:.4f}"
    return f"{row['value']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"


if __name__ == "__main__":
    sys.exit(main())
