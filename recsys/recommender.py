"""A loaded bundle that recommends: what the service and the golden test call.

Legend: I items, C candidates, M new or added items, D width of the vectors, H width of the language
model.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy import sparse

from recsys.artifacts.bundle import ENCODER_DIR, STANDARD_PRICE, TOKENIZER_DIR, Bundle
from recsys.artifacts.bundle import ITEMS as ITEMS_FILE
from recsys.config import Recipe, target_codes
from recsys.data.catalogue import item_text, prices_of
from recsys.data.histories import Histories
from recsys.errors import BundleError
from recsys.features.item_fields import ItemFields
from recsys.features.popularity import ItemStats
from recsys.features.side_features import ITEM_FEATURES, PriceScale, item_features
from recsys.features.stacked import Stacked
from recsys.model.item_encoder import ItemEncoder
from recsys.model.language import LanguageModel
from recsys.model.ranking_head import ScoringHead
from recsys.model.user_encoder import UserEncoder
from recsys.preparation.prepared import Prepared
from recsys.ranking.encoded import EncodedHistory, encode
from recsys.ranking.explain import Explanation, explain
from recsys.ranking.exploration import Exploration
from recsys.ranking.index import LENGTHS, Index
from recsys.ranking.rerank import LEAST_POOL, NO_CATEGORY, POOL_PER_PLACE, centred, diversify
from recsys.ranking.scorer import Scorer
from recsys.schema import ITEMS, Col
from recsys.storage.reading import reading
from recsys.text.pretrained import CONFIG, load_tokenizer, tokenize
from recsys.text.text_store import pad_tokens
from recsys.training.build import features_over_time

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

#: Columns of an item that `Recommender.with_items` adds to a catalogue.
ADDED = pl.Schema(
    {
        Col.item: pl.String,
        Col.title: pl.String,
        Col.brand: pl.String,
        Col.category: pl.String,
        Col.price: pl.Float64,
        Col.available: pl.Boolean,
    }
)


def load_scorer(bundle: Bundle) -> Scorer:
    """The scorer of a bundle, its item side memory-mapped."""
    recipe = bundle.recipe
    model = recipe.model
    users = UserEncoder(model.dim, model.num_layers, model.num_heads, 0.0)
    head = ScoringHead(model.temperature)
    bundle.load_into(users, "users.")
    bundle.load_into(head, "head.")
    items = bundle.items
    standard = items[STANDARD_PRICE].to_numpy()
    stats = ItemStats(*(items[field.name].to_numpy() for field in fields(ItemStats)))
    return Scorer(
        users.eval(),
        head.eval(),
        _mapped(bundle.vectors),
        _mapped(bundle.item_part),
        item_features(stats, standard),
        standard,
        bundle.relations,
        target_codes(recipe),
        model.max_history,
    )


def scorer_on(
    bundle: Bundle, prepared: Prepared, as_of: str, content_similarity: sparse.csr_array
) -> Scorer:
    """The scorer of a bundle over prepared data, with popularity and relations as of a cut.

    The catalogues may differ: items are matched by id, and an item the bundle does not know is
    never ranked.

    Args:
        bundle: any bundle.
        prepared: the data whose rows the histories will use.
        as_of: `head`, `valid`, `test` or `end`.
        content_similarity: of these data's text store.
    """
    scorer = load_scorer(bundle)
    catalogue = prepared.catalogue
    row_of = {item_id: row for row, item_id in enumerate(bundle.items[Col.item].to_list())}
    rows = np.array([row_of.get(item_id, -1) for item_id in catalogue.items[Col.item]])
    known = rows >= 0
    vectors = torch.from_numpy(np.where(known[:, None], bundle.vectors[rows], 0).astype(np.float32))
    standard = PriceScale(*bundle.meta["price_scale"]).standard(catalogue.prices)
    features = item_features(prepared.stats(as_of), standard)
    over_time = None if as_of == "end" else features_over_time(bundle.recipe, prepared, standard)
    matched = Scorer.build(
        scorer.users,
        scorer.head,
        vectors,
        features,
        standard,
        prepared.relations(as_of, content_similarity),
        scorer.target_codes,
        scorer.max_history,
        over_time,
    )
    assert isinstance(matched.item_part, torch.Tensor)
    matched.item_part[torch.from_numpy(~known), -1] = -np.inf
    return matched


def _mapped(array: NDArray[np.float32]) -> torch.Tensor:
    """A tensor over a read-only map; torch warns of that, but nothing here writes."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


