"""Assign users to arms by a hash.

The recipe's salt and the user's pseudonym, and nothing else, are hashed to a number in [0, 1): it
is the same on every replica, after a restart, and for whoever reads the log. The arms that answer
hold consecutive intervals of [0, 1), in the order of the recipe's list, their lengths in proportion
to the weights. So a change of weights moves only the users whose number lies between an old and a
new bound: with two arms exactly the share that changes; with more, nobody beyond two neighbours if
one's loss is the other's gain. A new arm belongs at the end of the list.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from recsys.artifacts.bundle import Bundle
from recsys.config import Arm, Recipe
from recsys.ranking.exploration import Exploration, seed_of
from recsys.recommender import Recommender
from recsys.storage.location import Place, place_of
from recsys.storage.node_cache import Fetched
from serve.models.added_items import ItemsSnapshot


class ResolvedArm(Arm):
    """An arm as the replicas get it: a bundle of its own has an absolute place and a version."""

    version: str | None = None


#: The only arm of a service whose recipe names none.
DEFAULT_ARM = ResolvedArm(name="default")


@dataclass(frozen=True)
class ServedBundle:
    """A loaded bundle.

    Attributes:
        place: where it lies.
        bundle: the model over the bundle's items alone.
        log: what became of the log's users, for `GET /model`.
        model: the model over the bundle's items and the added ones: it ranks.
        added: the added ones.
        local: its files on this node, which stay while it is served.
    """

    place: Place
    bundle: Recommender
    log: str
    model: Recommender
    added: ItemsSnapshot = ItemsSnapshot()
    local: Fetched | None = None


@dataclass(frozen=True)
class ServedArm:
    """An arm and the bundle that it answers with.

    Attributes:
        arm: of the recipe.
        served: its bundle; several arms may share one.
    """

    arm: Arm
    served: ServedBundle

    @property
    def name(self) -> str:
        """The arm's name."""
        return self.arm.name

    @property
    def model(self) -> Recommender:
        """The model that ranks."""
        return self.served.model

    def exploration(self, request_id: str, salt: str) -> Exploration | None:
        """How the list of a request is drawn; None: it is sorted by score."""
        if not self.arm.explores:
            return None
        return Exploration(seed_of(request_id, salt), self.arm.epsilon, self.arm.temperature)


class Arms:
    """All arms, as one reference: a request takes it once, so that a swap cannot part its stages.

    Args:
        every: in the recipe's order; at least one has a share of the users.
        salt: of the recipe.

    Attributes:
        every: as above.
        salt: as above.
        answering: those with a share of the users.
        shadows: those that never answer and are compared.
        explores: whether some arm that answers draws its lists.
    """

    def __init__(self, every: Sequence[ServedArm], salt: str) -> None:
        self.every, self.salt = tuple(every), salt
        self.answering = tuple(each for each in every if not each.arm.shadow and each.arm.weight)
        self.shadows = tuple(each for each in every if each.arm.shadow)
        self.explores = any(each.arm.explores for each in self.answering)
        self._bounds = bounds([each.arm.weight for each in self.answering])

    @property
    def first(self) -> ServedArm:
        """The first that answers; the service's model is its model, where only one can be named."""
        return self.answering[0]

    @property
    def bundles(self) -> list[ServedBundle]:
        """The bundles of all arms, each once."""
        return list({id(each.served): each.served for each in self.every}.values())

    def of(self, key: str) -> ServedArm:
        """The arm that answers.

        Args:
            key: the user's pseudonym; of a visitor's request its id.
        """
        return self.answering[bisect_right(self._bounds, hash_fraction(key, self.salt))]

    def instead_of(self, failed: ServedArm) -> ServedArm | None:
        """The first other arm that answers, if there is one."""
        return next((each for each in self.answering if each is not failed), None)

    def with_served(self, new: dict[int, ServedBundle]) -> Arms:
        """The same arms with other bundles.

        Args:
            new: `id` of each bundle -> the one in its place.
        """
        changed = [replace(each, served=new[id(each.served)]) for each in self.every]
        return Arms(changed, self.salt)


def resolve_arms(recipe: Recipe, *, verify: bool = False) -> list[ResolvedArm]:
    """Look up places and versions of the arms' bundles.

    Args:
        recipe: names the arms.
        verify: read all of each bundle, and not its `bundle.json` alone.

    Raises:
        BundleError: a place holds no bundle, or it is broken.
        StorageError: a bundle cannot be fetched.
    """
    found = []
    for arm in recipe.serve.arms:
        told: dict[str, str] = {}
        if arm.bundle is not None:
            place = place_of(arm.bundle)
            bundle = Bundle.open(recipe.storage.cache.local(place).folder, verify=verify)
            told = {"bundle": str(place), "version": bundle.version}
        found.append(ResolvedArm(**arm.model_dump() | told))
    return found


def describe_arm(arm: Arm) -> dict[str, Any]:
    """An arm as `GET /model` describes it, without its place."""
    return arm.model_dump(exclude={"bundle", "version"})


def hash_fraction(key: str, salt: str) -> float:
    """A number in [0, 1), the same for the same key and salt everywhere."""
    digest = hashlib.sha256(f"arm\0{salt}\0{key}".encode()).digest()
    # 53 bits are what a float holds: more could be rounded up to 1.
    return (int.from_bytes(digest[:8]) >> 11) / (1 << 53)


def bounds(weights: Sequence[float]) -> tuple[float, ...]:
    """Where each arm's interval of [0, 1) ends; the last one is exactly 1."""
    ends = list(accumulate(weights))
    return tuple(end / ends[-1] for end in ends)
