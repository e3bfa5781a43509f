"""The items of each history against loops, on random histories full of ties."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_logs import BUY, VIEW, Event, queries


@pytest.mark.parametrize("seed", range(8))
def test_items_moments_and_types_by_hand(seed: int) -> None:
    rng = np.random.default_rng(seed)
    users: list[list[Event]] = [
        sorted(
            (int(rng.integers(4)), int(rng.integers(5)), int(rng.choice([VIEW, BUY])))
            for _ in range(rng.integers(0, 9))
        )
        for _ in range(6)
    ]
    seen = queries(*users).distinct
    moments = [(query, time) for query, user in enumerate(users) for time in _times(user)]
    pairs = [(q, item) for q, user in enumerate(users) for item in sorted({i for _, i, _ in user})]
    assert [*zip(seen.query.tolist(), seen.item.tolist(), strict=True)] == pairs
    assert seen.moment_query.tolist() == [query for query, _ in moments]
    assert np.diff(seen.moment_starts).tolist() == [len(_times(user)) for user in users]
    assert seen.moments_after.tolist() == [
        sum(q == query and t > time for q, t in moments) for query, time in moments
    ]
    for number, (query, item) in enumerate(pairs):
        triples = slice(seen.starts[number], seen.starts[number + 1])
        expected = [
            (n, sum({1 << code for t, i, code in users[q] if (t, i) == (time, item)}))
            for n, (q, time) in enumerate(moments)
            if q == query and any((t, i) == (time, item) for t, i, _ in users[q])
        ]
        found = zip(seen.moment[triples].tolist(), seen.types[triples].tolist(), strict=True)
        assert [*found] == expected
        assert seen.latest[number] == expected[-1][0]


def _times(user: list[Event]) -> list[int]:
    return sorted({time for time, _, _ in user})


def test_nobody_and_nothing() -> None:
    for histories in (queries(), queries([], [])):
        assert histories.distinct.item.tolist() == histories.distinct.moment.tolist() == []
