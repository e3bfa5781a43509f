"""The language model over all distinct texts, on Ray Data actors.

It gives the hidden states at the split, and the final vectors. The actors hand their rows back, and
one process writes them: several that write into one file lose each other's pages on NFS.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recsys.arrays import Int64s
from recsys.artifacts.checkpoint import language_digest
from recsys.artifacts.run import Run
from recsys.config import Recipe
from recsys.features.item_to_item import content_similarity
from recsys.preparation.prepared import Prepared
from recsys.schema import Col
from recsys.storage.matrices import save_matrix
from recsys.text.pretrained import hidden_size, locate
from recsys.text.text_store import (
    HIDDEN,
    OFFSETS,
    SIMILARITY,
    VECTORS,
    TextStore,
    is_complete,
    pad_tokens,
    ragged_index,
    write_meta,
)
from recsys.text.text_vectors import (
    HASHES,
    TextVectors,
    read_hashes,
    rows_among,
    write_hashes,
)
from recsys.training.pretraining.adapted import bring_adapted

#: Texts that one task encodes, in batches of `embed.batch_size`.
TEXTS_PER_TASK = 1024


#: Encodes all texts by a task; see `run_actors`.
RunTexts = Callable[[Recipe, Any, int], Iterator[tuple[int, int, dict[str, np.ndarray]]]]


def ensure_store(run: Run, run_texts: RunTexts | None = None) -> TextStore:
    """The text store, computed if it is not there yet.

    Args:
        run: its recipe names the language model.
        run_texts: by default `run_actors`: Ray must be connected then.
    """
    recipe, prepared, folder = run.recipe, run.prepared, run.text_store_folder
    recipe.shared.bring(folder)
    if is_complete(folder):
        return TextStore.open(folder)
    texts = prepared.catalogue.texts
    hashes = texts[Col.content_hash]
    earlier = _earlier_store(run)
    known = rows_among(hashes, None if earlier is None else read_hashes(earlier))
    missing = np.flatnonzero(known < 0)
    lengths = texts[Col.tokens].list.len().to_numpy().astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    width = hidden_size(locate(recipe.model.language_model))
    with recipe.shared.whole(folder) as out:
        np.save(out / OFFSETS, offsets)
        hidden = _create(out / HIDDEN, np.float16, (int(offsets[-1]), width))
        vectors = _create(out / VECTORS, np.float32, (texts.height, width))
        if earlier is not None:
            TextStore.open(earlier).copy_texts(known, hidden, offsets, vectors)
        task = _LowerEncoder(recipe, prepared.folder, missing)
        run_texts = run_texts or _runner(missing, is_rest=earlier is not None)
        for low, high, parts in run_texts(recipe, task, len(missing)):
            rows = missing[low:high]
            vectors[rows] = parts[VECTORS]
            place, token = ragged_index(lengths[rows])
            hidden[offsets[rows][place] + token] = parts[HIDDEN]
        vectors.flush()
        hidden.flush()
        similar = content_similarity(vectors, prepared.catalogue.text_rows)
        save_matrix(out, SIMILARITY, similar)
        write_hashes(out, hashes)
        write_meta(out, texts.height)
    for path in run.earlier_text_stores():
        recipe.shared.drop(path)
    return TextStore.open(folder)


def _earlier_store(run: Run) -> Path | None:
    """The store of another catalogue that shares the most texts, if there is one."""
    hashes = run.prepared.catalogue.texts[Col.content_hash]
    shared = {}
    for path in run.earlier_text_stores():
        run.recipe.shared.bring(path)
        if is_complete(path) and (path / HASHES).is_file():
            shared[path] = int((rows_among(hashes, read_hashes(path)) >= 0).sum())
    best = max(shared, key=lambda path: shared[path], default=None)
    return best if best is not None and shared[best] else None


def text_vectors(run: Run, checkpoint: Path, run_texts: RunTexts | None = None) -> TextVectors:
    """Vectors of all distinct texts by a checkpoint's language model; known ones are kept.

    Args:
        run: of the checkpoint's recipe.
        checkpoint: a training's.
        run_texts: see `ensure_store`.
    """
    recipe, prepared = run.recipe, run.prepared
    folder = run.text_vectors_folder(language_digest(checkpoint))
    recipe.shared.bring(folder)
    hashes = prepared.catalogue.texts[Col.content_hash]
    kept = TextVectors.open(folder) if folder.is_dir() else None
    known = rows_among(hashes, None if kept is None else kept.hashes)
    if kept is not None and np.array_equal(known, np.arange(len(kept.hashes))):
        return kept
    missing = np.flatnonzero(known < 0)
    width = hidden_size(locate(recipe.model.language_model))
    vectors = np.zeros((len(hashes), width), dtype=np.float32)
    if kept is not None:
        vectors[known >= 0] = kept.vectors[known[known >= 0]]
    task = _UpperEncoder(recipe, prepared.folder, missing, run.text_store_folder, checkpoint)
    run_texts = run_texts or _runner(missing, is_rest=kept is not None)
    for low, high, parts in run_texts(recipe, task, len(missing)):
        vectors[missing[low:high]] = parts[VECTORS]
    with recipe.shared.whole(folder) as out:
        TextVectors.write(out, vectors, hashes)
    _drop_old_vectors(run, folder)
    return TextVectors.open(folder)


def _drop_old_vectors(run: Run, newest: Path) -> None:
    """Keep the vectors by the newest trained model and by the one before: the champion's may be."""
    shared = run.recipe.shared
    found = [newest.parent / name for name in shared.names(newest.parent)]
    written = {path: path.lstat().st_mtime if path.exists() else 0.0 for path in found}
    for path in sorted(set(found) - {newest}, key=lambda path: written[path])[:-1]:
        shared.drop(path)


