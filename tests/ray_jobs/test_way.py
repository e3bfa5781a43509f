"""The whole way on a small log, from Parquet to the gate and back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from dying_tasks import DyingModel, sent_along
from safetensors.torch import load_file, save_file
from tiny import KEY, KEY_ENV, prepare_here, tiny_log, tiny_recipe

from ray_jobs import embed, evaluate, pipeline, promote, rollback
from recsys.artifacts.bundle import Bundle
from recsys.artifacts.progress import load_progress, seal
from recsys.artifacts.registry import Registry
from recsys.artifacts.run import Run
from recsys.config import Recipe, recipe_from_dict, target_codes
from recsys.errors import BundleError, DataError, GateRefused
from recsys.evaluation.gate import MIN_USERS
from recsys.evaluation.report import OURS
from recsys.preparation.prepared import QUESTIONS_DIR, Prepared
from recsys.recommender import Recommender
from recsys.recommender.loading import scorer_on
from recsys.text.pretrained import WEIGHTS
from recsys.text.text_store import TextStore
from recsys.training.pretraining.adapted import LANGUAGE_DIR

pytestmark = pytest.mark.ray

GOLDEN = Path(__file__).with_name("golden_report.json")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, cluster: None) -> Iterator[Recipe]:
    folder = tmp_path_factory.mktemp("way")
    tiny_log(folder / "log")
    recipe = tiny_recipe(
        folder,
        tune={"num_trials": 1},
        train={"epochs": 2},
        pretrain={"epochs": 1, "max_tokens": 32},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_ENV, KEY)  # users are shared out by their pseudonyms
        pipeline.execute(Run.open(recipe))
        yield recipe


def store_of(recipe: Recipe) -> TextStore:
    return TextStore.open(Run.open(recipe).trained.text_store_folder)


def test_the_adapted_language_model_is_the_one_that_is_trained(recipe: Recipe) -> None:
    """Its frozen layers are the bundle's, to the bit."""
    folder = recipe.root / LANGUAGE_DIR
    bundle = Bundle.open(Run.open(recipe).bundle_folder)
    assert bundle.recipe.model.language_model == str(folder)
    adapted_weights, weights = load_file(folder / WEIGHTS), bundle.weights("language.")
    name = "attention.self.query.weight"
    assert torch.equal(
        weights[f"frozen_layers.0.{name}"], adapted_weights[f"encoder.layer.0.{name}"]
    )


def test_every_test_basket_is_in_the_report(recipe: Recipe) -> None:
    data = json.loads(Run.open(recipe).report_file.read_text())
    prepared = Prepared.open(recipe.root)
    assert data["num_questions"] == prepared.summary["counts"]["test_baskets"]
    ours = [row for row in data["rows"] if row["model"] == "raycommend" and row["slice"] == "all"]
    assert {row["metric"] for row in ours} >= {"ndcg@10", "recall@50", "mrr@10", "auc"}
    assert all(row["num_rows"] == data["num_questions"] for row in ours)
    assert all(row["low"] <= row["value"] <= row["high"] for row in ours)
    assert {row["model"] for row in data["rows"]} == {"raycommend", *recipe.evaluate.baselines}
    slices = {row["slice"] for row in data["rows"]}
    # Nobody of this log buys what he did not view before: `first_time` asks nothing.
    assert slices == {"all", "new_item", "new_user", "head", "tail", "repeat"}


def test_the_whole_way_ends_with_a_page(recipe: Recipe) -> None:
    run = Run.open(recipe)
    text = run.page_file.read_text()
    assert (
        "It is the first champion. Beside item_knn, the best baseline, it is surely better" in text
    )
    for name in ("baselines", "slices", "people", "diversity", "training", "data"):
        assert f'<section id="{name}"' in text
    users = json.loads(run.examples_file.read_text())["users"]
    assert len(users) == 10 and all(user["user"][:8] in text for user in users)


