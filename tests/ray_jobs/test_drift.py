"""`recsys drift` on a small shop: a reference in a bundle, and two weeks after it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
import pytest
from bundles import make_bundle, make_items
from drifting import clicks, of
from recommenders import rewritten
from tiny import KEY, KEY_ENV, day, prepare_here, tiny_events, tiny_recipe_file, write_log

from ray_jobs import cli
from ray_jobs import drift as job
from recsys.artifacts.bundle import Bundle
from recsys.artifacts.registry import Registry
from recsys.artifacts.run import Run
from recsys.config import Recipe, load_recipe
from recsys.drift.findings import DRIFT_FILE, asks_full_run
from recsys.drift.measuring import days_of
from recsys.drift.quantities import CTR, PRICE, PROMISED, TOP_SCORE
from recsys.drift.reference import REFERENCE_DAYS, Reference
from recsys.errors import BundleError, DataError
from recsys.evaluation.metrics.ratio import Ratio
from recsys.preparation.preparing import one_by_one
from recsys.recommender.loading import load_scorer
from recsys.schema import Col

#: The bundle is made from the log up to here; the log ends at day 90.
CUT = 76


@contextmanager
def in_process() -> Iterator[None]:
    """Tasks run here, one after another."""
    with (
        patch.dict("os.environ", {KEY_ENV: KEY}),
        patch.object(job, "tasks_on", lambda _: nullcontext(one_by_one)),
    ):
        yield


def prepared_until(folder: Path, recipe: Recipe, events: pl.DataFrame) -> Run:
    write_log(folder / "log", events, make_items().drop("available_from"))
    prepare_here(recipe)
    return Run.open(recipe)


def events(*, only_dear_after: float | None = None) -> pl.DataFrame:
    """240 users, items as old as the log; from a day on they look at the dear half alone."""
    found = tiny_events(240, 200, seed=3).filter(pl.col(Col.item) < "item-0190")
    if only_dear_after is None:
        return found
    row = pl.col(Col.item).str.slice(5).cast(pl.Int64)
    dear = pl.format("item-{}", (100 + row % 100).cast(pl.String).str.zfill(4))
    late = pl.col(Col.timestamp) >= day(only_dear_after)
    return found.with_columns(pl.when(late).then(dear).otherwise(Col.item).alias(Col.item))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder and the recipe: a bundle of the log's first 76 days, with its reference."""
    folder = tmp_path_factory.mktemp("drift")
    cuts = {"head": day(40), "valid": day(55), "test": day(65)}
    config = tiny_recipe_file(
        folder, data={"source": str(folder / "log"), "cuts": cuts, "num_buckets": 4}
    )
    recipe = load_recipe(str(config))
    run = prepared_until(folder, recipe, events().filter(pl.col(Col.timestamp) < day(CUT)))
    bundle = make_bundle(folder / "plain", recipe, seed=1, items=run.prepared.catalogue.items)
    reference = Reference.measure(recipe, run.prepared, one_by_one)
    reference = reference.with_scores(load_scorer(bundle), run.prepared, recipe.seed)
    told = reference.as_json()
    rewritten(bundle, run.bundle_folder, reference=told)
    return folder, config


def test_a_bundle_carries_its_reference(shop: tuple[Path, Path]) -> None:
    bundle = Bundle.open(shop[0] / "run" / "bundle")
    reference = Reference.of(bundle)
    assert reference.window.days == REFERENCE_DAYS and TOP_SCORE in reference.counts
    assert days_of(reference.window)[-1] == "2024-03-16"
    text = (bundle.folder / "reference.json").read_text()
    assert "customer" not in text and "item-0" not in text
    older = Bundle.open(shop[0] / "plain")
    with pytest.raises(BundleError, match=r"before bundles told .*recsys embed"):
        Reference.of(older)
    path = bundle.folder / "reference.json"
    damaged = json.loads(text)
    damaged["counts"][PRICE]["by_day"] = [[1, 2]]
    try:
        path.write_text(json.dumps(damaged))
        with pytest.raises(BundleError, match=r"reference.json"):
            Reference.of(Bundle.open(bundle.folder, verify=False))
        with pytest.raises(BundleError, match="not the one that was written"):
            Bundle.open(bundle.folder)
    finally:
        path.write_text(text)


