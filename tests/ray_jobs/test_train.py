from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from actors import actors
from tiny import (
    CUTS,
    KEY,
    day,
    prepare_here,
    tiny_events,
    tiny_items,
    tiny_log,
    tiny_recipe,
    tiny_shop,
    trainable_here,
    write_log,
)

from ray_jobs import embed, train
from ray_jobs.common.choosing import choose
from ray_jobs.common.kept import Checkpoints
from recsys.artifacts.bundle import Bundle
from recsys.artifacts.lineage import changed_recipe
from recsys.artifacts.progress import load_progress
from recsys.artifacts.run import TEXT_VECTORS, Run
from recsys.artifacts.winner import Winner
from recsys.config import Recipe, recipe_from_dict, target_codes
from recsys.data.pseudonyms import pseudonymise
from recsys.errors import DataError, cause_of
from recsys.preparation.prepared import Prepared
from recsys.schema import Col
from recsys.text.pretrained import CONFIG, fingerprint

EPOCHS = 4


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cluster: None) -> Recipe:
    """A finished training; a checkpoint is kept after every step."""
    folder = tmp_path_factory.mktemp("train")
    tiny_log(folder / "log")
    settings = {"num_workers": 2, "epochs": EPOCHS, "patience": EPOCHS, "batch_size": 2}
    recipe = tiny_recipe(folder, train={**settings, "checkpoint_minutes": 0, "hang_minutes": 0.5})
    trainable_here(recipe)
    train.execute(Run.open(recipe))
    return recipe


def _untrained(recipe: Recipe, folder: Path, **settings: object) -> Recipe:
    """The same prepared data and text store in another run, of which nothing is trained."""
    raw = recipe.resolved() | {"run_dir": str(folder / "run")}
    raw["train"] |= settings
    other, run = recipe_from_dict(raw), Run.open(recipe)
    trained = shutil.ignore_patterns(run.trainings.name, run.winner_file.name)
    shutil.copytree(recipe.root, other.root, ignore=trained)
    return other


