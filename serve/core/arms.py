"""Which arm answers whom.

A number in [0, 1) is made of the recipe's salt and the user's pseudonym, and of nothing else: the
same on every replica, after a restart, and for whoever reads the log. The arms that answer hold
intervals of [0, 1) one after the other, in the order of the recipe's list, as long as their weights
say. So a change of weights moves those users alone whose number lies between an old and a new
bound: of two arms exactly the share that changes; of more, none beyond two neighbours if one's loss
is the other's gain. A new arm belongs at the end of the list.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from recsys.artifacts.bundle import Bundle
from recsys.config import Arm
from recsys.ranking.exploration import Exploration, seed_of
from recsys.recommender import Recommender
from serve.core.added_items import Seen


class PlacedArm(Arm):
    """An arm as the replicas are told of it: with a bundle of its own, that one's version too."""

    version: str | None = None


#: The only arm of a service whose recipe names none.
ONLY = PlacedArm(name="default")


@dataclass(frozen=True)
class Served:
    """A loaded bundle.

    Attributes:
        folder: where it lies.
        bundle: its model alone.
        log: what became of the log's users.
        model: over the bundle's items and the added ones.
        seen: the added ones.
    """

    folder: Path
    bundle: Recommender
    log: str
    model: Recommender
    seen: Seen = Seen()


@dataclass(frozen=True)
class ServedArm:
    """An arm and the bundle that it answers with.

    Attributes:
        arm: of the recipe.
        served: may be another arm's too.
    """

    arm: Arm
    served: Served

    @property
    def name(self) -> str:
        """The arm's name."""
        return self.arm.name

    @property
    def model(self) -> Recommender:
        """What ranks."""
        return self.served.model

    def exploration(self, request_id: str, salt: str) -> Exploration | None:
        """How the list of a request is drawn; None: it is sorted."""
        if not self.arm.explores:
            return None
        return Exploration(seed_of(request_id, salt), self.arm.epsilon, self.arm.temperature)


class Arms:
    """All arms, as one reference: a request takes it once, so that a swap cannot part its steps.

    Args:
        every: in the recipe's order; at least one has a share of the users.
        salt: of the recipe.

    Attributes:
        every: as above.
        salt: as above.
        answering: those with a share of the users.
        shadows: those that are compared alone.
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
        """The first that answers: what is told of *the* model is told of its."""
        return self.answering[0]

    @property
    def bundles(self) -> list[Served]:
        """What the arms rank with, each bundle once."""
        return list({id(each.served): each.served for each in self.every}.values())

    def of(self, who: str) -> ServedArm:
        """The arm that answers a user, by pseudonym, or a request of a visitor, by its id."""
        return self.answering[bisect_right(self._bounds, number_of(who, self.salt))]

    def instead_of(self, failed: ServedArm) -> ServedArm | None:
        """The first other arm that answers, if there is one."""
        return next((each for each in self.answering if each is not failed), None)

    def with_served(self, new: dict[int, Served]) -> Arms:
        """The same arms with other bundles, told by the `id` of those they replace."""
        changed = [replace(each, served=new[id(each.served)]) for each in self.every]
        return Arms(changed, self.salt)


def placed(arms: Sequence[Arm], *, verify: bool = False) -> list[PlacedArm]:
    """Arms with absolute folders and the versions that these hold.

    Args:
        arms: of the recipe.
        verify: read all of each bundle, and not its `bundle.json` alone.

    Raises:
        BundleError: a folder holds no bundle, or it is broken.
    """
    found = []
    for arm in arms:
        place: dict[str, str] = {}
        if arm.bundle is not None:
            folder = Path(arm.bundle).expanduser().absolute()
            place = {"bundle": str(folder), "version": Bundle.open(folder, verify=verify).version}
        found.append(PlacedArm(**arm.model_dump() | place))
    return found


def told(arm: Arm) -> dict[str, Any]:
    """What `GET /model` tells of an arm, without its folder."""
    return arm.model_dump(exclude={"bundle", "version"})


def number_of(who: str, salt: str) -> float:
    """A number in [0, 1), the same for the same name and salt everywhere."""
    digest = hashlib.sha256(f"arm\0{salt}\0{who}".encode()).digest()
    # 53 bits are what a float holds: more could be rounded up to 1.
    return (int.from_bytes(digest[:8]) >> 11) / (1 << 53)


def bounds(weights: Sequence[float]) -> tuple[float, ...]:
    """Where each arm's interval of [0, 1) ends; the last one is exactly 1."""
    ends = list(accumulate(weights))
    return tuple(end / ends[-1] for end in ends)
