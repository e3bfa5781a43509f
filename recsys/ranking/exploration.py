"""Exploration: sampled lists with propensities, for off-policy evaluation.

A service that always shows the highest scores never learns about other items. A sampled list is
logged with a *propensity* for each place: the probability that this item is shown there, given the
items above it. Their product is the probability of the list.

- `plackett_luce`: the probability of an item is exp(score / temperature), normalised over the items
  not shown yet. One draw fills all places by the Gumbel-top-k trick: take the k largest of
  score / temperature + Gumbel noise (Kool et al. 2019, arXiv 1903.06059).
- `epsilon`: a place goes to the best item left; with probability epsilon it goes to an item sampled
  uniformly from all that are left.

Legend: C candidates, k places.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from recsys.arrays import Float32s, Float64s, Int64s
from recsys.ranking.top_k import top_k


@dataclass(frozen=True)
class Drawn:
    """A sampled list.

    Attributes:
        places: [k] positions among the candidates, in the order to show.
        propensities: [k] probability of each, given those above it; in (0, 1].
    """

    places: Int64s
    propensities: Float64s


@dataclass(frozen=True)
class Exploration:
    """The exploration policy of one request: `epsilon` or `plackett_luce`.

    Attributes:
        seed: of the request; the same seed samples the same list.
        epsilon: of the policy `epsilon`; None: the other policy.
        temperature: of the policy `plackett_luce`; None: the other policy.
    """

    seed: int
    epsilon: float | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        assert (self.epsilon is None) != (self.temperature is None)

    def draw(self, scores: Float32s, k: int) -> Drawn:
        """Sample a list.

        Args:
            scores: [C] finite.
            k: places; at most C are filled.
        """
        rng = np.random.default_rng(self.seed)
        if self.temperature is not None:
            return plackett_luce(scores, k, self.temperature, rng)
        assert self.epsilon is not None
        return epsilon_greedy(scores, k, self.epsilon, rng)


def seed_of(request_id: str, salt: str) -> int:
    """The seed of a request. The salt keeps callers from choosing what is sampled."""
    return int.from_bytes(hashlib.sha256(f"draw\0{salt}\0{request_id}".encode()).digest()[:16])


def plackett_luce(scores: Float32s, k: int, temperature: float, rng: np.random.Generator) -> Drawn:
    """Sample k places by the Plackett-Luce model; see the module.

    Args:
        scores: [C] finite.
        k: places.
        temperature: above 0.
        rng: source of randomness.
    """
    k = min(k, len(scores))
    if k == 0:
        return Drawn(np.zeros(0, dtype=np.int64), np.zeros(0))
    logits = scores.astype(np.float64) / temperature
    keys = logits + rng.gumbel(size=len(logits))
    places, _ = top_k(keys, k)
    _, left = plackett_luce_left(np.delete(logits, places), logits[places])
    return Drawn(places, np.minimum(np.exp(logits[places] - left), 1.0))


def plackett_luce_left(never: Float64s, shown: Float64s) -> tuple[float, Float64s]:
    """Logs of the sums of exp over what is left: below the list, and at each of its places.

    Sums alone, no difference: that would lose all digits where one item rules.

    Args:
        never: logits of what is not shown; -inf does not count.
        shown: [k] logits of what is, in the order of the list.
    """
    rest = _log_sum(never)
    left = np.logaddexp.accumulate(np.concatenate([[rest], shown[::-1]]))[1:][::-1]
    return rest, left


def epsilon_greedy(scores: Float32s, k: int, epsilon: float, rng: np.random.Generator) -> Drawn:
    """Sample k places epsilon-greedily; see the module.

    The loop goes over places, not over candidates.

    Args:
        scores: [C] finite.
        k: places.
        epsilon: in (0, 1].
        rng: source of randomness.
    """
    num = len(scores)
    k = min(k, num)
    # Of the best k and of 2k sampled uniformly, at most k are taken: one of each is always left.
    ranked = iter(top_k(scores.astype(np.float64), k)[0].tolist())
    uniform = iter(rng.choice(num, size=min(num, 2 * k), replace=False).tolist())
    explores = (rng.random(k) < epsilon).tolist()
    taken: set[int] = set()
    places: list[int] = []
    propensities: list[float] = []
    best = next(ranked, -1)
    for place, explore in enumerate(explores):
        while best in taken:
            best = next(ranked)
        picked = next(row for row in uniform if row not in taken) if explore else best
        chance = epsilon / (num - place)
        propensities.append(chance + (1 - epsilon if picked == best else 0.0))
        taken.add(picked)
        places.append(picked)
    return Drawn(np.array(places, dtype=np.int64), np.array(propensities))


def _log_sum(logits: Float64s) -> float:
    """The logarithm of the sum of exp."""
    largest = logits.max(initial=-np.inf)
    if largest == -np.inf:
        return -np.inf
    return float(largest + np.log(np.exp(logits - largest).sum()))