def _runner(missing: Int64s, *, is_rest: bool) -> RunTexts:
    """Actors; for the few texts of a night they would take longer to start than to encode."""
    return _run_here if is_rest and len(missing) <= TEXTS_PER_TASK else run_actors


def _run_here(
    recipe: Recipe, task: Any, num_texts: int
) -> Iterator[tuple[int, int, dict[str, np.ndarray]]]:
    if num_texts:
        task.load()
        yield 0, num_texts, task.encode(0, num_texts)


def run_actors(
    recipe: Recipe, task: Any, num_texts: int
) -> Iterator[tuple[int, int, dict[str, np.ndarray]]]:
    """Let a pool of actors encode all texts.

    Yields:
        The first and the last text (exclusive) of each range, and its arrays by name, in any order;
        asserts at the end that each text was there once.
    """
    import ray.data

    starts = range(0, num_texts, TEXTS_PER_TASK)
    rows = [{"low": low, "high": min(low + TEXTS_PER_TASK, num_texts)} for low in starts]
    resources: dict[str, Any] = {"num_gpus": 1} if recipe.train.use_gpu else {"num_cpus": 1}
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _Actor,  # type: ignore[arg-type]
        fn_constructor_args=(task,),
        compute=ray.data.ActorPoolStrategy(size=min(recipe.embed.num_actors, len(rows))),
        **resources,
    )
    encoded = 0
    for row in done.iter_rows():
        low, high = int(row.pop("low")), int(row.pop("high"))
        yield low, high, {name: _from_bytes(content) for name, content in row.items()}
        encoded += high - low
    assert encoded == num_texts, f"{encoded} of {num_texts} texts were encoded"


class _Actor:
    """Loads its task's model once, then encodes ranges of texts."""

    def __init__(self, task: Any) -> None:
        import torch

        torch.set_num_threads(1)
        self._task = task
        task.load()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        parts = self._task.encode(row["low"], row["high"])
        return row | {name: _to_bytes(array) for name, array in parts.items()}


