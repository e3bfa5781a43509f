"""One worker's training, without Ray: steps, head fit, validation.

Legend: I items.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys import __version__
from recsys.arrays import Float32s
from recsys.data.time_split import Questions
from recsys.features.candidates import PAIR_FEATURES, Candidates
from recsys.features.item_to_item import Relations
from recsys.features.popularity import DailyCounts
from recsys.features.side_features import ITEM_FEATURES, PriceScale, item_features
from recsys.model.head_fit import NUM_STEPS, Reduce, fit_head
from recsys.model.ranking_head import HeadExamples
from recsys.ranking.scorer import Scorer
from recsys.storage.computed import Arrays, computed_once
from recsys.storage.seals import json_sha256
from recsys.training.build import features_over_time
from recsys.training.head_examples import HeadQuestions
from recsys.training.steps import Steps
from recsys.training.validation import ValidationQuestions

#: Items sampled for the denominator of the head's softmax.
HEAD_SAMPLE = 500
#: Texts encoded together when the cache is refreshed.
TEXTS_AT_ONCE = 256


@dataclass
class Worker(Steps):
    """One training worker: its steps, the fit of the head between epochs, and validation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        prices = self.prepared.catalogue.prices
        self.standard_price = PriceScale.fit(prices).standard(prices)
        self.over_time = features_over_time(
            self.recipe, self.prepared, self.standard_price, self._daily_counts
        )
        self._as_of: dict[str, tuple[Float32s, Relations]] = {}
        self._head: dict[int, HeadQuestions] = {}
        self._validation: dict[int, ValidationQuestions] = {}

    def _daily_counts(self) -> DailyCounts:
        """The daily counts of items, mapped from a file that all workers of a machine share."""
        if self.shared is None:
            return self.prepared.daily_counts()
        path = self.shared / f"days-{__version__}.safetensors"
        arrays = computed_once(path, lambda: self.prepared.daily_counts().arrays())
        return DailyCounts(self.prepared.summary["counts"]["items"], **arrays)

    def scorer(self, as_of: str) -> Scorer:
        """Score with the model as it is, and statistics as of a cut; moves encoders to the CPU."""
        self.model.language.eval()
        stale = self.cache.stale(self.step)
        for low in range(0, len(stale), TEXTS_AT_ONCE):
            self.cache.refresh(stale[low : low + TEXTS_AT_ONCE], self.step, self._encode)
        self.model.items.to("cpu")
        self.model.users.to("cpu")
        vectors = self.model.item_vectors(
            self.cache.vectors, self.prepared.catalogue.text_rows, self.item_rows
        )
        features, relations = self._counted(as_of)
        return Scorer.build(
            self.model.users, self.head, vectors, features, self.standard_price, relations,
            self.codes, self.recipe.model.max_history, self.over_time,
        )  # fmt: skip

    def _counted(self, as_of: str) -> tuple[Float32s, Relations]:
        """Item features and relations as of a cut; read once."""
        if as_of not in self._as_of:
            self._as_of[as_of] = (
                item_features(self.prepared.stats(as_of), self.standard_price),
                self.prepared.relations(as_of, self.store.content_similarity),
            )
        return self._as_of[as_of]

    def head_examples(self, questions: Questions, part: int | None = None) -> HeadExamples:
        """Examples of a part's head questions; by default of this worker's first."""
        part = self.parts[0] if part is None else part
        scorer, train = self.scorer(self.until), self.recipe.train
        if part not in self._head or self._head[part].questions is not questions:
            rng = np.random.default_rng([self.recipe.seed, 2])  # the same sample for every part
            sample, log_expected = self.negatives.sample(HEAD_SAMPLE, rng)
            arrays = self._computed_once(
                [self.until, len(questions), train.head_rows, len(sample)],
                part,
                lambda: HeadQuestions.of(
                    scorer, questions, sample, log_expected, self.rng(6, part=part)
                ).arrays(),
            )
            self._head[part] = HeadQuestions.from_arrays(questions, sample, arrays)
        return self._head[part].examples(scorer)

    def fit_head(
        self, *examples: HeadExamples, reduce: Reduce | None = None, num_steps: int = NUM_STEPS
    ) -> float:
        """Fit the head on all parts' questions, each worker reading its own; returns the loss.

        Args:
            examples: of this worker's parts.
            reduce: sums a tensor over all workers, in place.
            num_steps: of the fit, at most.
        """
        weight = self.recipe.train.new_item_weight
        return fit_head(
            self.head, *examples, new_item_weight=weight, reduce=reduce, num_steps=num_steps
        )

    def validate(self, questions: Questions, part: int | None = None) -> tuple[float, int]:
        """Sum of nDCG@10 over a part's validation baskets, and their number."""
        part = self.parts[0] if part is None else part
        scorer = self.scorer("valid")
        if part not in self._validation or self._validation[part].questions is not questions:
            arrays = self._computed_once(
                ["validation", len(questions), self.recipe.train.valid_rows],
                part,
                lambda: ValidationQuestions.of(scorer, questions).candidates.arrays(),
            )
            candidates = Candidates.from_arrays(len(questions), arrays)
            self._validation[part] = ValidationQuestions(questions, candidates)
        return self._validation[part].validate(scorer, self.recipe.seed)

    def _computed_once(self, key: list[Any], part: int, make: Callable[[], Arrays]) -> Arrays:
        """What `make` gives of a part's share of some questions; see `shared`."""
        if self.shared is None:
            return make()
        whose = [self.recipe.seed, self.codes, part, self.num_parts]
        told = [*key, *whose, __version__, PAIR_FEATURES, ITEM_FEATURES]
        return computed_once(self.shared / f"{key[0]}-{json_sha256(told)[:16]}.safetensors", make)
