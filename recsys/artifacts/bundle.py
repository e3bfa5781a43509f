"""A bundle: one folder that holds a whole model, verified when it is loaded.

bundle.json          format, version, recipe, fingerprints, metrics, every file's hash, its own seal
model.safetensors    every weight
encoder/config.json  architecture of the language model
tokenizer/           tokenizer.json
items.parquet        ids, texts, features, popularity, rows of the id vectors
vectors.npy          [I, D] item vectors, memory-mapped
index/               [I, D + 2] the item side of the score, memory-mapped; of many items by cell too
relations/           transitions, co-occurrence, content similarity, memory-mapped
reference.json       counts of the log's last days, for `recsys drift`; earlier releases wrote none
outcomes/            the outcome heads, if there are any: weights, calibration, rates, card
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors import safe_open
from torch import Tensor, nn

from recsys.arrays import Float32s, Int64s
from recsys.config import Recipe, recipe_from_dict
from recsys.errors import BundleError, RecipeError
from recsys.features.item_to_item import Relations, relation_files
from recsys.features.popularity import ItemStats
from recsys.model.item_encoder import NO_ID
from recsys.outcome_heads.served import ServedHeads
from recsys.ranking.index import Index
from recsys.schema import ITEMS as SCHEMA
from recsys.schema import Col
from recsys.storage.outputs import write_json
from recsys.storage.reading import map_array, read_parquet, reading
from recsys.storage.seals import (
    BROKEN_SEAL,
    SEAL,
    file_sha256,
    is_sealed,
    sealed,
)
from recsys.text.pretrained import CONFIG, TOKENIZER

FORMAT = 4
BUNDLE, MODEL, ITEMS, VECTORS = "bundle.json", "model.safetensors", "items.parquet", "vectors.npy"
ENCODER_DIR, TOKENIZER_DIR, INDEX_DIR = "encoder", "tokenizer", "index"
RELATIONS_DIR, OUTCOMES_DIR, REFERENCE = "relations", "outcomes", "reference.json"
ITEM_PART, INDEX_META = "item_part.npy", "index.json"
#: Columns of `items.parquet`: the standardised price; the row of the item's id vector, or null.
STANDARD_PRICE, ID_ROW = "standard_price", "id_row"
_FIX = "restore it from a copy, or write the bundle again"
_NEEDED = {
    MODEL, ITEMS, VECTORS, f"{INDEX_DIR}/{ITEM_PART}", f"{ENCODER_DIR}/{CONFIG}",
    f"{TOKENIZER_DIR}/{TOKENIZER}",
    *(f"{RELATIONS_DIR}/{name}" for name in relation_files()),
}  # fmt: skip


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
            raise BundleError("no bundle here", where=folder, fix="run `recsys embed`") from None
        except (ValueError, OSError, RecursionError) as error:
            raise BundleError(
                f"unreadable: {error}", where=path, fix="write the bundle again"
            ) from None
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            found = meta.get("format") if isinstance(meta, dict) else type(meta).__name__
            raise BundleError(
                f"this release reads bundles of format {FORMAT}", where=path, field="format",
                value=found, fix="write the bundle again with this release",
            )  # fmt: skip
        if not is_sealed(meta):
            raise BundleError(BROKEN_SEAL, where=path, fix=_FIX)
        meta.pop(SEAL)
        _check_meta(path, meta)
        for name, expected in meta["files"].items():
            file = folder / name
            if not file.is_file():
                raise BundleError("a file is missing", where=file, fix="write the bundle again")
            if verify and file_sha256(file) != expected:
                raise BundleError(
                    f"the file is not the one that was written (SHA-256 is not {expected[:12]}...)",
                    where=file, fix=_FIX,
                )  # fmt: skip
        return Bundle(folder, meta)

    @property
    def version(self) -> str:
        """Name and content hash."""
        return str(self.meta["version"])

    def must_be(self, version: str) -> None:
        """Check the version.

        Raises:
            BundleError: the folder holds another one.
        """
        if self.version != version:
            raise BundleError(
                f"the folder holds {self.version} now", where=self.folder, value=version,
                fix="serve the version that lies there, or one of the registry",
            )  # fmt: skip

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe that made the model."""
        try:
            return recipe_from_dict(self.meta["recipe"], where=self.folder / BUNDLE)
        except RecipeError as error:
            raise BundleError(
                f"its recipe is none of this release: {error.problem}", where=error.where,
                field=error.field, fix=_FIX,
            ) from None  # fmt: skip

    @cached_property
    def items(self) -> pl.DataFrame:
        """The items, in the order of the vectors.

        Raises:
            BundleError: the file is not what it should be; so below.
        """
        path = self.folder / ITEMS
        columns = pl.Schema(SCHEMA)
        nullable = tuple(name for name in SCHEMA.names if name != Col.item)
        counts = {field.name: pl.Int64 for field in fields(ItemStats)}
        kinds = {**columns, **counts, STANDARD_PRICE: pl.Float32}
        items = read_parquet(path, _FIX, kinds, nullable=nullable, error=BundleError)
        with reading(path, _FIX, BundleError):
            if items.height != self.num_items or items[Col.item].n_unique() != items.height:
                raise ValueError(f"not {self.num_items} different items")
            if not all((items[name] >= 0).all() for name in counts):
                raise ValueError("counts below 0")
            if not items[STANDARD_PRICE].is_finite().all():
                raise ValueError("prices that are not finite")
        return items

    @cached_property
    def id_rows(self) -> Int64s | None:
        """[I] row of each item's id vector, `NO_ID` where it has none; None: nobody noted them."""
        path = self.folder / ITEMS
        with reading(path, _FIX, BundleError):
            if ID_ROW not in pl.read_parquet_schema(path):
                return None
            rows = pl.read_parquet(path, columns=[ID_ROW])[ID_ROW].fill_null(NO_ID)
            known = rows.filter(rows != NO_ID).sort().to_list()
            if len(rows) != self.num_items or known != list(range(len(known))):
                raise ValueError(f"`{ID_ROW}` does not number the items that have an id vector")
        return rows.to_numpy().astype(np.int64)

    @cached_property
    def vectors(self) -> Float32s:
        """[I, D], memory-mapped."""
        return self._matrix(VECTORS, self.recipe.model.dim)

    @cached_property
    def item_part(self) -> Float32s:
        """[I, D + 2], memory-mapped."""
        return self._matrix(f"{INDEX_DIR}/{ITEM_PART}", self.recipe.model.dim + 2)

    def _matrix(self, name: str, width: int) -> Float32s:
        path = self.folder / name
        matrix = map_array(path, _FIX, np.float32, 2, BundleError)
        with reading(path, _FIX, BundleError):
            if matrix.shape != (self.num_items, width):
                raise ValueError(f"of shape {matrix.shape}, not {(self.num_items, width)}")
            if not np.isfinite(matrix).all():
                raise ValueError("not finite: the model has diverged, or the file is damaged")
        return matrix

    @property
    def num_items(self) -> int:
        """I."""
        return int(self.meta["num_items"])

    @cached_property
    def index(self) -> Index | None:
        """Index over the item parts; None: requests read all of them."""
        path = self.folder / INDEX_DIR / INDEX_META
        with reading(path, _FIX, BundleError):
            meta = json.loads(path.read_text())
            return None if meta["kind"] == "exact" else Index.open(path.parent, meta)

    @cached_property
    def relations(self) -> Relations:
        """Item-to-item weights, memory-mapped."""
        folder = self.folder / RELATIONS_DIR
        relations = Relations.open(folder, _FIX, BundleError)
        sizes = {getattr(relations, field.name).shape[0] for field in fields(Relations)}
        if sizes != {self.num_items}:
            raise BundleError(f"not of {self.num_items} items", where=folder, fix=_FIX)
        return relations

    @property
    def has_outcomes(self) -> bool:
        """Whether it holds outcome heads."""
        return any(name.startswith(f"{OUTCOMES_DIR}/") for name in self.meta["files"])

    @cached_property
    def outcomes(self) -> ServedHeads | None:
        """The outcome heads, without users' rates; None: there are none."""
        if not self.has_outcomes:
            return None
        return ServedHeads.open(self.folder / OUTCOMES_DIR, self.items, BundleError)

    def weights(self, prefix: str) -> dict[str, Tensor]:
        """The weights whose names start with `prefix`, without it."""
        path = self.folder / MODEL
        with (
            reading(path, _FIX, BundleError),
            safe_open(path, framework="pt") as file,  # type: ignore[no-untyped-call]
        ):
            weights = {
                name.removeprefix(prefix): file.get_tensor(name)
                for name in file.keys()  # noqa: SIM118 - a safetensors file is no mapping
                if name.startswith(prefix)
            }
            for name, value in weights.items():
                if not torch.isfinite(value).all():
                    raise ValueError(f"`{prefix}{name}` is not finite")
            return weights

    def load_into(self, module: nn.Module, prefix: str) -> None:
        """Give a module its weights, those whose names start with `prefix`.

        Raises:
            BundleError: they are broken, or do not fit it.
        """
        weights = self.weights(prefix)
        for name, value in module.state_dict().items():
            if name in weights and weights[name].dtype != value.dtype:
                raise BundleError(
                    "the weights are of another type", where=self.folder / MODEL,
                    field=prefix + name, value=weights[name].dtype, fix=_FIX,
                )  # fmt: skip
        try:
            module.load_state_dict(weights)
        except RuntimeError as error:
            raise BundleError(
                f"the weights do not fit the recipe and {ENCODER_DIR}/{CONFIG}: {str(error)[:300]}",
                where=self.folder / MODEL, fix=_FIX,
            ) from None  # fmt: skip

    def note_metrics(self, metrics: dict[str, float]) -> None:
        """Add evaluation results to `bundle.json`; the model itself stays as it is."""
        self.meta["metrics"] = metrics
        write_json(self.folder / BUNDLE, sealed(self.meta))


def _check_meta(path: Path, meta: dict[str, Any]) -> None:
    """Check the keys that readers rely on: the seal tells of accidents only."""
    kinds = {
        "version": str, "recipe": dict, "num_items": int, "files": dict, "metrics": dict,
        "text_dim": int, "price_scale": list,
    }  # fmt: skip
    with reading(path, _FIX, BundleError):
        for key, kind in kinds.items():
            if not isinstance(meta.get(key), kind):
                raise ValueError(f"`{key}` is missing or of the wrong type")
        if meta["num_items"] < 1 or meta["text_dim"] < 1 or not meta["version"]:
            raise ValueError("a bundle of nothing")
        mean, deviation = (float(value) for value in meta["price_scale"])
        if not math.isfinite(mean) or not 0 < deviation < math.inf:
            raise ValueError("`price_scale` is no mean and deviation")
        for name, digest in meta["files"].items():
            if not isinstance(digest, str) or ".." in name.split("/") or name.startswith("/"):
                raise ValueError(f"`files` holds {name!r}, which is no file of a bundle")
        missing = _NEEDED - meta["files"].keys()
        if missing:
            raise ValueError(f"`files` lacks {min(missing)}")