@dataclass
class _LowerEncoder:
    """Tokens of some texts -> hidden states at the split, and vectors of the untouched model."""

    recipe: Recipe
    prepared: Path
    rows: Int64s

    def load(self) -> None:
        from recsys.model.language import load_language_model

        bring_adapted(self.recipe)
        language = load_language_model(self.recipe.model)
        self.device = _device()
        self.language = language.eval().to(self.device)
        self.recipe.shared.bring(self.prepared)
        tokens = Prepared(self.prepared).catalogue.texts[Col.tokens].gather(self.rows)
        self.tokens = [np.asarray(ids, dtype=np.int32) for ids in tokens]

    def encode(self, low: int, high: int) -> dict[str, np.ndarray]:
        import torch

        lengths = np.array([len(ids) for ids in self.tokens[low:high]])
        starts = np.cumsum(lengths) - lengths
        hidden = np.zeros((int(lengths.sum()), self.language.dim), dtype=np.float16)
        vectors = np.zeros((high - low, self.language.dim), dtype=np.float32)
        order = np.argsort(lengths, kind="stable")
        for first in range(0, len(order), self.recipe.embed.batch_size):
            rows = order[first : first + self.recipe.embed.batch_size]
            tokens, mask = pad_tokens([self.tokens[low + row] for row in rows])
            with torch.no_grad():
                there = mask.to(self.device)
                states = self.language.lower(tokens.to(self.device), there)
                vectors[rows] = self.language.upper(states, there).cpu().numpy()
            for row, of_text in zip(rows, states.cpu().numpy(), strict=True):
                place = slice(starts[row], starts[row] + lengths[row])
                hidden[place] = of_text[: lengths[row]]
        return {HIDDEN: hidden, VECTORS: vectors}


@dataclass
class _UpperEncoder:
    """Hidden states of some texts at the split -> vectors by the trained layers."""

    recipe: Recipe
    prepared: Path
    rows: Int64s
    store_folder: Path
    checkpoint: Path

    def load(self) -> None:
        from recsys.artifacts.checkpoint import load_model
        from recsys.artifacts.progress import load_progress
        from recsys.model.ranking_head import ScoringHead
        from recsys.training.build import build_two_tower

        shared = self.recipe.shared
        for folder in (self.prepared, self.store_folder, self.checkpoint):
            shared.bring(folder)
        bring_adapted(self.recipe)
        until = load_progress(self.checkpoint).until
        model, _ = build_two_tower(self.recipe, Prepared(self.prepared), until)
        load_model(self.checkpoint, model, ScoringHead(self.recipe.model.temperature))
        self.device = _device()
        self.language = model.language.eval().to(self.device)
        self.store = TextStore.open(self.store_folder)

    def encode(self, low: int, high: int) -> dict[str, np.ndarray]:
        import torch

        asked = self.rows[low:high]
        encoded = np.zeros((high - low, self.language.dim), dtype=np.float32)
        for rows in self.store.by_length(self.recipe.embed.batch_size, asked):
            hidden, mask = self.store.batch(rows)
            with torch.no_grad():
                vectors = self.language(hidden.to(self.device), mask.to(self.device))
                encoded[np.searchsorted(asked, rows)] = vectors.cpu().numpy()
        return {VECTORS: encoded}


def _device() -> Any:
    """The GPU that Ray lent this actor, if it lent one."""
    import ray
    import torch

    lent = ray.is_initialized() and ray.get_gpu_ids()  # asking starts a cluster if there is none
    return torch.device("cuda" if lent else "cpu")


def _create(path: Path, dtype: Any, shape: tuple[int, ...]) -> Any:
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    # Reserved at once: on a disk that fills later, writing to a mapped page kills the process.
    with path.open("rb+") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _to_bytes(array: np.ndarray) -> bytes:
    """An array as a value of a table, whatever its shape; in NumPy's own format, never a pickle."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _from_bytes(content: bytes) -> np.ndarray:
    return np.load(io.BytesIO(content), allow_pickle=False)