@pytest.mark.ray
@pytest.mark.chaos
def test_lost_workers_cost_a_step_each_and_change_nothing(
    undisturbed: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One is killed, and one hangs an epoch later: the other waits for it until that is found.

    The run goes on within its epochs, and ends with the weights of an undisturbed one. Of processes
    that read footers, which every epoch would wait for, there is none.
    """
    recipe = _untrained(undisturbed, tmp_path)
    before = {actor.actor_id for actor in actors(class_name="RayTrainWorker")}
    ended: list[tuple[int, str]] = []
    stop = threading.Event()
    ender = threading.Thread(target=_end_workers, args=(recipe, before, ended, stop))
    ender.start()
    try:
        train.execute(Run.open(recipe))
    finally:
        stop.set()
        ender.join()
        left = [pid for pid, _ in ended if Path(f"/proc/{pid}").exists()]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    assert len(ended) == 2
    assert not left, "it is ended, though it cannot be asked"
    assert re.fullmatch(r"checkpoint_0001-\d{9}", ended[0][1]), "it was killed within an epoch"
    assert "FooterReader" not in {actor.class_name for actor in actors()}
    started = {actor.actor_id for actor in actors(class_name="RayTrainWorker")} - before
    assert len(started) == 3 * recipe.train.most_workers
    told = [line for line in capsys.readouterr().out.splitlines() if "start again" in line]
    assert [line.split("; ")[-1] for line in told] == [
        f"all start again from the last checkpoint ({number} of 2 times)" for number in (1, 2)
    ]
    assert "hangs" in told[1]
    last = json.loads((_latest_checkpoint(recipe) / "progress.json").read_text())
    assert last["epoch"] == EPOCHS
    assert [point["epoch"] for point in last["curve"]] == list(range(1, EPOCHS + 1))
    data = json.loads(Run.open(recipe).winner_file.read_text())
    assert data["curve"] == last["curve"][: len(data["curve"])]
    expected = json.loads((_latest_checkpoint(undisturbed) / "progress.json").read_text())
    assert [_trained(point) for point in last["curve"]] == [
        _trained(point) for point in expected["curve"]
    ]
    assert _weights(recipe) == _weights(undisturbed)


def _trained(point: dict[str, Any]) -> dict[str, Any]:
    """A point of the curve without the seconds that it took."""
    return {name: value for name, value in point.items() if not name.endswith("_s")}


def _weights(recipe: Recipe) -> dict[str, bytes]:
    """Model, head, optimiser and text vectors at the end of the training."""
    return {
        path.name: path.read_bytes() for path in _latest_checkpoint(recipe).glob("*.safetensors")
    }


def _end_workers(
    recipe: Recipe, before: set[str], ended: list[tuple[int, str]], stop: threading.Event
) -> None:
    """SIGKILL one worker within the second epoch, and SIGSTOP one within the third."""
    for epoch, how in ((1, signal.SIGKILL), (2, signal.SIGSTOP)):
        at_work = f"*/checkpoint_{epoch:04d}-*/progress.json"
        while not stop.wait(0.01):
            if not list(Run.open(recipe).trainings.glob(at_work)):
                continue
            alive = [
                actor
                for actor in actors(class_name="RayTrainWorker", state="ALIVE")
                if actor.actor_id not in before
            ]
            if alive:
                os.kill(alive[0].pid, how)
                ended.append((alive[0].pid, _latest_checkpoint(recipe).name))
                break


def _latest_checkpoint(recipe: Recipe) -> Path:
    found = Run.open(recipe).trainings.glob("*/checkpoint_*/progress.json")
    return max((path.parent for path in found), key=lambda path: path.name)


@pytest.mark.ray
def test_a_sharded_training_learns_what_a_whole_one_does(undisturbed: Recipe) -> None:
    """With AdamW, and a checkpoint gathered after every step."""
    raw = undisturbed.resolved()
    raw["train"] |= {"sharding": "full"}
    runs = [Run.open(each).trained for each in (undisturbed, recipe_from_dict(raw))]
    kept = [
        Checkpoints(run.trainings / run.training_name("train"), undisturbed.shared) for run in runs
    ]
    winner = runs[0].winner_file.read_bytes()
    try:
        train.execute(runs[1])
        whole, sharded = (each.curve() for each in kept)
        assert [point["step"] for point in sharded] == [point["step"] for point in whole]
        assert len(sharded) == EPOCHS
        for name, tolerance in (("loss", 0.01), ("ndcg@10", 0.02)):
            expected = [point[name] for point in whole]
            assert [point[name] for point in sharded] == pytest.approx(expected, rel=tolerance)
    finally:
        shutil.rmtree(kept[1].run)
        runs[0].winner_file.write_bytes(winner)


@pytest.mark.ray
def test_a_finished_run_is_not_trained_again(undisturbed: Recipe) -> None:
    before = Run.open(undisturbed).winner_file.read_bytes()
    workers = len(actors(class_name="RayTrainWorker"))
    train.execute(Run.open(undisturbed))
    assert Run.open(undisturbed).winner_file.read_bytes() == before
    assert len(actors(class_name="RayTrainWorker")) == workers > 0


@pytest.mark.ray
def test_a_retraining_learns_up_to_the_test_window(undisturbed: Recipe, tmp_path: Path) -> None:
    """As many epochs as were best, the ids of one window more, and a bundle that takes it."""
    recipe = _untrained(undisturbed, tmp_path, num_workers=1, checkpoint_minutes=None)
    prepared = Prepared.open(recipe.root)
    least = int(prepared.stats("head").num_events.max())
    raw = recipe.resolved()
    raw["train"] |= {"retrain": True, "epochs": 2}
    raw["model"] |= {"min_events_for_id": least}
    again = recipe_from_dict(raw)
    train.execute(Run.open(again))
    before = Run.open(recipe).winner_file.read_bytes()
    train.execute(Run.open(again))
    assert Run.open(recipe).winner_file.read_bytes() == before, "it was trained again"
    embed.execute(Run.open(again))
    winner = json.loads(before)
    progress = load_progress(again.root / winner["checkpoint"])
    assert winner["retrained"]
    assert (progress.until, progress.epoch) == ("valid", winner["metrics"]["epoch"])
    assert "ndcg@10" not in progress.curve[-1]
    weights = Bundle.open(Run.open(recipe).bundle_folder).weights("items.")
    with_id = {cut: (prepared.stats(cut).num_events >= least).sum() for cut in ("head", "valid")}
    assert len(weights["ids.weight"]) == with_id["valid"] > with_id["head"]
    # Whichever epoch was best above: of several, each is followed by the next.
    choose(Run.open(again).trained, again.root / winner["checkpoint"], {"epoch": 3}, trials=[])
    assert load_progress(Run.open(recipe).winner.checkpoint).epoch == 3


@pytest.mark.ray
def test_a_warm_training_starts_where_its_bundle_stands(
    undisturbed: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Epoch 0 is what the bundle scored; run again it resumes, from another bundle it does not."""
    train.execute(Run.open(undisturbed))
    embed.execute(Run.open(undisturbed))
    start = Run.open(undisturbed).bundle()
    recipe = _untrained(undisturbed, tmp_path)
    before = len(actors(class_name="RayTrainWorker"))
    last_night = Run.open(recipe).trainings / "warm-last-night"
    (last_night / "checkpoint_0001").mkdir(parents=True)
    train.execute(Run.open(recipe), start_from=str(start.folder))
    assert len(actors(class_name="RayTrainWorker")) == before + 2
    winner = json.loads(Run.open(recipe).winner_file.read_text())
    (folder,) = Run.open(recipe).trainings.glob("warm-*")
    first, last = Checkpoints(folder, recipe.shared).curve()
    best = json.loads(Run.open(undisturbed).winner_file.read_text())["metrics"]
    assert first["epoch"] == 0 and "loss" not in first
    assert first["ndcg@10"] == pytest.approx(best["ndcg@10"], abs=1e-3)
    assert winner["metrics"]["ndcg@10"] >= first["ndcg@10"]
    assert winner["started_from"] == start.version
    assert not last_night.exists()
    told = capsys.readouterr().out
    assert f"epoch 0/1: as it starts, validation ndcg@10 {first['ndcg@10']:.4f}" in told
    assert last["epoch"] == recipe.train.warm_epochs
    num_users = math.ceil(
        recipe.train.warm_users * Run.open(recipe).prepared.summary["counts"]["users"]
    )
    assert 0 < last["step"] <= math.ceil(num_users / 2 / recipe.train.batch_size)
    assert Run.open(recipe).winner.recipe == recipe_from_dict(recipe.resolved())

    train.execute(Run.open(recipe), start_from=str(start.folder))
    assert len(actors(class_name="RayTrainWorker")) == before + 2, "it was trained again"
    assert json.loads(Run.open(recipe).winner_file.read_text()) == winner

    embed.execute(Run.open(recipe))
    bundle = Run.open(recipe).bundle()
    assert bundle.meta["started_from"] == start.version
    assert changed_recipe(bundle, start) == [], "it is a refresh"
    (kept,) = (Run.open(recipe).root / TEXT_VECTORS).iterdir()
    assert kept.name in {path.name for path in (undisturbed.root / TEXT_VECTORS).iterdir()}


@pytest.fixture(scope="module")
def one_sided(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A log in two buckets; after the head's cut nobody of the second one wants anything."""
    folder = tmp_path_factory.mktemp("one-sided")
    events = tiny_events()
    bucket = pseudonymise(events[Col.user], KEY.encode()).str.slice(0, 8)
    second = bucket.str.to_integer(base=16, dtype=pl.Int64) % 2 == 1
    late = (pl.col(Col.event_type) == "purchase") & (pl.col(Col.timestamp) >= day(CUTS["head"]))
    write_log(folder / "log", events.filter(~(second & late)), tiny_items())
    return tiny_recipe(
        folder, data={"num_buckets": 2}, train={"num_workers": 2, "epochs": 1},
    )  # fmt: skip


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_a_worker_without_a_question_trains_along(one_sided: Recipe) -> None:
    prepared = trainable_here(one_sided)
    codes, (first, second) = target_codes(one_sided), prepared.shards
    for window in ("head", "valid"):
        asked = [
            len(prepared.questions(window, codes, shards=[shard])[1]) for shard in (first, second)
        ]
        assert asked[0] > 0 == asked[1]
    train.execute(Run.open(one_sided))
    (point,) = json.loads(Run.open(one_sided).winner_file.read_text())["curve"]
    assert point["num_valid"] == prepared.summary["counts"]["valid_baskets"]
    assert 0 < point["head_loss"] < 10
    assert 0 < point["ndcg@10"] <= 1


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_an_error_of_ours_is_not_tried_again(tmp_path: Path) -> None:
    """It would be the same; a lost worker is replaced `train.max_failures` times."""
    tiny_log(tmp_path / "log")
    recipe = tiny_recipe(tmp_path, train={"learning_rate": 1e20})
    trainable_here(recipe)
    assert recipe.train.max_failures == 2
    before = len(actors(class_name="RayTrainWorker"))
    with pytest.raises(Exception, match="diverged") as error:
        train.execute(Run.open(recipe))
    started = len(actors(class_name="RayTrainWorker")) - before
    ours = cause_of(error.value)
    assert ours is not None and ours.field == "train.learning_rate"
    assert started == recipe.train.num_workers == 1


class TestWinner:
    """What `embed` goes on from must belong to the data that are prepared now."""

    @pytest.fixture
    def trained(self, tmp_path: Path) -> tuple[Recipe, Prepared, Path]:
        shop = tiny_shop(tmp_path)
        checkpoint = shop.recipe.root / "checkpoint"
        checkpoint.mkdir()
        (checkpoint / "progress.json").write_text(json.dumps({"curve": []}))
        choose(Run.open(shop.recipe), checkpoint, {"ndcg@10": 0.1}, [])
        return shop.recipe, shop.prepared, checkpoint

    def test_it_is_found(self, trained: tuple[Recipe, Prepared, Path]) -> None:
        recipe, _, checkpoint = trained
        assert Run.open(recipe).winner == Winner(recipe, checkpoint)

    def test_of_other_data_it_is_refused(self, trained: tuple[Recipe, Prepared, Path]) -> None:
        recipe, _, _ = trained
        tiny_log(recipe.root.parent / "log", seed=5)
        prepare_here(recipe)
        with pytest.raises(DataError, match="other data") as error:
            _ = Run.open(recipe).winner
        assert error.value.field == "data_fingerprint"

    def test_of_another_language_model_it_is_refused(
        self, trained: tuple[Recipe, Prepared, Path]
    ) -> None:
        recipe, _, _ = trained
        config = Path(recipe.model.language_model) / CONFIG
        config.write_text(config.read_text() + "\n")
        fingerprint.cache_clear()
        with pytest.raises(DataError, match="language model is not the one") as error:
            _ = Run.open(recipe).winner
        assert error.value.field == "language_model"

    def test_without_its_checkpoint_it_is_refused(
        self, trained: tuple[Recipe, Prepared, Path]
    ) -> None:
        recipe, _, checkpoint = trained
        shutil.rmtree(checkpoint)
        with pytest.raises(DataError, match="checkpoint is gone"):
            _ = Run.open(recipe).winner
