"""What a policy would have done with a list that was shown.

That is the probability of each item at its place, and what the policy would have put there on
average, both given the items above. The policies are those of `recsys.ranking.exploration`, and
the plain order of the scores.

Legend: I items, K places, M values of an item.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.arrays import Float32s, Float64s, Int64s
from recsys.ranking.exploration import plackett_luce_left
from recsys.ranking.top_k import top_k


@dataclass(frozen=True)
class Policy:
    """How lists are made of scores.

    Attributes:
        epsilon: of the policy `epsilon`; None: another one.
        temperature: of the policy `plackett_luce`; None: another one. Without both, the list is
            sorted by score.
    """

    epsilon: float | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        assert self.epsilon is None or self.temperature is None

    def __str__(self) -> str:
        if self.temperature is not None:
            return f"plackett_luce at temperature {self.temperature:g}"
        return "sorted by score" if self.epsilon is None else f"epsilon {self.epsilon:g}"

    def chances(self, scores: Float32s, shown: Int64s, values: Float64s) -> Chances:
        """What the policy would have done with a list.

        Args:
            scores: [I] of one query; what may not come back is -inf.
            shown: [K] rows of the list, each once, in its order; -1: no item of the catalogue.
            values: [I, M] of the items.
        """
        kept = np.zeros(len(shown), dtype=bool)
        kept[shown >= 0] = np.isfinite(scores[shown[shown >= 0]])
        # Below an item that it never shows the policy has no say.
        num_kept = len(shown) if kept.all() else int(kept.argmin())
        found = Chances(np.zeros(len(shown)), np.zeros((len(shown), values.shape[1])))
        if self.temperature is not None:
            _plackett_luce(scores, shown[:num_kept], values, self.temperature, found)
        else:
            _epsilon(scores, shown[:num_kept], values, self.epsilon or 0.0, found)
        return found


@dataclass(frozen=True)
class Chances:
    """What a policy would have done at each place, given the items above it in the list.

    Attributes:
        shown: [K] probability of the item that was shown; 0 from the first on that the policy
            never shows.
        expected: [K, M] mean of the values over the items that may come at the place; 0 below an
            item that the policy never shows.
    """

    shown: Float64s
    expected: Float64s


def _plackett_luce(
    scores: Float32s, kept: Int64s, values: Float64s, temperature: float, found: Chances
) -> None:
    logits = scores.astype(np.float64) / temperature
    mine = logits[kept]
    logits[kept] = -np.inf
    rest, left = plackett_luce_left(logits, mine)
    weights = np.exp(logits - rest) if np.isfinite(rest) else np.zeros(len(logits))
    of_rest = weights @ values
    # Also the place at which the policy has lost the list: nothing of `kept` is left there.
    logs, means = np.append(mine, rest), np.concatenate([values[kept], of_rest[None]])
    lefts = np.append(left, rest)
    for place in range(min(len(kept) + 1, len(found.shown))):
        if np.isfinite(lefts[place]):
            found.expected[place] = np.exp(logs[place:] - lefts[place]) @ means[place:]
    found.shown[: len(kept)] = np.minimum(np.exp(mine - left), 1.0)


def _epsilon(
    scores: Float32s, kept: Int64s, values: Float64s, epsilon: float, found: Chances
) -> None:
    may = np.isfinite(scores)
    num, total = int(may.sum()), may.astype(np.float64) @ values
    ranked = iter(top_k(scores.astype(np.float64), len(kept) + 1)[0].tolist())
    taken: set[int] = set()
    best = next(ranked, -1)
    for place in range(min(len(kept) + 1, len(found.shown), num)):
        while best in taken:
            best = next(ranked)
        found.expected[place] = epsilon * total / (num - place) + (1 - epsilon) * values[best]
        if place < len(kept):
            row = int(kept[place])
            found.shown[place] = epsilon / (num - place) + (1 - epsilon if row == best else 0.0)
            taken.add(row)
            total = total - values[row]
