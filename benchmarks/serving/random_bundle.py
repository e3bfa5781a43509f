"""A bundle of any size with random weights: for timing the service, where quality says nothing.

    python -m benchmarks.serving.random_bundle FOLDER --items 10000

Same seed, same bundle. The language model is the default one; items relate to random others, as
many as a log of that size tends to show.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import polars as pl
import torch
from scipy import sparse

from benchmarks.command import run_command
from recsys.artifacts.bundle import STANDARD_PRICE, Bundle
from recsys.artifacts.bundle_writing import write_bundle
from recsys.config import Recipe, recipe_from_dict, target_codes
from recsys.data.catalogue import prices_of
from recsys.data.histories import Histories
from recsys.features.item_fields import ItemFields
from recsys.features.item_to_item import Relations
from recsys.features.popularity import ItemStats
from recsys.features.side_features import PriceScale, item_features
from recsys.model.item_encoder import ItemEncoder
from recsys.model.language import LanguageModel
from recsys.model.ranking_head import ScoringHead
from recsys.model.user_encoder import UserEncoder
from recsys.ranking.index import Index
from recsys.ranking.scorer import Scorer
from recsys.schema import EVENT_CODE, ITEMS, Col
from recsys.text.pretrained import locate

NUM_CATEGORIES, NUM_BRANDS = 40, 400
#: Items that each one relates to, by each relation.
NUM_RELATED = 30


def make_recipe(run: Path, **sections: object) -> Recipe:
    """The recipe of a run whose bundle is made here."""
    return recipe_from_dict(
        {
            "name": "timing",
            "run_dir": str(run),
            "data": {
                "source": str(run / "log"), "cuts": {"valid": "2026-01-01", "test": "2026-02-01"},
            },
            **sections,
        }
    )  # fmt: skip


def item_id(row: int) -> str:
    """The id of an item by its row."""
    return f"item-{row:07d}"


def make_bundle(target: Path, recipe: Recipe, num_items: int, seed: int = 0) -> Bundle:
    """Write the bundle; see the module."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model, table = recipe.model, _items(num_items, rng)
    language = LanguageModel(locate(model.language_model), model.tuning, model.last_n)
    of_items = ItemFields.of(table, model.item_fields)
    items = ItemEncoder(language.dim, model.dim, 1, of_items.num_rows, 0.0)
    users = UserEncoder(model.dim, model.num_layers, model.num_heads, 0.0)
    head = ScoringHead(model.temperature)
    for network in (head.own, head.related):
        torch.nn.init.normal_(network[-1].get_parameter("weight"), std=0.3)
    torch.nn.init.normal_(head.item.weight, std=0.1)
    vectors = _vectors(num_items, model.dim)
    counts = rng.zipf(1.5, num_items).clip(max=100_000)
    stats = ItemStats(*(counts for _ in fields(ItemStats)))
    prices = prices_of(table)
    scale = PriceScale.fit(prices)
    standard = scale.standard(prices)
    relations = Relations(*(_relation(num_items, rng) for _ in fields(Relations)))
    scorer = Scorer.build(
        users, head, vectors, item_features(stats, standard), standard, relations,
        target_codes(recipe), model.max_history,
    )  # fmt: skip
    item_part = np.asarray(scorer.item_part)
    index = None
    if recipe.embed.index_above is not None and num_items > recipe.embed.index_above:
        queries = scorer.user_parts(_sessions(256, num_items, rng)).numpy()
        index = Index.build(item_part, queries, seed=seed)
    parts = {"language": language, "items": items, "users": users, "head": head}
    return write_bundle(
        target,
        recipe=recipe,
        weights={
            f"{part}.{name}": value.contiguous().clone()
            for part, module in parts.items()
            for name, value in module.state_dict().items()
        },
        items=table.with_columns(**vars(stats), **{STANDARD_PRICE: standard}),
        vectors=vectors.numpy(),
        item_part=item_part,
        relations=relations,
        facts={
            "data_fingerprint": f"random-{num_items}-{seed}",
            "text_dim": language.dim,
            "price_scale": [scale.mean, scale.deviation],
        },
        index=index,
    )


def _sessions(num: int, num_items: int, rng: np.random.Generator) -> Histories:
    """What `benchmarks.serving` asks with: any items, mostly viewed."""
    kinds, size = [EVENT_CODE[name] for name in ("view", "click", "purchase")], 20
    return Histories.joined(
        [
            Histories.of(
                rng.integers(num_items, size=size).tolist(),
                rng.choice(kinds, size=size, p=[0.6, 0.3, 0.1]).tolist(),
                list(range(0, size * 1_000_000, 1_000_000)),
                size * 1_000_000,
            )
            for _ in range(num)
        ]
    )


def _vectors(num: int, dim: int) -> torch.Tensor:
    """Directions in clusters, as a shop's items lie; the same clusters in every call."""
    centres = torch.randn(500, dim, generator=torch.Generator().manual_seed(0))
    spread = 0.6 * torch.randn(num, dim)
    return torch.nn.functional.normalize(centres[torch.randint(500, (num,))] + spread, dim=-1)


def _items(num_items: int, rng: np.random.Generator) -> pl.DataFrame:
    category = rng.integers(NUM_CATEGORIES, size=num_items)
    brand = rng.integers(NUM_BRANDS, size=num_items)
    columns = {
        Col.item: [item_id(row) for row in range(num_items)],
        Col.title: [f"thing {row} of kind {kind}" for row, kind in enumerate(category.tolist())],
        Col.category: [f"kind {kind}" for kind in category.tolist()],
        Col.brand: [f"brand {name}" for name in brand.tolist()],
        Col.price: np.exp(rng.normal(3, 1, num_items)),
    }
    empty = pl.DataFrame(ITEMS.empty_table())
    return pl.concat([empty, pl.DataFrame(columns)], how="diagonal_relaxed").select(ITEMS.names)


def _relation(num_items: int, rng: np.random.Generator) -> sparse.csr_array:
    size = num_items * NUM_RELATED
    columns = np.sort(
        rng.integers(num_items, size=(num_items, NUM_RELATED), dtype=np.int32), axis=1
    )
    weights = rng.random(size, dtype=np.float32)
    starts = np.arange(0, size + 1, NUM_RELATED, dtype=np.int64)
    matrix = sparse.csr_array((weights, columns.ravel(), starts), shape=(num_items, num_items))
    matrix.sum_duplicates()
    return matrix


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving.random_bundle",
        description="A random bundle, for timings.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--items", type=int, default=10_000, help="items (default: 10000)")
    return run_command(_run, parser.parse_args(argv))


def _run(options: argparse.Namespace) -> None:
    bundle = make_bundle(options.folder, make_recipe(options.folder.parent), options.items)
    print(f"wrote {bundle.version} to {bundle.folder}")


if __name__ == "__main__":
    sys.exit(main())
