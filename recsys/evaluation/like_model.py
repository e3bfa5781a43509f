"""Will this user like this item, now that it is shown? A chance, not a rank.

A log with labels tells what was shown and what became of it: an event of a target type is a label
1, any other event a label 0. The head is a logistic regression on ten numbers, counted as of a cut
(`ResponseStats`) and from the user's own events strictly before the moment, likes and dislikes. It
is fitted on exposures after the cut that its counts stand at, and so on what they had not seen:
that keeps its chances calibrated without another step.

Legend: Q questions (a user is shown an item at a moment), E events of all histories, I items,
U users, H width of the language model, F = len(RESPONSE_FEATURES).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from recsys.data.histories import Histories, UserEvents
from recsys.data.time_split import Questions, ask_shown
from recsys.features.neighbours import strongest_pairs

Floats = NDArray[np.float64]
Float32s = NDArray[np.float32]
Int64s = NDArray[np.int64]

#: Columns of `ResponseStats.features`: four of the item, three of the user, three of the pair.
RESPONSE_FEATURES: Final = (
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
class ResponseStats:
    """What is known of items at a cut, from the events before it alone.

    Attributes:
        mean: share of labels 1, with ten exposures of prior.
        num_shown: [I] exposures.
        rate: [I] share of labels 1, shrunk towards `mean`.
        text_rate: [I] what the text alone promises, see `text_rates`.
        rate_by_text: [I] share of labels 1, shrunk towards `text_rate`.
        directions: [I, H] text vectors less their mean, of length 1.
        liked, seen: CSR [I, I], row = item shown, column = item of the history; see `together`.
        target_codes: event codes of a label 1.
    """

    mean: float
    num_shown: Floats
    rate: Floats
    text_rate: Floats
    rate_by_text: Floats
    directions: Float32s
    liked: sparse.csr_array
    seen: sparse.csr_array
    target_codes: Sequence[int]

    @staticmethod
    def count(
        users: UserEvents, text_vectors: NDArray[np.floating[Any]], target_codes: Sequence[int]
    ) -> ResponseStats:
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
        return ResponseStats(
            float(mean),
            shown,
            (liked + ITEM_PRIOR * mean) / (shown + ITEM_PRIOR),
            by_text,
            (liked + ITEM_PRIOR * by_text) / (shown + ITEM_PRIOR),
            _unit(text_vectors - text_vectors.mean(axis=0)).astype(np.float32),
            together(user[wanted], users.item_rows[wanted], shape).T.tocsr(),
            together(user, users.item_rows, shape).T.tocsr(),
            tuple(target_codes),
        )

    def features(
        self,
        histories: Histories,
        item_rows: NDArray[np.integer[Any]],
        *,
        likes_only_since: int | None = None,
    ) -> Floats:
        """[Q, F] what speaks for a like.

        A history event's *residual* is its label less `rate_by_text` of its item; the user's
        *balance* is the shrunk mean of them. A pair's balance adds up, over the history, how alike
        event and item are, times what the event's residual is above the user's balance.

        Args:
            histories: Q of them, likes and dislikes, each strictly before its moment.
            item_rows: [Q] the items shown.
            likes_only_since: microseconds; of events from then on only the likes are looked at.
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

        def total(values: NDArray[Any]) -> Floats:
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

    def features_of(self, questions: Questions, *, likes_only_since: int | None = None) -> Floats:
        """[Q, F] of questions with one item each (`ask_shown`), a batch of histories at a time."""
        parts = [np.zeros((0, len(RESPONSE_FEATURES)))]
        parts += [
            self.features(part.histories, part.relevant, likes_only_since=likes_only_since)
            for part in questions.batches(QUESTIONS_AT_ONCE)
        ]
        return np.concatenate(parts)


def text_rates(shown: Floats, liked: Floats, text_vectors: NDArray[np.floating[Any]]) -> Floats:
    """[I] the share of labels 1 that an item's text promises, by ridge regression over items.

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


def together(
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


@dataclass(frozen=True)
class ResponseHead:
    """Eleven weights on standardised features.

    Attributes:
        weights: [F]; 0 where the feature did not vary when it was fitted.
        bias: of the logit.
        mean, deviation: [F] of the rows it was fitted on.
    """

    weights: Floats
    bias: float
    mean: Floats
    deviation: Floats

    def logits(self, features: Floats) -> Floats:
        """[Q] log odds of a like."""
        return (features - self.mean) / self.deviation @ self.weights + self.bias

    def chances(self, features: Floats) -> Floats:
        """[Q] the like probability."""
        return 1 / (1 + np.exp(-self.logits(features)))

    @staticmethod
    def fit(
        features: Floats, labels: NDArray[Any], *, penalty: float = 1e-3, num_steps: int = 300
    ) -> ResponseHead:
        """Logistic regression by full-batch L-BFGS; the bias is not penalised.

        Args:
            features: [Q, F].
            labels: [Q] 0 or 1.
            penalty: on the sum of squared weights, against the mean loss.
            num_steps: of L-BFGS at most.

        Raises:
            ValueError: there is no row.
        """
        if not len(features):
            raise ValueError("no exposure to fit the response head on")
        mean, deviation = features.mean(axis=0), features.std(axis=0)
        varies = deviation >= 1e-6
        deviation = np.where(varies, deviation, 1.0)
        inputs = torch.from_numpy(np.where(varies, (features - mean) / deviation, 0.0))
        wanted = torch.from_numpy(np.asarray(labels, dtype=np.float64))
        weights = torch.zeros(features.shape[1], dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weights, bias], max_iter=num_steps, line_search_fn="strong_wolfe"
        )

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                inputs @ weights + bias, wanted
            )
            loss = loss + penalty * (weights**2).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call, arg-type]
        return ResponseHead(weights.detach().numpy(), float(bias.detach()), mean, deviation)


def fit_response(
    users: UserEvents,
    text_vectors: NDArray[np.floating[Any]],
    target_codes: Sequence[int],
    *,
    cut: int,
    until: int,
    likes_only: bool = False,
) -> ResponseHead:
    """Fit a head on the exposures from a cut on, with counts as of the cut.

    Args:
        users: whole event lists; nothing at or after `until` is read.
        text_vectors: [I, H] of length 1.
        target_codes: event codes of a label 1.
        cut: microseconds; events before it are counted.
        until: the end of the window that is fitted on.
        likes_only: since the cut a history shows its likes alone, see `ResponseStats.features`.
    """
    stats = ResponseStats.count(users.before(cut), text_vectors, target_codes)
    questions = ask_shown(users, start=cut, end=until)
    features = stats.features_of(questions, likes_only_since=cut if likes_only else None)
    codes = users.event_codes[(users.timestamps >= cut) & (users.timestamps < until)]
    return ResponseHead.fit(features, np.isin(codes, np.asarray(target_codes)))


def logit(chances: Floats) -> Floats:
    """Log odds of chances strictly between 0 and 1."""
    return np.log(chances) - np.log1p(-chances)


def _unit(vectors: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, 1e-12)
