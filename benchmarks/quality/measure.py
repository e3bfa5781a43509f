"""Ranking quality on any folder of data, beside what one would pick instead.

    python -m benchmarks.quality DIR [--protocol splits|time|leave_one_out] [--json FILE]

DIR holds `items.parquet`, `events.parquet` and, for `splits`, `splits.parquet`; see `protocols` and
`parts`. The model goes the product's own way, prepare -> tune -> embed: learning rate and batch
size are chosen on the validation part by the first seed's search, never on test, and the other
seeds train with what was chosen. Then every model ranks the whole catalogue for the same test rows.
Where events carry labels, the like probability is measured beside it (`like_model`), with
`--response-only` nothing else.
"""

from __future__ import annotations

import argparse
import copy
import datetime as dt
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any, get_args

import numpy as np
import polars as pl

from benchmarks.quality import like_model
from benchmarks.quality.protocols import (
    CODES,
    HISTORY,
    NOW,
    PROTOCOLS,
    TIMES,
    Benchmark,
    open_benchmark,
)
from ray_jobs import embed, prepare, pretrain, train, tune
from ray_jobs.common.cluster import connected
from ray_jobs.common.texts import ensure_store
from ray_jobs.embed import BUNDLE_DIR
from recsys.artifacts.bundle import Bundle
from recsys.config import BaselineName, Recipe, apply_override, recipe_from_dict, target_codes
from recsys.data.histories import Histories, Questions
from recsys.errors import DataError, RecipeError, cause_of
from recsys.evaluation.baselines import Recommends, TrainingLog, fit_baselines
from recsys.evaluation.gate import beats, comparison
from recsys.evaluation.report import COLUMNS, answer, head_items, summarise, table
from recsys.preparation.prepared import Prepared
from recsys.recommender import scorer_on
from recsys.schema import Col
from recsys.storage.outputs import write_json
from recsys.text.text_store import TextStore
from recsys.training.validation import tie_order

OURS, METRIC, COVERAGE = "raycommend", "ndcg@10", "coverage@10"
SHOWN = ("hr@5", "ndcg@5", "hr@10", "ndcg@10", "hr@50", "ndcg@50", "mrr@50")
SHOWN_SLICES = ("new_item", "new_user", "head", "tail", "repeat", "first_time")

#: Scores computed at a time, over all questions of a batch.
SCORES_AT_ONCE = 16_000_000
#: No item has so many events: with it as the least number, none has an id vector.
NO_IDS = 2**31
#: Users are sharded and sampled by pseudonym: whoever repeats a run needs the same ones. The data
#: of a benchmark are no secret, and so neither is their key.
KEY, KEY_ENV = "a key that everybody knows", "RAYCOMMEND_BENCHMARK_KEY"


@dataclass(frozen=True)
class Cost:
    """What a model took, fit and answers together.

    Attributes:
        seconds: wall time.
        peak_mb: largest resident memory of this process and all below it, beyond what was there.
    """

    seconds: float
    peak_mb: float


