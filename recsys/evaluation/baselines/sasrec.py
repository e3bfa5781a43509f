"""Self-attentive sequential recommendation by ids alone, trained with the full softmax.

Source: Kang & McAuley 2018. Trained with a softmax over the catalogue instead of one sampled
negative a position it is far stronger (Klenitskiy & Vasilev 2023, arXiv 2309.07602), and that is
the variant to be beaten. Attention is causal by moment, as everywhere here.

Legend: Q queries, I items, D width, P targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from recsys.arrays import Float32s
from recsys.data.histories import Histories, UserEvents
from recsys.data.time_split import Questions, ask
from recsys.evaluation.baselines.base import TrainingLog
from recsys.evaluation.baselines.popularity import Popularity
from recsys.evaluation.metrics.ranking import ndcg_at_k, ranks_of
from recsys.features.windows import (
    TrainingBatch,
    Windows,
    make_windows,
    training_batch,
)
from recsys.model.user_encoder import UserEncoder
from recsys.schema import EVENT_TYPES

_MAX_HISTORY = 64
_QUERIES_AT_ONCE = 256
_MAX_HELD_OUT = 3000


class _Network(nn.Module):
    """Item embeddings, tied between input and output, and the sequence encoder."""

    def __init__(self, num_items: int, dim: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.items = nn.Embedding(num_items, dim)
        nn.init.normal_(self.items.weight, std=dim**-0.5)
        self.users = UserEncoder(dim, num_layers, 2, dropout)
        self.scale = nn.Parameter(torch.tensor(float(dim) ** 0.5))
        self.drop = nn.Dropout(dropout)

    def states(self, windows: Windows) -> Tensor:
        """[1 + S, D] scaled states."""
        items = self.drop(self.items(windows.item_rows))
        states: Tensor = self.users(items, windows)
        return self.scale * states

    def loss(self, batch: TrainingBatch) -> Tensor:
        """Mean over targets of -log softmax."""
        used, state = torch.unique(batch.target_states, return_inverse=True)
        logits = self.states(batch.windows)[used] @ self.items.weight.T
        gain = logits[state, batch.target_items]
        return (torch.logsumexp(logits, dim=1)[state] - gain).mean()


@dataclass(frozen=True)
class SasRecSettings:
    """Hyper-parameters.

    Attributes:
        dim: D.
        num_layers: of the encoder.
        dropout: of embeddings and encoder.
        learning_rate: AdamW's.
        weight_decay: of all weights.
        batch_size: users of a step.
        max_epochs: at most.
        patience: epochs without a better held-out nDCG@10 before the search for their number ends.
        seed: of weights, order and dropout.
    """

    dim: int = 64
    num_layers: int = 2
    dropout: float = 0.4
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    batch_size: int = 64
    max_epochs: int = 60
    patience: int = 5
    seed: int = 0

    def network(self, num_items: int) -> _Network:
        """An untrained network."""
        return _Network(num_items, self.dim, self.num_layers, self.dropout)


class SasRec:
    """A fitted network.

    Args:
        network: the network.
        popularity: answers queries without history.
    """

    name: ClassVar[str] = "sasrec"

    def __init__(self, network: _Network, popularity: Popularity) -> None:
        self._network = network
        self._popularity = popularity

    @classmethod
    def fit(cls, log: TrainingLog, settings: SasRecSettings | None = None) -> SasRec:
        """Find the number of epochs on the last tenth of the log, then train on all of it."""
        settings = settings or SasRecSettings()
        codes, popularity = list(log.target_codes), Popularity.fit(log)
        known = _known(log)
        wanted = np.isin(known.event_codes, codes)
        with torch.random.fork_rng():
            if not wanted.any():
                return cls(settings.network(log.num_items), popularity)
            cut = int(np.quantile(known.timestamps[wanted], 0.9, method="nearest"))
            held_out = ask(known, start=cut, end=None, target_codes=codes)
            rng = np.random.default_rng(settings.seed)
            held_out = held_out.where(rng.random(len(held_out)) < _MAX_HELD_OUT / len(held_out))
            best, best_epoch = -1.0, 1
            epochs = _epochs(known.before(cut), log.num_items, codes, settings)
            for epoch, network in enumerate(epochs, start=1):
                gain = cls(network, popularity).ndcg(held_out)
                if gain > best:
                    best, best_epoch = gain, epoch
                if epoch - best_epoch >= settings.patience or epoch == settings.max_epochs:
                    break
            epochs = _epochs(known, log.num_items, codes, settings)
            return cls(next(islice(epochs, best_epoch - 1, None)), popularity)

    def ndcg(self, questions: Questions) -> float:
        """Mean nDCG@10 over some questions; 0 if there are none."""
        order = np.arange(self._popularity.num_items)
        gains = [
            ndcg_at_k(
                ranks_of(self.scores(part.histories), part.relevant, part.relevant_offsets, order),
                part.relevant_offsets,
                10,
            )
            for part in questions.batches(_QUERIES_AT_ONCE)
        ]
        return float(np.concatenate(gains).mean()) if gains else 0.0

    @torch.no_grad()
    def scores(self, histories: Histories) -> Float32s:
        """[Q, I] logits; popularity where the history is empty."""
        self._network.eval()
        recent = _in_order(histories.known(self._popularity.num_items)).last(_MAX_HISTORY)
        windows = make_windows(recent)
        states = self._network.states(windows)[windows.last_state]
        scores: Float32s = (states @ self._network.items.weight.T).numpy()
        scores[recent.lengths == 0] = self._popularity.fraction
        return scores


def _in_order(histories: Histories) -> Histories:
    """The same queries, the events of a moment by item: sums of floats have an order."""
    order = np.lexsort(
        (
            histories.event_codes, histories.item_rows, histories.timestamps,
            histories.query_of_event,
        )
    )  # fmt: skip
    return replace(
        histories,
        item_rows=histories.item_rows[order],
        event_codes=histories.event_codes[order],
        timestamps=histories.timestamps[order],
    )


def _known(log: TrainingLog) -> UserEvents:
    """The users' events of items in the catalogue, in one order: dropout depends on positions."""
    users = log.events
    user = np.repeat(np.arange(len(users)), np.diff(users.offsets))
    order = np.lexsort((users.event_codes, users.item_rows, users.timestamps, user))
    order = order[log.is_known[order]]
    counts = np.bincount(user[order], minlength=len(users))
    return UserEvents(
        users.user_ids, users.item_rows[order], users.event_codes[order], users.timestamps[order],
        users.baskets[order], np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )  # fmt: skip


