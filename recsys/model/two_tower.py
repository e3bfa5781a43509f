"""The trained module: language model, item encoder and user encoder behind one loss.

Legend: N distinct items of a batch, T their distinct texts, F those encoded afresh, L tokens
(padded), B windows, E events (padded), P targets, C candidates of the denominator, H width of the
language model, D of the model.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.config import Model
from recsys.features.windows import Windows
from recsys.model.exchange import all_vectors
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

    def forward(
        self,
        *,
        fresh_hidden: Tensor,
        fresh_mask: Tensor,
        fresh_sizes: list[int],
        fresh_used: Tensor,
        fresh_at: Tensor,
        cached_TH: Tensor,
        text_of_item_N: Tensor,
        item_rows_NR: Tensor,
        windows: Windows,
        window_items_BL: Tensor,
        target_states_P: Tensor,
        targets_P: Tensor,
        weights_P: Tensor,
        sample_C: Tensor,
        log_expected_C: Tensor,
        log_share_N: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Loss of a batch, and the fresh text vectors of all workers for the cache.

        Args:
            fresh_hidden: [F, L, H] hidden states of the texts to encode with gradient.
            fresh_mask: [F, L] True where there is a token.
            fresh_sizes: [W] number of texts that each worker encodes; this one's alone is F.
            fresh_used: [G] which of all these texts the batch holds.
            fresh_at: [G] their places among the batch's distinct texts.
            cached_TH: vectors of the batch's distinct texts, from the cache.
            text_of_item_N: place of each item's text among the distinct texts.
            item_rows_NR: rows of ids and fields, see `ItemEncoder`.
            windows: the user encoder's input.
            window_items_BL: item of each event, as its place among the N distinct items.
            target_states_P: see `catalogue_cross_entropy`.
            targets_P: places of the targets among the N distinct items.
            weights_P: see `catalogue_cross_entropy`.
            sample_C: places of the candidates among the N distinct items.
            log_expected_C: see `catalogue_cross_entropy`.
            log_share_N: log of each item's share of all training targets; its learned multiple is
                the prior.
        """
        texts = cached_TH
        fresh = cached_TH[:0]
        if sum(fresh_sizes):
            fresh = self.language(fresh_hidden, fresh_mask)
            if len(fresh_sizes) > 1:
                fresh = all_vectors(fresh, fresh_sizes)
            texts = cached_TH.index_copy(0, fresh_at, fresh[fresh_used])
        vectors = self.items(texts[text_of_item_N], item_rows_NR)
        states = self.users(
            vectors[window_items_BL],
            windows.event_codes,
            windows.gap_us,
            windows.moments,
            windows.state_of_event,
            windows.num_states,
        )
        prior = self.popularity * log_share_N
        loss = catalogue_cross_entropy(
            states,
            vectors[targets_P],
            vectors[sample_C],
            target_states_P=target_states_P,
            target_items_P=targets_P,
            candidate_items_C=sample_C,
            log_expected_C=log_expected_C,
            prior_P=prior[targets_P],
            prior_C=prior[sample_C],
            weights_P=weights_P,
            scale=self.log_scale.clamp(max=MAX_LOG_SCALE).exp(),
        )
        return loss, fresh.detach()

    @torch.no_grad()
    def item_vectors(
        self, text_vectors: Tensor, text_rows: NDArray[np.int32], item_rows: Tensor
    ) -> Tensor:
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