@dataclass(frozen=True)
class TestSet:
    """The questions and what their slices need.

    Attributes:
        questions: Q of them.
        users: [Q] who asks; intervals resample these.
        known_user: [Q], new_item: [I], head_item: [I], see `recsys.evaluation.report.answer`.
    """

    questions: Questions
    users: np.ndarray
    known_user: np.ndarray
    new_item: np.ndarray
    head_item: np.ndarray


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    options = _parser().parse_args(argv)
    try:
        report = run(options)
    except Exception as error:
        work = (options.work or Path("runs/quality")).absolute()
        ours = cause_of(error, work, Path(tempfile.gettempdir()))
        if ours is None:
            raise
        print(f"error: {ours}", file=sys.stderr)
        return ours.exit_code
    print("\n" + "\n".join(render(report)))
    if options.json:
        write_json(options.json, report)
        print(f"\nwrote {options.json}")
    return 0


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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report")
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
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", dest="overrides",
        help="override one key of the recipe; may be given again",
    )  # fmt: skip
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
    first = _recipe(sections, name, work, options, seed=1)
    if options.response_only:
        return _response_only(benchmark, name, first, options)
    names = _baseline_names(options.baselines)
    values: dict[str, np.ndarray] = {}
    costs: dict[str, Cost] = {}
    covered: dict[str, float] = {}
    ours: list[np.ndarray] = []
    chosen: Recipe | None = None
    test_set: TestSet | None = None
    with connected(first.ray, dashboard=True):
        for seed in range(1, options.seeds + 1):
            recipe = _recipe(sections, name, work, options, seed)
            with costing() as cost:
                prepared, winner = _trained(recipe, chosen, work)
                chosen = chosen or winner
                if test_set is None:
                    test_set = _test_set(benchmark, prepared, recipe)
                bundle = Bundle.open(recipe.root / BUNDLE_DIR)
                store = ensure_store(winner, prepared)
                model = _Noted(scorer_on(bundle, prepared, "test", store.content_similarity))
                ours.append(_judge(model, test_set, recipe))
            costs.setdefault(OURS, cost())
            covered.setdefault(OURS, model.coverage)
            print(f"    seed {seed}: test {METRIC} {_mean(ours[-1]):.4f}", flush=True)
        assert test_set is not None and chosen is not None
        values[OURS] = np.mean(ours, axis=0)
        prepared = Prepared.open(first.root)
        log = TrainingLog(
            prepared.users().before(prepared.summary["cuts_us"]["test"]),
            prepared.catalogue.num_items, target_codes(first), store.vectors,
            prepared.catalogue.text_rows, prepared.daily_counts(), first.data.count_every_days,
        )  # fmt: skip
        for each in names:
            with costing() as cost:
                (fitted,) = fit_baselines([each], log).values()
                model = _Noted(fitted)
                values[each] = _judge(model, test_set, first)
            costs[each], covered[each] = cost(), model.coverage
            print(
                f"    {each}: {METRIC} {_mean(values[each]):.4f} ({cost().seconds:.0f} s)",
                flush=True,
            )
    rows = summarise(
        values, test_set.users, num_bootstrap=first.evaluate.num_bootstrap, seed=first.seed
    )
    rows += [
        {
            "model": each, "slice": "all", "metric": COVERAGE, "value": value, "low": None,
            "high": None, "num_rows": len(test_set.users),
        }
        for each, value in covered.items()
    ]  # fmt: skip
    return {
        "dataset": name,
        "protocol": benchmark.protocol,
        "notes": benchmark.notes,
        "cuts": {cut: str(moment) for cut, moment in benchmark.cuts.items()},
        "num_questions": len(test_set.users),
        "num_items": len(test_set.new_item),
        "seeds": [_mean(each) for each in ours],
        "recipe": chosen.resolved(),
        "gains": _gains(values, test_set.users, first),
        "cost": {each: vars(cost) for each, cost in costs.items()},
        "rows": rows,
        "response": _response(benchmark, prepared, store, first),
    }


def _response_only(
    benchmark: Benchmark, name: str, recipe: Recipe, options: argparse.Namespace
) -> dict[str, Any]:
    """The report without anything that needs training."""
    if benchmark.exposures is None:
        raise DataError(
            "no labels to predict", where=options.folder / "events.parquet", field="rating",
            fix="give every event a time and a rating or value of 0 or 1, or drop --response-only",
        )  # fmt: skip
    with connected(recipe.ray, dashboard=True):
        prepare.run(recipe)
        prepared = Prepared.of(recipe)
        store = ensure_store(recipe, prepared)
    return {
        "dataset": name,
        "protocol": benchmark.protocol,
        "notes": benchmark.notes,
        "cuts": {cut: str(moment) for cut, moment in benchmark.cuts.items()},
        "response": _response(benchmark, prepared, store, recipe),
    }


