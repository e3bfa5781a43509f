"""Items as vectors: `project(text vector) + gate * id vector`, of length 1.

Legend: N items of a batch (each once), H width of the language model, D of the model.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

#: `id_rows` of an item that has no id vector.
NO_ID = -1


class ItemEncoder(nn.Module):
    """Text vectors and ids -> item vectors.

    The id part is dropped at random in training, so that an item never seen works from its text.

    Args:
        text_dim: H.
        dim: D.
        num_ids: items that have an id vector.
        id_dropout: share of items whose id is hidden in a training step.
    """

    def __init__(self, text_dim: int, dim: int, num_ids: int, id_dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(text_dim, dim)
        self.ids = nn.Embedding(max(num_ids, 1), dim)
        # Small beside the text at first. A small gate instead would slow their learning.
        nn.init.normal_(self.ids.weight, std=0.1 * dim**-0.5)
        self.gate = nn.Parameter(torch.tensor(1.0))
        self.id_dropout = id_dropout

    def forward(self, text_NH: Tensor, id_rows_N: Tensor) -> Tensor:
        """Item vectors [N, D] of length 1; `id_rows_N` is `NO_ID` where an item has none."""
        known = id_rows_N != NO_ID
        if self.training and self.id_dropout:
            known = known & (torch.rand(known.shape, device=known.device) >= self.id_dropout)
        ids = self.ids(id_rows_N.clamp(min=0)) * known.unsqueeze(-1)
        return nn.functional.normalize(self.project(text_NH) + self.gate * ids, dim=-1)

    def of_text(self, text_NH: Tensor) -> Tensor:
        """Vectors [N, D] of items known by their text alone."""
        return self(text_NH, torch.full((len(text_NH),), NO_ID))

    def start_from(self, text_vectors: NDArray[np.float32]) -> None:
        """Set the projection to the leading principal axes of the text vectors [T, H].

        It keeps as much of the pretrained geometry as D dimensions can hold; a random projection
        loses more.
        """
        sample = text_vectors[:: max(1, len(text_vectors) // 20_000)].astype(np.float64)
        if len(sample) < 2:
            return  # one text has no axes
        mean = sample.mean(axis=0)
        _, axes = np.linalg.eigh(np.cov(sample - mean, rowvar=False))
        leading = axes[:, ::-1][:, : self.project.out_features].T
        # eigh leaves the signs open; fix them so that every run starts alike.
        leading *= np.sign(leading[np.arange(len(leading)), np.abs(leading).argmax(axis=1)])[
            :, None
        ]
        spread = np.sqrt(((sample - mean) @ leading.T).var(axis=0).sum()) or 1.0
        with torch.no_grad():
            rows = len(leading)
            self.project.weight.zero_()  # dimensions beyond the text's add no noise
            self.project.weight[:rows] = torch.from_numpy(leading / spread)
            self.project.bias.zero_()
            self.project.bias[:rows] = torch.from_numpy(-(leading / spread) @ mean)


def id_rows_of(num_events: NDArray[np.int64], least: int) -> NDArray[np.int64]:
    """[I] each item's row in the id table: those of at least `least` events, in their order."""
    has_id = num_events >= least
    return np.where(has_id, np.cumsum(has_id) - 1, NO_ID).astype(np.int64)
