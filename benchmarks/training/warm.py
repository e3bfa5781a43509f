"""What a night costs that starts from the champion's weights, beside a full training.

    python -m benchmarks.training.warm recipes/demo.yaml [--hours 88] [--json FILE] [--set A.B=C]

A champion is trained in full as of some hours earlier. Then the recipe's own cuts are prepared, and
trained on twice: from the champion, and in full. Both bundles answer the same test window; the
difference is paired by question, users are resampled. Seconds are wall time of each job, in one Ray
cluster, after its start.
"""

from __future__ import annotations

import argparse
import datetime as dt
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.command import add_json, add_overrides, run_report
from ray_jobs import embed, evaluate, prepare, train
from ray_jobs.common.cluster import connected
from recsys.artifacts.run import Run
from recsys.config import Recipe, load_recipe, recipe_from_dict
from recsys.evaluation.gate import beats
from recsys.evaluation.report import METRIC, OURS
from recsys.schema import Col


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training.warm",
        description="A night that starts from the champion's weights, beside a full training.",
    )
    parser.add_argument("recipe", metavar="FILE", help="of the night, e.g. recipes/demo.yaml")
    parser.add_argument(
        "--hours", type=float, default=88, metavar="H",
        help="that the champion is older: 88 hold 1 %% of the demo's events (88)",
    )  # fmt: skip
    parser.add_argument(
        "--work", type=Path, default=Path("runs/warm"), metavar="DIR",
        help="where runs are kept; what is finished there is not repeated (runs/warm)",
    )  # fmt: skip
    add_json(parser)
    add_overrides(parser)
    options = parser.parse_args(argv)
    return run_report(run, render, options, options.work)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train the champion, then the night twice."""
    work = options.work.absolute()
    override = [*options.overrides, f"run_dir={work / 'run'}"]
    night = load_recipe(options.recipe, override)
    champion, seconds = work / "champion", dict[str, dict[str, float]]()
    with connected(night.ray, dashboard=True):
        earlier = _earlier(night, dt.timedelta(hours=options.hours))
        jobs = {"prepare": prepare.execute, "train": train.execute, "embed": embed.execute}
        seconds["champion"] = _timed(earlier, jobs)
        num_then = _num_events(earlier)
        if not champion.exists():
            shutil.copytree(Run.open(earlier).bundle_folder, champion)
        seconds["both"] = _timed(night, {"prepare": prepare.execute})
        num_now = _num_events(night)
        answers = {}
        for name, start in (("warm", str(champion)), ("full", None)):
            jobs = {
                "train": partial(train.execute, start_from=start),
                "embed": embed.execute,
                "evaluate": evaluate.execute,
            }
            seconds[name] = _timed(night, jobs)
            answers[name] = pl.read_parquet(Run.open(night).rows_file)
    rows = answers["full"].join(answers["warm"], on=[Col.user, "basket"], suffix=":warm")
    assert rows.height == answers["full"].height
    full, warm = (rows[f"{OURS}:{METRIC}{name}"].cast(pl.Float64) for name in ("", ":warm"))
    verdict = beats(
        warm.to_numpy(), full.to_numpy(), rows[Col.user].to_numpy(), 0.95,
        night.evaluate.num_bootstrap, night.seed,
    )  # fmt: skip
    return {
        "run": night.name,
        "new_events": num_now / num_then - 1,
        "num_questions": rows.height,
        "seconds": seconds,
        METRIC: {"full": full.mean(), "warm": warm.mean()},
        "warm_over_full": verdict.as_json(),
    }


def _earlier(recipe: Recipe, age: dt.timedelta) -> Recipe:
    """The recipe with all cuts that much earlier."""
    raw, cuts = recipe.resolved(), recipe.data.cuts
    moved = {"head": cuts.head_at, "valid": cuts.valid, "test": cuts.test}
    raw["data"]["cuts"] |= {name: (at - age).isoformat() for name, at in moved.items()}
    return recipe_from_dict(raw)


def _num_events(recipe: Recipe) -> int:
    """Events that the encoders learn from."""
    return int(Run.open(recipe).prepared.stats("head").num_events.sum())


def _timed(recipe: Recipe, jobs: Mapping[str, Callable[[Run], object]]) -> dict[str, float]:
    found = {}
    for name, job in jobs.items():
        started = time.monotonic()
        job(Run.open(recipe))
        found[name] = time.monotonic() - started
        print(f"{name}: {found[name]:.1f} s", flush=True)
    return found


def render(report: dict[str, Any]) -> list[str]:
    """The report as text."""
    seconds, ndcg, over = report["seconds"], report[METRIC], report["warm_over_full"]
    lines = [
        f"{report['new_events']:.2%} new events; {report['num_questions']:,} questions",
        f"{'':<10}{'full, s':>9}{'warm, s':>9}{'share':>8}",
    ]
    for name in seconds["full"]:
        full, warm = seconds["full"][name], seconds["warm"][name]
        lines.append(f"{name:<10}{full:>9.1f}{warm:>9.1f}{warm / full:>8.0%}")
    return [
        *lines,
        f"{METRIC}: full {ndcg['full']:.4f}, warm {ndcg['warm']:.4f} "
        f"({ndcg['warm'] / ndcg['full']:.1%}), difference {over['difference']:+.4f} "
        f"[{over['low']:+.4f}, {over['high']:+.4f}] (paired, users resampled)",
    ]


if __name__ == "__main__":
    sys.exit(main())
