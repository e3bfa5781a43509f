"""The three ways to train, on the small shop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import prepare_here, store_here, tiny_log, tiny_settings, tiny_shop

from benchmarks.training import data, encoding
from benchmarks.training.rates import ROUNDS, batches_of
from benchmarks.training.ways import EveryOccurrence, Once, Textbook, fresh, histories_of
from recsys.config import Recipe
from recsys.features.windows import TrainingBatch
from recsys.preparation.prepared import Prepared
from recsys.text.text_store import TextStore

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoding")


@pytest.fixture(scope="module")
def shop(folder: Path) -> Any:
    return tiny_shop(folder, train={"batch_size": 8, "fresh_texts_per_step": None})


def first_batch(mine: Once) -> TrainingBatch:
    return batches_of(mine, mine.prepared.users())[0]


def test_all_three_train_the_same_examples(shop: Any) -> None:
    ways = [fresh(kind, *shop) for kind in (Once, EveryOccurrence)]
    batch = first_batch(ways[0])
    for way in (*ways, Textbook(shop.recipe, shop.prepared)):
        assert sum(way.steps(batch, 10)) == len(batch.target_items)
        assert way.num_tokens > 0
    assert ways[1].num_tokens > ways[0].num_tokens


def test_what_is_encoded_once_is_learned_as_if_it_were_encoded_every_time(shop: Any) -> None:
    """The figures compare speed alone: loss and gradient are the same."""
    model = shop.recipe.model.model_copy(update={"dropout": 0.0, "id_dropout": 0.0})
    same = shop._replace(recipe=shop.recipe.model_copy(update={"model": model}))
    once, every = (fresh(kind, *same) for kind in (Once, EveryOccurrence))
    batch = first_batch(once)
    # The store's states are rounded to half precision.
    assert once.train_step(batch, 10) == pytest.approx(every.train_step(batch, 10), rel=1e-3)
    ours = torch.cat([p.grad.flatten() for p in once.model.parameters() if p.requires_grad])
    theirs = torch.cat([p.grad.flatten() for p in every.model.parameters() if p.requires_grad])
    assert float((ours - theirs).norm() / theirs.norm()) < 0.01


def test_a_state_has_seen_its_own_past_alone(shop: Any) -> None:
    batch = first_batch(fresh(Once, *shop))
    windows = batch.windows
    for state, history in zip(batch.target_states.tolist(), histories_of(batch), strict=True):
        row = [n for n, states in enumerate(windows.state_of_event.tolist()) if state in states]
        if not state:
            assert len(history) == 0
            continue
        of_row = windows.state_of_event[row[0]]
        seen = windows.item_rows[row[0]][(of_row > 0) & (of_row <= state)]
        assert history.tolist() == seen.tolist()


def test_a_pair_keeps_the_candidate_and_the_latest_past(shop: Any) -> None:
    textbook = Textbook(shop.recipe, shop.prepared)
    history = np.arange(30)
    pair = textbook.pair(history, 7).tolist()
    assert len(pair) == textbook.width == 64  # all that the small model can read
    assert pair[-1 - len(textbook.tokens[7]) : -1] == textbook.tokens[7]
    before = pair[1 : -2 - len(textbook.tokens[7])]
    assert before[-len(textbook.tokens[29]) :] == textbook.tokens[29]


def test_an_aged_cache_expires_bit_by_bit(shop: Any) -> None:
    mine = fresh(Once, *shop)
    mine.age()
    ages = mine.cache.age(np.arange(mine.store.num_texts), mine.step)
    assert len(set(ages.tolist())) == mine.store.num_texts
    assert ages.max() < mine.recipe.train.max_vector_age
    assert len(mine.cache.stale(mine.step)) == 0


def test_the_command_reports_rates_and_quality(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_ray(recipe: Recipe) -> tuple[Prepared, TextStore]:
        prepared = prepare_here(recipe)
        return prepared, store_here(recipe)

    monkeypatch.setattr(data, "prepared_data", without_ray)
    raw, out = tiny_settings(folder), folder / "report.json"
    raw["data"] = {"max_tokens": 16}
    picked = {section: raw[section] for section in ("data", "model", "train", "evaluate")}
    arguments = [
        f"--set={section}.{key}={json.dumps(value)}"
        for section, values in picked.items()
        for key, value in values.items()
    ]
    log = tiny_log(folder / "again")
    arguments += ["--work", str(folder / "work"), "--json", str(out), "--users", "12"]
    arguments += ["--questions", "3", "--seconds", "0.4", "--epochs", "1"]
    assert encoding.main([str(log), *arguments]) == 0
    report = json.loads(out.read_text())
    for name in (encoding.ONCE, encoding.EVERY, encoding.EXACT, encoding.TEXTBOOK):
        rate = report["rates"][name]
        assert rate["num_steps"] >= ROUNDS
        assert 0 < rate["examples_per_s"]["low"] <= rate["examples_per_s"]["high"]
        assert rate["layer_tokens_per_example"] > 0
        assert name in report["reranked"]["ndcg@10"] and name in report["trained"]
    assert report["rates"][encoding.ONCE]["ours_is_faster"]["median"] == 1
    steps = {name: each["steps"] for name, each in report["trained"].items()}
    assert steps[encoding.ONCE_ALIKE] == steps[encoding.EXACT]
    assert report["layers"] == {"trained": 1, "all": 2}
    assert set(report["quality"]["ndcg@10"]) == {
        "untrained", encoding.ONCE, encoding.EVERY, encoding.EXACT, encoding.ONCE_ALIKE,
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "sampled candidates" in printed and "every occurrence" in printed


def test_a_folder_without_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert encoding.main([str(tmp_path)]) == 2
    assert "events.parquet" in capsys.readouterr().err