@dataclass(frozen=True)
class NewItems:
    """Items that the catalogue does not hold.

    Attributes:
        text_vectors: [M, H] by the language model.
        fields: M rows with the columns brand, category and price, null where unknown.
    """

    text_vectors: Floats
    fields: pl.DataFrame

    def __len__(self) -> int:
        return len(self.text_vectors)

    def take(self, numbers: Sequence[int]) -> NewItems:
        """Some of them."""
        picked = list(numbers)
        return NewItems(self.text_vectors[picked], self.fields[picked])


class Recommender:
    """Answers questions about one catalogue. Safe to call from several threads.

    Attributes:
        version: the bundle's version.
        recipe: the bundle's recipe.
        scorer: scores.
        info: what `GET /model` tells.
        num_items: I, items that were added among them.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.version = bundle.version
        self.recipe: Recipe = bundle.recipe
        hidden = ("files", "recipe")
        self.info: dict[str, Any] = {k: v for k, v in bundle.meta.items() if k not in hidden}
        self.info["name"] = self.recipe.name
        self.scorer = load_scorer(bundle)
        self._index = bundle.index
        items, self._items_file = bundle.items, bundle.folder / ITEMS_FILE
        self._ids = items[Col.item].to_list()
        self._titles = items[Col.title].to_list()
        self._row_of = {item_id: row for row, item_id in enumerate(self._ids)}
        self._added_row_of: dict[str, int] = {}
        self._filtered = items.select(Col.category, Col.brand, Col.price, Col.available)
        self._mean = np.asarray(bundle.vectors.mean(axis=0))
        self._read_filtered()
        # New items: text and fields go through the same encoder; nobody has bought them yet.
        text_dim, dim = bundle.meta["text_dim"], self.recipe.model.dim
        num_ids = len(bundle.weights("items.ids.").get("weight", ()))
        self._fields = ItemFields.of(items, self.recipe.model.item_fields)
        self._items = ItemEncoder(text_dim, dim, num_ids, self._fields.num_rows, 0.0).eval()
        bundle.load_into(self._items, "items.")
        self._price_scale = PriceScale(*bundle.meta["price_scale"])

    @classmethod
    def load(cls, folder: Path) -> Recommender:
        """Load and verify a bundle.

        Raises:
            BundleError: see `Bundle.open`.
        """
        return cls(Bundle.open(folder))

    @property
    def num_items(self) -> int:
        """I."""
        return len(self._ids)

    def with_items(self, added: NewItems) -> Recommender:
        """The same model over a catalogue with M more items, in rows I, I + 1, ...

        They are told by text, brand, category and price, as items of the catalogue that nobody has
        met, and nothing is related to them. The model's large arrays are shared, not copied.

        Args:
            added: with the columns `ADDED`; ids that the catalogue does not hold, each once.
        """
        assert not self._added_row_of
        grown, columns = copy.copy(self), added.fields.match_to_schema(ADDED)
        ids = columns[Col.item].to_list()
        with torch.no_grad():
            grown.scorer = self.scorer.with_items(*self._item_side(added))
        grown._added_row_of = {item_id: row for row, item_id in enumerate(ids, self.num_items)}
        assert len(grown._added_row_of) == len(ids) and (self.rows_of(ids) < 0).all()
        grown._ids = self._ids + ids
        grown._titles = self._titles + columns[Col.title].to_list()
        grown._filtered = pl.concat(
            [self._filtered, columns.select(self._filtered.columns)], how="vertical_relaxed",
            rechunk=True,
        )  # fmt: skip
        grown._read_filtered()
        return grown

    def with_changes(self, changes: Mapping[str, Mapping[str, Any]]) -> Recommender:
        """The same model, with other facts of items of the bundle's catalogue.

        Filters, caps, availability and answers go by them. The scores do not: how a price or a
        text speaks for an item the next bundle learns.

        Args:
            changes: fields of `ADDED` by item id; ids that the catalogue does not hold are ignored.
        """
        rows = {self._row_of[item_id]: item_id for item_id in changes if item_id in self._row_of}
        if not rows:
            return self
        changed, columns = copy.copy(self), {}
        for name in self._filtered.columns:
            places = [row for row, item_id in rows.items() if name in changes[item_id]]
            values = [changes[rows[row]][name] for row in places]
            columns[name] = self._filtered[name].scatter(places, values)
        changed._filtered = pl.DataFrame(columns, schema=self._filtered.schema)
        changed._titles = self._titles.copy()
        for row, item_id in rows.items():
            if Col.title in changes[item_id]:
                changed._titles[row] = changes[item_id][Col.title]
        changed._read_filtered()
        return changed

    def fields_in_bundle(self, item_id: str) -> dict[str, Any]:
        """What the bundle's own catalogue says of an item of it, by the names of `ITEMS`.

        Raises:
            BundleError: its file has gone.
        """
        with reading(self._items_file, "restore the bundle from a copy", BundleError):
            row = pl.scan_parquet(self._items_file, glob=False).slice(self._row_of[item_id], 1)
            found = row.select(ITEMS.names).collect().row(0, named=True)
            if found[Col.item] != item_id:
                raise ValueError("of another bundle")
            return found

    def _read_filtered(self) -> None:
        """What filters, caps and availability read, as arrays."""
        items = self._filtered
        codes = items[Col.category].cast(pl.Categorical).to_physical().cast(pl.Int64)
        self._category_codes = codes.fill_null(NO_CATEGORY).to_numpy()
        self._price = items[Col.price].to_numpy()
        available = items[Col.available].fill_null(True).to_numpy()
        self._available = None if available.all() else available

    def rows_of(self, item_ids: Sequence[str]) -> NDArray[np.int32]:
        """Catalogue rows; -1 for an unknown id."""
        found = map(self._row_of.get, item_ids, repeat(-1))
        rows = np.fromiter(found, dtype=np.int32, count=len(item_ids))
        if self._added_row_of:
            for place in np.flatnonzero(rows < 0).tolist():
                rows[place] = self._added_row_of.get(item_ids[place], -1)
        return rows

    def in_bundle(self, item_id: str) -> bool:
        """Whether the bundle's own catalogue holds the item: it was not added."""
        return item_id in self._row_of

    def item_id(self, row: int) -> str:
        """The item's id."""
        return str(self._ids[row])

    def title(self, row: int) -> str:
        """The item's title, empty if it has none."""
        return str(self._titles[row] or "")

    def names(self, rows: Sequence[int]) -> list[tuple[str, str]]:
        """Ids and titles of some items."""
        ids, titles = self._ids, self._titles
        return [(ids[row], titles[row] or "") for row in rows]

    def allowed(
        self,
        *,
        category: Sequence[str] | None = None,
        brand: Sequence[str] | None = None,
        min_price: float | None = None,
        max_price: float | None = None,
    ) -> NDArray[np.bool_] | None:
        """[I] the items that pass the filters and are available; None if that is all of them."""
        mask = self._available
        masks = [] if mask is None else [mask]
        if category is not None:
            masks.append(
                self._filtered[Col.category].is_in(list(category)).fill_null(False).to_numpy()
            )
        if brand is not None:
            masks.append(self._filtered[Col.brand].is_in(list(brand)).fill_null(False).to_numpy())
        # An item without a price passes no price filter: the comparison with NaN is false.
        if min_price is not None:
            masks.append(self._price >= min_price)
        if max_price is not None:
            masks.append(self._price <= max_price)
        return np.logical_and.reduce(masks) if masks else None

    def encode(self, histories: Sequence[Histories], *, whole: bool) -> list[EncodedHistory]:
        """Read the histories of several questions at once; each may then be asked by its own.

        Args:
            histories: each of one query; events of rows outside the catalogue (-1) are left out.
            whole: lists of the whole catalogue will be asked for.
        """
        known = [history.known(self.num_items) for history in histories]
        return encode(self.scorer, known, whole=whole and self._index is None)

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
        exclude: NDArray[np.int32],
        allowed: NDArray[np.bool_] | None,
        diversity: float = 0.0,
        max_per_category: int | None = None,
        exclude_owned: bool = False,
    ) -> tuple[Rows, Floats]:
        """The best k items of the whole catalogue for one history, in the order to show.

        Args:
            history: one query, see `encode`.
            k: how many; fewer come back if fewer are allowed.
            exclude: rows that must not come back.
            allowed: [I] mask, see `allowed`; None means all.
            diversity: see `rerank.diversify`.
            max_per_category: items of one category, at most.
            exclude_owned: leave out items with a target event in the history.

        Raises:
            FloatingPointError: a score is not finite.
        """
        encoded = self._encoded(history, whole=True)
        barred = self._barred(encoded.history, exclude, exclude_owned)
        diverse = bool(diversity) or max_per_category is not None
        size = max(POOL_PER_PLACE * k, LEAST_POOL) if diverse else k
        while True:
            rows, pool = self._best(encoded, size, barred, allowed)
            if not diverse:
                return rows, pool
            picked = diversify(
                pool, centred(self.scorer.vectors[torch.from_numpy(rows)].numpy(), self._mean),
                self._category_codes[rows], k,
                diversity=diversity, max_per_category=max_per_category,
            )  # fmt: skip
            # A cap may empty the pool; then more of the catalogue competes.
            if len(picked) == k or len(rows) < size:
                return rows[picked], pool[picked]
            size *= 10

    def draw(
        self,
        history: Histories | EncodedHistory,
        k: int,
        exploration: Exploration,
        *,
        exclude: NDArray[np.int32],
        allowed: NDArray[np.bool_] | None,
        exclude_owned: bool = False,
    ) -> tuple[Rows, Floats, Doubles]:
        """Draw k items from all that may come back; the index is not asked.

        Args:
            history: as of `recommend`, like the others.
            k: how many.
            exploration: draws.
            exclude: rows that must not come back.
            allowed: [I] mask.
            exclude_owned: leave out items with a target event in the history.

        Returns:
            [k] rows in the order to show, scores, and propensities.

        Raises:
            FloatingPointError: a score is not finite.
        """
        encoded = self._encoded(history, whole=True)
        keep = np.ones(self.num_items, dtype=bool) if allowed is None else allowed.copy()
        keep[self._barred(encoded.history, exclude, exclude_owned)] = False
        rows = np.flatnonzero(keep)
        scores = encoded.scores()[rows]
        _check_finite(scores)
        drawn = exploration.draw(scores, k)
        return rows[drawn.places], scores[drawn.places], drawn.propensities

    def _barred(
        self, known: Histories, exclude: NDArray[np.int32], exclude_owned: bool
    ) -> NDArray[np.int64]:
        """Rows that must not come back."""
        barred = exclude[exclude >= 0].astype(np.int64)
        if exclude_owned:
            owned = np.isin(known.event_codes, self.scorer.target_codes)
            barred = np.concatenate([barred, known.item_rows[owned]])
        return barred

    def _best(
        self, encoded: EncodedHistory, size: int, barred: Rows, allowed: NDArray[np.bool_] | None
    ) -> tuple[Rows, Floats]:
        """Rows and scores of the best items that are allowed and not barred."""
        if self._index is not None and size <= LENGTHS[-1]:
            found = self._best_found(self._index, encoded, size, barred, allowed)
            if found is not None:
                return found
        scores = encoded.scores()
        if allowed is not None:
            scores[~allowed] = -np.inf
        scores[barred] = -np.inf
        found = best(scores, size)
        # What is not finite is not among the best, so too few come back; else nobody looks.
        if len(found[0]) < size:
            _check_finite(scores[scores != -np.inf])
        return found

    def _best_found(
        self,
        index: Index,
        encoded: EncodedHistory,
        size: int,
        barred: Rows,
        allowed: NDArray[np.bool_] | None,
    ) -> tuple[Rows, Floats] | None:
        """The same by the index; None if it shows too few items that may come back."""
        user, pairs = encoded.user_part, encoded.pairs
        # A candidate of the second stage may score less than the first stage says, and so may make
        # room for another: of the rest, as many as are wanted are looked at besides all candidates.
        least = size + len(pairs.item_rows) + len(barred)
        rows, scores = index.search(user[0].numpy(), size, least)
        if isinstance(self.scorer.item_part, Stacked):  # added items are in no cell: all are read
            added = self.scorer.item_part.lower
            added_rows = np.arange(self.num_items - len(added), self.num_items)
            rows = np.concatenate([rows, added_rows])
            scores = np.concatenate([scores, (added @ user[0]).numpy()])
        keep = np.ones(self.num_items, dtype=bool) if allowed is None else allowed.copy()
        keep[barred] = False
        candidates = pairs.item_rows[keep[pairs.item_rows]]
        extra = pairs.extra[keep[pairs.item_rows]]
        keep[candidates] = False
        scores[~keep[rows]] = -np.inf
        if len(candidates) + np.isfinite(scores).sum() < size:
            return None
        places, first = best(scores, size)
        mine = (self.scorer.item_part[torch.from_numpy(candidates)] @ user[0]).numpy() + extra
        rows = np.concatenate([candidates, rows[places]])
        scores = np.concatenate([mine, first])
        # Ties go by row, as they do where all items are read.
        order = np.lexsort((rows, -scores))[:size]
        return rows[order], scores[order]

    def rank(
        self,
        history: Histories | EncodedHistory,
        rows: NDArray[np.int32],
        new: NewItems | None = None,
    ) -> Floats:
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
        user, pairs = encoded.user_part, encoded.pairs
        part = self.scorer.item_part.numpy().take(rows, axis=0)
        scores = part @ user[0].numpy()
        if len(pairs.item_rows):
            place = np.minimum(np.searchsorted(pairs.item_rows, rows), len(pairs.item_rows) - 1)
            hit = pairs.item_rows[place] == rows
            scores += np.where(hit, pairs.extra[place], 0).astype(np.float32)
        if new is not None and len(new):
            scores = np.concatenate([scores, (user @ self._new_part(new).T)[0].numpy()])
        _check_finite(scores)
        return scores

    @torch.no_grad()
    def explain(
        self,
        history: Histories,
        rows: NDArray[np.int32],
        new: NewItems | None = None,
    ) -> list[Explanation]:
        """Why the candidates score as `rank` says; the arguments are the same.

        Returns:
            [C + M] explanations.
        """
        wanted = rows.astype(np.int64)
        parts = [self.scorer.item_part[torch.from_numpy(wanted)].numpy()]
        if new is not None and len(new):
            parts.append(self._new_part(new).numpy())
            wanted = np.concatenate([wanted, np.full(len(new), -1)])
        return explain(self.scorer, history.known(self.num_items), wanted, np.concatenate(parts))

    @torch.no_grad()
    def _new_part(self, new: NewItems) -> torch.Tensor:
        """[M, D + 2] the item side of items that have no events."""
        vectors, features, price = self._item_side(new)
        return self.scorer.head.item_part(
            vectors, torch.from_numpy(features), torch.from_numpy(price)
        )

    def _item_side(self, new: NewItems) -> tuple[torch.Tensor, Floats, Floats]:
        """Vectors, item features and standardised price of items that have no events."""
        rows = torch.from_numpy(self._fields.rows(new.fields))
        vectors = self._items.without_ids(torch.from_numpy(new.text_vectors), rows)
        price = self._price_scale.standard(prices_of(new.fields))
        features = np.zeros((len(price), len(ITEM_FEATURES)), dtype=np.float32)
        features[:, ITEM_FEATURES.index("is_new")] = 1
        features[:, ITEM_FEATURES.index("price_squared")] = price**2
        return vectors, features, price