def test_what_trainings_share_goes_with_the_prepared_data(recipe: Recipe, tmp_path: Path) -> None:
    """It is made of histories, and an erased user's must not outlive the next `prepare`."""
    run = Run.open(recipe)
    found = list((run.prepared_folder / QUESTIONS_DIR).glob("*/*.safetensors"))
    assert sorted(path.name.split("-")[0] for path in found) == ["days", "head", "validation"]
    other = recipe_from_dict(recipe.resolved() | {"run_dir": str(tmp_path / "run")})
    shutil.copytree(run.prepared_folder, Run.open(other).prepared_folder)
    prepare_here(other)
    assert not (Run.open(other).prepared_folder / QUESTIONS_DIR).exists()


def test_the_report_is_the_one_it_always_was(recipe: Recipe) -> None:
    """To the bit on one machine; elsewhere float32 sums may end in another last digit.

    A change that moves a figure writes `golden_report.json` anew, and its commit says why.
    """
    golden = json.loads(GOLDEN.read_text())
    report = json.loads(Run.open(recipe).report_file.read_text())
    rows, expected = report["rows"], golden.pop("rows")
    gain = golden.pop("gain_over_best_baseline")
    assert {name: report[name] for name in golden} == golden
    for name, value in gain.items():
        assert report["gain_over_best_baseline"][name] == pytest.approx(value, abs=5e-3), name
    key = ("model", "slice", "metric")
    assert [[row[k] for k in key] for row in rows] == [[row[k] for k in key] for row in expected]
    for row, was in zip(rows, expected, strict=True):
        trained = row["model"] in (OURS, "sasrec", "als")
        assert row["num_rows"] == was["num_rows"]
        for name in ("value", "low", "high"):
            assert row[name] == pytest.approx(was[name], abs=5e-3 if trained else 1e-6), row


def test_the_report_is_what_the_scorer_says(recipe: Recipe) -> None:
    """nDCG@10 of the report, once more by sorting the scores of each question."""
    prepared = Prepared.open(recipe.root)
    bundle, store = Bundle.open(Run.open(recipe).bundle_folder), store_of(recipe)
    scorer = scorer_on(bundle, prepared, "test", store.content_similarity)
    _, questions = prepared.questions("test", target_codes(recipe))
    gains = []
    for number in range(len(questions)):
        one = questions[number : number + 1]
        top = np.argsort(-scorer.scores(one.histories)[0], kind="stable")[:10]
        hits = np.isin(top, one.relevant)
        ideal = sum(1 / np.log2(2 + place) for place in range(min(10, len(one.relevant))))
        gains.append(sum(hits / np.log2(2 + np.arange(10))) / ideal)
    data = json.loads(Run.open(recipe).report_file.read_text())
    (row,) = (
        row for row in data["rows"]
        if (row["model"], row["slice"], row["metric"]) == ("raycommend", "all", "ndcg@10")
    )  # fmt: skip
    assert row["value"] == pytest.approx(np.mean(gains), abs=1e-3)


def test_the_bundle_scores_as_the_evaluation_does(recipe: Recipe) -> None:
    """Offline and served scores come from the same functions; popularity as of the end in both."""
    prepared = Prepared.open(recipe.root)
    bundle = Bundle.open(Run.open(recipe).bundle_folder)
    store = store_of(recipe)
    served, offline = (
        Recommender(bundle),
        scorer_on(bundle, prepared, "end", store.content_similarity),
    )
    _, questions = prepared.questions("test", target_codes(recipe))
    nothing = np.zeros(0, dtype=np.int32)
    for number in range(0, len(questions), 7):
        history = questions[number : number + 1].histories
        expected = offline.scores(history)[0]
        rows, scores = served.recommend(history, 10, exclude=nothing, allowed=None)
        assert scores == pytest.approx(expected[rows], abs=1e-5)
        assert scores[0] == pytest.approx(expected.max(), abs=1e-5)
        ranked = served.rank(history, rows.astype(np.int32))
        assert ranked == pytest.approx(scores, abs=1e-4)


