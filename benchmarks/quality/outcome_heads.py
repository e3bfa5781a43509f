"""The outcome heads on KuaiRand-Pure, beside rates and boosted trees on the same inputs.

    python -m benchmarks.quality.outcome_heads DIR [--members 1] [--json FILE]

Fitted on what was shown before 29 April 2022 in China, judged on the two days after. Counts are as
of each night there. The log has no ranker: what scores an item for a user is the cosine of who
watched it long to what the user watched long before the log.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.command import add_json, run_report
from recsys.errors import DataError
from recsys.evaluation.metrics.calibration import ece_equal_mass
from recsys.outcome_heads.baselines import baselines
from recsys.outcome_heads.examples import batch_of, joined
from recsys.outcome_heads.fit import FitSettings
from recsys.outcome_heads.fitting import warm_up_days
from recsys.outcome_heads.heads import OUTCOMES, Batch
from recsys.outcome_heads.inputs import Inputs, InputSpec
from recsys.outcome_heads.judge import Figure, difference, judge, judge_dwell, median_by
from recsys.outcome_heads.learn import SHAPE, Examples, learn
from recsys.outcome_heads.rates.item_fields import ItemFields
from recsys.outcome_heads.rates.keys import keys_of
from recsys.outcome_heads.rates.tables import DAY_US, RateTables, days_of, through_days
from recsys.outcomes.adapters import read_kuairand
from recsys.schema import Col

#: 29 April in China; its midnight.
CUT: Final = int(dt.datetime(2022, 4, 28, 16, tzinfo=dt.UTC).timestamp()) * 1_000_000
NIGHT_H: Final = 16
JUDGED: Final = ("click", "long_view")
HEADS, TREES = "heads", "LightGBM"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality.outcome_heads",
        description="Probabilities of outcomes on KuaiRand-Pure.",
    )
    parser.add_argument("folder", type=Path, help="of exposures, histories and items")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--members", type=int, default=SHAPE["members"], help="networks (%(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch and LightGBM (1)")
    add_json(parser)
    return run_report(_run, _render, parser.parse_args(argv))


def _run(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    started = time.perf_counter()
    rows, batch, spec, placements, items = _examples(options.folder)
    moments, users = rows[Col.timestamp].dt.epoch("us").to_numpy(), keys_of("user", rows[Col.user])
    test = moments >= CUT
    days = (CUT - 1 - moments[~test]) // DAY_US
    sizes = np.bincount(days)[::-1].tolist()
    learned = ~test
    learned[~test] = days < len(sizes) - warm_up_days(sizes)
    prepared = time.perf_counter()
    model = learn(
        Examples(
            batch.at(torch.from_numpy(learned)), users[learned], moments[learned] >= CUT - DAY_US
        ),
        spec, placements,
        settings=FitSettings(seed=options.seed), shape={**SHAPE, "members": options.members},
    )  # fmt: skip
    fitted = time.perf_counter()
    inputs, labels = batch.inputs.numpy(), batch.labels.numpy()
    ours = model.probabilities(inputs[test]).of
    raw = model.outputs(inputs[test]).log_probabilities.exp().numpy().astype(np.float64)
    report: dict[str, Any] = {
        "rows": {
            "before": int((~test).sum()), "fitted": int(learned.sum()), "judged": int(test.sum()),
        },
        "seconds": {"prepare": prepared - started, "fit": fitted - prepared},
        "num_inputs": inputs.shape[1], "seed": options.seed,
        "members": options.members, "heads": {},
    }  # fmt: skip
    for name in JUDGED:
        label = labels[:, OUTCOMES.index(name)]
        given = {
            HEADS: ours[name],
            TREES: _trees(inputs, label, test, options),
            **baselines(spec, inputs[test], name, float(label[~test].mean())),
        }
        report["heads"][name] = {
            "calibration": model.calibrations[name].method,
            "ece_uncalibrated": ece_equal_mass(raw[:, OUTCOMES.index(name)], label[test]),
            "models": {who: judge(p, label[test], users[test]) for who, p in given.items()},
            "better_than": {
                who: {
                    metric: asdict(figure)
                    for metric, figure in difference(
                        given[HEADS], p, label[test], users[test]
                    ).items()
                }
                for who, p in given.items()
                if who != HEADS
            },
        }
    length = np.append(items.numbers["duration_ms"], np.nan)[items.rows_of(rows[Col.item])]
    bands = np.floor(2 * np.log2(np.nan_to_num(length, nan=1.0)))
    known = ~batch.dwell.isnan().numpy()
    seconds, judged = np.expm1(batch.dwell.numpy().astype(np.float64)), known & test
    report["dwell"] = judge_dwell(
        model.outputs(inputs[judged]), seconds[judged],
        median_by(bands[known & ~test], seconds[known & ~test], bands[judged]), users[judged],
    )  # fmt: skip
    return report


def _examples(
    folder: Path,
) -> tuple[pl.DataFrame, Batch, InputSpec, dict[str, int], ItemFields]:
    """All rows in order of time, with inputs as of the night before each."""
    rows = read_kuairand(folder)
    catalogue = pl.read_parquet(folder / "items.parquet")
    histories = pl.read_parquet(folder / "histories.parquet")
    items = ItemFields.of(catalogue, ["author_id", Col.tags], ["duration_ms"])
    scores = _cosines(histories, rows, items)
    rows = rows.with_columns(
        pl.Series(Col.score, scores), pl.lit("item-kNN").alias(Col.model_version)
    )
    events = pl.concat(
        histories.select(Col.user, pl.col(column).alias(Col.item))
        .explode(Col.item)
        .drop_nulls()
        .with_columns(strong=pl.lit(strong))
        for column, strong in (("watched", False), ("long_watched", True))
    )
    moments = rows[Col.timestamp].dt.epoch("us")
    begin = int(moments.min())  # type: ignore[arg-type]
    tables = RateTables.empty(begin, items.groups, night_h=NIGHT_H).with_history(events, items)
    spec = InputSpec.of(rows.filter(moments < CUT), items, history=True)
    fitted = rows.filter(moments < CUT)[Col.placement].drop_nulls().unique().sort()
    placements = {name: number for number, name in enumerate(fitted, start=1)}
    batches = [
        batch_of(day, Inputs(spec, as_of, items), placements)
        for as_of, day in through_days(tables, days_of(rows, NIGHT_H), items)
        if day.height
    ]
    return rows, joined(batches), spec, placements, items


def _cosines(histories: pl.DataFrame, rows: pl.DataFrame, items: ItemFields) -> NDArray[np.float32]:
    """[N] item-kNN scores from what was watched long before the log."""
    seen = (
        histories.with_row_index("row")
        .select("row", pl.col("long_watched").alias(Col.item))
        .explode(Col.item)
        .drop_nulls()
    )
    places = items.rows_of(seen[Col.item])
    shape = (histories.height + 1, len(items.keys) + 1)
    watched = sparse.csr_array((np.ones(len(places)), (seen["row"].to_numpy(), places)), shape)
    watched.data[:] = 1.0
    norms = np.sqrt(np.asarray(watched.sum(0)).ravel())
    pairs = (watched.T @ watched).tocoo()
    cosine = pairs.data / (norms[pairs.row] * norms[pairs.col] + 5) * (pairs.row != pairs.col)
    alike = sparse.csr_array((cosine, (pairs.row, pairs.col)), pairs.shape)
    of_user = {user: row for row, user in enumerate(histories[Col.user])}
    user_rows = np.array([of_user.get(user, histories.height) for user in rows[Col.user]])
    item_rows = items.rows_of(rows[Col.item])
    counts = np.asarray(watched.sum(1)).ravel()
    found = np.zeros(len(user_rows), np.float32)
    for start in range(0, len(found), 4_000):
        part = slice(start, start + 4_000)
        both = watched[user_rows[part]].multiply(alike[item_rows[part]])
        found[part] = both.sum(1) / np.sqrt(counts[user_rows[part]] + 5)
    return found


def _trees(
    inputs: NDArray[np.float32], labels: NDArray[Any], test: NDArray[np.bool_],
    options: argparse.Namespace,
) -> NDArray[np.float64]:  # fmt: skip
    """Probabilities of 200 boosted trees."""
    try:
        import lightgbm
    except ImportError:
        raise DataError("the trees need LightGBM", fix="pip install 'raycommend[bench]'") from None
    settings = {
        "objective": "binary", "learning_rate": 0.03, "num_leaves": 15, "min_data_in_leaf": 100,
        "bagging_fraction": 0.8, "bagging_freq": 1, "feature_fraction": 0.5, "verbose": -1,
        "num_threads": options.threads, "seed": options.seed,
    }  # fmt: skip
    data = lightgbm.Dataset(inputs[~test], labels[~test])
    found = lightgbm.train(settings, data, num_boost_round=200).predict(inputs[test])
    return np.asarray(found, dtype=np.float64)


def _render(report: dict[str, Any]) -> list[str]:
    rows, seconds = report["rows"], report["seconds"]
    lines = [
        f"{rows['before']:,} rows before the cut, {rows['fitted']:,} of them fitted and calibrated "
        f"on, {rows['judged']:,} judged; prepared in "
        f"{seconds['prepare']:.0f} s, fitted in {seconds['fit']:.0f} s"
    ]
    for name, head in report["heads"].items():
        lines += ["", f"{name:<16}{'AUC':>24}{'AUC per user':>24}{'log loss':>10}{'ECE':>8}"]
        for who, found in head["models"].items():
            both = (_figure(Figure(**found[metric])) for metric in ("auc", "auc_per_user"))
            loss, ece = found["log_loss"]["value"], found["ece"]
            lines.append(
                f"{who:<16}" + "".join(f"{x:>24}" for x in both) + f"{loss:>10.4f}{ece:>8.4f}"
            )
        for who, found in head["better_than"].items():
            both = (_figure(Figure(**found[metric])) for metric in ("auc", "auc_per_user"))
            lines.append(f"{'- ' + who:<16}" + "".join(f"{x:>24}" for x in both))
        lines.append(
            f"calibrated by: {head['calibration']}; ECE without {head['ece_uncalibrated']:.4f}"
        )
    dwell = report["dwell"]
    lines += [
        "",
        f"dwell given a click: mean absolute error {dwell['mae_s']:.2f} s, "
        f"{dwell['baseline_mae_s']:.2f} s of the median by duration; difference "
        + _figure(Figure(**dwell["difference_s"])),
    ]
    return lines + [
        f"P(dwell > {each['t_s']:g} s): promised {each['promised']:.4f}, happened "
        f"{each['happened']:.4f}, ECE {each['ece']:.4f}"
        for each in dwell["above"]
    ]


def _figure(figure: Figure) -> str:
    return f"{figure.value:.4f} [{figure.low:.4f}, {figure.high:.4f}]"


if __name__ == "__main__":
    sys.exit(main())
