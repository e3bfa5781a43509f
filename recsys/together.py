"""Questions that are asked at the same time share one pass of the model.

A pass costs little more for many users than for one: most of it is the same number of calls.
Nobody waits for others to come: who finds the model free asks alone, and who comes meanwhile goes
next, together with all who came.

Legend: Q questions of a pass, I items, D width of the vectors.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from recsys.histories import Histories
from recsys.scoring import Floats, PairScores, Scorer

#: Users of a pass, at most: from here on one pass more costs nothing more.
MOST_QUESTIONS = 32
#: Scores of a pass, at most: 32 MB.
MOST_SCORES = 8_000_000


@dataclass
class _Question:
    """What is asked, then what came of it; `ready` says that one can go on, be it to lead."""

    history: Histories
    whole: bool
    ready: threading.Event = field(default_factory=threading.Event)
    leads: bool = False
    user_part: Tensor | None = None
    pairs: PairScores | None = None
    scores: Floats | None = None
    error: BaseException | None = None


class Together:
    """A scorer for single questions from many threads.

    The thread that finds nobody at work does a pass for all who wait, itself among them, then hands
    on to the first of those who have come since.

    Attributes:
        scorer: what answers.
    """

    def __init__(self, scorer: Scorer) -> None:
        assert scorer.over_time is None
        self.scorer = scorer
        self._most = max(1, min(MOST_QUESTIONS, MOST_SCORES // max(1, scorer.num_items)))
        self._lock = threading.Lock()
        self._waiting: deque[_Question] = deque()
        self._busy = False

    def parts(self, history: Histories) -> tuple[Tensor, PairScores]:
        """`Scorer.parts` of one question: [1, D + 2], and its candidates' extra scores."""
        found = self._ask(_Question(history, whole=False))
        assert found.user_part is not None and found.pairs is not None
        return found.user_part, found.pairs

    def scores(self, history: Histories) -> Floats:
        """`Scorer.scores` of one question: [I], the caller's to change."""
        found = self._ask(_Question(history, whole=True))
        assert found.scores is not None
        return found.scores

    def _ask(self, mine: _Question) -> _Question:
        with self._lock:
            self._waiting.append(mine)
            mine.leads, self._busy = not self._busy, True
        if not mine.leads:
            mine.ready.wait()
        if mine.leads:
            with self._lock:  # the one who leads is the first of those who wait
                together = [
                    self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))
                ]
            self._settle(together)
            with self._lock:
                self._busy = bool(self._waiting)
                if self._busy:
                    self._waiting[0].leads = True
                    self._waiting[0].ready.set()
            for question in together:
                question.ready.set()
        if mine.error is not None:
            raise mine.error
        return mine

    def _settle(self, together: list[_Question]) -> None:
        """Answer, or say why not; a question that cannot be answered does not take others along."""
        try:
            self._answer(together)
        except BaseException as error:  # whatever it is, nobody may wait for ever
            if len(together) == 1:
                together[0].error = error
            else:
                for question in together:
                    self._settle([question])

    def _answer(self, together: list[_Question]) -> None:
        histories = Histories.joined([question.history for question in together])
        user_parts, pairs = self.scorer.parts(histories)
        whole = [number for number, question in enumerate(together) if question.whole]
        scores = iter(self.scorer.first_stage(user_parts[whole]) if whole else ())
        bounds = np.searchsorted(pairs.query, np.arange(len(together) + 1))
        for number, question in enumerate(together):
            mine = slice(bounds[number], bounds[number + 1])
            rows, extra = pairs.item_rows[mine], pairs.extra[mine]
            question.user_part = user_parts[number : number + 1]
            question.pairs = PairScores(np.zeros(len(rows), dtype=np.int64), rows, extra)
            if question.whole:
                question.scores = next(scores)
                question.scores[rows] += extra
