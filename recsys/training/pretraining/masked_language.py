"""Masked-language-model training of the language model's last layers: one worker, without Ray.

A sentence encoder comes without the head that predicts words. Epoch 0 fits a fresh head, on texts
alone, with the body frozen. From then on the head is frozen and the body is trained: a lower
held-out perplexity is due to the body alone.

Legend: T texts, L tokens (padded), P chosen tokens, H width of the language model, V words of the
shop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from recsys.arrays import Int32s
from recsys.config import Recipe, Train
from recsys.errors import RecipeError
from recsys.model.language import LanguageModel
from recsys.text.pretrained import locate
from recsys.text.text_store import pad_tokens
from recsys.training.optim import build_optimizer, warmup_cosine
from recsys.training.pretraining.corpus import Corpus, mask_tokens

#: Steps of epoch 0, at least, and the head's learning rate.
HEAD_STEPS, HEAD_RATE = 300, 3e-3


class WordHead(nn.Module):
    """BERT's head over the words of the shop: a dense layer, then the similarity to each word.

    Args:
        embeddings_VH: of the words, by the language model, which does not train them.
        share_V: of each word in the texts; the bias starts at its logarithm.
    """

    def __init__(self, embeddings_VH: Tensor, share_V: Tensor) -> None:
        super().__init__()
        width = embeddings_VH.shape[1]
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(share_V.log())
        self.embeddings: Tensor
        self.register_buffer("embeddings", embeddings_VH, persistent=False)

    def forward(self, states_PH: Tensor) -> Tensor:
        """States -> logits [P, V]."""
        hidden = self.norm(nn.functional.gelu(self.dense(states_PH)))
        return nn.functional.linear(hidden, self.embeddings, self.bias)


class MaskedLanguage(nn.Module):
    """Body and head; `forward` is the training loss: DDP sees one call a step."""

    def __init__(self, language: LanguageModel, head: WordHead) -> None:
        super().__init__()
        self.language = language
        self.head = head

    def forward(
        self, read_TL: Tensor, mask_TL: Tensor, chosen_TL: Tensor, words_P: Tensor
    ) -> Tensor:
        """Mean cross-entropy of the chosen tokens; 0 where none is.

        Args:
            read_TL: what the model reads.
            mask_TL: True where there is a token.
            chosen_TL: True where a token is to be predicted.
            words_P: their places among the words of the shop.
        """
        states = self.language.states(self.language.lower(read_TL, mask_TL), mask_TL)
        logits = self.head(states[chosen_TL])
        return nn.functional.cross_entropy(logits, words_P, reduction="sum") / max(1, len(words_P))


def build_masked(recipe: Recipe, corpus: Corpus) -> MaskedLanguage:
    """The recipe's language model under a fresh head."""
    torch.manual_seed(recipe.seed)
    folder = locate(recipe.model.language_model)
    language = LanguageModel(folder, "last_n", recipe.pretrain.last_n, section="pretrain")
    words = corpus.vocabulary.words
    embeddings = language.embeddings.word_embeddings.weight.detach()
    counts = np.bincount(np.concatenate(corpus.tokens), minlength=len(embeddings))[words]
    head = WordHead(
        embeddings[torch.from_numpy(words)], torch.from_numpy(counts / counts.sum()).float()
    )
    return MaskedLanguage(language.eval(), head)


@dataclass
class Adapter:
    """The state of one worker. Only order and masks are random, each by its own seed.

    Args:
        recipe: the recipe.
        corpus: this worker's share.
        model: see `build_masked`.
        device: where the model lives.
    """

    recipe: Recipe
    corpus: Corpus
    model: MaskedLanguage
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        settings = self.recipe.pretrain
        # All but the two learning rates are the defaults of `train`.
        factor = settings.learning_rate / HEAD_RATE
        train = Train(learning_rate=HEAD_RATE, language_model_lr_factor=factor)
        self.train = train
        self.model.language.in_bfloat16 = self.recipe.train.precision == "bfloat16"
        self.optimizer = build_optimizer(self.model, train, self.model.language.parameters())
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        texts_alone = settings.model_copy(update={"behaviour_share": 0.0})
        self.texts_alone = replace(self.corpus, settings=texts_alone)
        self.head_passes = -(-HEAD_STEPS // self.texts_alone.num_steps)

    def prepare(self, epoch: int) -> None:
        """Train the body, in epoch 0 the head. DDP must know which: wrap the model after this."""
        self.model.language.trained_layers.requires_grad_(epoch > 0)
        self.model.head.requires_grad_(epoch == 0)

    def train_epoch(self, epoch: int, wrapped: nn.Module | None = None) -> float:
        """One epoch; returns the mean loss.

        Args:
            epoch: 0 fits the head, see `prepare`.
            wrapped: the module to call for the loss; DDP around the model, or the model itself.
        """
        done = max(0, epoch - 1) * self.corpus.num_steps
        total = self.recipe.pretrain.epochs * self.corpus.num_steps
        if epoch == 0:
            total = self.head_passes * self.texts_alone.num_steps
        losses: list[float] = []
        for step, texts in enumerate(self._texts(epoch), start=done):
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * warmup_cosine(step, total, self.train.warmup_fraction)
            rng = np.random.default_rng([self.recipe.seed, 1, epoch, step, self.corpus.rank])
            loss = (wrapped or self.model)(*self._hide(texts, rng))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.train.clip_norm)
            self.optimizer.step()
            losses.append(float(loss.detach()))
            if not np.isfinite(losses[-1]):
                raise RecipeError(
                    f"the adaptation has diverged: a loss of epoch {epoch} is {losses[-1]}",
                    field="pretrain.learning_rate", value=self.recipe.pretrain.learning_rate,
                    fix="use a lower one",
                )  # fmt: skip
        return float(np.mean(losses))

    @torch.no_grad()
    def held_out_loss(self) -> tuple[float, int]:
        """Sum of the cross-entropy over this worker's share of the held-out texts, and its tokens.

        The masks are the same each time, however many workers share the texts.
        """
        total, tokens = 0.0, 0
        batches = self.corpus.held_out_batches()
        for number in range(self.corpus.rank, len(batches), self.corpus.world):
            rng = np.random.default_rng([self.recipe.seed, 2, number])
            hidden = self._hide(batches[number], rng)
            total += float(self.model(*hidden)) * len(hidden[-1])
            tokens += len(hidden[-1])
        return total, tokens

    def _texts(self, epoch: int) -> Iterator[list[Int32s]]:
        if epoch:
            yield from self.corpus.batches(0, epoch)
            return
        for number in range(self.head_passes):
            yield from self.texts_alone.batches(0, 0, number)

    def _hide(
        self, texts: list[Int32s], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The arguments of `MaskedLanguage.forward`."""
        tokens, mask = pad_tokens(texts)
        vocabulary = self.corpus.vocabulary
        read, chosen = mask_tokens(
            tokens.numpy(), mask.numpy(), vocabulary, self.recipe.pretrain.mask_fraction, rng
        )
        words = np.searchsorted(vocabulary.words, tokens.numpy()[chosen])
        return (
            torch.from_numpy(read).to(self.device),
            mask.to(self.device),
            torch.from_numpy(chosen).to(self.device),
            torch.from_numpy(words).to(self.device),
        )
