"""The language model over all distinct texts, on Ray Data actors.

It gives the hidden states at the split, and the final vectors. The actors write their rows straight
into memory-mapped files in the run's folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recsys.config import Recipe
from recsys.files import whole_folder
from recsys.language_model import fingerprint, hidden_size, locate
from recsys.prepared import Prepared
from recsys.schema import Col
from recsys.text_store import (
    HIDDEN,
    OFFSETS,
    VECTORS,
    TextStore,
    is_complete,
    pad_tokens,
    write_meta,
)

#: Texts that one task encodes, in batches of `embed.batch_size`.
TEXTS_PER_TASK = 1024


def store_folder(recipe: Recipe, prepared: Prepared) -> Path:
    """Where the text store of this catalogue, language model and split lies."""
    model = recipe.model
    language = fingerprint(locate(model.language_model))
    split = {"frozen": "frozen", "full": "full", "last_n": f"last{model.last_n}"}[model.tuning]
    tokens = recipe.data.max_tokens
    catalogue = prepared.catalogue.fingerprint
    return recipe.root / "text_store" / f"{catalogue}-{language}-{split}-{tokens}"


def ensure_store(recipe: Recipe, prepared: Prepared) -> TextStore:
    """The text store, computed if it is not there yet. Ray must be connected."""
    folder = store_folder(recipe, prepared)
    if not is_complete(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        texts = prepared.catalogue.texts
        offsets = np.concatenate([[0], np.cumsum(texts[Col.tokens].list.len().to_numpy())])
        width = hidden_size(locate(recipe.model.language_model))
        with whole_folder(folder) as out:
            np.save(out / OFFSETS, offsets.astype(np.int64))
            _create(out / HIDDEN, np.float16, (int(offsets[-1]), width))
            _create(out / VECTORS, np.float32, (texts.height, width))
            run_actors(recipe, _LowerEncoder(recipe, prepared.folder, out), texts.height)
            write_meta(out, texts.height, 0)
    return TextStore.open(folder)


def text_vectors(recipe: Recipe, prepared: Prepared, checkpoint: Path, out: Path) -> np.ndarray:
    """[T, H] vectors of all distinct texts by a checkpoint's language model, written to `out`."""
    store = store_folder(recipe, prepared)
    num_texts = prepared.catalogue.num_texts
    width = hidden_size(locate(recipe.model.language_model))
    _create(out, np.float32, (num_texts, width))
    run_actors(recipe, _UpperEncoder(recipe, prepared.folder, store, checkpoint, out), num_texts)
    return np.load(out, mmap_mode="r")


def run_actors(recipe: Recipe, task: Any, num_texts: int) -> None:
    """Let a pool of actors encode all texts; asserts that each was encoded once."""
    import ray.data

    starts = range(0, num_texts, TEXTS_PER_TASK)
    rows = [{"low": low, "high": min(low + TEXTS_PER_TASK, num_texts)} for low in starts]
    resources: dict[str, Any] = {"num_gpus": 1} if recipe.train.use_gpu else {"num_cpus": 1}
    done = (
        ray.data.from_items(rows, override_num_blocks=len(rows))
        .map(
            _Actor,
            fn_constructor_args=(task,),
            compute=ray.data.ActorPoolStrategy(size=min(recipe.embed.num_actors, len(rows))),
            **resources,
        )
        .take_all()
    )
    encoded = sum(row["encoded"] for row in done)
    assert encoded == num_texts, f"{encoded} of {num_texts} texts were encoded"


class _Actor:
    """Loads its task's model once, then encodes ranges of texts."""

    def __init__(self, task: Any) -> None:
        import torch

        torch.set_num_threads(1)
        self._task = task
        task.load()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"encoded": self._task.encode(row["low"], row["high"])}


@dataclass
class _LowerEncoder:
    """Tokens -> hidden states at the split, and vectors of the untouched model."""

    recipe: Recipe
    prepared: Path
    out: Path

    def load(self) -> None:
        from recsys.model.language import load_language_model

        model = self.recipe.model
        language = load_language_model(model.language_model, model.tuning, model.last_n)
        self.device = _device()
        self.language = language.eval().to(self.device)
        tokens = Prepared(self.prepared).catalogue.texts[Col.tokens]
        self.tokens = [np.asarray(ids, dtype=np.int32) for ids in tokens]
        self.offsets = np.load(self.out / OFFSETS)
        self.hidden = np.load(self.out / HIDDEN, mmap_mode="r+")
        self.vectors = np.load(self.out / VECTORS, mmap_mode="r+")

    def encode(self, low: int, high: int) -> int:
        import torch

        lengths = np.diff(self.offsets)[low:high]
        order = np.argsort(lengths, kind="stable") + low
        for start in range(0, len(order), self.recipe.embed.batch_size):
            rows = order[start : start + self.recipe.embed.batch_size]
            tokens, mask = pad_tokens([self.tokens[row] for row in rows])
            with torch.no_grad():
                there = mask.to(self.device)
                states_at_split = self.language.lower(tokens.to(self.device), there)
                self.vectors[rows] = self.language.upper(states_at_split, there).cpu().numpy()
            hidden = states_at_split.cpu().numpy()
            for row, states, length in zip(rows, hidden, mask.sum(1).tolist(), strict=True):
                self.hidden[self.offsets[row] : self.offsets[row + 1]] = states[:length]
        return high - low


@dataclass
class _UpperEncoder:
    """Hidden states at the split -> vectors by the trained layers."""

    recipe: Recipe
    prepared: Path
    store_folder: Path
    checkpoint: Path
    out: Path

    def load(self) -> None:
        from recsys.checkpoint import load_model
        from recsys.model.heads import ScoringHead
        from recsys.training import build_ranker

        ranker, _ = build_ranker(self.recipe, Prepared(self.prepared))
        load_model(self.checkpoint, ranker, ScoringHead(self.recipe.model.temperature))
        self.device = _device()
        self.language = ranker.language.eval().to(self.device)
        self.store = TextStore.open(self.store_folder)
        self.vectors = np.load(self.out, mmap_mode="r+")

    def encode(self, low: int, high: int) -> int:
        import torch

        for rows in self.store.by_length(self.recipe.embed.batch_size, low, high):
            hidden, mask = self.store.batch(rows)
            with torch.no_grad():
                vectors = self.language(hidden.to(self.device), mask.to(self.device))
                self.vectors[rows] = vectors.cpu().numpy()
        return high - low


def _device() -> Any:
    """The GPU that Ray lent this actor, if it lent one."""
    import ray
    import torch

    lent = ray.is_initialized() and ray.get_gpu_ids()  # asking starts a cluster if there is none
    return torch.device("cuda" if lent else "cpu")


def _create(path: Path, dtype: Any, shape: tuple[int, ...]) -> None:
    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape).flush()