def _check_finite(scores: Floats) -> None:
    if not np.isfinite(scores).all():
        raise FloatingPointError("scores are not finite: the model has diverged")


def best(scores: Floats, k: int) -> tuple[Rows, Floats]:
    """Positions and values of the k highest scores above -inf, best first, ties by position."""
    top = np.arange(len(scores))
    if k < len(scores):
        last = np.partition(scores, len(scores) - k)[len(scores) - k]
        above = np.flatnonzero(scores > last)
        top = np.concatenate([above, np.flatnonzero(scores == last)[: k - len(above)]])
    top = top[np.isfinite(scores[top])]
    order = np.lexsort((top, -scores[top]))
    return top[order].astype(np.int64), scores[top[order]]


class TextEncoder:
    """The bundle's language model, for items that come as text.

    Attributes:
        dim: H.
    """

    def __init__(self, bundle: Bundle) -> None:
        recipe = bundle.recipe
        self.dim = int(bundle.meta["text_dim"])
        self._fields = recipe.data.text_fields
        self._tokenizer = load_tokenizer(bundle.folder / TOKENIZER_DIR, recipe.data.max_tokens)
        config = bundle.folder / ENCODER_DIR / CONFIG
        with reading(config, "restore it from a copy, or write the bundle again", BundleError):
            model = recipe.model
            self._language = LanguageModel(
                config.parent, model.tuning, model.last_n, pretrained=False
            )
            if self._language.dim != self.dim:
                raise ValueError(f"{self._language.dim} wide, of {self.dim}")
        bundle.load_into(self._language, "language.")
        self._language.eval()

    def text_of(self, fields: Mapping[str, str | None]) -> str:
        """The text of an item by the recipe's template; empty if no field of it is filled."""
        return item_text(fields, self._fields)

    @torch.no_grad()
    def encode(self, texts: Sequence[str], batch_size: int = 64) -> Floats:
        """[n, H] vectors of some texts."""
        tokens = [np.asarray(ids, dtype=np.int32) for ids in tokenize(self._tokenizer, texts)]
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        order = np.argsort([len(ids) for ids in tokens], kind="stable")
        for low in range(0, len(order), batch_size):
            rows = order[low : low + batch_size]
            ids, mask = pad_tokens([tokens[row] for row in rows])
            vectors[rows] = self._language.upper(self._language.lower(ids, mask), mask).numpy()
        return vectors
