"""Ranking quality on any folder of data, beside baselines.

    python -m benchmarks.quality DIR [--protocol splits|time|leave_one_out] [--json FILE]

DIR holds `items.parquet`, `events.parquet` and, for `splits`, `splits.parquet`; see `protocols`.
The model goes the product's own way, prepare -> tune -> embed: learning rate and batch size are
chosen on the validation part by the first seed's search, never on test, and the other seeds train
with what was chosen. Then every model ranks the whole catalogue for the same test rows. Where
events carry labels, the like probability is measured beside it (`like_model`), with
`--response-only` nothing else.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks.command import add_json, add_overrides, run_report
from benchmarks.costs import Cost, costing
from benchmarks.quality import like_model
from benchmarks.quality.judging import COVERAGE, Noted, gains_of, judge, mean_of
from benchmarks.quality.product import recipe_of, trained, write_log
from benchmarks.quality.protocols.benchmark import PROTOCOLS, Benchmark
from benchmarks.quality.protocols.folder import open_benchmark
from benchmarks.quality.questions import TestSet, make_test_set
from benchmarks.quality.tables import render
from ray_jobs import prepare
from ray_jobs.common.cluster import connected
from ray_jobs.common.texts import ensure_store
from recsys.artifacts.run import Run
from recsys.config import BaselineName, Recipe, target_codes
from recsys.errors import DataError, RecipeError
from recsys.evaluation.baselines import TrainingLog, fit_baselines
from recsys.evaluation.report import METRIC, OURS, summarise
from recsys.preparation.prepared import Prepared
from recsys.recommender.loading import scorer_on
from recsys.schema import Col
from recsys.text.text_store import TextStore


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    options = _parser().parse_args(argv)
    work = (options.work or Path("runs/quality")).absolute()
    return run_report(run, render, options, work, Path(tempfile.gettempdir()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description="Ranking quality on any folder of data, beside baselines.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--protocol", choices=PROTOCOLS, help="default: what the folder allows")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs (default 3)")
    parser.add_argument("--trials", type=int, default=4, metavar="N", help="of the search (4)")
    parser.add_argument(
        "--text-only", action="store_true", help="no ids and no side features: texts alone"
    )
    parser.add_argument(
        "--response-only", action="store_true",
        help="of a labelled log: only the like probability, no ranking",
    )  # fmt: skip
    parser.add_argument(
        "--baselines", default="all", metavar="all|none|A,B",
        help=f"of {', '.join(get_args(BaselineName))}",
    )  # fmt: skip
    add_json(parser)
    parser.add_argument(
        "--where", metavar="SQL", help="keep events for which this holds, e.g. \"country = 'FR'\""
    )
    parser.add_argument(
        "--targets", default="", metavar="A,B", help="event types to predict (the strongest)"
    )
    for cut in ("valid", "test"):
        parser.add_argument(
            f"--{cut}", type=_moment, metavar="DATE", help=f"cut of the time protocol: {cut} begins"
        )
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="where runs are kept (runs/quality/<name>)"
    )
    add_overrides(parser)
    return parser


def _moment(text: str) -> dt.datetime:
    moment = dt.datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train, let every model answer, and gather the report."""
    benchmark = open_benchmark(
        options.folder,
        protocol=options.protocol,
        where=options.where,
        targets=[name for name in options.targets.split(",") if name],
        valid=options.valid,
        test=options.test,
    )
    name = options.folder.resolve().name
    kind = f"{benchmark.protocol}{'-text' if options.text_only else ''}"
    work = (options.work or Path("runs/quality") / f"{name}-{kind}").absolute()
    print(f"{name}: {benchmark.protocol}, {benchmark.events.height:,} events", flush=True)
    for note in benchmark.notes:
        print(f"    {note}", flush=True)
    sections = write_log(benchmark, work)
    recipes = [
        recipe_of(sections, name, work, options, seed) for seed in range(1, options.seeds + 1)
    ]
    if options.response_only:
        return _described(benchmark, name) | _response_only(benchmark, recipes[0], options)
    names = _baseline_names(options.baselines)
    answers = _Answers()
    with connected(recipes[0].ray, dashboard=True):
        seeds, test_set, chosen, store = _answer_by_ours(answers, benchmark, recipes, work)
        prepared = Prepared.open(recipes[0].root)
        _answer_by_baselines(answers, names, recipes[0], prepared, store, test_set)
    return _described(benchmark, name) | {
        "num_questions": len(test_set.users),
        "num_items": len(test_set.new_item),
        "seeds": seeds,
        "recipe": chosen.resolved(),
        "gains": gains_of(answers.values, test_set.users, recipes[0]),
        "cost": {each: vars(cost) for each, cost in answers.costs.items()},
        "rows": _rows(answers, test_set, recipes[0]),
        "response": _response(benchmark, prepared, store, recipes[0]),
    }


