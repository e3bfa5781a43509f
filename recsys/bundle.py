"""A bundle: one folder that is all of a model, verified when it is loaded.

bundle.json          format, version, recipe, fingerprints, metrics, every file's hash, its own seal
model.safetensors    every weight
encoder/config.json  architecture of the language model
tokenizer/           tokenizer.json
items.parquet        ids, texts, features, popularity
vectors.npy          [I, D] item vectors, memory-mapped
index/               [I, D + 2] the item side of the score, memory-mapped; of many items by cell too
relations/           what follows and what goes with each item, memory-mapped
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from recsys.config import Recipe, recipe_from_dict
from recsys.errors import BundleError
from recsys.files import whole_folder, write_json
from recsys.index import Index
from recsys.language_model import CONFIG, TOKENIZER, file_sha256, locate
from recsys.relations import Relations

FORMAT = 4
BUNDLE, MODEL, ITEMS, VECTORS = "bundle.json", "model.safetensors", "items.parquet", "vectors.npy"
ENCODER_DIR, TOKENIZER_DIR, INDEX_DIR = "encoder", "tokenizer", "index"
RELATIONS_DIR = "relations"
ITEM_PART, INDEX_META = "item_part.npy", "index.json"
SEAL = "seal"


def write_bundle(
    target: Path,
    *,
    recipe: Recipe,
    weights: dict[str, Tensor],
    items: pl.DataFrame,
    vectors: NDArray[np.float32],
    item_part: NDArray[np.float32],
    relations: Relations,
    facts: dict[str, Any],
    index: Index | None = None,
) -> Bundle:
    """Write a whole bundle or nothing.

    Args:
        target: the bundle's folder; an older one there is replaced.
        recipe: the recipe that made the model.
        weights: language model, encoders and head.
        items: one row an item, in the order of the vectors.
        vectors: [I, D].
        item_part: [I, D + 2], see `ScoringHead.item_part`.
        relations: as of the end of the log.
        facts: what else `bundle.json` tells, such as fingerprints.
        index: over `item_part`; None: requests read all of it.
    """
    language = locate(recipe.model.language_model)
    with whole_folder(target) as out:
        for folder in (ENCODER_DIR, TOKENIZER_DIR, INDEX_DIR):
            (out / folder).mkdir()
        save_file(weights, out / MODEL)
        shutil.copyfile(language / CONFIG, out / ENCODER_DIR / CONFIG)
        shutil.copyfile(language / TOKENIZER, out / TOKENIZER_DIR / TOKENIZER)
        items.write_parquet(out / ITEMS)
        np.save(out / VECTORS, vectors)
        np.save(out / INDEX_DIR / ITEM_PART, item_part)
        relations.save(out / RELATIONS_DIR)
        kind = {"kind": "exact"} if index is None else index.save(out / INDEX_DIR)
        write_json(out / INDEX_DIR / INDEX_META, {**kind, "num_items": len(vectors)})
        hashes = {
            str(path.relative_to(out)): file_sha256(path)
            for path in sorted(out.rglob("*"))
            if path.is_file()
        }
        content = hashlib.sha256(json.dumps([hashes, recipe.resolved()], sort_keys=True).encode())
        meta = {
            "format": FORMAT,
            "version": f"{recipe.name}-{content.hexdigest()[:12]}",
            "recipe": recipe.resolved(),
            "recipe_hash": recipe.fingerprint(),
            "num_items": len(vectors),
            "metrics": {},
            **facts,
            "files": hashes,
        }
        write_json(out / BUNDLE, meta | {SEAL: seal(meta)})
    return Bundle.open(target, verify=False)


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk.

    Attributes:
        folder: where it lies.
        meta: `bundle.json`.
    """

    folder: Path
    meta: dict[str, Any]

    @staticmethod
    def open(folder: Path, *, verify: bool = True) -> Bundle:
        """Open a bundle; with `verify`, hash every file, `bundle.json` itself included.

        Raises:
            BundleError: it is missing, of another format, incomplete, or a file is not what was
                written.
        """
        path = folder / BUNDLE
        try:
            meta = json.loads(path.read_text())
        except FileNotFoundError:
            raise BundleError("no bundle here", where=folder, mend="run `recsys embed`") from None
        except (ValueError, OSError) as error:
            raise BundleError(
                f"unreadable: {error}", where=path, mend="write the bundle again"
            ) from None
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            found = meta.get("format") if isinstance(meta, dict) else type(meta).__name__
            raise BundleError(
                f"this release reads bundles of format {FORMAT}", where=path, field="format",
                value=found, mend="write the bundle again with this release",
            )  # fmt: skip
        if meta.pop(SEAL, None) != seal(meta):
            raise BundleError(
                "the content is not what was written (the seal does not fit)", where=path,
                mend="restore it from a copy, or write the bundle again",
            )  # fmt: skip
        for name, expected in meta["files"].items():
            file = folder / name
            if not file.is_file():
                raise BundleError("a file is missing", where=file, mend="write the bundle again")
            if verify and file_sha256(file) != expected:
                raise BundleError(
                    f"the file is not the one that was written (SHA-256 is not {expected[:12]}...)",
                    where=file, mend="restore it from a copy, or write the bundle again",
                )  # fmt: skip
        return Bundle(folder, meta)

    @property
    def version(self) -> str:
        """Name and content hash."""
        return str(self.meta["version"])

    def must_be(self, version: str) -> None:
        """Refuse to be taken for another version.

        Raises:
            BundleError: the folder holds another bundle than the one that was asked for.
        """
        if self.version != version:
            raise BundleError(
                f"the folder holds {self.version} now", where=self.folder, value=version,
                mend="serve the version that lies there, or one of the registry",
            )  # fmt: skip

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe that made the model."""
        return recipe_from_dict(self.meta["recipe"], where=self.folder / BUNDLE)

    @cached_property
    def items(self) -> pl.DataFrame:
        """The items, in the order of the vectors."""
        return pl.read_parquet(self.folder / ITEMS, glob=False)

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """[I, D], memory-mapped."""
        return np.load(self.folder / VECTORS, mmap_mode="r")

    @cached_property
    def item_part(self) -> NDArray[np.float32]:
        """[I, D + 2], memory-mapped."""
        return np.load(self.folder / INDEX_DIR / ITEM_PART, mmap_mode="r")

    @cached_property
    def index(self) -> Index | None:
        """What finds the first stage's best without reading all items; None where all are read."""
        meta = json.loads((self.folder / INDEX_DIR / INDEX_META).read_text())
        return None if meta["kind"] == "exact" else Index.open(self.folder / INDEX_DIR, meta)

    @cached_property
    def relations(self) -> Relations:
        """Item-to-item weights, memory-mapped."""
        return Relations.open(self.folder / RELATIONS_DIR)

    def weights(self, prefix: str) -> dict[str, Tensor]:
        """The weights whose names start with `prefix`, without it."""
        with safe_open(self.folder / MODEL, framework="pt") as file:  # type: ignore[no-untyped-call]
            return {
                name.removeprefix(prefix): file.get_tensor(name)
                for name in file.keys()  # noqa: SIM118 - a safetensors file is no mapping
                if name.startswith(prefix)
            }

    def note_metrics(self, metrics: dict[str, float]) -> None:
        """Add evaluation results to `bundle.json`; the model itself stays as it is."""
        self.meta["metrics"] = metrics
        write_json(self.folder / BUNDLE, self.meta | {SEAL: seal(self.meta)})


def seal(meta: dict[str, Any]) -> str:
    """SHA-256 over all of `bundle.json` but the seal."""
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
