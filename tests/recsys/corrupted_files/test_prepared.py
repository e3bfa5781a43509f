"""Damaged prepared data and text stores."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from damage import files
from damaged_reading import SCALE, Tally, each_damage, each_value, finite, is_flip
from tiny import Shop

from recsys.data.catalogue import ITEMS_FILE
from recsys.errors import DataError
from recsys.preparation.prepared import (
    CATALOGUE_DIR,
    HISTORIES_DIR,
    PREPARED,
    QUARANTINE_DIR,
    Prepared,
)
from recsys.text.text_store import TextStore
from recsys.text.text_vectors import read_hashes

pytestmark = pytest.mark.slow


@pytest.fixture
def store(shop: Shop, tmp_path: Path) -> Path:
    """A copy of the text store, to be spoilt."""
    [meta] = shop.recipe.root.rglob("text_store.json")
    return Path(shutil.copytree(meta.parent, tmp_path / "store"))


class TestPrepared:
    @pytest.fixture
    def run(self, shop: Shop, tmp_path: Path) -> Path:
        shutil.copytree(shop.recipe.root / PREPARED, tmp_path / "run" / PREPARED)
        return tmp_path / "run"

    @staticmethod
    def read(run: Path, store: Path) -> list[Any]:
        prepared = Prepared.open(run)
        summary, catalogue = prepared.summary, prepared.catalogue
        users, questions = prepared.questions("test", [4])
        relations = prepared.relations("test", TextStore.open(store).content_similarity)
        return [
            summary["data_fingerprint"], catalogue.fingerprint, prepared.item_ids().tolist(),
            *finite(users.item_rows, users.timestamps, questions.relevant, questions.now),
            *finite(*vars(prepared.stats("test")).values()),
            *finite(*vars(prepared.daily_counts().as_of(19_800)).values()),
            *finite(relations.transitions.toarray(), relations.co_occurrence.toarray()),
        ]  # fmt: skip

    def test_its_files(self, run: Path, store: Path) -> None:
        tally = Tally(lambda run: self.read(run, store), run)
        unread = (f"{PREPARED}/relations/head", f"{PREPARED}/relations/valid",
                  f"{PREPARED}/relations/end", f"{PREPARED}/{QUARANTINE_DIR}")  # fmt: skip
        names = [name for name in files(run) if not name.startswith(unread)]
        for name, what in each_damage(run, names, num_flips=2 * SCALE):
            # Of all files the pages of the histories alone have checksums.
            tally.take(name, what, may_change=is_flip(what) and HISTORIES_DIR not in name)
        tally.must_have_refused(0.8)

    def test_values_of_its_summary(self, run: Path, store: Path) -> None:
        tally, name = Tally(lambda run: self.read(run, store), run), f"{PREPARED}/prepare.json"
        for what in each_value(run / name, seed=1, most=100):
            # What the run's recipe said is told, and not read.
            tally.take(name, what)
        tally.must_have_refused(0.05)

    def test_items_of_another_catalogue(self, run: Path, store: Path) -> None:
        path = run / PREPARED / CATALOGUE_DIR / ITEMS_FILE
        pl.read_parquet(path)[:-1].write_parquet(path)
        with pytest.raises(DataError, match="39 items, of 40"):
            self.read(run, store)


class TestTextStore:
    @staticmethod
    def read(folder: Path) -> list[Any]:
        found = TextStore.open(folder)
        assert len(read_hashes(folder)) == found.num_texts
        hidden, mask = found.batch(np.arange(found.num_texts))
        # Half-precision states have no checksum, and are too many to be looked at when mapped.
        assert hidden.shape[:2] == mask.shape
        return finite(mask, found.vectors, found.content_similarity.toarray())

    def test_its_files(self, store: Path) -> None:
        tally = Tally(self.read, store)
        for name, what in each_damage(store, files(store), num_flips=12 * SCALE):
            # A text whose hash has changed is encoded anew.
            tally.take(name, what, may_change=is_flip(what) and name.endswith((".npy", ".parquet")))
        tally.must_have_refused(0.8)
