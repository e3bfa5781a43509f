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

import numpy as np
import torch

from benchmarks.command import run_command
from benchmarks.picture import Line, chart
from recsys.artifacts.bundle import Bundle
from recsys.config import target_codes
from recsys.data.time_split import Questions
from recsys.evaluation.metrics.beyond_accuracy import (
    catalogue_coverage,
    intra_list_diversity,
)
from recsys.evaluation.metrics.ranking import ndcg_at_k
from recsys.preparation.prepared import Prepared
from recsys.ranking.rerank import LEAST_POOL, NO_CATEGORY, POOL_PER_PLACE, centred, diversify
from recsys.ranking.top_k import top_k
from recsys.recommender.loading import scorer_on
from recsys.text.text_store import TextStore

KNOBS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
K = 10


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
    for knob, (ndcg, intra, coverage) in points.items():
        print(f"{knob:>10.2f}{ndcg:>10.4f}{intra:>12.4f}{coverage:>10.4f}")
    if options.svg:
        options.svg.write_text(draw(points))
        print(f"wrote {options.svg}")


def curve(run: Path, rows: int) -> dict[float, tuple[float, float, float]]:
    """Knob -> mean nDCG@10, mean intra-list diversity, coverage of the catalogue."""
    prepared, bundle = Prepared.open(run), Bundle.open(run / "bundle")
    (store,) = (run / "text_store").glob("*/")
    scorer = scorer_on(bundle, prepared, "test", TextStore.open(store).content_similarity)
    own = np.asarray(scorer.vectors)
    vectors = centred(own, own.mean(axis=0))
    _, questions = prepared.questions(
        "test", target_codes(bundle.recipe), most=rows, seed=bundle.recipe.seed
    )
    lists: dict[float, list[np.ndarray]] = {knob: [] for knob in KNOBS}
    size = max(POOL_PER_PLACE * K, LEAST_POOL)
    with torch.no_grad():
        for part in questions.batches(64):
            for scores in scorer.scores(part.histories):
                pool, values = top_k(scores, size)
                categories = np.full(len(pool), NO_CATEGORY)
                for knob in KNOBS:
                    picked = diversify(values, vectors[pool], categories, K, diversity=knob)
                    lists[knob].append(pool[picked])
    return {
        knob: (
            _ndcg(np.stack(of_knob), questions),
            float(intra_list_diversity(np.stack(of_knob), vectors).mean()),
            catalogue_coverage(np.stack(of_knob), scorer.num_items),
        )
        for knob, of_knob in lists.items()
    }


def _ndcg(lists: np.ndarray, questions: Questions) -> float:
    """Mean nDCG@10 of lists that stop there: a relevant item outside one ranks behind it."""
    question = np.repeat(np.arange(len(questions)), np.diff(questions.relevant_offsets))
    hits = lists[question] == questions.relevant[:, None]
    ranks = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, K + 1)
    return float(ndcg_at_k(ranks, questions.relevant_offsets, K).mean())


def draw(points: dict[float, tuple[float, float, float]]) -> str:
    """The curve as SVG: intra-list diversity across, nDCG@10 up, the knob at each point."""
    line = Line(
        "",
        [(intra, ndcg) for ndcg, intra, _ in points.values()],
        [f"{knob:g}" for knob in points],
    )
    return chart([line], across="intra-list diversity", up="nDCG@10", from_zero=True)


if __name__ == "__main__":
    sys.exit(main())