def run(capsys: pytest.CaptureFixture[str], config: Path, *more: str, status: int = 0) -> str:
    capsys.readouterr()
    with in_process(), pytest.raises(SystemExit) as end:
        cli.main(["drift", "--config", str(config), *more])
    told = capsys.readouterr()
    assert end.value.code == status, told.err
    return told.err if status else told.out


def found(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "run" / DRIFT_FILE).read_text())
    return data


def test_two_weeks_after(shop: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing new; the same shop goes on; then it sells its dear half alone."""
    folder, config = shop
    recipe = load_recipe(str(config))
    with pytest.raises(DataError, match=r"drift.json.*missing.*recsys drift"):
        asks_full_run(Run.open(recipe))
    assert "nothing to compare" in run(capsys, config, "--dry-run")
    assert "nothing to compare: no event since the log of" in run(capsys, config)
    assert found(folder)["days"] is None and asks_full_run(Run.open(recipe)) is None

    prepared_until(folder, recipe, events())
    told = run(capsys, config, "--dry-run")
    assert "would count 2024-03-24 to 2024-03-30 in 4 history shards" in told
    told = run(capsys, config)
    stable = found(folder)
    assert stable["verdict"] == "stable" and stable["days"] == ["2024-03-24", "2024-03-30"]
    assert stable["not_compared"] == [CTR, PROMISED] and "no full run is asked for" in told
    assert of(stable, TOP_SCORE)["interval"][0] < 0.1
    run(capsys, config, "--window-days", "30")
    assert found(folder)["days"] == ["2024-03-17", "2024-03-30"]

    prepared_until(folder, recipe, events(only_dear_after=86))
    told = run(capsys, config, "--window-days", "4")
    drifted = found(folder)
    assert of(drifted, PRICE)["verdict"] == "drifted" and "price: PSI" in drifted["reason"]
    assert f"a full run is asked for: {drifted['reason']}" in told
    assert asks_full_run(Run.open(recipe)) == drifted["reason"]
    run(capsys, config, "--window-days", "4", "--set", "drift.full_run_psi=null")
    assert not found(folder)["asks_full_run"]
    run(capsys, config, "--window-days", "0", status=2)


def test_clicks_and_the_champion(
    shop: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The registry's champion is the one that is compared; exposures tell the click-through."""
    folder, config = shop
    recipe = load_recipe(str(config))
    bundle = Bundle.open(folder / "run" / "bundle")
    told = Reference.of(bundle).as_json()
    told["counts"][CTR] = clicks(0.4, 9000, REFERENCE_DAYS).as_json()
    other = rewritten(bundle, folder / "clicked", reference=told)
    registry = Registry.of(recipe)
    registry.add(other.folder, other.version)
    registry.promote(other.version)
    with (
        patch.object(job, "count_clicks", lambda *_: clicks(0.1, 3000, 7)),
        patch.object(job, "clicks_by_promised", lambda *_: Ratio(0.5, 0.02, 0.3, 900)),
    ):
        printed = run(capsys, config)
    drifted = found(folder)
    assert drifted["bundle"] == other.version and of(drifted, CTR)["verdict"] == "drifted"
    assert of(drifted, PROMISED)["verdict"] == "drifted" and drifted["not_compared"] == []
    assert f"{PROMISED}  900    1.0000  0.5000  -0.5000" in printed
    assert drifted["reason"].startswith("ctr: ") or "; ctr: " in drifted["reason"]


def test_without_a_bundle_it_says_what_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_recipe_file(tmp_path)
    assert "recsys prepare" in run(capsys, config, status=2)
    prepared_until(tmp_path, load_recipe(str(config)), events())
    assert "recsys embed" in run(capsys, config, status=2)
