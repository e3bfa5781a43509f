from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import make_bundle, make_recipe

from recsys.artifacts.bundle import BUNDLE, FORMAT, MODEL, VECTORS, Bundle
from recsys.config import Recipe
from recsys.errors import BundleError
from recsys.storage.outputs import write_json


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, language_folder: Path) -> Recipe:
    return make_recipe(tmp_path_factory.mktemp("run"), language_folder)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "one", recipe, seed=1).folder


@pytest.fixture
def bundle(written: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(written, tmp_path / "bundle"))


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    meta = json.loads((folder / BUNDLE).read_text())
    change(meta)
    write_json(folder / BUNDLE, meta)


def test_it_reads_back_as_it_was_written(written: Path, recipe: Recipe) -> None:
    bundle = Bundle.open(written)
    assert bundle.recipe == recipe
    assert bundle.meta["seed"] == 1
    assert bundle.items.height == len(bundle.vectors) == len(bundle.item_part) == 300
    assert set(bundle.weights("head.")) > {"cosine", "price"}
    assert bundle.weights("nobody.") == {}
    assert files(written) == sorted([*bundle.meta["files"], BUNDLE])


def test_no_file_is_a_pickle(written: Path) -> None:
    assert {Path(name).suffix for name in files(written)} == {
        ".json", ".npy", ".parquet", ".safetensors",
    }  # fmt: skip
    for name in (VECTORS, "index/item_part.npy"):
        np.load(written / name, allow_pickle=False)


def test_a_flipped_byte_in_any_file_is_refused_and_the_file_named(
    written: Path, bundle: Path
) -> None:
    assert len(files(written)) == 17
    for name in files(written):
        content = (written / name).read_bytes()
        for place in (0, len(content) // 3, len(content) // 2, len(content) - 2):
            spoilt = bytearray(content)
            spoilt[place] ^= 1
            (bundle / name).write_bytes(spoilt)
            with pytest.raises(BundleError) as error:
                Bundle.open(bundle)
            assert str(error.value.where) == str(bundle / name), f"{name} at {place}"
        (bundle / name).write_bytes(content)
        Bundle.open(bundle)


def test_a_missing_file_is_named(written: Path, bundle: Path) -> None:
    for name in files(written):
        (bundle / name).unlink()
        with pytest.raises(BundleError) as error:
            Bundle.open(bundle, verify=False)
        assert str(error.value.where) == str(bundle if name == BUNDLE else bundle / name)
        shutil.copy(written / name, bundle / name)


def test_another_format_is_refused(bundle: Path) -> None:
    edit(bundle, lambda meta: meta.update(format=FORMAT + 1))
    with pytest.raises(BundleError, match=f"reads bundles of format {FORMAT}") as error:
        Bundle.open(bundle)
    assert error.value.value == FORMAT + 1


@pytest.mark.parametrize("content", ["", "[]", "null", '"x"', "{}", '{"format": 1}'])
def test_something_else_under_its_name_is_refused(bundle: Path, content: str) -> None:
    (bundle / BUNDLE).write_text(content)
    with pytest.raises(BundleError, match=BUNDLE):
        Bundle.open(bundle)


def test_a_changed_fact_is_refused(bundle: Path) -> None:
    edit(bundle, lambda meta: meta.update(price_scale=[0.0, 1.0]))
    with pytest.raises(BundleError, match=r"bundle\.json"):
        Bundle.open(bundle)


def test_metrics_are_noted_without_another_version(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    opened.note_metrics({"ndcg@10": 0.5})
    again = Bundle.open(bundle)
    assert again.meta["metrics"] == {"ndcg@10": 0.5}
    assert again.version == opened.version


def test_the_version_is_the_contents(tmp_path: Path, written: Path, recipe: Recipe) -> None:
    version = Bundle.open(written).version
    assert version.startswith("tiny-")
    assert make_bundle(tmp_path / "same", recipe, seed=1).version == version
    assert make_bundle(tmp_path / "other", recipe, seed=2).version != version


def test_a_bundle_takes_the_place_of_an_older_one_whole(tmp_path: Path, recipe: Recipe) -> None:
    target = tmp_path / "bundle"
    first = make_bundle(target, recipe, seed=1).version
    (target / "left-over").write_text("x")
    assert make_bundle(target, recipe, seed=2).version != first
    assert not (target / "left-over").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert MODEL in files(target)


def test_all_files_have_one_mode(written: Path, tmp_path: Path) -> None:
    """Who may read one may read the bundle."""
    modes = {stat.S_IMODE((written / name).stat().st_mode) for name in files(written)}
    (tmp_path / "fresh").touch()
    assert modes == {stat.S_IMODE((tmp_path / "fresh").stat().st_mode)}
