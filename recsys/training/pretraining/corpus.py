"""The corpus of pretraining: the shop's texts, and texts in the order of users' histories.

A *behaviour sentence* is a part of one user's history: the texts of its items, each at its first
event, concatenated. Behaviour could leak, texts cannot: only events strictly before the head's
window are read.

Legend: T texts, E events kept, S behaviour sentences, L tokens (padded).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from tokenizers import Tokenizer

from recsys.arrays import Bools, Int32s, Int64s
from recsys.config import Pretrain, Recipe
from recsys.data.histories import UserEvents
from recsys.errors import RecipeError
from recsys.preparation.prepared import Prepared
from recsys.schema import Col
from recsys.text.pretrained import TOKENIZER, locate, max_positions

#: Of the chosen tokens this share reads as the mask and this as a random token; the rest stays as
#: it is (BERT, arXiv 1810.04805, section 3.1).
MASKED, REPLACED = 0.8, 0.1
#: What BERT's and RoBERTa's tokenizers call the mask.
MASK_NAMES = ("[MASK]", "<mask>")


@dataclass(frozen=True)
class Vocabulary:
    """The V tokens that occur in a shop's texts, and the mask token.

    Attributes:
        mask: id of the mask token.
        words: [V] rising ids; without special ones, such as the two that enclose a text.
    """

    mask: int
    words: Int64s

    @staticmethod
    def of(folder: Path, tokens: list[Int32s]) -> Vocabulary:
        """The vocabulary of some texts.

        Args:
            folder: of the language model.
            tokens: ids of each text.

        Raises:
            RecipeError: it has no mask token.
        """
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        masks = [tokenizer.token_to_id(name) for name in MASK_NAMES]
        mask = next((number for number in masks if number is not None), None)
        if mask is None:
            raise RecipeError(
                f"the tokenizer knows no {' or '.join(MASK_NAMES)}", where=folder / TOKENIZER,
                field="model.language_model",
                fix="use another language model, or pretrain.epochs=0",
            )  # fmt: skip
        added = tokenizer.get_added_tokens_decoder().items()
        special = {mask, *tokenizer.encode("").ids, *(n for n, token in added if token.special)}
        words = np.setdiff1d(np.concatenate(tokens), sorted(special))
        return Vocabulary(mask, words.astype(np.int64))


def mask_tokens(
    tokens_TL: Int64s,
    present_TL: Bools,
    vocabulary: Vocabulary,
    fraction: float,
    rng: np.random.Generator,
) -> tuple[Int64s, Bools]:
    """Choose a share of each text's words, at least one, and mask most of the chosen.

    Args:
        tokens_TL: token ids, padded.
        present_TL: True where there is a token.
        vocabulary: only its words are chosen.
        fraction: share of a text's words.
        rng: of choice and replacement.

    Returns:
        The tokens that the model reads [T, L], and which were chosen [T, L].
    """
    free = present_TL & np.isin(tokens_TL, vocabulary.words)
    num_chosen = np.maximum(1, np.rint(fraction * free.sum(1)))
    noise = np.where(free, rng.random(free.shape), np.inf)
    place = noise.argsort(1).argsort(1)
    chosen = free & (place < num_chosen[:, None])
    fate = rng.random(free.shape)
    words = rng.choice(vocabulary.words, size=free.shape)
    read = np.where(chosen & (fate < MASKED), vocabulary.mask, tokens_TL)
    replaced = chosen & (fate >= MASKED) & (fate < MASKED + REPLACED)
    return np.where(replaced, words, read), chosen


@dataclass(frozen=True)
class Corpus:
    """One worker's share of the corpus.

    Attributes:
        settings: of the recipe.
        seed: of the recipe; which texts and masks an epoch has depends on it.
        rank, world: number of this worker, and of all.
        tokens: [T] token ids of each distinct text.
        vocabulary: of these texts.
        learned, held_out: rows of the texts to learn from, and of those that measure.
        text_rows, timestamps: [E] text and moment of the events kept, user by user, oldest first.
        offsets: [S + 1] sentence s is events `offsets[s]:offsets[s + 1]`.
    """

    settings: Pretrain
    seed: int
    rank: int
    world: int
    tokens: list[Int32s]
    vocabulary: Vocabulary
    learned: Int64s
    held_out: Int64s
    text_rows: Int64s
    timestamps: Int64s
    offsets: Int64s

    @staticmethod
    def read(recipe: Recipe, prepared: Prepared, rank: int = 0, world: int = 1) -> Corpus:
        """All texts, and the behaviour in this worker's share of the history shards.

        Raises:
            RecipeError: the language model has no mask token, or cannot read so long sentences; or
                no text is held out, or every one.
        """
        folder = locate(recipe.model.language_model)
        _check_length(recipe, folder)
        texts = prepared.catalogue.texts
        tokens = [np.asarray(ids, dtype=np.int32) for ids in texts[Col.tokens]]
        held = _held_out(texts[Col.content_hash], recipe.pretrain.held_out)
        if held.all() or not held.any():
            raise RecipeError(
                f"of {len(held)} texts {held.sum()} would be held out", field="pretrain.held_out",
                value=recipe.pretrain.held_out, fix="use a share that leaves some of both",
            )  # fmt: skip
        users = prepared.users(prepared.shards[rank::world])
        known = users.before(int(prepared.summary["cuts_us"]["head"]))
        kept, text, user = _first_meetings(known, prepared.catalogue.text_rows, held)
        most = recipe.pretrain.max_tokens
        lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)[text] - 1
        return Corpus(
            recipe.pretrain,
            recipe.seed,
            rank,
            world,
            tokens,
            Vocabulary.of(folder, tokens),
            np.flatnonzero(~held),
            np.flatnonzero(held),
            *_sentences(text, known.timestamps[kept], user, lengths, most),
        )

    @property
    def num_sentences(self) -> int:
        """S."""
        return len(self.offsets) - 1

    def sentence(self, number: int, rng: np.random.Generator) -> Int32s:
        """Token ids of a behaviour sentence; the events of a moment in an order drawn anew."""
        own = slice(self.offsets[number], self.offsets[number + 1])
        times = self.timestamps[own]
        rows = self.text_rows[own][np.lexsort((rng.random(len(times)), times))]
        first, *others = (self.tokens[row] for row in rows)
        joined = np.concatenate([first, *(ids[1:] for ids in others)])[: self.settings.max_tokens]
        joined[-1] = first[-1]
        return joined

    @property
    def num_steps(self) -> int:
        """Steps of an epoch: the same for all workers, whatever behaviour each one has."""
        return sum(self._split())

    def batches(self, *key: int) -> Iterator[list[Int32s]]:
        """Token ids of the texts, or of the sentences, of each step of an epoch.

        All learned texts once, this worker's share of them, and among them steps that read
        sentences, as many as `pretrain.behaviour_share` says. Which step is which is the same for
        all workers. A worker without any sentence reads texts.

        Args:
            key: of the epoch; the same key, the same batches.
        """
        size, world = self.settings.batch_size, self.world
        num_texts, num_behaviour = self._split()
        common = np.random.default_rng([self.seed, *key])
        order = common.permutation(self.learned)
        # Every worker has as many: the first texts come again where they do not divide.
        mine = np.resize(order, -(-len(order) // world) * world)[self.rank :: world]
        parts = iter(np.array_split(mine, num_texts))
        own = np.random.default_rng([self.seed, *key, self.rank])
        mean = float(np.mean([len(ids) for ids in self.tokens]))
        num_sentences = max(1, round(size * mean / self.settings.max_tokens))
        for reads_texts in common.permutation(np.arange(num_texts + num_behaviour) < num_texts):
            if reads_texts:
                yield [self.tokens[row] for row in next(parts)]
            elif self.num_sentences:
                drawn = own.integers(self.num_sentences, size=num_sentences)
                yield [self.sentence(number, own) for number in drawn]
            else:
                yield [self.tokens[row] for row in own.choice(self.learned, size)]

    def held_out_batches(self) -> list[list[Int32s]]:
        """Token ids of the held-out texts, in batches of similar length; all workers' together."""
        size = self.settings.batch_size
        lengths = np.array([len(self.tokens[row]) for row in self.held_out])
        rows = self.held_out[np.argsort(lengths, kind="stable")]
        return [
            [self.tokens[row] for row in rows[low : low + size]]
            for low in range(0, len(rows), size)
        ]

    def _split(self) -> tuple[int, int]:
        """Steps of an epoch that read texts, and that read sentences."""
        texts = -(-len(self.learned) // (self.world * self.settings.batch_size))
        share = self.settings.behaviour_share
        return texts, round(texts * share / (1 - share))


def _check_length(recipe: Recipe, folder: Path) -> None:
    most = max_positions(folder)
    if recipe.pretrain.max_tokens > most:
        raise RecipeError(
            f"the language model reads at most {most} tokens", where=folder,
            field="pretrain.max_tokens", value=recipe.pretrain.max_tokens,
            fix=f"use at most {most}",
        )  # fmt: skip


def _held_out(hashes: pl.Series, share: float) -> Bools:
    """[T] whether a text measures: by its content, so that a growing catalogue moves none."""
    numbers = hashes.str.slice(0, 8).str.to_integer(base=16, dtype=pl.Int64).to_numpy()
    return numbers < share * 2**32


def _first_meetings(
    users: UserEvents, text_rows: Int32s, held_out: Bools
) -> tuple[Int64s, Int64s, Int64s]:
    """Events in which a user met a learned text first: their places, texts and users, in order."""
    text = text_rows[users.item_rows].astype(np.int64)
    user = np.repeat(np.arange(len(users)), np.diff(users.offsets))
    _, first = np.unique(user * (len(held_out) + 1) + text, return_index=True)
    kept = np.sort(first)
    kept = kept[~held_out[text[kept]]]
    return kept, text[kept], user[kept]


def _sentences(
    text: Int64s, timestamps: Int64s, user: Int64s, lengths: Int64s, most: int
) -> tuple[Int64s, Int64s, Int64s]:
    """Cut each user's events into stretches of about `most` tokens; those of one text are left out.

    Returns:
        Texts and times of the events kept, and the sentences' offsets.
    """
    opens = np.flatnonzero(np.diff(user, prepend=-1))
    before = np.cumsum(lengths) - lengths
    within = before - np.repeat(before[opens], np.diff(np.append(opens, len(user))))
    # A new user, or the next stretch of the same one.
    piece = user * (int(within.max(initial=0)) // most + 1) + within // most
    _, number, counts = np.unique(piece, return_inverse=True, return_counts=True)
    keep = counts[number] > 1
    offsets = np.concatenate([[0], np.cumsum(counts[counts > 1])]).astype(np.int64)
    return text[keep], timestamps[keep], offsets
