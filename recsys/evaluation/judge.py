"""Models answer all questions of a window, batch by batch.

Legend: Q questions, I items, M columns (slice x metric).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from recsys.arrays import Bools, Float32s, Int64s
from recsys.data.histories import Histories, UserEvents
from recsys.data.time_split import Questions
from recsys.evaluation.baselines import Recommends
from recsys.evaluation.metrics.ranking import ranks_of, ranks_without, tie_order
from recsys.evaluation.report import Ranked, head_items, values_of
from recsys.features.popularity import ItemStats


@dataclass(frozen=True)
class Judge:
    """Asks every model the same questions.

    Attributes:
        new_item: [I] items without events before the window.
        head_item: [I], see `head_items`.
        tie_order: [I], see `tie_order`.
    """

    new_item: Bools
    head_item: Bools
    tie_order: Int64s

    @classmethod
    def of(cls, stats: ItemStats, seed: int) -> Judge:
        """The judge of the window that begins where the statistics end.

        Args:
            stats: as of the window's cut.
            seed: breaks ties.
        """
        order = tie_order(len(stats.num_events), seed)
        return cls(stats.num_events == 0, head_items(stats.num_targets), order)

    def answers(
        self,
        models: Mapping[str, Recommends],
        questions: Questions,
        known_user: Bools,
        batch_size: int,
    ) -> dict[str, Float32s]:
        """Model -> [Q, M] metrics, see `values_of`.

        The models are asked batch by batch, all of them the same one: what they read of its
        histories is found once.

        Args:
            models: by name.
            questions: Q of them.
            known_user: [Q], see `known_users`.
            batch_size: questions asked together; their scores of all items must fit in memory.
        """
        own, found = [_NO_OWN], {name: [_NO_RANKS] for name in models}
        for batch in questions.batches(batch_size):
            histories = batch.histories
            is_own = self._is_own(batch, histories)
            own.append(is_own)
            for name, model in models.items():
                found[name].append(self._ranked(model.scores(histories), batch, histories, is_own))
        of_own = np.concatenate(own)
        return {
            name: values_of(
                Ranked(*(np.concatenate(column) for column in zip(*parts, strict=True))),
                questions, of_own, new_item=self.new_item, head_item=self.head_item,
                known_user=known_user,
            )
            for name, parts in found.items()
        }  # fmt: skip

    def _is_own(self, questions: Questions, histories: Histories) -> Bools:
        """[R] whether the user had the relevant item before."""
        seen, num_items = histories.distinct, len(self.new_item)
        if not len(seen.query):
            return np.zeros(len(questions.relevant), dtype=np.bool_)
        asked = np.repeat(np.arange(len(questions)), np.diff(questions.relevant_offsets))
        key, known = asked * num_items + questions.relevant, seen.query * num_items + seen.item
        place = np.minimum(np.searchsorted(known, key), len(known) - 1)
        return np.asarray(known[place] == key)

    def _ranked(
        self, scores: Float32s, questions: Questions, histories: Histories, own: Bools
    ) -> tuple[Int64s, Int64s]:
        """Ranks of the relevant items, and of those that are new to the user; see `Ranked`."""
        relevant, offsets, seen = questions.relevant, questions.relevant_offsets, histories.distinct
        ranks = ranks_of(scores, relevant, offsets, self.tie_order)
        num_new = np.concatenate([[0], np.cumsum(~own)])
        first_time = ranks_without(
            (seen.query, seen.item), scores, relevant[~own], num_new[offsets], ranks[~own],
            self.tie_order,
        )  # fmt: skip
        return ranks, first_time


_NO_OWN: Final = np.zeros(0, dtype=np.bool_)
_NO_RANKS: Final = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


def known_users(users: UserEvents, questions: Questions, cut_us: int) -> Bools:
    """[Q] whether the user of each question had an event before the cut."""
    return users.timestamps[users.offsets[:-1]][questions.user_index] < cut_us