def test_training_makes_the_encoders_better_than_nothing(recipe: Recipe) -> None:
    """On a log with tastes in it, the model ranks better than popularity."""
    data = json.loads(Run.open(recipe).report_file.read_text())
    values = {
        row["model"]: row["value"] for row in data["rows"]
        if row["slice"] == "all" and row["metric"] == "ndcg@10"
    }  # fmt: skip
    assert values["raycommend"] > values["popularity"]


@pytest.mark.chaos
def test_a_process_that_is_killed_while_it_evaluates_changes_nothing(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ray Data starts its actor again and gives it the same shard."""
    baselines, mark = evaluate._baselines, tmp_path / "has-died"

    def one_dying(run: Run, store: TextStore) -> dict[str, Any]:
        models = baselines(run, store)
        name = list(models)[-1]
        return models | {name: DyingModel(models[name], mark)}

    outputs = (Run.open(recipe).report_file, Run.open(recipe).rows_file)
    undisturbed = [path.read_bytes() for path in outputs]
    monkeypatch.setattr(evaluate, "_baselines", one_dying)
    with sent_along():
        evaluate.execute(Run.open(recipe))
    assert mark.exists(), "nobody died"
    assert [path.read_bytes() for path in outputs] == undisturbed


def test_the_same_bundle_is_promoted_once(recipe: Recipe) -> None:
    registry = Registry.of(recipe)
    version = Bundle.open(Run.open(recipe).bundle_folder).version
    assert registry.champion() == version
    promote.execute(Run.open(recipe))
    assert len(registry.history()) == 1


def test_a_worse_bundle_is_refused_and_the_champion_stays(recipe: Recipe) -> None:
    """Unless it is forced; and a version of the registry comes back by the same gate."""
    registry = Registry.of(recipe)
    champion = registry.champion()
    saved = recipe.root / "saved"
    shutil.copytree(Run.open(recipe).bundle_folder, saved)
    rows = Run.open(recipe).rows_file.read_bytes()
    report = Run.open(recipe).report_file.read_bytes()
    try:
        _spoil(recipe)
        with pytest.raises(DataError, match="not been evaluated"):
            promote.execute(Run.open(recipe))
        evaluate.execute(Run.open(recipe))
        with pytest.raises(GateRefused, match="worse than item_knn, the best base") as refused:
            promote.execute(Run.open(recipe))
        assert refused.value.exit_code == 3
        assert registry.champion() == champion
        assert len(registry.versions()) == 2
        with pytest.raises(BundleError):
            rollback.execute(Run.open(recipe))  # there is no champion before the first
        spoilt = next(version for version in registry.versions() if version != champion)

        promote.execute(Run.open(recipe), force=True)
        evidence = registry.history()[-1]["evidence"]
        assert registry.champion() == spoilt and evidence["forced"]
        assert evidence["rule"] == "not_worse" and evidence["over_champion"]["high"] < 0
        assert "may lose more than 2.0% of" in evidence["refusals"][1]
        decision = json.loads(Run.open(recipe).decision_file.read_text())
        assert decision["promoted"] and decision["evidence"] == evidence
        of_all, *of_others = decision["changes"]["metrics"]
        over = evidence["over_champion"]
        assert {name: of_all[name] for name in over} == pytest.approx(over, abs=1e-6)
        assert len(of_others) == 8 and len(decision["changes"]["lists"]) == 10
        assert "It is the champion by force only" in Run.open(recipe).page_file.read_text()

        promote.execute(Run.open(recipe), version=champion)
        evidence = registry.history()[-1]["evidence"]
        assert registry.champion() == champion and not evidence["forced"]
        assert evidence["over_champion"]["low"] > 0 >= evidence["bound"]
        gain = json.loads(report)["gain_over_best_baseline"]
        assert evidence["over_baseline"] == pytest.approx(gain, abs=1e-6)

        assert rollback.execute(Run.open(recipe)) == registry.path(spoilt)
        assert rollback.report(Run.open(recipe))[3].startswith(
            f"forced, although {spoilt} is worse"
        )
        assert rollback.execute(Run.open(recipe)) == registry.path(champion)
    finally:
        shutil.rmtree(Run.open(recipe).bundle_folder)
        saved.rename(Run.open(recipe).bundle_folder)
        Run.open(recipe).rows_file.write_bytes(rows)
        Run.open(recipe).report_file.write_bytes(report)


def _spoil(recipe: Recipe) -> None:
    """Write a bundle from the winner's checkpoint with its head turned against itself.

    All but the networks' first layers: tanh is odd, and two signs would cancel.
    """
    prepared = Prepared.open(recipe.root)
    winner = Run.open(recipe).winner
    chosen, checkpoint = winner.recipe, winner.checkpoint
    spoilt = recipe.root / "spoilt"
    shutil.copytree(checkpoint, spoilt)
    head = load_file(spoilt / "head.safetensors")
    turned = {name: value if ".0." in name else -value for name, value in head.items()}
    save_file(turned, spoilt / "head.safetensors")
    seal(spoilt, load_progress(spoilt))
    width = Bundle.open(Run.open(recipe).bundle_folder).meta["text_dim"]
    vectors = torch.nn.functional.normalize(torch.ones(prepared.catalogue.num_texts, width))
    embed.assemble(
        Run.open(recipe).bundle_folder, chosen, prepared, spoilt, vectors.numpy(),
        TextStore.open(Run.open(chosen).text_store_folder),
    )  # fmt: skip


def test_a_bundle_of_other_data_is_not_evaluated(recipe: Recipe) -> None:
    path = recipe.root / "prepared" / "prepare.json"
    content = path.read_text()
    summary = json.loads(content)
    try:
        path.write_text(json.dumps(summary | {"data_fingerprint": "another"}))
        with pytest.raises(DataError, match="may have seen the test window"):
            evaluate.execute(Run.open(recipe))
    finally:
        path.write_text(content)


def test_rows_of_another_bundle_decide_nothing(recipe: Recipe) -> None:
    path = Run.open(recipe).rows_file
    content = path.read_bytes()
    try:
        pl.read_parquet(path).with_columns(pl.lit("older").alias("bundle")).write_parquet(path)
        with pytest.raises(DataError, match="another bundle's"):
            promote.execute(Run.open(recipe))
    finally:
        path.write_bytes(content)


def test_a_window_of_few_users_is_not_judged(recipe: Recipe) -> None:
    """No interval, no NaN in the report, and words in place of a gain."""
    paths = (Run.open(recipe).rows_file, Run.open(recipe).report_file)
    saved = [path.read_bytes() for path in paths]
    few = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"max_rows": 3})})
    try:
        evaluate.execute(Run.open(few))
        text = Run.open(recipe).report_file.read_text()
        assert "NaN" not in text
        gain = json.loads(text)["gain_over_best_baseline"]
        assert gain["judged"] is False and gain["num_users"] < MIN_USERS
        printed = "\n".join(evaluate.report(Run.open(few)))
        assert f"over {json.loads(text)['best_baseline']}: not judged: " in printed
        assert "nan" not in printed
    finally:
        for path, content in zip(paths, saved, strict=True):
            path.write_bytes(content)


def test_rows_of_the_report_lie_beside_it(recipe: Recipe) -> None:
    rows = pl.read_parquet(Run.open(recipe).rows_file)
    report = json.loads(Run.open(recipe).report_file.read_text())
    assert rows.height == report["num_questions"]
    assert rows.select("user_id", "basket").is_duplicated().sum() == 0
