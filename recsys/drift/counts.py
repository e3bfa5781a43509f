"""How a quantity is distributed over bins, and how surely that is known where users cluster.

Events of one user are alike, so a thousand events of ten users tell less than those of a thousand.
Users are the independent units: what is kept is the sum of the outer products of the users' counts.
It adds up over users, names none of them, and gives the covariance of the shares by linearisation
(Binder 1983; the design effects of Rao & Scott, Annals of Statistics 12 (1984) 46-60).

Legend: D days, B bins, G users, V visits, R rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from recsys.arrays import Float64s, Int64s

#: Days that tell how much one differs from another.
MIN_DAYS = 7


@dataclass(frozen=True)
class Counts:
    """Rows by day and bin.

    Attributes:
        by_day: [D, B] rows of each day of a window.
        products: [B, B] the sum over users of the outer product of their counts.
        products_of_visits: [B, B] the same over visits, which are a user's rows of one day.
        num_users: G, those with a row.
    """

    by_day: Float64s
    products: Float64s
    products_of_visits: Float64s
    num_users: int

    @classmethod
    def of(
        cls, days: Int64s, bins: NDArray[Any], users: Int64s, num_days: int, num_bins: int
    ) -> Self:
        """Count rows.

        Args:
            days: [R] of the window, from 0.
            bins: [R] from 0.
            users: [R] a number each; all rows of a user are here.
            num_days: D.
            num_bins: B.
        """
        visits, visit = np.unique(users * num_days + days, return_inverse=True)
        flat = np.bincount(visit * num_bins + bins, minlength=len(visits) * num_bins)
        counts_VB = flat.reshape(len(visits), num_bins).astype(np.float64)
        return cls.of_visits(visits % num_days, counts_VB, visits // num_days, num_days)

    @classmethod
    def of_visits(cls, days: Int64s, counts: Float64s, users: Int64s, num_days: int) -> Self:
        """Count the rows of V visits; one is all that a user has of a day.

        Args:
            days: [V] of the window, from 0.
            counts: [V, B] rows of each bin.
            users: [V] a number each.
            num_days: D.
        """
        distinct, user = np.unique(users, return_inverse=True)
        by_user = np.zeros((len(distinct), counts.shape[1]))
        by_day = np.zeros((num_days, counts.shape[1]))
        np.add.at(by_user, user, counts)
        np.add.at(by_day, days, counts)
        return cls(by_day, by_user.T @ by_user, counts.T @ counts, len(distinct))

    def __add__(self, other: Counts) -> Counts:
        """The counts of both; they share no user."""
        return Counts(
            self.by_day + other.by_day,
            self.products + other.products,
            self.products_of_visits + other.products_of_visits,
            self.num_users + other.num_users,
        )

    @cached_property
    def values(self) -> Float64s:
        """[B] rows of each bin."""
        return np.asarray(self.by_day.sum(axis=0))

    @property
    def num_rows(self) -> float:
        """R."""
        return float(self.values.sum())

    @property
    def num_days(self) -> int:
        """Days with a row."""
        return int(self.by_day.any(axis=1).sum())

    @property
    def shares(self) -> Float64s:
        """[B] of the rows; half a row is added to each bin, so that none is 0."""
        return (self.values + 0.5) / (self.num_rows + 0.5 * len(self.values))

    @property
    def covariance(self) -> Float64s:
        """[B, B] of the shares, users being drawn."""
        return self._covariance(self.products, self.num_users)

    @property
    def excess_of_days(self) -> float:
        """By how much days differ more than their visits explain: of one day's shares.

        The sum of the bins' variances, each by its share; 0 where chance may be all of it, or where
        there are fewer days than a week.
        """
        if self.num_days < MIN_DAYS:
            return 0.0
        by_visit = self.size(self._covariance(self.products_of_visits, np.inf))
        by_day = self.size(self._covariance(self.by_day.T @ self.by_day, self.num_days))
        freedom = (self.num_days - 1) * (len(self.values) - 1)
        surely = by_day > by_visit * (1 + 2 * np.sqrt(2 / freedom))
        return (by_day - by_visit) * self.num_days if surely else 0.0

    def size(self, covariance: Float64s) -> float:
        """The sum of the bins' variances, each by its share."""
        return float((np.diag(covariance) / self.shares).sum())

    def _covariance(self, products: Float64s, num_units: float) -> Float64s:
        residual = np.eye(len(self.values)) - np.outer(self.shares, np.ones(len(self.values)))
        spread = residual @ products @ residual.T / self.num_rows**2
        return np.asarray(spread / (1 - 1 / num_units))

    def merged(self, groups: Int64s) -> Counts:
        """The counts of groups of bins.

        Args:
            groups: [B] the number of each bin's group, from 0.
        """
        onto = np.eye(int(groups.max()) + 1)[:, groups]
        return Counts(
            self.by_day @ onto.T,
            onto @ self.products @ onto.T,
            onto @ self.products_of_visits @ onto.T,
            self.num_users,
        )

    def as_json(self) -> dict[str, Any]:
        """Plain data; whole numbers."""
        return {
            "users": self.num_users,
            "by_day": self.by_day.astype(np.int64).tolist(),
            "products": self.products.astype(np.int64).tolist(),
            "products_of_visits": self.products_of_visits.astype(np.int64).tolist(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The counts of `as_json`.

        Raises:
            ValueError, TypeError, KeyError: they are none.
        """
        names = ("by_day", "products", "products_of_visits")
        every = [np.array(data[name], dtype=np.float64) for name in names]
        by_day, products, of_visits = every
        square = (by_day.shape[-1],) * 2
        if by_day.ndim != 2 or {products.shape, of_visits.shape} != {square}:
            raise ValueError("counts of wrong shapes")
        if not all(np.isfinite(each).all() and (each >= 0).all() for each in every):
            raise ValueError("counts that are no counts")
        return cls(by_day, products, of_visits, int(data["users"]))


def covariances(reference: Counts, now: Counts) -> tuple[Float64s, Float64s]:
    """[B, B] of the shares of both, by user, and wider where days differ more than users explain.

    A Saturday is no Monday. The days of the reference tell how much one differs from another, and
    how far a window of as many days as there are now may lie from it by that alone.

    Args:
        reference: of a week or more, or days count as equal.
        now: in the same bins.
    """
    excess = reference.excess_of_days
    found = []
    for counts in (reference, now):
        covariance = counts.covariance
        by_user = reference.size(covariance)
        more = excess / counts.num_days / by_user if by_user > 0 else 0.0
        found.append(covariance * (1 + more))
    return found[0], found[1]
