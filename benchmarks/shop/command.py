"""A generated shop that drives the real service for some nights, in one command.

    python -m benchmarks.shop [--nights 14] [--small] [--work DIR] [--json FILE]

Shoppers with tastes that drift ask the service over HTTP, look at its lists from the top, click,
buy within their budgets and send things back. Each night the jobs make the next champion of what
the service took in. Users are split into arms: the loop, the first bundle for ever, the champion
with drawn lists, and what is popular. The service's clock is set to the generated days.

Each day is laid beside what the heads of its champion promised of it, and what lists by `objective:
click` would have brought is told of the last day.

Planned: items that are new each week, a day on which tastes shift, and a night whose export is
broken. All is generated: what it shows is that the loop works, not what a real shop would gain.
"""

from __future__ import annotations

import argparse
import os
import secrets
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.command import add_json, run_report
from benchmarks.ports import free_ports
from benchmarks.shop.catalogue import Catalogue
from benchmarks.shop.days import Days, arms
from benchmarks.shop.nights import Night, Nights
from benchmarks.shop.objectives import by_objective
from benchmarks.shop.promises import heads_by_day, keep_users, promises
from benchmarks.shop.replay import judge
from benchmarks.shop.report import render, report_of
from benchmarks.shop.service import served, set_clock
from benchmarks.shop.shoppers import Shoppers
from benchmarks.shop.visits import MOMENTS, Event, Shop, moment
from ray_jobs.common.cluster import connected
from recsys.artifacts.run import Run
from recsys.config import RayCluster
from recsys.errors import DataError
from recsys.schema import Col

KEY = "RAYCOMMEND_PSEUDONYM_KEY"


@dataclass(frozen=True)
class Size:
    """How large a shop is.

    Attributes:
        shoppers, items: at the beginning.
        new_items: each week.
        history: days of the log before the service.
        margin: what a refresh may lose at the gate: so few shoppers cannot tell less apart.
        train: of the recipe.
        model: likewise.
    """

    shoppers: int
    items: int
    new_items: int
    history: int
    margin: float
    train: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)


WHOLE = Size(800, 600, 50, 28, 0.1, {"epochs": 2, "batch_size": 16}, {"dim": 64, "max_history": 64})
SMALL = Size(
    200, 150, 20, 20, 0.5, {"epochs": 2, "batch_size": 16},
    {"dim": 16, "max_history": 32, "num_layers": 1, "num_heads": 2},
)  # fmt: skip


def settings(size: Size, port: int) -> dict[str, dict[str, Any]]:
    """Sections of the recipe."""
    return {
        "data": {
            "target_events": ["view", "click"],
            "text_fields": ["title", "brand", "category"], "max_tokens": 24, "num_buckets": 4,
        },
        "model": {"tuning": "frozen", **size.model},
        "train": {
            "num_workers": 1, "patience": size.train["epochs"], "head_rows": 3000,
            "valid_rows": 1000, **size.train,
        },
        "embed": {"num_actors": 1},
        "evaluate": {
            "num_actors": 1, "num_bootstrap": 200, "max_rows": 2000,
            "baselines": ["popularity", "trending", "item_knn"],
        },
        "promote": {"margin": size.margin},
        "serve": {
            "port": port,
            "exclude_owned": True,
            "autoscaling": {"min_replicas": 1, "max_replicas": 1},
            "text_encoder": {"min_replicas": 0, "max_replicas": 1},
        },
        "ray": {"address": "local"},
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.shop",
        description="A generated shop that drives the real service for some nights.",
    )
    parser.add_argument("--nights", type=int, default=14, help="nights to serve (default: 14)")
    parser.add_argument("--small", action="store_true", help="a shop of a few minutes")
    parser.add_argument("--seed", type=int, default=0, help="of all that is generated (0)")
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="keep log, run and truth in this new folder"
    )
    add_json(parser)
    options = parser.parse_args(argv)
    return run_report(_run, render, options)


