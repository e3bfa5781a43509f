"""Item vectors: `project(text vector) + gate * id vector + field vectors`, of length 1.

Legend: N items of a batch (each once), F fields, H width of the language model, D of the model.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from recsys.arrays import Float32s, Int64s
from recsys.features.item_fields import UNKNOWN

#: Id row of an item that has no id vector.
NO_ID = -1
#: Share of the widest axis's variance that every axis is taken to have at least.
LEAST_VARIANCE = 1e-4


class ItemEncoder(nn.Module):
    """Text vectors, ids and fields -> item vectors.

    Training drops ids at random, so that an item never seen works from its text and fields alone.

    Args:
        text_dim: H.
        dim: D.
        num_ids: items that have an id vector.
        num_fields: rows of the table of field values, see `recsys.features.item_fields`.
        id_dropout: share of items whose id is hidden in a training step.
    """

    def __init__(
        self, text_dim: int, dim: int, num_ids: int, num_fields: int, id_dropout: float
    ) -> None:
        super().__init__()
        self.project = nn.Linear(text_dim, dim)
        self.ids = nn.Embedding(max(num_ids, 1), dim)
        # Small beside the text part at first. A small gate instead would slow their training.
        nn.init.normal_(self.ids.weight, std=0.1 * dim**-0.5)
        self.gate = nn.Parameter(torch.tensor(1.0))
        self.fields = nn.Embedding(num_fields, dim, padding_idx=UNKNOWN)
        nn.init.zeros_(self.fields.weight)
        self.id_dropout = id_dropout

    def forward(self, text_NH: Tensor, rows_NR: Tensor) -> Tensor:
        """Item vectors [N, D] of length 1.

        Args:
            text_NH: text vectors.
            rows_NR: [N, 1 + F] each item's id row, `NO_ID` where it has none, and its fields' rows.
        """
        id_rows, field_rows = rows_NR[:, 0], rows_NR[:, 1:]
        known = id_rows != NO_ID
        if self.training and self.id_dropout:
            known = known & (torch.rand(known.shape, device=known.device) >= self.id_dropout)
        ids = self.ids(id_rows.clamp(min=0)) * known.unsqueeze(-1)
        fields = self.fields(field_rows).sum(1)
        return nn.functional.normalize(self.project(text_NH) + self.gate * ids + fields, dim=-1)

    def without_ids(self, text_NH: Tensor, field_rows_NF: Tensor) -> Tensor:
        """Vectors [N, D] of items without ids, from their texts and fields [N, F]."""
        no_ids = torch.full((len(text_NH), 1), NO_ID)
        return self(text_NH, torch.cat([no_ids, field_rows_NF], dim=1))

    def start_from(self, text_vectors: Float32s, whitening: float = 0.0) -> None:
        """Set the projection to the leading principal axes of the text vectors [T, H].

        They keep as much of the pretrained geometry as D dimensions can; a random projection keeps
        less.

        Args:
            text_vectors: of distinct texts.
            whitening: an axis of variance v is scaled by v to the power of minus half of this; 1 is
                the whitening of Su et al. (arXiv 2103.15316).
        """
        sample = text_vectors[:: max(1, len(text_vectors) // 20_000)].astype(np.float64)
        if len(sample) < 2:
            return  # one text has no axes
        mean = sample.mean(axis=0)
        variances, axes = np.linalg.eigh(np.cov(sample - mean, rowvar=False))
        leading = axes[:, ::-1][:, : self.project.out_features].T
        # eigh leaves the signs open; fix them so that every run starts from the same weights.
        leading *= np.sign(leading[np.arange(len(leading)), np.abs(leading).argmax(axis=1)])[
            :, None
        ]
        # An axis of almost no variance holds rounding errors: do not scale them up.
        variances = np.maximum(variances[::-1][: len(leading)], LEAST_VARIANCE * variances[-1])
        leading *= np.where(variances > 0, variances, 1.0)[:, None] ** (-whitening / 2)
        spread = np.sqrt(((sample - mean) @ leading.T).var(axis=0).sum()) or 1.0
        with torch.no_grad():
            rows = len(leading)
            self.project.weight.zero_()  # dimensions beyond the text's add no noise
            self.project.weight[:rows] = torch.from_numpy(leading / spread)
            self.project.bias.zero_()
            self.project.bias[:rows] = torch.from_numpy(-(leading / spread) @ mean)


def id_rows_of(num_events: Int64s, least: int) -> Int64s:
    """[I] each item's row in the id table: those of at least `least` events, in their order."""
    has_id = num_events >= least
    return np.where(has_id, np.cumsum(has_id) - 1, NO_ID).astype(np.int64)
