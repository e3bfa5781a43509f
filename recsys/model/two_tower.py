"""The trained module: language model, item encoder and user encoder behind one loss.

Legend: I items, T distinct texts, F item fields, H width of the language model, D of the model.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from recsys.arrays import Int32s
from recsys.config import Model
from recsys.model.batch import Batch
from recsys.model.exchange import gather_vectors
from recsys.model.item_encoder import ItemEncoder
from recsys.model.language import LanguageModel
from recsys.model.losses import catalogue_cross_entropy
from recsys.model.user_encoder import UserEncoder

#: CLIP's bound (arXiv 2103.00020): above it training grows unstable.
MAX_LOG_SCALE = math.log(100)


class TwoTower(nn.Module):
    """Encoders of items and users; `forward` is the training loss: DDP sees one call a step."""

    def __init__(
        self, model: Model, language: LanguageModel, num_ids: int, num_fields: int
    ) -> None:
        super().__init__()
        self.language = language
        self.items = ItemEncoder(language.dim, model.dim, num_ids, num_fields, model.id_dropout)
        self.users = UserEncoder(model.dim, model.num_layers, model.num_heads, model.dropout)
        #: Log of what the cosines are multiplied with: one over the temperature, learned.
        self.log_scale = nn.Parameter(torch.tensor(-math.log(model.temperature)))
        self.popularity = nn.Parameter(torch.tensor(1.0))

    def forward(self, *batches: Batch) -> tuple[Tensor, Tensor]:
        """Loss of each batch, and the fresh text vectors of all workers for the cache.

        The batches share the texts that the first one brings to encode.
        """
        fresh = self._fresh_vectors(batches[0])
        losses = [self._loss(batch, fresh) for batch in batches]
        return torch.stack(losses), fresh.detach()

    def _loss(self, batch: Batch, fresh: Tensor) -> Tensor:
        texts = batch.cached_TH
        if len(fresh):
            texts = texts.index_copy(0, batch.fresh.at_G, fresh[batch.fresh.used_G])
        if batch.seed is not None:
            torch.manual_seed(batch.seed)
        vectors = self.items(texts[batch.text_of_item_N], batch.item_rows_NR)
        states = self.users(vectors[batch.window_items_BE], batch.windows)
        # The learned multiple of the log share is the prior of the logits.
        prior = self.popularity * batch.log_share_N
        return catalogue_cross_entropy(
            states,
            vectors[batch.target_items_P],
            vectors[batch.candidates_C],
            target_states_P=batch.target_states_P,
            target_items_P=batch.target_items_P,
            candidate_items_C=batch.candidates_C,
            log_expected_C=batch.log_expected_C,
            prior_P=prior[batch.target_items_P],
            prior_C=prior[batch.candidates_C],
            weights_P=batch.target_weights_P,
            scale=self.log_scale.clamp(max=MAX_LOG_SCALE).exp(),
        )

    def _fresh_vectors(self, batch: Batch) -> Tensor:
        """[sum(sizes), H] vectors of all workers' fresh texts."""
        fresh = batch.fresh
        if not sum(fresh.sizes):
            return batch.cached_TH[:0]
        encoded: Tensor = self.language(fresh.hidden_FLH, fresh.mask_FL)
        if len(fresh.sizes) > 1:
            encoded = gather_vectors(encoded, fresh.sizes)
        return encoded

    @torch.no_grad()
    def item_vectors(self, text_vectors: Tensor, text_rows: Int32s, item_rows: Tensor) -> Tensor:
        """[I, D] vectors of all items.

        Args:
            text_vectors: [T, H] of the distinct texts.
            text_rows: [I] each item's text.
            item_rows: [I, 1 + F] its id and fields, see `ItemEncoder`.
        """
        self.eval()
        chunks = [
            self.items(
                text_vectors[torch.from_numpy(text_rows[low : low + 8192].astype(np.int64))],
                item_rows[low : low + 8192],
            )
            for low in range(0, len(text_rows), 8192)
        ]
        return torch.cat(chunks)