def _epochs(
    users: UserEvents, num_items: int, codes: Sequence[int], settings: SasRecSettings
) -> Iterator[_Network]:
    """Train a network; yields it after each epoch."""
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    network = settings.network(num_items)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    while True:
        network.train()
        for batch in _batches(users, settings.batch_size, codes, rng):
            loss = network.loss(batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        yield network


def _batches(
    users: UserEvents, size: int, codes: Sequence[int], rng: np.random.Generator
) -> Iterator[TrainingBatch]:
    """An epoch: random users of like length, `size` at a time, so that little is padding."""
    weights = np.zeros(len(EVENT_TYPES), dtype=np.float32)
    weights[list(codes)] = 1
    lengths, order = np.diff(users.offsets), rng.permutation(len(users))
    pools = [order[low : low + 16 * size] for low in range(0, len(order), 16 * size)]
    order = np.concatenate([pool[np.argsort(lengths[pool])] for pool in pools] or [order])
    for nth in rng.permutation(-(-len(order) // size)):
        picked = order[nth * size : (nth + 1) * size]
        starts, stops = users.offsets[picked], users.offsets[picked + 1]
        offsets = np.concatenate([[0], np.cumsum(stops - starts)]).astype(np.int64)
        index = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - starts, stops - starts)
        batch = training_batch(
            UserEvents(
                [users.user_ids[user] for user in picked], users.item_rows[index],
                users.event_codes[index], users.timestamps[index], users.baskets[index], offsets,
            ),
            max_history=_MAX_HISTORY, windows_per_user=4, weights=weights, rng=rng,
        )  # fmt: skip
        if len(batch.target_items):
            yield batch
