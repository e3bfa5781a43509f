"""Implicit-feedback matrix factorisation: alternating least squares, users folded in at query time.

Source: Hu, Koren & Volinsky 2008; the factors are fitted by the package `implicit`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.arrays import Float32s
from recsys.data.histories import Histories
from recsys.errors import RecipeError
from recsys.evaluation.baselines.base import TrainingLog
from recsys.evaluation.baselines.popularity import Popularity


@dataclass(frozen=True)
class Als:
    """Item factors; a query's user factors are solved from its history, so any user can be scored.

    Attributes:
        factors: [I, F] float32.
        popularity: answers queries without history.
        alpha: confidence of one more event: an item met n times counts 1 + alpha n.
        regularization: added to the diagonal of the normal equations.
    """

    factors: Float32s
    popularity: Popularity
    alpha: float
    regularization: float
    name: ClassVar[str] = "als"

    @classmethod
    def fit(
        cls,
        log: TrainingLog,
        *,
        num_factors: int = 64,
        alpha: float = 5.0,
        regularization: float = 1.0,
        num_iterations: int = 15,
        seed: int = 0,
    ) -> Als:
        """Factorise the matrix of event counts (users x items).

        Args:
            log: events of any type; popularity counts the target events.
            num_factors: F.
            alpha: see `Als`.
            regularization: see `Als`.
            num_iterations: alternations.
            seed: of the first factors.

        Raises:
            RecipeError: the package `implicit` is missing.
        """
        try:
            from implicit.cpu.als import AlternatingLeastSquares
        except ImportError:
            raise RecipeError(
                "the baseline needs the package `implicit`", field="baselines", value=cls.name,
                fix="install raycommend[bench], or leave it out",
            ) from None  # fmt: skip

        events, known = log.events, log.is_known
        user = np.repeat(np.arange(len(events)), np.diff(events.offsets))[known]
        counts = _counts(user, events.item_rows[known], (len(events), log.num_items))
        counts.data = 1 + np.float32(alpha) * counts.data
        model = AlternatingLeastSquares(
            factors=num_factors, regularization=regularization, iterations=num_iterations,
            alpha=1.0, random_state=seed, use_native=True, use_cg=True, num_threads=0,
        )  # fmt: skip
        model.fit(sparse.csr_matrix(counts), show_progress=False)
        factors = np.asarray(model.item_factors, dtype=np.float32)
        return cls(factors, Popularity.fit(log), alpha, regularization)

    def scores(self, histories: Histories) -> Float32s:
        """[Q, I] inner products with the folded-in user factors."""
        known = histories.known(len(self.factors))
        shape = (len(known), len(self.factors))
        counts = _counts(known.query_of_event, known.item_rows, shape)
        width = self.factors.shape[1]
        gram = self.factors.T @ self.factors + self.regularization * np.eye(width, dtype=np.float32)
        users = np.zeros((len(known), width), dtype=np.float32)
        for query in range(len(known)):
            mine = slice(counts.indptr[query], counts.indptr[query + 1])
            own = self.factors[counts.indices[mine]]
            extra = self.alpha * counts.data[mine]
            # Confidence 1 + extra; `gram` holds the 1 of every item.
            users[query] = np.linalg.solve(
                gram + (own * extra[:, None]).T @ own, own.T @ (1 + extra)
            )
        scores = users @ self.factors.T
        scores[np.diff(counts.indptr) == 0] = self.popularity.fraction
        return scores


def _counts(
    rows: NDArray[np.integer], columns: NDArray[np.integer], shape: tuple[int, int]
) -> sparse.csr_array:
    ones = np.ones(len(rows), dtype=np.float32)
    counts = sparse.csr_array((ones, (rows, columns)), shape=shape)
    counts.sum_duplicates()
    return counts