def _response(
    benchmark: Benchmark, prepared: Prepared, store: TextStore, recipe: Recipe
) -> list[dict[str, Any]]:
    catalogue = prepared.catalogue
    return like_model.measure(
        benchmark, catalogue.items[Col.item].to_list(), store.vectors[catalogue.text_rows],
        num_bootstrap=recipe.evaluate.num_bootstrap, seed=recipe.seed,
    )  # fmt: skip


def write_log(benchmark: Benchmark, work: Path) -> dict[str, Any]:
    """Write a benchmark's log into a folder; returns the sections of a recipe that read it."""
    benchmark.write(work / "log")
    (work / "pseudonym.key").write_text(KEY)
    return {
        "data": {
            "source": str(work / "log"),
            "cuts": benchmark.cuts,
            "target_events": list(benchmark.targets),
            "num_buckets": 4,
            # Published splits, and order without time, know no day on which to count again.
            "count_every_days": 1 if benchmark.protocol == "time" else None,
            "max_quarantine_fraction": 0.5,
        },
        "privacy": {"key_env": KEY_ENV, "key_file": str(work / "pseudonym.key")},
    }


def _recipe(
    sections: dict[str, Any], name: str, work: Path, options: argparse.Namespace, seed: int
) -> Recipe:
    """The product's defaults, more patient, for logs smaller than a shop's."""
    raw: dict[str, Any] = {
        "name": "".join(c if c.isalnum() else "-" for c in name).strip("-") or "quality",
        "seed": seed,
        "run_dir": str(work / f"seed-{seed}"),
        **copy.deepcopy(sections),
        "train": {"epochs": 12, "retrain": True},
        "tune": {"num_trials": options.trials},
    }
    if options.text_only:
        raw["model"] = {"min_events_for_id": NO_IDS, "side_features": False, "item_fields": []}
    for override in options.overrides:
        apply_override(raw, override)
    return recipe_from_dict(raw)


def _trained(recipe: Recipe, chosen: Recipe | None, work: Path) -> tuple[Prepared, Recipe]:
    """Prepare and train; with `chosen`, under its learning rate and batch size."""
    # Texts are the same for every seed, and so is their store.
    recipe.root.mkdir(parents=True, exist_ok=True)
    (work / "text_store").mkdir(exist_ok=True)
    link = recipe.root / "text_store"
    if not link.exists():
        link.symlink_to(work / "text_store")
    prepare.run(recipe)
    prepared = Prepared.of(recipe)
    if recipe.pretrain.epochs:
        pretrain.run(recipe)
        print("\n".join(f"    {line}" for line in pretrain.report(recipe)), flush=True)
    if chosen is None:
        tune.run(recipe)
    else:
        data = recipe.resolved()
        for key in ("learning_rate", "batch_size"):
            data["train"][key] = getattr(chosen.train, key)
        train.run(recipe_from_dict(data))
    embed.run(recipe)
    return prepared, train.winner(recipe, prepared)[0]


def _baseline_names(given: str) -> list[str]:
    known = get_args(BaselineName)
    names = {"all": list(known), "none": []}.get(given, given.split(","))
    for name in names:
        if name not in known:
            raise RecipeError(
                "unknown baseline", field="--baselines", value=name, fix=f"use {', '.join(known)}"
            )
    return names


def _test_set(benchmark: Benchmark, prepared: Prepared, recipe: Recipe) -> TestSet:
    stats = prepared.stats("test")
    new_item, head_item = stats.num_events == 0, head_items(stats.num_targets)
    cut = prepared.summary["cuts_us"]["test"]
    if benchmark.rows is None:
        users, questions = prepared.questions("test", target_codes(recipe))
        first_us = users.timestamps[users.offsets[:-1]]
        asking = np.array([users.user_ids[index] for index in questions.user_index])
        known = first_us[questions.user_index] < cut
        assert len(questions) == prepared.summary["counts"]["test_baskets"]
        return TestSet(questions, asking, known, new_item, head_item)
    rows = benchmark.rows.filter(pl.col("label") == 1)
    early = benchmark.events.filter(pl.col(Col.timestamp) < benchmark.cuts["test"])
    return TestSet(
        questions_of(rows, prepared.catalogue.items[Col.item].to_list()),
        rows[Col.user].to_numpy(),
        rows[Col.user].is_in(early[Col.user].unique().implode()).to_numpy(),
        new_item,
        head_item,
    )


