"""The least that each job could do: its bare reads, encodings and matrix products.

All run on one thread, in this process, on the data and the shapes of the job.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch

from recsys.model.language import LanguageModel
from recsys.model.ranking_head import HeadExamples, ScoringHead
from recsys.preparation.prepared import Prepared
from recsys.ranking.scorer import Scorer
from recsys.schema import Col
from recsys.text.text_store import TextStore, pad_tokens


def read(files: Sequence[Path]) -> None:
    """Read all columns of Parquet files."""
    for path in files:
        pl.read_parquet(path)


@torch.no_grad()
def encode_tokens(language: LanguageModel, prepared: Prepared, size: int) -> None:
    """All distinct texts through the whole language model, those of like length together."""
    tokens = [np.asarray(ids, dtype=np.int32) for ids in prepared.catalogue.texts[Col.tokens]]
    tokens.sort(key=len)
    for low in range(0, len(tokens), size):
        ids, mask = pad_tokens(tokens[low : low + size])
        language.upper(language.lower(ids, mask), mask)


@torch.no_grad()
def encode_states(language: LanguageModel, store: TextStore, size: int) -> None:
    """All distinct texts through the trained layers."""
    for rows in store.by_length(size):
        language(*store.batch(rows))


def encode_with_gradient(
    language: LanguageModel, store: TextStore, num_texts: int, num_steps: int
) -> None:
    """As many texts as a step encodes, forward and backward, in each of some steps."""
    rng = np.random.default_rng(0)
    for _ in range(num_steps):
        texts = rng.integers(store.num_texts, size=num_texts)
        language(*store.batch(texts)).sum().backward()
        language.zero_grad()


@torch.no_grad()
def head_products(head: ScoringHead, examples: HeadExamples, num_evaluations: int) -> None:
    """The products of the head's networks: of the loss, and of its gradient."""
    parts = [(head.own, examples.own_inputs), (head.related, examples.other_inputs)]
    for _ in range(num_evaluations):
        for network, inputs in parts:
            weights = next(network.parameters())
            hidden = inputs @ weights.T
            hidden.T @ inputs


@torch.no_grad()
def products_and_top(scorer: Scorer, num_baskets: int, size: int, k: int = 10) -> None:
    """The scores of all items for each basket by one product, and the k best."""
    part = scorer.item_part
    assert isinstance(part, torch.Tensor)
    for low in range(0, num_baskets, size):
        asked = torch.ones((min(size, num_baskets - low), part.shape[1]))
        (asked @ part.T).topk(min(k, len(part)))


def resample(num_models: int, num_metrics: int, num_users: int, num_bootstrap: int) -> None:
    """The products of the resamples' weights with each user's sums and counts."""
    weights, sums = np.ones((num_bootstrap, num_users)), np.ones((num_users, num_metrics))
    for _ in range(2 * num_models):
        weights @ sums
