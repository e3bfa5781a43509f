"""The distinct items of each history and the moments of each: one sort, which many features share.

Legend: Q queries, E events, M moments, N distinct (query, item) pairs, K distinct (query, item,
moment) triples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.arrays import Int8s, Int32s, Int64s
from recsys.schema import EVENT_TYPES

_CODE_BITS = (len(EVENT_TYPES) - 1).bit_length()


@dataclass(frozen=True)
class DistinctItems:
    """Which items occur in each history, and when.

    Attributes:
        query, item: [N] rising by query, then by item.
        starts: [N + 1] pair n has the triples `starts[n]:starts[n + 1]`, oldest first.
        moment: [K] number of the moment, over all queries, rising by time.
        types: [K] set of the event codes in it: bit c stands for code c.
        moment_query, moment_time: [M].
        moment_starts: [Q + 1] query q has the moments `moment_starts[q]:moment_starts[q + 1]`.
    """

    query: Int64s
    item: Int64s
    starts: Int64s
    moment: Int64s
    types: Int64s
    moment_query: Int64s
    moment_time: Int64s
    moment_starts: Int64s

    @property
    def latest(self) -> Int64s:
        """[N] the pair's last moment."""
        return self.moment[self.starts[1:] - 1]

    @property
    def moments_after(self) -> Int64s:
        """[M] later moments of the same query."""
        last = self.moment_starts[1:] - 1
        return last[self.moment_query] - np.arange(len(self.moment_query))


def distinct_items(
    item_rows: Int32s, event_codes: Int8s, timestamps: Int64s, offsets: Int64s
) -> DistinctItems:
    """Sort the events of Q histories by item and moment; see `Histories` for the arguments."""
    num_queries, num_events = len(offsets) - 1, len(item_rows)
    opens = np.ones(num_events + 1, dtype=np.bool_)
    np.not_equal(timestamps[1:], timestamps[:-1], out=opens[1:-1])
    opens[offsets] = True
    opens = opens[:-1]
    # Moments before each event, and before each query.
    num_before = np.concatenate([[0], np.cumsum(opens)])
    moment_starts = num_before[offsets]
    lengths = np.diff(offsets)
    query = np.repeat(np.arange(num_queries), lengths)
    nth = num_before[1:] - 1 - np.repeat(moment_starts[:-1], lengths)
    first = np.flatnonzero(opens)

    stride = int(item_rows.max(initial=0)) + 1
    bits = int(nth.max(initial=0)).bit_length() + _CODE_BITS
    assert (num_queries * stride) << bits < 2**63, "too many histories at once"
    # Numbers that hold all there is to know: sorting them is several times faster than an order.
    key = (query * stride + item_rows) << bits
    key |= (nth << _CODE_BITS) | event_codes
    key.sort()
    triple = key >> _CODE_BITS
    at = np.flatnonzero(np.diff(triple, prepend=-1))
    types = np.left_shift(1, key & ((1 << _CODE_BITS) - 1))
    triple = triple[at]
    pair = triple >> (bits - _CODE_BITS)
    starts = np.flatnonzero(np.diff(pair, prepend=-1))
    nth = triple & ((1 << (bits - _CODE_BITS)) - 1)
    of_query, item = np.divmod(pair[starts], stride)
    sizes = np.diff(starts, append=len(triple))
    return DistinctItems(
        query=of_query,
        item=item,
        starts=np.append(starts, len(triple)),
        moment=nth + np.repeat(moment_starts[of_query], sizes),
        types=np.bitwise_or.reduceat(types, at) if len(at) else types,
        moment_query=query[first],
        moment_time=timestamps[first],
        moment_starts=moment_starts,
    )