def questions_of(rows: pl.DataFrame, item_ids: Sequence[str]) -> Questions:
    """Rows with explicit histories as questions, one a row, in their order."""
    numbers = {item_id: row for row, item_id in enumerate(item_ids)}
    histories = rows.select(HISTORY, TIMES, CODES).explode(HISTORY, TIMES, CODES)
    histories = histories.drop_nulls(HISTORY)
    lengths = rows[HISTORY].list.len().to_numpy().astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Questions(
        np.arange(rows.height),
        np.zeros(rows.height, dtype=np.int32),
        np.array([numbers[item] for item in histories[HISTORY]], dtype=np.int32),
        histories[CODES].to_numpy().astype(np.int8),
        histories[TIMES].dt.epoch("us").to_numpy().astype(np.int64),
        offsets[:-1],
        offsets[1:],
        rows[NOW].dt.epoch("us").to_numpy().astype(np.int64),
        np.array([numbers[item] for item in rows[Col.item]], dtype=np.int32),
        np.arange(rows.height + 1),
    )


class _Noted:
    """A model that notes which items its lists of ten hold."""

    def __init__(self, model: Recommends) -> None:
        self._model = model
        self._seen: np.ndarray | None = None

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def coverage(self) -> float:
        """Share of the catalogue that stands in some list of ten."""
        return float(self._seen.mean()) if self._seen is not None else 0.0

    def scores(self, histories: Histories) -> np.ndarray:
        scores = self._model.scores(histories)
        if self._seen is None:
            self._seen = np.zeros(scores.shape[1], dtype=bool)
        most = min(10, scores.shape[1])
        self._seen[np.argpartition(scores, -most, axis=1)[:, -most:]] = True
        return scores


def _judge(model: Recommends, test_set: TestSet, recipe: Recipe) -> np.ndarray:
    """[Q, M] all metrics of all rows (`COLUMNS`)."""
    num_items = len(test_set.new_item)
    order = tie_order(num_items, recipe.seed)
    size = max(1, min(256, SCORES_AT_ONCE // num_items))
    parts = [np.zeros((0, len(COLUMNS)), dtype=np.float32)]
    for low in range(0, len(test_set.questions), size):
        parts.append(
            answer(
                model, test_set.questions[low : low + size], new_item=test_set.new_item,
                head_item=test_set.head_item, known_user=test_set.known_user[low : low + size],
                tie_order=order,
            )
        )  # fmt: skip
    values = np.concatenate(parts)
    assert len(values) == len(test_set.questions)
    return values


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values[:, COLUMNS.index(("all", METRIC))]))


def _gains(values: dict[str, np.ndarray], users: np.ndarray, recipe: Recipe) -> dict[str, Any]:
    """Paired differences to the best baseline of each of the main metrics and slices."""
    gains = {}
    for slice_, metric in (
        ("all", "ndcg@10"), ("all", "hr@50"), ("new_item", "ndcg@10"), ("first_time", "ndcg@10"),
    ):  # fmt: skip
        column = COLUMNS.index((slice_, metric))
        means = {
            name: float(np.nanmean(matrix[:, column]))
            for name, matrix in values.items()
            if name != OURS and np.isfinite(matrix[:, column]).any()
        }
        if not means:
            continue
        best = max(means, key=lambda name: means[name])
        verdict = beats(
            values[OURS][:, column], values[best][:, column], users, 0.95,
            recipe.evaluate.num_bootstrap, recipe.seed,
        )  # fmt: skip
        told = verdict.told()
        gains[f"{slice_}/{metric}"] = {"baseline": best, "of_baseline": means[best]} | told
    return gains


