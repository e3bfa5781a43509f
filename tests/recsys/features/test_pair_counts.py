"""Pairs counted part by part and added up are those of one array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from tiny_logs import BUY, VIEW, user_events

from recsys.data.histories import UserEvents
from recsys.features import item_to_item, neighbours, situations
from recsys.features.item_to_item import (
    COUNTED,
    TRANSITIONS_SHRINKAGE,
    WINDOWS_SHRINKAGE,
    co_occurrence_weights,
    count_relations,
    relation_situations,
    transition_weights,
)
from recsys.features.pair_counts import COUNTED as COUNTED_SUM
from recsys.features.pair_counts import (
    ON_LEFT,
    ON_RIGHT,
    CutWeights,
    pair_blocks,
    strongest_of,
    sums_of,
)

NUM_ITEMS, CUTS = 9, (6, 12, 18)
Event = tuple[int, int, int]

events = st.lists(
    st.tuples(st.integers(0, 24), st.integers(0, NUM_ITEMS - 1), st.sampled_from([BUY, VIEW])),
    min_size=1, max_size=30,
).map(sorted)  # fmt: skip


def log_of(users: Sequence[Sequence[Event]]) -> UserEvents:
    return user_events(*users)


def added(
    parts: Sequence[Sequence[Sequence[Event]]], *, pairs_at_once: int, ranges: Sequence[int]
) -> list[dict[str, sparse.csr_array]]:
    """The relations as of each cut, of parts and ranges of items by themselves."""
    counted = [relation_situations(log_of(users), CUTS, [BUY]) for users in parts]
    found: list[dict[str, sparse.csr_array]] = [{} for _ in (*CUTS, None)]
    for name in COUNTED:
        pairs = [
            pl.concat(list(pair_blocks(each[name], items, 4, pairs_at_once)))
            for each, items in counted
        ]
        sums = pl.concat([sums_of(each[name], items, 4) for each, items in counted])
        weights = []
        for cut in range(4):
            totals = {
                column: np.bincount(
                    upto["item_row"].to_numpy(), upto[column].to_numpy(), NUM_ITEMS
                ).astype(np.int64)
                for upto in [sums.filter(pl.col("since") <= cut)]
                for column in (ON_LEFT, ON_RIGHT, COUNTED_SUM)
            }
            place = np.empty(NUM_ITEMS, dtype=np.int32)
            place[np.argsort(-totals[COUNTED_SUM], kind="stable")] = np.arange(NUM_ITEMS)
            left, right = totals[ON_LEFT], totals[ON_RIGHT]
            weigh = (
                transition_weights(left, TRANSITIONS_SHRINKAGE)
                if name == "transitions"
                else co_occurrence_weights(left, right, WINDOWS_SHRINKAGE)
            )
            weights.append(CutWeights(weigh, place))
        kept: list[list[pl.DataFrame]] = [[] for _ in weights]
        for low, high in zip(ranges[:-1], ranges[1:], strict=True):
            inside = [each.filter(pl.col("left").is_between(low, high - 1)) for each in pairs]
            strongest = strongest_of(inside, range(low, high), weights, item_to_item.NUM_KEPT)
            for cut, frame in enumerate(strongest):
                kept[cut].append(frame)
        for cut, frames in enumerate(kept):
            frame = pl.concat(frames)
            where = (frame["left"].to_numpy(), frame["right"].to_numpy())
            found[cut][name] = sparse.csr_array(
                (frame["weight"].to_numpy(), where), shape=(NUM_ITEMS, NUM_ITEMS)
            )
    return found


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(events, min_size=1, max_size=4), min_size=1, max_size=3),
    st.sampled_from([1, 7, 10**6]),
    st.integers(1, NUM_ITEMS - 1),
    st.sampled_from([1, 2, 100]),
    st.sampled_from([2, 3, 1000]),
)
def test_parts_and_ranges_add_up_to_the_relations_of_one_array(
    parts: list[list[list[Event]]], pairs_at_once: int, middle: int, num_kept: int, max_items: int
) -> None:
    """To the bit, as of each cut, whatever is cut off and whatever is too large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(item_to_item, "NUM_KEPT", num_kept)
        for module in (neighbours, situations):
            patch.setattr(module, "MAX_ITEMS", max_items)
        found = added(parts, pairs_at_once=pairs_at_once, ranges=(0, middle, NUM_ITEMS))
        users = log_of([user for part in parts for user in part])
        for cut, mine in zip((*CUTS, None), found, strict=True):
            known = users if cut is None else users.before(cut)
            for name, expected in count_relations(known, NUM_ITEMS, [BUY]).items():
                for part in ("indptr", "indices", "data"):
                    ours, theirs = getattr(mine[name], part), getattr(expected, part)
                    assert ours.tobytes() == theirs.astype(ours.dtype).tobytes(), (name, cut, part)


def test_a_heavy_users_pairs_come_in_blocks() -> None:
    """20,000 events of one user: no block holds more than was asked for, and one item's."""
    rng = np.random.default_rng(0)
    heavy = [(int(n // 4), int(rng.integers(3000)), BUY) for n in range(20_000)]
    counted, items = relation_situations(user_events(sorted(heavy)), (10**6, 10**7, 10**8), [BUY])
    sizes = [block.height for block in pair_blocks(counted["co_occurrence"], items, 4, 10_000)]
    assert sum(sizes) > 200_000
    assert max(sizes) <= 10_000 + len(items)
