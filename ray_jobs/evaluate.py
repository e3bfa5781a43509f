"""A bundle and baselines -> `report.json`: the test window, the whole catalogue, every basket.

The same for people in `report.html`, with ten users and their lists.

python -m ray_jobs.evaluate --config recipes/demo.yaml
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ray_jobs.common.answering import answer_all
from ray_jobs.common.cluster import connected
from ray_jobs.common.texts import ensure_store
from recsys.artifacts.bundle import Bundle
from recsys.artifacts.run import Run
from recsys.config import target_codes
from recsys.errors import DataError
from recsys.evaluation.baselines import TrainingLog, fit_baselines
from recsys.evaluation.gate import Verdict, beats, comparison
from recsys.evaluation.report import COLUMNS, COMPARED, METRIC, OURS, PROTOCOL, summarise, table
from recsys.preparation.prepared import Prepared
from recsys.recommender.loading import scorer_on
from recsys.reporting.examples import make_examples, sampled
from recsys.reporting.page import write_page
from recsys.reporting.trade_off import trade_off
from recsys.schema import Col
from recsys.storage.outputs import whole_file, write_json
from recsys.text.text_store import TextStore

_COLUMN = COLUMNS.index(("all", METRIC))


def plan(run: Run) -> list[str]:
    """What a run would do."""
    prepared, bundle = _unseen(run, verify=False)
    counts, settings = prepared.summary["counts"], run.recipe.evaluate
    baskets = min(counts["test_baskets"], settings.max_rows or counts["test_baskets"])
    return [
        f"rank {counts['items']:,} items for {baskets:,} baskets",
        f"with {bundle.version} and {', '.join(settings.baselines)}",
        f"write {run.report_file} and {run.page_file.name}",
    ]


def execute(run: Run) -> Path:
    """Evaluate the run's bundle beside the baselines.

    Raises:
        DataError: the bundle may have been trained on the test window.
    """
    prepared, bundle = _unseen(run)
    settings = run.recipe.evaluate
    with connected(run.recipe.ray):
        store = ensure_store(run.trained)
        scorer = scorer_on(bundle, prepared, "test", store.content_similarity)
        models = {OURS: scorer, **_baselines(run, store)}
        users, baskets, values = answer_all(run.recipe, prepared, models)
    asked, questions = sampled(prepared, run.recipe)
    examples = make_examples(scorer, prepared, asked, questions, bundle.version)
    diversity = trade_off(scorer, questions, settings.batch_size)
    seed = run.recipe.seed
    rows = summarise(values, users, num_bootstrap=settings.num_bootstrap, seed=seed)
    best = _best_baseline(rows)
    verdict = None
    if best is not None:
        verdict = beats(
            values[OURS][:, _COLUMN], values[best][:, _COLUMN], users,
            0.95, settings.num_bootstrap, seed,
        )  # fmt: skip
    _write_rows(run, bundle, users, baskets, values)
    write_json(run.examples_file, examples)
    # The report last: who finds it takes the rows for whole.
    _write_report(run, bundle, rows, len(users), best, verdict, diversity)
    run.recipe.shared.hand_in(run.rows_file, run.examples_file, run.report_file)
    own = {f"{r['slice']}/{r['metric']}": r["value"] for r in rows if r["model"] == OURS}
    with run.recipe.shared.changing(run.bundle_folder) as folder:
        Bundle.open(folder, verify=False).note_metrics(own)
    write_page(run)
    return run.report_file


def _unseen(run: Run, *, verify: bool = True) -> tuple[Prepared, Bundle]:
    """Prepared data, and the bundle; it must not have been trained on their test window."""
    prepared = run.matching_prepared()
    bundle = run.bundle(verify=verify)
    if bundle.meta["data_fingerprint"] != prepared.summary["data_fingerprint"]:
        raise DataError(
            "the bundle was trained on other data than are prepared now, and may have seen the "
            "test window",
            where=bundle.folder, field="data_fingerprint", value=bundle.meta["data_fingerprint"],
            fix="run `recsys tune` and `recsys embed` again",
        )  # fmt: skip
    return prepared, bundle


def _baselines(run: Run, store: TextStore) -> dict[str, Any]:
    """The baselines, fitted on everything before the test window."""
    prepared = run.prepared
    log = TrainingLog(
        prepared.users().before(prepared.summary["cuts_us"]["test"]),
        prepared.catalogue.num_items,
        target_codes(run.recipe),
        store.vectors,
        prepared.catalogue.text_rows,
        prepared.daily_counts(),
        run.recipe.data.count_every_days,
    )
    return fit_baselines(run.recipe.evaluate.baselines, log)


def _write_rows(
    run: Run,
    bundle: Bundle,
    users: np.ndarray,
    baskets: np.ndarray,
    values: dict[str, np.ndarray],
) -> None:
    columns = {Col.user: users, "basket": baskets, "bundle": [bundle.version] * len(users)}
    columns |= {f"{name}:{METRIC}": values[name][:, _COLUMN] for name in values}
    columns |= {
        f"{OURS}:{slice_}/{metric}": values[OURS][:, COLUMNS.index((slice_, metric))]
        for slice_, metric in COMPARED
    }
    with whole_file(run.rows_file) as aside:
        pl.DataFrame(columns).write_parquet(aside)


def _write_report(
    run: Run,
    bundle: Bundle,
    rows: list[dict[str, Any]],
    num_questions: int,
    best: str | None,
    verdict: Verdict | None,
    diversity: list[dict[str, Any]],
) -> None:
    write_json(
        run.report_file,
        {
            "dataset": run.recipe.name,
            "protocol": PROTOCOL,
            "num_questions": num_questions,
            "num_items": run.prepared.catalogue.num_items,
            "bundle": bundle.version,
            "recipe": bundle.recipe.resolved(),
            "recipe_hash": bundle.recipe.fingerprint(),
            "data_fingerprint": run.prepared.summary["data_fingerprint"],
            "best_baseline": best,
            "gain_over_best_baseline": verdict.as_json() if verdict else None,
            "diversity": diversity,
            "outcomes": bundle.outcomes.card if bundle.outcomes else None,
            "rows": rows,
        },
    )


def _best_baseline(rows: list[dict[str, Any]]) -> str | None:
    values = {
        row["model"]: row["value"]
        for row in rows
        if row["model"] != OURS and (row["slice"], row["metric"]) == ("all", METRIC)
    }
    return max(values, key=lambda name: values[name]) if values else None


def report(run: Run) -> list[str]:
    """The tables of the report."""
    data = json.loads(run.report_file.read_text())
    lines = [f"{data['num_questions']:,} baskets, {data['num_items']:,} items each"]
    for slice_ in ("all", "first_time", "new_item", "new_user"):
        if any(row["slice"] == slice_ for row in data["rows"]):
            lines += [
                "",
                f"slice: {slice_}",
                *table(data["rows"], (METRIC, "recall@50", "auc"), slice_),
            ]
    gain = data["gain_over_best_baseline"]
    if gain:
        told = comparison(gain) + (" (paired, users resampled)" if gain["judged"] else "")
        lines += ["", f"{METRIC} over {data['best_baseline']}: {told}"]
    return lines


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("evaluate")
