"""Similarity of two ranked lists, without relevance labels."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

#: Weight of each next depth; 0.9 puts 86 % of the weight on the first ten places.
PERSISTENCE = 0.9


def overlap(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    """Share of the longer list's items that stand in the other, wherever; 1 if both are empty."""
    depth = max(len(one), len(other))
    return len(set(one) & set(other)) / depth if depth else 1.0


def rank_biased_overlap(
    one: Sequence[Hashable], other: Sequence[Hashable], persistence: float = PERSISTENCE
) -> float:
    """Rank-biased overlap, extrapolated: 1 for the same list, 0 for two that share nothing.

    The overlap at each depth is averaged, the first depths weigh most. What lies below the lists is
    taken to agree as far as the lists do at their end. A shorter list counts as one whose last
    places agree with nothing.

    Source: Webber, Moffat & Zobel 2010, equation 30 (lists of one length).

    Args:
        one: items, best first, each once.
        other: the same.
        persistence: p, in (0, 1).
    """
    depth = max(len(one), len(other))
    if not depth:
        return 1.0
    seen_one: set[Hashable] = set()
    seen_other: set[Hashable] = set()
    weighted, agreement = 0.0, 0.0
    for place in range(depth):
        seen_one.update(one[place : place + 1])
        seen_other.update(other[place : place + 1])
        agreement = len(seen_one & seen_other) / (place + 1)
        weighted += agreement * persistence ** (place + 1)
    return agreement * persistence**depth + (1 - persistence) / persistence * weighted
