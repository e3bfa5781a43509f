"""Writing a bundle: its files, their hashes, and the version that follows from them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from torch import Tensor

from recsys.arrays import Float32s
from recsys.artifacts.bundle import (
    BUNDLE,
    ENCODER_DIR,
    FORMAT,
    INDEX_DIR,
    INDEX_META,
    ITEM_PART,
    ITEMS,
    MODEL,
    OUTCOMES_DIR,
    REFERENCE,
    RELATIONS_DIR,
    TOKENIZER_DIR,
    VECTORS,
    Bundle,
)
from recsys.config import Recipe
from recsys.features.item_to_item import Relations
from recsys.outcome_heads.served import ServedHeads
from recsys.ranking.index import Index
from recsys.storage.outputs import whole_folder, write_json
from recsys.storage.seals import file_hashes, json_sha256, sealed
from recsys.storage.weights import save_weights
from recsys.text.pretrained import CONFIG, TOKENIZER, locate


def write_bundle(
    target: Path,
    *,
    recipe: Recipe,
    weights: dict[str, Tensor],
    items: pl.DataFrame,
    vectors: Float32s,
    item_part: Float32s,
    relations: Relations,
    facts: dict[str, Any],
    index: Index | None = None,
    reference: dict[str, Any] | None = None,
    outcomes: ServedHeads | None = None,
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
        facts: further keys of `bundle.json`, such as fingerprints.
        index: over `item_part`; None: requests read all of it.
        reference: see `recsys.drift.reference`; None: drift cannot be told of this bundle.
        outcomes: the outcome heads; None: there are none.
    """
    language = locate(recipe.model.language_model)
    with whole_folder(target) as out:
        for folder in (ENCODER_DIR, TOKENIZER_DIR, INDEX_DIR):
            (out / folder).mkdir()
        save_weights(weights, out / MODEL)
        shutil.copyfile(language / CONFIG, out / ENCODER_DIR / CONFIG)
        shutil.copyfile(language / TOKENIZER, out / TOKENIZER_DIR / TOKENIZER)
        items.write_parquet(out / ITEMS)
        np.save(out / VECTORS, vectors)
        np.save(out / INDEX_DIR / ITEM_PART, item_part)
        relations.save(out / RELATIONS_DIR)
        kind = {"kind": "exact"} if index is None else index.save(out / INDEX_DIR)
        write_json(out / INDEX_DIR / INDEX_META, {**kind, "num_items": len(vectors)})
        if reference is not None:
            write_json(out / REFERENCE, reference)
        if outcomes is not None:
            (out / OUTCOMES_DIR).mkdir()
            with tempfile.TemporaryDirectory() as users:  # their counts stay in the run's folder
                outcomes.save(out / OUTCOMES_DIR, Path(users))
        hashes = file_hashes(out)
        content = json_sha256([hashes, recipe.resolved()])
        meta = {
            "format": FORMAT,
            "version": f"{recipe.name}-{content[:12]}",
            "recipe": recipe.resolved(),
            "recipe_hash": recipe.fingerprint(),
            "num_items": len(vectors),
            "metrics": {},
            **facts,
            "files": hashes,
        }
        write_json(out / BUNDLE, sealed(meta))
    return Bundle.open(target, verify=False)
