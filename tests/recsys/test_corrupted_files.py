"""Every reader of files that another process wrote, on damaged ones.

Whatever is wrong with a file, there is an error of ours that names it (or its folder) and a fix,
or a finite answer: never another exception, a crash, or NaN. What a checksum covers is noticed
always.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from bundles import make_bundle, make_recipe
from damage import damages, files, spoil, wrong_values
from tiny import Shop, day, tiny_events, tiny_items, tiny_recipe, tiny_recipe_file, write_log

from recsys.artifacts import checkpoint
from recsys.artifacts.bundle import BUNDLE, SEAL, Bundle, seal
from recsys.artifacts.registry import Registry
from recsys.config import Cuts, Data, Privacy, load_recipe
from recsys.data.adapters import open_adapter
from recsys.data.catalogue import ITEMS_FILE
from recsys.data.checks import check_events
from recsys.data.histories import Histories
from recsys.data.pseudonyms import load_key
from recsys.errors import DataError, RaycommendError
from recsys.model.ranking_head import ScoringHead
from recsys.preparation.prepared import (
    CATALOGUE_DIR,
    HISTORIES_DIR,
    PREPARED,
    QUARANTINE_DIR,
    Prepared,
)
from recsys.recommender import Recommender, TextEncoder
from recsys.schema import EVENTS, Col
from recsys.state import StateEvent
from recsys.state.sqlite.users import SqliteState
from recsys.storage.outputs import write_json
from recsys.text.pretrained import file_sha256
from recsys.text.text_store import TextStore
from recsys.training.build import build_two_tower
from recsys.training.worker import Worker

#: How many times the damage: `make fuzz` does more of it.
SCALE = 8 if "RAYCOMMEND_FUZZ_CASES" in os.environ else 1
NOW = 1_780_000_000_000_000
Read = Callable[[Path], Any]


def finite(*arrays: Any) -> list[Any]:
    """The arrays as lists; they hold numbers alone."""
    for array in arrays:
        assert np.isfinite(np.asarray(array)).all()
    return [np.asarray(array).tolist() for array in arrays]


def outcome(read: Read, folder: Path, name: str) -> Any:
    """What a reader makes of a folder with a damaged file; None if it refuses as it should."""
    try:
        return read(folder)
    except RaycommendError as error:
        told = str(error)
        # Of two files that do not fit each other either may be named.
        assert Path(name).name in told or str(folder) in told, told
        assert error.fix and len(told) < 1500, told
        return None


def each_damage(
    folder: Path,
    names: list[str],
    num_flips: int,
    most: int = 10**9,
    after: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[str, str]]:
    """Damage each file in each way (a sample of `most` ways), and fix it; (file, damage)."""
    for name in names:
        path, whole = folder / name, (folder / name).read_bytes()
        others = [other for other in names if Path(other).suffix == path.suffix and other != name]
        swapped = [(f"{other} in its place", (folder / other).read_bytes()) for other in others[:2]]
        ways = [*damages(whole, name, num_flips), *swapped, ("gone", b"")]
        for what, content in random.Random(name).sample(ways, min(most, len(ways))):
            if content == whole:
                continue
            spoil(path, content)
            if what == "gone":
                path.unlink()
            after(name)
            yield name, what
            spoil(path, whole)
            after(name)


def each_value(path: Path, seed: int, most: int) -> Iterator[str]:
    """Put wrong values into a JSON file, a sample of all that might be."""
    whole = path.read_bytes()
    every = list(wrong_values(json.loads(whole)))
    for what, value in random.Random(seed).sample(every, min(most, len(every))):
        path.write_text(json.dumps(value))
        yield what
    path.write_bytes(whole)


class TestBundles:
    @pytest.fixture
    def bundle(self, tmp_path: Path, language_folder: Path) -> Path:
        recipe = make_recipe(tmp_path / "run", language_folder)
        return make_bundle(tmp_path / "bundle", recipe, seed=1).folder

    @staticmethod
    def read(folder: Path) -> list[Any]:
        """Load it as the service does, and ask it."""
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
            why = model.explain(history, rows.astype(np.int32))
            answers += finite([reason.gain for one in why for reason in one.reasons])
            answers += [[model.item_id(row), model.title(row)] for row in rows.tolist()]
        return answers + finite(TextEncoder(bundle).encode(["a new red cup", "lamp"]))

    def test_a_hash_sees_every_damage(self, bundle: Path) -> None:
        whole = self.read(bundle)
        for name, what in each_damage(bundle, files(bundle), num_flips=6, most=10 * SCALE):
            found = outcome(self.read, bundle, name)
            # The manifest's own last line break does not matter.
            assert found is None or (name == BUNDLE and found == whole), (name, what)

    def test_what_the_hashes_fit_is_checked_by_its_content(self, bundle: Path) -> None:
        def seal_again(name: str) -> None:
            meta = json.loads((bundle / BUNDLE).read_text())
            if (bundle / name).is_file():
                meta["files"][name] = file_sha256(bundle / name)
            meta.pop(SEAL)
            write_json(bundle / BUNDLE, meta | {SEAL: seal(meta)})

        names = [name for name in files(bundle) if name != BUNDLE]
        for name, _ in each_damage(bundle, names, num_flips=9, most=6 * SCALE, after=seal_again):
            outcome(self.read, bundle, name)
        config = "encoder/config.json"
        for _ in each_value(bundle / config, seed=1, most=10 * SCALE):
            seal_again(config)
            outcome(self.read, bundle, config)

    def test_values_of_the_manifest(self, bundle: Path) -> None:
        for _ in each_value(bundle / BUNDLE, seed=1, most=25 * SCALE):
            meta = json.loads((bundle / BUNDLE).read_text())
            if isinstance(meta, dict):
                meta.pop(SEAL, None)
                write_json(bundle / BUNDLE, meta | {SEAL: seal(meta)})
            outcome(self.read, bundle, BUNDLE)

    def test_a_place_outside_the_matrix_does_not_end_the_process(self, bundle: Path) -> None:
        """SciPy would read past the array."""
        name = "relations/together.indices.npy"
        places = np.load(bundle / name)
        places[0] = 2**30
        np.save(bundle / name, places)
        meta = json.loads((bundle / BUNDLE).read_text())
        meta["files"][name] = file_sha256(bundle / name)
        meta.pop(SEAL)
        write_json(bundle / BUNDLE, meta | {SEAL: seal(meta)})
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
        whole = self.read(registry)
        for _, what in each_damage(registry, ["registry.json"], num_flips=24 * SCALE):
            found = outcome(self.read, registry, "registry.json")
            # A flipped letter of a moment is a moment.
            assert found is None or found[0] == whole[0], what
        for what in each_value(registry / "registry.json", seed=1, most=200):
            found = outcome(self.read, registry, "registry.json")
            assert found in (None, whole) or what.startswith("= "), what

    def test_a_broken_bundle_is_not_taken_for_the_same_one(self, registry: Path) -> None:
        version = Registry(registry).champion()
        assert version is not None
        target = registry / "bundles" / version
        for content in (b"", b"[]", b"{", b"\xff"):
            spoil(target / BUNDLE, content)
            with pytest.raises(RaycommendError, match=r"bundle\.json|another bundle"):
                Registry(registry).add(target, version)


class TestPrepared:
    @pytest.fixture
    def run(self, shop: Shop, tmp_path: Path) -> Path:
        import shutil

        shutil.copytree(shop.recipe.root / PREPARED, tmp_path / PREPARED)
        return tmp_path

    @staticmethod
    def read(run: Path) -> list[Any]:
        prepared = Prepared.open(run)
        summary, catalogue = prepared.summary, prepared.catalogue
        users, questions = prepared.questions("test", [4])
        alike = TextStore.open(TestTextStore.folder_of_all).content_similarity
        relations = prepared.relations("test", alike)
        return [
            summary["data_fingerprint"], catalogue.fingerprint, prepared.item_ids().tolist(),
            *finite(users.item_rows, users.timestamps, questions.relevant, questions.now),
            *finite(*vars(prepared.stats("test")).values()),
            *finite(*vars(prepared.daily_counts().as_of(19_800)).values()),
            *finite(relations.transitions.toarray(), relations.co_occurrence.toarray()),
        ]  # fmt: skip

    def test_its_files(self, run: Path, shop: Shop, store: Path) -> None:
        TestTextStore.folder_of_all = store
        whole = self.read(run)
        unread = (f"{PREPARED}/relations/head", f"{PREPARED}/relations/valid",
                  f"{PREPARED}/relations/end", f"{PREPARED}/{QUARANTINE_DIR}")  # fmt: skip
        names = [name for name in files(run) if not name.startswith(unread)]
        for name, what in each_damage(run, names, num_flips=2 * SCALE):
            found = outcome(self.read, run, name)
            if HISTORIES_DIR in name:  # its pages have checksums
                assert found in (None, whole), (name, what)
        for _ in each_value(run / PREPARED / "prepare.json", seed=1, most=100):
            outcome(self.read, run, f"{PREPARED}/prepare.json")

    def test_items_of_another_catalogue(self, run: Path, store: Path) -> None:
        TestTextStore.folder_of_all = store
        path = run / PREPARED / CATALOGUE_DIR / ITEMS_FILE
        pl.read_parquet(path)[:-1].write_parquet(path)
        with pytest.raises(DataError, match="39 items, of 40"):
            self.read(run)


@pytest.fixture
def store(shop: Shop, tmp_path: Path) -> Path:
    """A copy of the text store, to be spoilt."""
    import shutil

    [meta] = shop.recipe.root.rglob("text_store.json")
    return Path(shutil.copytree(meta.parent, tmp_path / "store"))


class TestTextStore:
    folder_of_all: Path

    @staticmethod
    def read(folder: Path) -> list[Any]:
        found = TextStore.open(folder)
        hidden, mask = found.batch(np.arange(found.num_texts))
        # Half-precision states have no checksum, and are too many to be looked at when mapped.
        assert hidden.shape[:2] == mask.shape
        return finite(mask, found.vectors, found.content_similarity.toarray())

    def test_its_files(self, store: Path) -> None:
        assert self.read(store)
        for name, _ in each_damage(store, files(store), num_flips=12 * SCALE):
            outcome(self.read, store, name)


class TestCheckpoints:
    def test_its_files(self, shop: Shop, tmp_path: Path) -> None:
        model, rows = build_two_tower(shop.recipe, shop.prepared)
        worker = Worker(shop.recipe, shop.prepared, shop.store, model, rows)
        batch = worker.batch(shop.prepared.users(shop.prepared.shards[:1]))
        assert batch is not None
        worker.train_step(batch, 20)
        progress = checkpoint.Progress(1, 1, [{"ndcg@10": 0.1}])
        checkpoint.save(tmp_path, model, worker.head, worker.optimizer, progress)

        def read(folder: Path) -> Any:
            head = ScoringHead(0.1)
            found = checkpoint.load_model(folder, model, head)
            checkpoint.load_optimizer(folder, worker.optimizer)
            values = [*checkpoint.trained_state(model).values(), *head.state_dict().values()]
            assert all(torch.isfinite(value.float()).all() for value in values)
            return found

        assert read(tmp_path) == progress
        for name, what in each_damage(tmp_path, files(tmp_path), num_flips=12 * SCALE):
            found = outcome(read, tmp_path, name)
            # The last line break of the progress does not matter.
            assert found is None or (name == checkpoint.PROGRESS and found == progress), what
        for what in each_value(tmp_path / checkpoint.PROGRESS, seed=1, most=60 * SCALE):
            assert outcome(read, tmp_path, checkpoint.PROGRESS) is None, what


class TestRawLogs:
    @staticmethod
    def read_all(data: Data) -> list[Any]:
        adapter = open_adapter(data)
        frames = [adapter.read_events(part) for part in adapter.parts()]
        for frame in frames:
            check_events(frame, latest_us=NOW, known_items=pl.Series(["item-0001"]))
        return [frame.height for frame in (*frames, adapter.read_items().table)]

    def test_your_own_parquet(self, tmp_path: Path) -> None:
        log = write_log(tmp_path / "log", tiny_events(5), tiny_items())
        data = tiny_recipe(tmp_path).data
        assert self.read_all(data)[1] == 40
        for name, what in each_damage(log, files(log), num_flips=60 * SCALE):
            if what != "gone":  # then the folder is named
                outcome(lambda _: self.read_all(data), log, name)

    def test_the_demo_s_log(self, tmp_path: Path) -> None:
        when = pl.Series([day(1), day(2)]).dt.replace_time_zone(None)
        pl.DataFrame(
            {
                "household_id": [1, 2], "product_id": [1, 2], "transaction_timestamp": when,
                "basket_id": [1, 2], "quantity": [1, 0], "sales_value": [1.0, 2.0],
                "retail_disc": [0.0, 0.0], "coupon_match_disc": [0.0, 0.0],
            }
        ).write_parquet(tmp_path / "transactions.parquet")  # fmt: skip
        pl.DataFrame(
            {
                "product_id": [1], "product_type": ["cup"], "package_size": ["1"],
                "department": ["home"], "brand": ["acme"], "product_category": ["cups"],
            }
        ).write_parquet(tmp_path / "products.parquet")  # fmt: skip
        cuts = Cuts.model_validate({"valid": "2024-03-01", "test": "2024-04-01"})
        data = Data(adapter="completejourney", source=str(tmp_path), cuts=cuts)
        assert self.read_all(data) == [2, 2]
        for name, _ in each_damage(tmp_path, files(tmp_path), num_flips=30 * SCALE):
            outcome(lambda _: self.read_all(data), tmp_path, name)

    def test_strange_values_are_quarantined_or_named(self, tmp_path: Path) -> None:
        data = tiny_recipe(tmp_path).data
        events = tiny_events(5).head(3)
        low, high = -(2**63) + 1, 2**63 - 1
        for unit in ("ms", "us", "ns"):
            moments = pl.Series([low, high, -5000], dtype=pl.Int64).cast(pl.Datetime(unit, "UTC"))
            odd = events.with_columns(moments.alias(Col.timestamp))
            log = write_log(tmp_path / "log", odd, tiny_items())
            adapter = open_adapter(data)
            try:
                [frame] = [adapter.read_events(part) for part in adapter.parts()]
            except DataError as error:
                assert error.field == Col.timestamp and "events.parquet" in str(error)
                continue
            good, bad = check_events(frame, latest_us=NOW, known_items=tiny_items()[Col.item])
            assert good.is_empty() and bad.height == 3
            assert {"ancient_timestamp"} < set(bad[Col.reason])
        for name in EVENTS.names:
            for values in (pl.Series([None] * 3, dtype=pl.Null), pl.Series([b"\xff"] * 3),
                           pl.Series([[1]] * 3), pl.Series([1.5, math.nan, math.inf]),
                           pl.Series([{"a": 1}] * 3)):  # fmt: skip
                log = write_log(tmp_path / "log", events.with_columns(values.alias(name)),
                                tiny_items())  # fmt: skip
                outcome(lambda _: self.read_all(data), log, "events.parquet")


class TestSmallFiles:
    def test_recipes(self, tmp_path: Path) -> None:
        path = tiny_recipe_file(tmp_path)
        assert load_recipe(path).name == "tiny"
        for name, _ in each_damage(tmp_path, [path.name], num_flips=60 * SCALE):
            outcome(lambda folder: load_recipe(folder / path.name), tmp_path, name)
        odd = (b"a: 2026-02-31", b"&a [*a]", b"? {a: b}\n: c", b"9" * 5000, b"a: !!python/tuple []",
               b"!!binary x", b"{" * 5000, b"\x00", b"1: 2", b"data: {cuts: .nan}")  # fmt: skip
        for content in odd:
            path.write_bytes(content)
            assert outcome(load_recipe, path, path.name) is None, content

    def test_the_key_of_the_pseudonyms(self, tmp_path: Path) -> None:
        path = tmp_path / "pseudonym.key"
        path.write_bytes(b"0123456789abcdef" * 4)
        privacy = Privacy(key_env="NO_SUCH_VARIABLE")
        for name, _ in each_damage(tmp_path, [path.name], num_flips=6):
            found = outcome(lambda run: load_key(privacy, run, create=False), tmp_path, name)
            assert found is None or len(found) >= 16

    def test_user_histories(self, tmp_path: Path) -> None:
        path = tmp_path / "state.sqlite"
        held = [StateEvent(f"u{n % 9}", f"e{n}", f"item-{n}", n % 5, NOW + n) for n in range(300)]
        state = SqliteState(path, 1000)
        state.append(held)
        state.close()

        def read(folder: Path) -> Any:
            state = SqliteState(folder / path.name, 1000)
            try:
                found = [state.history(f"u{user}", 1000) for user in range(9)]
                for event in (event for events in found for event in events):
                    assert isinstance(event.item_id, str) and isinstance(event.timestamp, int)
                state.append([StateEvent("new", "e", "i", 1, NOW)])
                return found, state.count_users()
            finally:
                state.close()

        for name, what in each_damage(tmp_path, [path.name], num_flips=90 * SCALE):
            for beside in tmp_path.glob("state.sqlite-*"):
                beside.unlink()
            if what not in ("gone", "cut to 0 bytes"):  # a new file
                outcome(read, tmp_path, name)
