"""Models answer all questions of a window, batch by batch.

Legend: Q questions, I items, M columns (slice x metric).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recsys.arrays import Bools, Float32s, Int64s
from recsys.data.histories import UserEvents
from recsys.data.time_split import Questions
from recsys.evaluation.baselines import Recommends
from recsys.evaluation.metrics.ranking import tie_order
from recsys.evaluation.report import COLUMNS, answer, head_items
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
        """Model -> [Q, M] metrics, see `answer`.

        Args:
            models: by name.
            questions: Q of them.
            known_user: [Q], see `known_users`.
            batch_size: questions asked together; their scores of all items must fit in memory.
        """
        empty = np.zeros((0, len(COLUMNS)), dtype=np.float32)
        parts = {name: [empty] for name in models}
        for start in range(0, len(questions), batch_size):
            rows = slice(start, start + batch_size)
            for name, model in models.items():
                parts[name].append(
                    answer(
                        model, questions[rows], new_item=self.new_item, head_item=self.head_item,
                        known_user=known_user[rows], tie_order=self.tie_order,
                    )
                )  # fmt: skip
        return {name: np.concatenate(of_model) for name, of_model in parts.items()}


def known_users(users: UserEvents, questions: Questions, cut_us: int) -> Bools:
    """[Q] whether the user of each question had an event before the cut."""
    return users.timestamps[users.offsets[:-1]][questions.user_index] < cut_us