def _run(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="shop-") as name:
        work = Path(name) if options.work is None else options.work.absolute()
        size = SMALL if options.small else WHOLE
        return drive(work, size, options.nights, options.seed).report


@dataclass(frozen=True)
class Driven:
    """A shop that was driven.

    Attributes:
        report: see `report_of`.
        shop: as it is at the end.
        shown: of all days, see `Days.serve`.
        run: as it is at the end.
    """

    report: dict[str, Any]
    shop: Shop
    shown: pl.DataFrame
    run: Run


def drive(work: Path, size: Size, num_nights: int, seed: int) -> Driven:
    """Let the shop run, and tell what came of it.

    Args:
        work: folder of all files, which holds none yet.
        size: of the shop.
        num_nights: days that are served, each with its night.
        seed: of all that is generated.

    Raises:
        DataError: the first night ends without a champion, or the service fails.
    """
    began = time.monotonic()
    shift_day, broken_day = num_nights // 2, max(0, num_nights // 2 - 2)
    catalogue = Catalogue.generate(
        size.items, {day: size.new_items for day in range(1, num_nights, 7)}, seed
    )
    shop = Shop(Shoppers.generate(catalogue, size.shoppers, seed), shift_day)
    (port,), clock = free_ports(1), work / "clock"
    nights = Nights(work, settings(size, port))
    nights.write_items(catalogue, -1)
    nights.write_events(browsed(shop, size.history), "history")
    os.environ.setdefault(KEY, secrets.token_hex(16))
    set_clock(clock, moment(0, 0))
    shown = []
    with connected(RayCluster(address="local"), dashboard=True):
        run = nights.run()
        told = [nights.night(run, -1)]
        _say(told[0], began)
        if told[0].champion is None:
            raise DataError(
                f"the first night has no champion: {told[0].refused}", where=work,
                fix="this is a fault of the benchmark or of the jobs",
            )  # fmt: skip
        run = nights.run(arms(str(run.registry.path(told[0].champion))))
        with served(nights.config, port, clock, work / "service.log") as service:
            days = Days(shop, service, os.environ[KEY].encode())
            for day in range(num_nights):
                shown.append(days.serve(day))
                shown[-1].write_parquet(work / f"truth-{day:02d}.parquet")
                print(f"day {day}: {shown[-1][Col.request].n_unique():,} lists", flush=True)
                nights.write_items(catalogue, day)
                if day == broken_day:
                    nights.break_export()
                told.append(nights.night(Run.open(run.recipe), day))
                nights.mend_export()
                keep_users(run, work, day)
                _say(told[-1], began)
        every = pl.concat(shown)
        judged = judge(nights.as_of(run, num_nights - 1), shop, every)
    heads, key = heads_by_day(run, work, told), os.environ[KEY].encode()
    report = report_of(
        every, told, catalogue, judged=judged, seed=seed, shoppers=size.shoppers,
        items=size.items, shift_day=shift_day, broken_day=broken_day,
        promises=promises(run, heads, shop, every),
        by_objective=by_objective(run, heads, shop, every, key),
        seconds=round(time.monotonic() - began),
    )  # fmt: skip
    return Driven(report, shop, every, run)


def browsed(shop: Shop, num_days: int) -> list[Event]:
    """The log before the service, when a page of best sellers stood in its place."""
    events: list[Event] = []
    for day in range(-num_days, 0):
        shop.begin(day)
        for number in range(MOMENTS):
            users, at = shop.visitors(), moment(day, number)
            events += [*shop.returned(at), *shop.browse(users, day, at)]
            seen = shop.look(users, shop.bestsellers(users, day))
            events += shop.answers(seen, at, [None] * len(users))
    return events


def _say(night: Night, began: float) -> None:
    stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in night.seconds.items())
    became = f"{night.way}, {night.champion}"
    if not night.is_new:
        became = f"{night.champion} stays ({night.refused})"
    print(f"night {night.day}: {became}; {stages}; nDCG@10 {night.ndcg}; "
          f"{time.monotonic() - began:.0f} s so far", flush=True)  # fmt: skip
