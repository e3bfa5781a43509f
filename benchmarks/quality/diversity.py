"""What diversity costs: nDCG@10 against intra-list diversity and coverage, knob by knob.

    python -m benchmarks.quality.diversity runs/demo --svg docs/diversity.svg

Reads a finished run. Every test basket of a seeded sample gets a list of ten from the whole
catalogue, as `POST /recommend` would make it, at each setting of the knob.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import run_command
from benchmarks.picture import Line, chart
from recsys.artifacts.bundle import Bundle
from recsys.config import target_codes
from recsys.preparation.prepared import Prepared
from recsys.recommender.loading import scorer_on
from recsys.reporting.trade_off import trade_off
from recsys.text.text_store import TextStore


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality.diversity", description="The price of diversity."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder, e.g. runs/demo")
    parser.add_argument("--rows", type=int, default=2000, metavar="N", help="baskets (2000)")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the curve")
    return run_command(_run, parser.parse_args(argv))


def _run(options: argparse.Namespace) -> None:
    points = curve(options.run, options.rows)
    print(f"{'diversity':>10}{'ndcg@10':>10}{'intra-list':>12}{'coverage':>10}")
    for at in points:
        measured = (at["ndcg@10"], at["intra_list"], at["coverage"])
        print(f"{at['diversity']:>10.2f}" + "{:>10.4f}{:>12.4f}{:>10.4f}".format(*measured))
    if options.svg:
        options.svg.write_text(draw(points))
        print(f"wrote {options.svg}")


def curve(run: Path, rows: int) -> list[dict[str, Any]]:
    """See `recsys.reporting.trade_off`."""
    prepared, bundle = Prepared.open(run), Bundle.open(run / "bundle")
    (store,) = (run / "text_store").glob("*/")
    scorer = scorer_on(bundle, prepared, "test", TextStore.open(store).content_similarity)
    _, questions = prepared.questions(
        "test", target_codes(bundle.recipe), most=rows, seed=bundle.recipe.seed
    )
    return trade_off(scorer, questions)


def draw(points: list[dict[str, Any]]) -> str:
    """The curve as SVG: intra-list diversity across, nDCG@10 up, the knob at each point."""
    line = Line(
        "",
        [(at["intra_list"], at["ndcg@10"]) for at in points],
        [f"{at['diversity']:g}" for at in points],
    )
    return chart([line], across="intra-list diversity", up="nDCG@10", from_zero=True)


if __name__ == "__main__":
    sys.exit(main())
