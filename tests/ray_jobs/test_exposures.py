"""`recsys exposures`: the command, on Ray, and with the run in a store."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch

import polars as pl
import pytest
from object_store import ObjectStore
from prepare_runs import hashes, tiny_data
from shown_lists import ShownLists, event, known, shown
from tiny import KEY, KEY_ENV, tiny_recipe_file

from ray_jobs import cli
from ray_jobs import exposures as job
from recsys.artifacts.run import Run
from recsys.config import Recipe, recipe_from_dict
from recsys.outcomes.joining import EXPOSURES_DIR, JOINED_DIR
from recsys.preparation.preparing import one_by_one
from recsys.schema import Col
from recsys.storage.mirror import Mirror


@pytest.fixture
def shop(tmp_path: Path) -> ShownLists:
    shop = ShownLists(tmp_path)
    for number in range(6):
        shop.lists(shown(f"r{number}", f"user-{number}", 9.0 * number, "i1", "i2"))
    shop.live([event("user-1", "i1", "click", 10, "r1"), event("user-2", "i2", "purchase", 90)])
    return shop


@contextmanager
def in_process() -> Iterator[None]:
    """Let the job run its tasks in this process, one after another."""
    with (
        patch.dict("os.environ", {KEY_ENV: KEY}),
        patch.object(job, "tasks_on", lambda _: nullcontext(one_by_one)),
    ):
        yield


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    with in_process(), pytest.raises(SystemExit) as end:
        cli.main(["exposures", *arguments])
    told = capsys.readouterr()
    assert end.value.code == 0, told.err
    return told.out


def test_the_command_tells_what_came_of_it(
    shop: ShownLists, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(tiny_recipe_file(tmp_path, data=tiny_data(tmp_path, num_buckets=4)))
    told = run(capsys, "--config", config, "--dry-run")
    assert "would read 12 items of answered lists and 2 live events" in told
    assert "would join them by request, else within 24 h, in 4 buckets" in told
    assert not shop.out.exists()
    told = run(capsys, "--config", config)
    assert "12 exposures on 3 days: 1 clicked, 0 carted, 0 purchased, 0 returned" in told
    assert "2 outcomes: 1 joined by request, 0 joined by window, 0 unknown request" in told
    assert "1 late, 0 double" in told
    assert f"exposures: done in 0 s -> {shop.out}" in told.replace("in 1 s", "in 0 s")
    told = run(capsys, "--config", config, "--set", "data.attribution_window_h=96")
    assert "1 purchased" in told and "0 late" in told


def test_a_log_without_exposures_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ShownLists(tmp_path)
    config = tiny_recipe_file(tmp_path, data=tiny_data(tmp_path))
    told = run(capsys, "--config", str(config))
    assert "0 exposures" in told and "warning: nobody logged what was shown" in told


def test_a_log_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(tiny_recipe_file(tmp_path))
    for more in ((), ("--dry-run",)):
        capsys.readouterr()
        with in_process(), pytest.raises(SystemExit) as end:
            cli.main(["exposures", "--config", config, *more])
        assert end.value.code == 2
        told = capsys.readouterr().err
        assert told.startswith("exposures: ") and f"{tmp_path / 'log'}: [data.source]" in told
    assert not (tmp_path / "run" / EXPOSURES_DIR).exists()


def test_without_a_key_the_users_are_nobodys(
    shop: ShownLists,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another one would match neither the lists nor the live events."""
    monkeypatch.delenv(KEY_ENV, raising=False)
    config = str(tiny_recipe_file(tmp_path, data=tiny_data(tmp_path)))
    for more in ((), ("--dry-run",)):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main(["exposures", "--config", config, *more])
        assert end.value.code == 2
        told = capsys.readouterr().err
        assert "no pseudonym key" in told and "recsys prepare" in told
    assert not shop.out.exists()


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_ray_comes_to_the_bytes_of_one_process(
    shop: ShownLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    shop.join()
    before = hashes(shop.out)
    for name in (EXPOSURES_DIR, JOINED_DIR):
        shutil.rmtree(shop.recipe.root / name)
    job.execute(Run.open(shop.recipe))
    assert hashes(shop.out) == before


def test_a_run_in_a_store_comes_to_the_same(
    store: ObjectStore, shop: ShownLists, tmp_path: Path
) -> None:
    """Whose feedback lies there too; and nothing of an erased user is left in it."""
    shop.join()
    stored = _in_store(shop.recipe, tmp_path / "node")
    assert stored.feedback is not None
    Mirror(stored.feedback, shop.feedback.folder).push()
    with in_process():
        folder = job.execute(Run.open(stored))
    assert hashes(folder.resolve()) == hashes(shop.out)
    assert not (stored.root / JOINED_DIR).exists(), "the pieces stay in the store alone"
    user = known("user-1")

    def holding() -> list[str]:
        keys = [key for key in store.stored("runs/") if f"/{JOINED_DIR}/" in key]
        frames = {key: pl.read_parquet(io.BytesIO(store.read(key)))
                  for key in keys if key.endswith(".parquet")}  # fmt: skip
        return [key for key, frame in frames.items()
                if Col.user in frame.columns and user in frame[Col.user].to_list()]  # fmt: skip

    assert holding()
    shop.erase("user-1", 95)
    Mirror(stored.feedback, shop.feedback.folder).push()
    shop.join()
    with in_process():
        folder = job.execute(Run.open(stored))
    assert hashes(folder.resolve()) == hashes(shop.out)
    assert holding() == []


def _in_store(recipe: Recipe, cache: Path) -> Recipe:
    raw = recipe.resolved()
    raw |= {"run_dir": "s3://shop/runs/{name}"}
    raw["storage"] |= {"cache_dir": str(cache)}
    return recipe_from_dict(raw)
