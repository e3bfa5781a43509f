"""Users to train on, streamed by Ray Data in the order of the epoch.

A worker reads its own share: Ray Data's split over workers counts executions to shuffle, so that a
training that goes on, or the second one in a group of workers, would not meet the users in the
order that another meets them in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from recsys.data.histories import UserEvents
from recsys.preparation.prepared import Prepared
from recsys.preparation.shards import read_shard
from recsys.storage.shared import SharedFolder
from recsys.training.epoch_order import EpochOrder, Piece, Share

#: Tasks of one stream that read at a time, where they take no CPU.
MOST_READING = 2


class Feed:
    """Batches of users from the history shards.

    Args:
        prepared: the prepared data.
        shared: the run's folder, which they lie in.
        takes_cpu: each task that reads takes a CPU, of those that are left for Ray Data. Where as
            many workers train as there is room for, none is left: the tasks then take none, and
            at most `MOST_READING` of them run.
    """

    def __init__(self, prepared: Prepared, shared: SharedFolder, *, takes_cpu: bool = True) -> None:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        # In the node's cache under the name of their hash, so that a node without them is noticed.
        self._shards = [path.resolve() for path in prepared.shards]
        self._bring = partial(shared.bring, prepared.folder)
        self._reading: dict[str, Any] = {}
        if not takes_cpu:
            self._reading = {"num_cpus": 0, "concurrency": MOST_READING}
        self._sizes = [pq.read_metadata(path).num_rows for path in self._shards]
        self._num_items = int(prepared.summary["counts"]["items"])

    @property
    def num_users(self) -> int:
        """Users of an epoch."""
        return sum(self._sizes)

    def batches(self, seed: int, epoch: int, share: Share, size: int) -> Iterator[UserEvents]:
        """The users of a share in turn, `size` at a time; the last batch may be smaller.

        Args:
            seed: of the recipe.
            epoch: counted from 0.
            share: of the epoch's order.
            size: of a batch.

        Raises:
            DataError: a shard is broken.
        """
        order = EpochOrder(self._sizes, seed, epoch)
        pieces = order.pieces(share)
        if not pieces:
            return
        rows = [{"place": place} for place in range(len(pieces))]
        parts = ray.data.from_items(rows, override_num_blocks=len(pieces))
        users = parts.map_batches(
            _Read(self._shards, self._bring, self._num_items, order, pieces),
            batch_size=None, batch_format="pyarrow", **self._reading,
        )  # fmt: skip
        for table in users.iter_batches(batch_size=size, batch_format="pyarrow"):
            yield UserEvents.from_arrow(table)


@dataclass(frozen=True)
class _Read:
    """Pieces by their places -> their rows of histories."""

    shards: list[Path]
    bring: Callable[[], None]
    num_items: int
    order: EpochOrder
    pieces: list[Piece]

    def __call__(self, places: pa.Table) -> pa.Table:
        read = []
        if not self.shards[0].exists():
            self.bring()
        for place in places["place"].to_pylist():
            piece = self.pieces[place]
            rows = self.order.within(piece.shard)[piece.low : piece.high]
            table = read_shard(self.shards[piece.shard], self.num_items)
            read.append(table.take(pa.array(rows)))
        return pa.concat_tables(read)