@dataclass
class _Answers:
    """What each model answered, and what that took.

    Attributes:
        values: model -> [Q, M], see `recsys.evaluation.report.answer`.
        costs: model -> fit and answers together, of the first seed.
        coverage: model -> share of the catalogue in some list of ten, of the first seed.
    """

    values: dict[str, np.ndarray] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    coverage: dict[str, float] = field(default_factory=dict)


def _answer_by_ours(
    answers: _Answers, benchmark: Benchmark, recipes: list[Recipe], work: Path
) -> tuple[list[float], TestSet, Recipe, TextStore]:
    """Train and evaluate each seed; the answers' values are means over the seeds.

    Returns:
        The test metric of each seed, the test set, the recipe that the first seed's search chose,
        and the texts.
    """
    values: list[np.ndarray] = []
    chosen: Recipe | None = None
    test_set: TestSet | None = None
    for recipe in recipes:
        with costing() as cost:
            prepared, winner = trained(recipe, chosen, work)
            chosen = chosen or winner
            if test_set is None:
                test_set = make_test_set(benchmark, prepared, recipe)
            bundle = Run.open(recipe).bundle()
            store = ensure_store(Run.open(winner))
            model = Noted(scorer_on(bundle, prepared, "test", store.content_similarity))
            values.append(judge(model, test_set, recipe))
        answers.costs.setdefault(OURS, cost())
        answers.coverage.setdefault(OURS, model.coverage)
        print(f"    seed {recipe.seed}: test {METRIC} {mean_of(values[-1]):.4f}", flush=True)
    assert test_set is not None and chosen is not None
    answers.values[OURS] = np.mean(values, axis=0)
    return [mean_of(each) for each in values], test_set, chosen, store


def _answer_by_baselines(
    answers: _Answers,
    names: list[str],
    recipe: Recipe,
    prepared: Prepared,
    store: TextStore,
    test_set: TestSet,
) -> None:
    log = TrainingLog(
        prepared.users().before(prepared.summary["cuts_us"]["test"]),
        prepared.catalogue.num_items, target_codes(recipe), store.vectors,
        prepared.catalogue.text_rows, prepared.daily_counts(), recipe.data.count_every_days,
    )  # fmt: skip
    for name in names:
        with costing() as cost:
            (fitted,) = fit_baselines([name], log).values()
            model = Noted(fitted)
            values = judge(model, test_set, recipe)
        answers.values[name], answers.costs[name] = values, cost()
        answers.coverage[name] = model.coverage
        print(f"    {name}: {METRIC} {mean_of(values):.4f} ({cost().seconds:.0f} s)", flush=True)


def _rows(answers: _Answers, test_set: TestSet, recipe: Recipe) -> list[dict[str, Any]]:
    """Long-form rows of the report, see `recsys.evaluation.report.summarise`."""
    rows = summarise(
        answers.values,
        test_set.users,
        num_bootstrap=recipe.evaluate.num_bootstrap,
        seed=recipe.seed,
    )
    return rows + [
        {
            "model": each, "slice": "all", "metric": COVERAGE, "value": value, "low": None,
            "high": None, "num_rows": len(test_set.users),
        }
        for each, value in answers.coverage.items()
    ]  # fmt: skip


def _described(benchmark: Benchmark, name: str) -> dict[str, Any]:
    return {
        "dataset": name,
        "protocol": benchmark.protocol,
        "notes": benchmark.notes,
        "cuts": {cut: str(moment) for cut, moment in benchmark.cuts.items()},
    }


def _response_only(
    benchmark: Benchmark, recipe: Recipe, options: argparse.Namespace
) -> dict[str, Any]:
    """The part of the report that needs no training."""
    if benchmark.exposures is None:
        raise DataError(
            "no labels to predict", where=options.folder / "events.parquet", field="rating",
            fix="give every event a time and a rating or value of 0 or 1, or drop --response-only",
        )  # fmt: skip
    with connected(recipe.ray, dashboard=True):
        prepare.execute(Run.open(recipe))
        prepared = Prepared.of(recipe)
        store = ensure_store(Run.open(recipe))
    return {"response": _response(benchmark, prepared, store, recipe)}


def _response(
    benchmark: Benchmark, prepared: Prepared, store: TextStore, recipe: Recipe
) -> list[dict[str, Any]]:
    catalogue = prepared.catalogue
    return like_model.measure(
        benchmark, catalogue.items[Col.item].to_list(), store.vectors[catalogue.text_rows],
        num_bootstrap=recipe.evaluate.num_bootstrap, seed=recipe.seed,
    )  # fmt: skip


def _baseline_names(given: str) -> list[str]:
    known = get_args(BaselineName)
    names = {"all": list(known), "none": []}.get(given, given.split(","))
    for name in names:
        if name not in known:
            raise RecipeError(
                "unknown baseline", field="--baselines", value=name, fix=f"use {', '.join(known)}"
            )
    return names


if __name__ == "__main__":
    sys.exit(main())
