"""Damaged bundles, registries and checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundles import make_bundle, make_recipe
from damage import files, spoil
from damaged_reading import NOW, SCALE, Tally, each_damage, each_value, finite, is_flip
from outcome_shop import OutcomeShop
from tiny import Shop

from recsys.artifacts import checkpoint
from recsys.artifacts.bundle import BUNDLE, Bundle
from recsys.artifacts.progress import PROGRESS, Progress
from recsys.artifacts.registry import Registry
from recsys.data.histories import Histories
from recsys.errors import RaycommendError
from recsys.model.ranking_head import ScoringHead
from recsys.recommender import Recommender
from recsys.recommender.text_encoder import TextEncoder
from recsys.storage.outputs import write_json
from recsys.storage.seals import file_sha256, sealed
from recsys.text.pretrained import load_tokenizer
from recsys.training.build import build_two_tower
from recsys.training.worker import Worker

pytestmark = pytest.mark.slow


def seal_again(bundle: Path, name: str = BUNDLE) -> None:
    """Make hashes and seal fit what lies there."""
    meta = json.loads((bundle / BUNDLE).read_text())
    if not isinstance(meta, dict):
        return
    if name != BUNDLE and (bundle / name).is_file():
        meta["files"][name] = file_sha256(bundle / name)
    write_json(bundle / BUNDLE, sealed(meta))


class TestBundles:
    @pytest.fixture
    def bundle(
        self, tmp_path: Path, language_folder: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> Path:
        shop = OutcomeShop(tmp_path_factory.mktemp("shop"), num_users=12, num_days=5, epochs=1)
        recipe = make_recipe(tmp_path / "run", language_folder)
        return make_bundle(tmp_path / "bundle", recipe, seed=1, outcomes=shop.heads).folder

    @staticmethod
    def read(folder: Path) -> list[Any]:
        """Load it as the service does, and ask it."""
        load_tokenizer.cache_clear()  # as a new process has it
        bundle = Bundle.open(folder)
        model = Recommender(bundle)
        answers: list[Any] = [bundle.version, bundle.recipe.name, model.num_items]
        known = Histories.of([3, 40, 3], [1, 4, 1], [NOW - 3000, NOW - 2000, NOW - 1000], NOW)
        for history in (Histories.of([], [], [], NOW), known):
            rows, scores = model.recommend(
                history, 10, exclude=np.zeros(0, np.int32), allowed=model.allowed(min_price=1),
                diversity=0.5, max_per_category=3,
            )  # fmt: skip
            if not np.isfinite(model.scorer.scores(history)).all():
                return ["refused"]  # by the service, which tries a model before it serves it
            answers += finite(rows, scores)
            assert model.outcomes is not None
            expected = model.outcomes.expect(None, rows, scores, now=NOW)
            answers += finite(expected.click, expected.purchase, expected.value)
            why = model.explain(history, rows.astype(np.int32))
            answers += finite([reason.gain for one in why for reason in one.reasons])
            answers += [[model.item_id(row), model.title(row)] for row in rows.tolist()]
        return answers + finite(TextEncoder(bundle).encode(["a new red cup", "lamp"]))

    def test_a_hash_sees_every_damage(self, bundle: Path) -> None:
        tally = Tally(self.read, bundle)
        for name, what in each_damage(bundle, files(bundle), num_flips=6, most=10 * SCALE):
            found = tally.take(name, what)
            # The manifest's own last line break does not matter.
            assert found is None or name == BUNDLE, (name, what)
        tally.must_have_refused(0.8)

    def test_what_the_hashes_fit_is_checked_by_its_content(self, bundle: Path) -> None:
        tally = Tally(self.read, bundle)
        names = [name for name in files(bundle) if name != BUNDLE]
        for name, what in each_damage(
            bundle, names, num_flips=9, most=6 * SCALE, after=lambda name: seal_again(bundle, name)
        ):
            # Whoever makes the hashes fit may write other numbers, and other words.
            tally.take(name, what, may_change=is_flip(what) or name.startswith("tokenizer/"))
        config = "encoder/config.json"
        for what in each_value(bundle / config, seed=1, most=10 * SCALE):
            seal_again(bundle, config)
            tally.take(config, what)
        tally.must_have_refused(0.6)

    def test_values_of_the_manifest(self, bundle: Path) -> None:
        tally = Tally(self.read, bundle)
        for what in each_value(bundle / BUNDLE, seed=1, most=25 * SCALE):
            seal_again(bundle)
            tally.take(BUNDLE, what)
        tally.must_have_refused(0.5)

    def test_a_place_outside_the_matrix_does_not_end_the_process(self, bundle: Path) -> None:
        """SciPy would read past the array."""
        name = "relations/together.indices.npy"
        places = np.load(bundle / name)
        places[0] = 2**30
        np.save(bundle / name, places)
        seal_again(bundle, name)
        with pytest.raises(RaycommendError, match=r"together\.indices\.npy.*column outside"):
            self.read(bundle)


class TestRegistry:
    @pytest.fixture
    def registry(self, tmp_path: Path, language_folder: Path) -> Path:
        recipe = make_recipe(tmp_path / "run", language_folder)
        registry = Registry(tmp_path / "registry")
        for seed in (1, 2):
            bundle = make_bundle(tmp_path / f"bundle-{seed}", recipe, seed=seed)
            registry.add(bundle.folder, bundle.version)
            registry.promote(bundle.version)
        return registry.root

    @staticmethod
    def read(root: Path) -> Any:
        registry = Registry(root)
        return registry.champion(), registry.history(), registry.path("champion")

    def test_its_file(self, registry: Path) -> None:
        tally, name = Tally(self.read, registry), "registry.json"
        for _, what in each_damage(registry, [name], num_flips=24 * SCALE):
            found = tally.take(name, what, may_change=is_flip(what))
            # A flipped letter of a moment is a moment.
            assert found is None or found[0] == tally.whole[0], what
        for what in each_value(registry / name, seed=1, most=200):
            tally.take(name, what, may_change=what.startswith("= "))
        tally.must_have_refused(0.8)

    def test_a_broken_bundle_is_not_taken_for_the_same_one(self, registry: Path) -> None:
        version = Registry(registry).champion()
        assert version is not None
        target = registry / "bundles" / version
        for content in (b"", b"[]", b"{", b"\xff"):
            spoil(target / BUNDLE, content)
            with pytest.raises(RaycommendError, match=r"bundle\.json|another bundle"):
                Registry(registry).add(target, version)


class TestCheckpoints:
    def test_its_files(self, shop: Shop, tmp_path: Path) -> None:
        model, rows = build_two_tower(shop.recipe, shop.prepared)
        worker = Worker(shop.recipe, shop.prepared, shop.store, model, rows)
        batch = worker.batch(shop.prepared.users(shop.prepared.shards[:1]))
        assert batch is not None
        worker.train_step(batch, 20)
        progress = Progress(1, 1, [{"ndcg@10": 0.1}])
        checkpoint.save(tmp_path, model, worker.head, worker.optimizer, progress)

        def read(folder: Path) -> Any:
            head = ScoringHead(0.1)
            found = checkpoint.load_model(folder, model, head)
            checkpoint.load_optimizer(folder, worker.optimizer)
            values = [*checkpoint.trained_state(model).values(), *head.state_dict().values()]
            assert all(torch.isfinite(value.float()).all() for value in values)
            return found

        tally = Tally(read, tmp_path)
        assert tally.whole == progress
        for name, what in each_damage(tmp_path, files(tmp_path), num_flips=12 * SCALE):
            found = tally.take(name, what)
            # The last line break of the progress does not matter.
            assert found is None or name == PROGRESS, what
        for what in each_value(tmp_path / PROGRESS, seed=1, most=60 * SCALE):
            assert tally.take(PROGRESS, what) is None, what
        tally.must_have_refused(0.8)
