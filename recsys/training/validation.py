"""Validation during training: nDCG@10 over the whole catalogue."""

from __future__ import annotations

from dataclasses import dataclass

from recsys.data.time_split import Questions
from recsys.evaluation.metrics.ranking import ndcg_at_k, ranks_of, tie_order
from recsys.features.candidates import Candidates, find_candidates
from recsys.ranking.scorer import Scorer

#: Questions scored at a time: their scores of all items must fit in memory.
QUESTIONS_AT_ONCE = 64


@dataclass(frozen=True)
class ValidationQuestions:
    """Questions to validate on, with the candidates that no weight changes: epochs share them.

    Attributes:
        questions: of one worker.
        candidates: of all of them.
    """

    questions: Questions
    candidates: Candidates

    @staticmethod
    def of(scorer: Scorer, questions: Questions) -> ValidationQuestions:
        """Find the candidates; of the scorer, its relations are read."""
        batches = list(questions.batches(QUESTIONS_AT_ONCE)) or [questions]
        parts = [
            find_candidates(part.histories, scorer.relations, scorer.target_codes)
            for part in batches
        ]
        return ValidationQuestions(questions, Candidates.joined(parts))

    def validate(self, scorer: Scorer, seed: int) -> tuple[float, int]:
        """Sum of nDCG@10 over the questions, and their number.

        Args:
            scorer: as of the validation window.
            seed: breaks ties, see `tie_order`.
        """
        order = tie_order(scorer.num_items, seed)
        total, count = 0.0, 0
        for part in self.questions.batches(QUESTIONS_AT_ONCE):
            candidates = self.candidates.part(count, count + len(part))
            scores = scorer.scores(part.histories, candidates)
            ranks = ranks_of(scores, part.relevant, part.relevant_offsets, order)
            total += float(ndcg_at_k(ranks, part.relevant_offsets, 10).sum())
            count += len(part)
        assert count == len(self.questions)
        return total, count
