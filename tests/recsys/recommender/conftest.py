"""One bundle with random weights, loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from bundles import make_bundle, make_recipe
from recommenders import HISTORY, rewritten

from recsys.artifacts.bundle import Bundle
from recsys.ranking.index import Index
from recsys.recommender import Recommender
from recsys.recommender.loading import load_scorer
from recsys.recommender.text_encoder import TextEncoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, language_folder: Path) -> Path:
    root = tmp_path_factory.mktemp("recommender")
    return make_bundle(root / "bundle", make_recipe(root, language_folder), seed=3).folder


@pytest.fixture(scope="module")
def recommender(folder: Path) -> Recommender:
    return Recommender.load(folder)


@pytest.fixture(scope="module")
def encoder(folder: Path) -> TextEncoder:
    return TextEncoder(Bundle.open(folder))


@pytest.fixture(scope="module")
def with_cells(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Recommender]:
    """The same model with an index, of which a query reads so many cells."""
    bundle = Bundle.open(folder)
    index = Index.build(bundle.item_part, load_scorer(bundle).user_parts(HISTORY).numpy(), seed=0)

    def load(num_probed: int) -> Recommender:
        target = tmp_path_factory.mktemp("indexed") / "bundle"
        rewritten(bundle, target, index=replace(index, num_probed=(num_probed,) * 2))
        return Recommender.load(target)

    return load
