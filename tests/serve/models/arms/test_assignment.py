"""Which user is answered by which arm."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from arms import arm
from bundles import KEY, version_in
from services import make_service

from recsys.config import Recipe
from recsys.data.pseudonyms import pseudonym
from recsys.recommender import Recommender
from serve.core.service import Service
from serve.models.arms import Arms, ServedArm, ServedBundle, hash_fraction
from serve.schemas.requests import RecommendRequest

NUM_USERS = 4000


@pytest.fixture(scope="module")
def served(bundle: Path) -> ServedBundle:
    model = Recommender.load(bundle)
    return ServedBundle(bundle, model, "", model)


class TestAssignment:
    @staticmethod
    def arms(served: ServedBundle, *weights: float, salt: str = "s") -> Arms:
        names = "abcdef"
        return Arms(
            [ServedArm(arm(names[n], weight=w), served) for n, w in enumerate(weights)], salt
        )

    @staticmethod
    def users() -> list[str]:
        return [pseudonym(f"user-{number}", KEY.encode()) for number in range(NUM_USERS)]

    def whose(self, arms: Arms) -> list[str]:
        return [arms.of(user).name for user in self.users()]

    def test_shares_are_the_weights(self, served: ServedBundle) -> None:
        weights = (5.0, 0.0, 3.0, 2.0)
        counts = Counter(self.whose(self.arms(served, *weights)))
        assert "b" not in counts
        for name, weight in zip("abcd", weights, strict=True):
            share = weight / sum(weights)
            # Five standard deviations of the binomial distribution.
            bound = 5 * np.sqrt(NUM_USERS * share * (1 - share))
            assert abs(counts[name] - NUM_USERS * share) <= bound

    def test_users_stay_and_another_salt_moves_them(self, served: ServedBundle) -> None:
        once = self.whose(self.arms(served, 1, 1))
        assert once == self.whose(self.arms(served, 2, 2))
        moved = np.mean(np.array(once) != self.whose(self.arms(served, 1, 1, salt="t")))
        assert 0.4 < moved < 0.6

    def test_numbers_lie_in_the_interval(self) -> None:
        numbers = [hash_fraction(user, "s") for user in self.users()]
        assert min(numbers) >= 0 and max(numbers) < 1
        assert hash_fraction("u", "s") == 0.69514203150176, "pinned: a release must move nobody"

    def test_of_two_arms_exactly_the_share_that_changes_moves(self, served: ServedBundle) -> None:
        before = self.whose(self.arms(served, 0.9, 0.1))
        after = self.whose(self.arms(served, 0.8, 0.2))
        moves = Counter(zip(before, after, strict=True))
        assert moves["b", "a"] == 0
        bound = 5 * np.sqrt(NUM_USERS * 0.1 * 0.9)
        assert abs(moves["a", "b"] - 0.1 * NUM_USERS) <= bound

    def test_what_a_neighbour_loses_moves_nobody_else(self, served: ServedBundle) -> None:
        before = self.whose(self.arms(served, 0.8, 0.1, 0.1))
        after = self.whose(self.arms(served, 0.8, 0.05, 0.15))
        assert set(zip(before, after, strict=True)) - {("a", "a"), ("b", "b"), ("c", "c")} == {
            ("b", "c")
        }

    def test_replicas_agree_by_the_pseudonym_alone(
        self, recipe: Recipe, service: Service, bundle: Path, other_bundle: Path
    ) -> None:
        """Another replica, started later, on its own store, says the same of every user."""
        other = make_service(recipe)
        arms = [arm("a", weight=3), arm("b", other_bundle)]
        for each in (service, other):
            asyncio.run(each.load(bundle, version_in(bundle), arms))
        for number in range(40):
            request = RecommendRequest(user_id=f"user-{number}", k=1)
            told = {
                json.loads(asyncio.run(each.recommend(request)))["arm"]
                for each in (service, other)
                for _ in range(2)
            }
            assert told == {service.arms.of(pseudonym(f"user-{number}", KEY.encode())).name}