@contextmanager
def costing() -> Iterator[Callable[[], Cost]]:
    """Measure the block; the value is a function that tells the cost once it is over."""
    import psutil

    process = psutil.Process()

    def resident() -> float:
        total = 0
        for each in [process, *process.children(recursive=True)]:
            try:
                total += each.memory_info().rss
            except psutil.Error:  # it has ended
                continue
        return total / 1e6

    over, peak, started = Event(), [resident()], time.monotonic()
    before = peak[0]

    def watch() -> None:
        while not over.wait(0.5):
            peak[0] = max(peak[0], resident())

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    seconds = [0.0]
    try:
        yield lambda: Cost(seconds[0], peak[0] - before)
    finally:
        seconds[0] = time.monotonic() - started
        over.set()
        watcher.join()


def render(report: dict[str, Any]) -> list[str]:
    """The report as text."""
    if "rows" not in report:
        return [f"{report['dataset']} ({report['protocol']})", *_render_response(report)]
    rows = report["rows"]
    lines = [
        f"{report['dataset']} ({report['protocol']}): {report['num_questions']:,} rows, "
        f"{report['num_items']:,} items ranked for each",
        *(f"note: {note}" for note in report["notes"]),
        "",
        *_plain(rows, (*SHOWN, COVERAGE), "all", report["cost"]),
        "",
        "with 95 % intervals:",
        *table(rows, (METRIC, "hr@50"), "all"),
    ]
    for slice_ in SHOWN_SLICES:
        of_slice = [row for row in rows if row["slice"] == slice_ and row["metric"] == METRIC]
        if of_slice:
            lines += [
                "",
                f"slice {slice_} ({of_slice[0]['num_rows']:,} rows):",
                *table(rows, (METRIC, "hr@50"), slice_),
            ]
    lines.append("")
    lines += [f"{name}: {_beside(gain)}" for name, gain in report["gains"].items()]
    seeds = ", ".join(f"{value:.4f}" for value in report["seeds"])
    settings = report["recipe"]["train"]
    lines += [
        f"seeds: {METRIC} {seeds}; chosen on validation: learning rate "
        f"{settings['learning_rate']:.2e}, batch size {settings['batch_size']}",
    ]
    return lines + _render_response(report)


def _beside(gain: dict[str, Any]) -> str:
    """A gain in words; a ratio only where there is an interval, and something to divide by."""
    baseline, of_baseline = gain["baseline"], gain["of_baseline"]
    if not gain["judged"]:
        return f"beside {baseline} {comparison(gain)}"
    ratio = f"{baseline} finds nothing"
    if of_baseline > 0:
        ratio = f"{(of_baseline + gain['difference']) / of_baseline:.2f} x {baseline}"
    return f"{ratio}, paired difference {comparison(gain)}"


def _render_response(report: dict[str, Any]) -> list[str]:
    rows = report["response"]
    if not rows:
        return []
    return [
        "",
        f"the like probability, {rows[0]['num_rows']:,} exposures:",
        *table(rows, like_model.METRICS, "all"),
    ]


def _plain(
    rows: list[dict[str, Any]], metrics: Sequence[str], slice_: str, costs: dict[str, Any]
) -> list[str]:
    cells = {(r["model"], r["metric"]): r["value"] for r in rows if r["slice"] == slice_}
    lines = [f"{'model':<20}" + "".join(f"{metric:>12}" for metric in metrics)]
    lines[0] += f"{'seconds':>9}{'MB':>7}"
    for model, cost in costs.items():
        line = f"{model:<20}" + "".join(f"{cells[model, metric]:>12.4f}" for metric in metrics)
        lines.append(line + f"{cost['seconds']:>9.0f}{cost['peak_mb']:>7.0f}")
    return lines
