"""Features of the like probability: of the item, of the user and of the pair.

Every event of a labelled log is an exposure: one of a target type has label 1, any other label 0.
`LikeStats` is counted as of a cut; a question adds the user's own events strictly before the
moment, likes and dislikes.

Legend: Q questions (a user is shown an item at a moment), E events of all histories, I items,
U users, H width of the language model, F = len(LIKE_FEATURES).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.arrays import Float32s, Float64s, Int64s
from recsys.data.histories import Histories, UserEvents
from recsys.data.time_split import Questions
from recsys.features.neighbours import strongest_pairs

#: Columns of `LikeStats.features`: four of the item, three of the user, three of the pair.
LIKE_FEATURES: Final = (
    "item_rate", "item_rate_by_text", "text_rate", "item_shown",
    "user_rate", "user_balance", "user_shown",
    "text_balance", "liked_balance", "seen_balance",
)  # fmt: skip

#: Exposures that the prior of an item's rate, and of a user's, is worth.
ITEM_PRIOR, USER_PRIOR = 5.0, 4.0
#: Weight of ridge, and exposures from which on an item says little more of its text.
RIDGE, SATURATION = 3.0, 20.0
#: With fewer exposures nothing is learned from texts.
MIN_EXPOSURES = 200
#: Added to the divisor of co-occurrence, and neighbours kept per item.
SHRINKAGE, NUM_KEPT = 5.0, 100
#: Questions whose histories are copied out at a time.
QUESTIONS_AT_ONCE = 1024


@dataclass(frozen=True)
class LikeStats:
    """Statistics of the items as of a cut, from the events before it alone.

    Attributes:
        mean: share of labels 1, with ten exposures of prior.
        num_shown: [I] exposures.
        rate: [I] share of labels 1, shrunk towards `mean`.
        text_rate: [I] share of labels 1 predicted from the text alone, see `text_rates`.
        rate_by_text: [I] share of labels 1, shrunk towards `text_rate`.
        directions: [I, H] text vectors less their mean, of length 1.
        liked, seen: CSR [I, I], row = item shown, column = item of the history; see
            `co_occurrence`.
        target_codes: event codes of a label 1.
    """

    mean: float
    num_shown: Float64s
    rate: Float64s
    text_rate: Float64s
    rate_by_text: Float64s
    directions: Float32s
    liked: sparse.csr_array
    seen: sparse.csr_array
    target_codes: Sequence[int]

    @staticmethod
    def count(
        users: UserEvents, text_vectors: NDArray[np.floating[Any]], target_codes: Sequence[int]
    ) -> LikeStats:
        """Count exactly the events given: the caller cuts the time.

        Args:
            users: events before the cut; none is fine.
            text_vectors: [I, H] of length 1, of each item's text.
            target_codes: event codes of a label 1.
        """
        num_items = len(text_vectors)
        wanted = np.isin(users.event_codes, np.asarray(target_codes))
        shown = np.bincount(users.item_rows, minlength=num_items).astype(np.float64)
        liked = np.bincount(users.item_rows, wanted, minlength=num_items).astype(np.float64)
        mean = (liked.sum() + 5) / (shown.sum() + 10)
        by_text = text_rates(shown, liked, text_vectors)
        user = np.repeat(np.arange(len(users)), np.diff(users.offsets))
        shape = (len(users), num_items)
        return LikeStats(
            float(mean),
            shown,
            (liked + ITEM_PRIOR * mean) / (shown + ITEM_PRIOR),
            by_text,
            (liked + ITEM_PRIOR * by_text) / (shown + ITEM_PRIOR),
            _unit(text_vectors - text_vectors.mean(axis=0)).astype(np.float32),
            co_occurrence(user[wanted], users.item_rows[wanted], shape).T.tocsr(),
            co_occurrence(user, users.item_rows, shape).T.tocsr(),
            tuple(target_codes),
        )

    def features(
        self,
        histories: Histories,
        item_rows: NDArray[np.integer[Any]],
        *,
        likes_only_since: int | None = None,
    ) -> Float64s:
        """[Q, F] features of each question, `LIKE_FEATURES`.

        A history event's *residual* is its label less `rate_by_text` of its item; the user's
        *balance* is the shrunk mean of them. A pair's balance sums, over the history, similarity of
        event and item times the event's residual above the user's balance.

        Args:
            histories: Q of them, likes and dislikes, each strictly before its moment.
            item_rows: [Q] the items shown.
            likes_only_since: microseconds; of events from then on only the likes are read.
                Likes alone say nothing of a rate, so they enter the pairs but not the user's part.
        """
        wanted = np.isin(histories.event_codes, np.asarray(self.target_codes))
        if likes_only_since is not None:
            known = wanted | (histories.timestamps < likes_only_since)
            histories, wanted = histories.where(known), wanted[known]
            rated = histories.timestamps < likes_only_since
        else:
            rated = np.ones(len(wanted), dtype=np.bool_)
        query, items = histories.query_of_event, histories.item_rows
        residual = wanted - self.rate_by_text[items]

        def total(values: NDArray[Any]) -> Float64s:
            return np.bincount(query, values, minlength=len(histories)).astype(np.float64)

        num_rated = total(rated)
        balance = total(rated * residual) / (num_rated + USER_PRIOR)
        other = items != item_rows[query]
        above = sparse.csr_array(
            ((residual - balance[query])[other], (query[other], items[other])),
            shape=(len(histories), len(self.rate)),
        )
        by_text = ((above @ self.directions) * self.directions[item_rows]).sum(axis=1)
        columns = (
            logit(self.rate[item_rows]),
            logit(self.rate_by_text[item_rows]),
            logit(self.text_rate[item_rows]),
            np.log1p(self.num_shown[item_rows]),
            logit((total(rated & wanted) + USER_PRIOR * self.mean) / (num_rated + USER_PRIOR)),
            balance,
            np.log1p(num_rated),
            by_text / np.sqrt(histories.lengths + 5),
            above.multiply(self.liked[item_rows]).sum(axis=1),
            above.multiply(self.seen[item_rows]).sum(axis=1),
        )
        return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)

    def features_of(self, questions: Questions, *, likes_only_since: int | None = None) -> Float64s:
        """[Q, F] of questions with one item each (`ask_shown`), a batch of histories at a time."""
        parts = [np.zeros((0, len(LIKE_FEATURES)))]
        parts += [
            self.features(part.histories, part.relevant, likes_only_since=likes_only_since)
            for part in questions.batches(QUESTIONS_AT_ONCE)
        ]
        return np.concatenate(parts)


def text_rates(
    shown: Float64s, liked: Float64s, text_vectors: NDArray[np.floating[Any]]
) -> Float64s:
    """[I] the share of labels 1 predicted from an item's text, by ridge regression over items.

    An item weighs n / (1 + n / 20) for its n exposures: what many more of them add is how sure its
    own rate is, not how sure its text is.

    Args:
        shown: [I] exposures.
        liked: [I] those with label 1.
        text_vectors: [I, H] of length 1.

    Source: ridge regression, Hoerl & Kennard 1970.
    """
    if shown.sum() < MIN_EXPOSURES:
        return np.full(len(shown), 0.5)
    mean, seen = liked.sum() / shown.sum(), shown > 0
    vectors = text_vectors[seen].astype(np.float64)
    weights = shown[seen] / (1 + shown[seen] / SATURATION)
    centre = weights @ vectors / weights.sum()
    centred = vectors - centre
    gram = centred.T @ (weights[:, None] * centred) + RIDGE * np.eye(vectors.shape[1])
    right = centred.T @ (weights * (liked[seen] / shown[seen] - mean))
    slopes = np.linalg.solve(gram, right)
    return np.clip(mean + (text_vectors - centre) @ slopes, 0.02, 0.98)


def co_occurrence(
    users: Int64s, item_rows: NDArray[np.integer[Any]], shape: tuple[int, int]
) -> sparse.csr_array:
    """CSR [I, I] of users with both items over (root of both items' users + 5); no diagonal.

    Args:
        users: [E] of the events that count.
        item_rows: [E] likewise.
        shape: (U, I).

    Source: Sarwar et al. 2001, with the shrinkage of Bell & Koren 2007.
    """
    ones = np.ones(len(users), dtype=np.float32)
    met = sparse.csr_array((ones, (users, item_rows)), shape=shape)
    met.sum_duplicates()
    met.data[:] = 1
    norm = np.sqrt(np.asarray(met.sum(axis=0), dtype=np.float32))

    def cosine(counts: Float32s, rows: Int64s, columns: Int64s) -> Float32s:
        weights = counts / (norm[rows] * norm[columns] + np.float32(SHRINKAGE))
        return np.where(rows == columns, np.float32(0), weights)

    return strongest_pairs(met, met, cosine, NUM_KEPT)


def logit(probabilities: Float64s) -> Float64s:
    """Log odds of probabilities strictly between 0 and 1."""
    return np.log(probabilities) - np.log1p(-probabilities)


def _unit(vectors: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, 1e-12)
