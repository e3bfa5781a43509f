"""The recommender: a loaded bundle that recommends, ranks and explains.

Legend: I items, C candidates, M new or added items, D width of the vectors.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.arrays import Bools, Float32s, Float64s, Int32s, Int64s
from recsys.artifacts.bundle import Bundle
from recsys.config import Recipe
from recsys.data.histories import Histories
from recsys.data.standing import Hidden
from recsys.ranking.encoded import EncodedHistory, encode
from recsys.ranking.explain import Explanation, explain
from recsys.ranking.exploration import Exploration
from recsys.ranking.rerank import NO_CATEGORY, centred, diverse_list
from recsys.ranking.retrieval import barred_rows, check_finite, retrieve
from recsys.ranking.top_k import top_k
from recsys.recommender.loading import load_scorer
from recsys.recommender.new_items import NewItemEncoder, NewItems
from recsys.recommender.objective import Worth
from recsys.recommender.served_items import ServedItems
from recsys.schema import Col


class Recommender:
    """Answers queries over one catalogue. Safe to call from several threads.

    Attributes:
        version: the bundle's version.
        recipe: the bundle's recipe.
        info: content of `GET /model`.
        scorer: scores.
        items: ids, titles and filters.
        index: finds the first stage's best; None: all items are read.
        mean_vector: [D] of the bundle's items; diversity is measured from it.
        outcomes: the outcome heads; None: the bundle has none.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.version = bundle.version
        self.recipe: Recipe = bundle.recipe
        hidden = ("files", "recipe")
        self.info: dict[str, Any] = {k: v for k, v in bundle.meta.items() if k not in hidden}
        self.info["name"] = self.recipe.name
        self.scorer = load_scorer(bundle)
        self.items = ServedItems.of(bundle)
        self.index = bundle.index
        self.mean_vector = np.asarray(bundle.vectors.mean(axis=0))
        self.outcomes = bundle.outcomes
        self._new_items = NewItemEncoder(bundle)

    @classmethod
    def load(cls, folder: Path) -> Recommender:
        """Load and verify a bundle.

        Raises:
            BundleError: see `Bundle.open`.
        """
        return cls(Bundle.open(folder))

    @property
    def num_items(self) -> int:
        """I, added items included."""
        return len(self.items)

    def with_items(self, added: NewItems) -> Recommender:
        """The same model over a catalogue with M more items, in rows I, I + 1, ...

        They are scored as items of the catalogue without events and without related items. The
        model's large arrays are shared, not copied.

        Args:
            added: with the columns `ADDED`; ids that the catalogue does not hold, each once.
        """
        grown = copy.copy(self)
        grown.items = self.items.with_added(added.fields)
        grown.scorer = self.scorer.with_items(*self._new_items.encode(added))
        if self.outcomes is not None:
            grown.outcomes = self.outcomes.with_items(added.fields)
        return grown

    def with_changes(self, changes: Mapping[str, Mapping[str, Any]]) -> Recommender:
        """The same model, with other fields of items of the bundle's catalogue.

        Filters, caps, availability and answers use them. Scores do not change until the next
        bundle.

        Args:
            changes: fields of `ADDED` by item id; ids that the catalogue does not hold are ignored.
        """
        items = self.items.with_changes(changes)
        if items is self.items:
            return self
        changed = copy.copy(self)
        changed.items = items
        return changed

    def fields_in_bundle(self, item_id: str) -> dict[str, Any]:
        """See `ServedItems.fields_in_bundle`."""
        return self.items.fields_in_bundle(item_id)

    def rows_of(self, item_ids: Sequence[str]) -> Int32s:
        """Catalogue rows; -1 for an unknown id."""
        return self.items.rows_of(item_ids)

    def in_bundle(self, item_id: str) -> bool:
        """Whether the bundle's own catalogue holds the item: it was not added."""
        return self.items.in_bundle(item_id)

    def item_id(self, row: int) -> str:
        """The item's id."""
        return self.items.item_id(row)

    def title(self, row: int) -> str:
        """The item's title, empty if it has none."""
        return self.items.title(row)

    def names(self, rows: Sequence[int]) -> list[tuple[str, str]]:
        """Ids and titles of some items."""
        return self.items.names(rows)

    def allowed(
        self,
        *,
        category: Sequence[str] | None = None,
        brand: Sequence[str] | None = None,
        min_price: float | None = None,
        max_price: float | None = None,
    ) -> Bools | None:
        """[I] the items that pass the filters and are available; None if that is all of them."""
        return self.items.allowed(
            category=category, brand=brand, min_price=min_price, max_price=max_price
        )

    def visible(self, hidden: Hidden, allowed: Bools | None = None) -> Bools | None:
        """[I] the items of `allowed` (None: all) that are not hidden; None if that is all."""
        if not hidden:
            return allowed
        shown = ~hidden.mask(self.items.category_codes, NO_CATEGORY)
        return shown if allowed is None else shown & allowed

    def visible_candidates(
        self, hidden: Hidden, rows: Int32s, new: NewItems | None = None
    ) -> Bools | None:
        """[C + M] the candidates of `rank` that are not hidden; None if that is all of them."""
        shown = self.visible(hidden)
        if shown is None:
            return None
        shown = shown[rows]
        if new is not None and len(new):
            names = self.items.categories_of(hidden.of_categories)
            is_hidden = new.fields[Col.category].is_in(names).fill_null(False).to_numpy()
            shown = np.concatenate([shown, ~is_hidden])
        return shown

    def encode(self, histories: Sequence[Histories], *, whole: bool) -> list[EncodedHistory]:
        """Encode the histories of several queries in one pass; each is then answered by its own.

        Args:
            histories: each of one query; events of rows outside the catalogue (-1) are left out.
            whole: compute the scores of the whole catalogue in the pass.
        """
        known = [history.known(self.num_items) for history in histories]
        return encode(self.scorer, known, whole=whole and self.index is None)

    def _encoded(self, history: Histories | EncodedHistory, *, whole: bool) -> EncodedHistory:
        if isinstance(history, Histories):
            return self.encode([history], whole=whole)[0]
        assert history.scorer is self.scorer
        return history

    def recommend(
        self,
        history: Histories | EncodedHistory,
        k: int,
        *,
        exclude: Int32s,
        allowed: Bools | None,
        diversity: float = 0.0,
        max_per_category: int | None = None,
        exclude_owned: bool = False,
        worth: Worth | None = None,
    ) -> tuple[Int64s, Float32s]:
        """The best k items of the whole catalogue for one history, in the order to show.

        Args:
            history: one query, see `encode`.
            k: how many; fewer come back if fewer are allowed.
            exclude: rows to leave out.
            allowed: [I] mask, see `allowed`; None means all.
            diversity: see `rerank.diversify`.
            max_per_category: items of one category, at most.
            exclude_owned: leave out items with a target event in the history.
            worth: what items are worth, in place of their scores; None: the scores decide.

        Returns:
            [k] rows, and scores or values.

        Raises:
            FloatingPointError: a score is not finite.
        """
        encoded = self._encoded(history, whole=True)
        codes = self.scorer.target_codes
        barred = barred_rows(encoded.history, exclude, codes, exclude_owned=exclude_owned)

        def best(size: int) -> tuple[Int64s, Float32s]:
            return retrieve(encoded, size, barred=barred, allowed=allowed, index=self.index)

        pool = best if worth is None else partial(worth.best, best)
        if not diversity and max_per_category is None:
            return pool(k)
        return diverse_list(
            pool, k, self._centred_vectors, self.items.category_codes,
            diversity=diversity, max_per_category=max_per_category,
        )  # fmt: skip

    def _centred_vectors(self, rows: Int64s) -> Float32s:
        return centred(self.scorer.vectors[torch.from_numpy(rows)].numpy(), self.mean_vector)

    def draw(
        self,
        history: Histories | EncodedHistory,
        k: int,
        exploration: Exploration,
        *,
        exclude: Int32s,
        allowed: Bools | None,
        exclude_owned: bool = False,
        worth: Worth | None = None,
    ) -> tuple[Int64s, Float32s, Float64s]:
        """Sample k items from all that may come back, without the index.

        Args:
            history: one query, see `encode`.
            k: how many.
            exploration: the policy that samples.
            exclude: rows to leave out.
            allowed: [I] mask.
            exclude_owned: leave out items with a target event in the history.
            worth: see `recommend`; its candidates alone are sampled from.

        Returns:
            [k] rows in the order to show, scores or values, and propensities.

        Raises:
            FloatingPointError: a score is not finite.
        """
        encoded = self._encoded(history, whole=True)
        codes = self.scorer.target_codes
        keep = np.ones(self.num_items, dtype=bool) if allowed is None else allowed.copy()
        keep[barred_rows(encoded.history, exclude, codes, exclude_owned=exclude_owned)] = False
        rows = np.flatnonzero(keep)
        scores = encoded.scores()[rows]
        check_finite(scores)
        if worth is not None:
            places, scores = top_k(scores, max(k, worth.num_candidates))
            rows = rows[places]
            scores = worth(rows, scores)
        drawn = exploration.draw(scores, k)
        return rows[drawn.places], scores[drawn.places], drawn.propensities

    def rank(
        self, history: Histories | EncodedHistory, rows: Int32s, new: NewItems | None = None
    ) -> Float32s:
        """Scores of some candidates: known items by row, then new ones.

        Args:
            history: one query, see `encode`.
            rows: [C] catalogue rows.
            new: M of them.

        Returns:
            [C + M] scores, comparable with those of `recommend`.

        Raises:
            FloatingPointError: a score is not finite.
        """
        encoded = self._encoded(history, whole=False)
        scores = encoded.scores_of(rows)
        if new is not None and len(new):
            of_new = (encoded.user_part @ self.new_item_part(new).T)[0].numpy()
            scores = np.concatenate([scores, of_new])
        check_finite(scores)
        return scores

    @torch.no_grad()
    def explain(
        self, history: Histories, rows: Int32s, new: NewItems | None = None
    ) -> list[Explanation]:
        """Explain the scores of `rank`; the arguments are the same.

        Returns:
            [C + M] explanations.
        """
        of_rows = rows.astype(np.int64)
        parts = [self.scorer.item_part[torch.from_numpy(of_rows)].numpy()]
        if new is not None and len(new):
            parts.append(self.new_item_part(new).numpy())
            of_rows = np.concatenate([of_rows, np.full(len(new), -1)])
        return explain(self.scorer, history.known(self.num_items), of_rows, np.concatenate(parts))

    @torch.no_grad()
    def new_item_part(self, new: NewItems) -> Tensor:
        """[M, D + 2] the item side of the score of new items, see `ScoringHead.item_part`."""
        vectors, features, price = self._new_items.encode(new)
        return self.scorer.head.item_part(
            vectors, torch.from_numpy(features), torch.from_numpy(price)
        )
