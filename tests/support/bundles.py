"""Small real bundles: a two-layer language model, 300 items, random weights."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import polars as pl
import torch
from scipy import sparse
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from recsys.artifacts.bundle import (
    BUNDLE,
    INDEX_DIR,
    ITEM_PART,
    STANDARD_PRICE,
    Bundle,
)
from recsys.artifacts.bundle_writing import write_bundle
from recsys.config import Recipe, recipe_from_dict, target_codes
from recsys.data.catalogue import prices_of
from recsys.features.item_fields import ItemFields
from recsys.features.item_to_item import Relations
from recsys.features.popularity import ItemStats
from recsys.features.side_features import PriceScale, item_features
from recsys.model.item_encoder import ItemEncoder
from recsys.model.language import LanguageModel
from recsys.model.ranking_head import ScoringHead
from recsys.model.user_encoder import UserEncoder
from recsys.outcome_heads.served import ServedHeads
from recsys.ranking.scorer import Scorer
from recsys.schema import ITEMS, Col
from recsys.storage.outputs import write_json
from recsys.storage.seals import file_sha256, sealed
from recsys.text.pretrained import TOKENIZER

NUM_ITEMS = 300
#: Of the pseudonyms.
KEY = "0123456789abcdef0123456789abcdef"
COLOURS, THINGS = ("red", "green", "blue", "black", "white"), ("cup", "lamp", "shoe", "pen", "bag")
BRANDS = ("acme", "globex", "initech")
#: The item that the catalogue holds and the shop has run out of.
SOLD_OUT = "item-0299"


def item_id(row: int) -> str:
    return f"item-{row:04d}"


def make_language_model(folder: Path) -> Path:
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "a",
        "new",
        "item",
        ",",
        *COLOURS,
        *THINGS,
        *BRANDS,
    ]
    words += [str(number) for number in range(NUM_ITEMS)]
    words += ["[MASK]"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save(str(folder / TOKENIZER))
    return folder


def make_recipe(root: Path, language_model: Path, **sections: object) -> Recipe:
    return recipe_from_dict(
        {
            "name": "tiny",
            "run_dir": str(root),
            "data": {
                "source": str(root / "log"),
                "cuts": {"valid": "2026-01-01", "test": "2026-02-01"},
                "event_types": {"buy": "purchase", "ping": None},
            },
            "model": {
                "language_model": str(language_model), "dim": 16, "num_layers": 1, "num_heads": 2,
            },
            **sections,
        }
    )  # fmt: skip


def make_items() -> pl.DataFrame:
    rows = range(NUM_ITEMS)
    return pl.DataFrame(
        {
            Col.item: [item_id(row) for row in rows],
            Col.title: [f"{COLOURS[row % 5]} {THINGS[row // 5 % 5]} {row}" for row in rows],
            Col.description: [None for _ in rows],
            Col.brand: [BRANDS[row % 3] for row in rows],
            Col.category: [THINGS[row // 5 % 5] for row in rows],
            Col.tags: [None for _ in rows],
            Col.price: [None if row % 50 == 7 else float(1 + row) for row in rows],
            Col.available_from: [None for _ in rows],
            Col.available: [item_id(row) != SOLD_OUT for row in rows],
        },
        schema=pl.DataFrame(ITEMS.empty_table()).schema,
    ).select(ITEMS.names)


def version_in(folder: Path) -> str:
    """The version that a folder says it holds, verified or not; any name if it holds none."""
    try:
        return str(json.loads((folder / "bundle.json").read_text())["version"])
    except FileNotFoundError:
        return "gone"


def diverge(folder: Path) -> Path:
    """Make a bundle's scores NaN and its hashes fit: the folder is whole, the model is not."""
    part = folder / INDEX_DIR / ITEM_PART
    np.save(part, np.full_like(np.load(part), np.nan))
    meta = json.loads((folder / BUNDLE).read_text())
    meta["files"][f"{INDEX_DIR}/{ITEM_PART}"] = file_sha256(part)
    meta["version"] += "-diverged"
    write_json(folder / BUNDLE, sealed(meta))
    return folder


def random_relations(seed: int) -> Relations:
    rng = np.random.default_rng(seed)
    weights = rng.random((3, NUM_ITEMS, NUM_ITEMS)).astype(np.float32)
    return Relations(*(sparse.csr_array(np.where(each < 0.03, each, 0)) for each in weights))


def make_bundle(
    target: Path,
    recipe: Recipe,
    *,
    seed: int,
    data_fingerprint: str = "none",
    items: pl.DataFrame | None = None,
    outcomes: ServedHeads | None = None,
    **facts: object,
) -> Bundle:
    """A bundle whose weights depend on the seed."""
    torch.manual_seed(seed)
    model, table = recipe.model, make_items() if items is None else items
    language = LanguageModel(Path(model.language_model), model.tuning, model.last_n)
    of_items = ItemFields.of(table, model.item_fields)
    items = ItemEncoder(language.dim, model.dim, 1, of_items.num_rows, 0.0)
    users = UserEncoder(model.dim, model.num_layers, model.num_heads, 0.0)
    head = ScoringHead(model.temperature)
    with torch.no_grad():
        head.item.weight[0, 0] = 1.0
        for network in (head.own, head.related):
            torch.nn.init.normal_(network[-1].weight, std=0.3)
        torch.nn.init.normal_(items.fields.weight[1:], std=0.3)
        rows = torch.from_numpy(of_items.rows(table))
        vectors = items.without_ids(torch.randn(NUM_ITEMS, language.dim), rows)
    counts = np.arange(NUM_ITEMS, 0, -1)
    stats = ItemStats(*(counts for _ in fields(ItemStats)))
    prices = prices_of(table)
    scale = PriceScale.fit(prices)
    standard = scale.standard(prices)
    scorer = Scorer.build(
        users, head, vectors, item_features(stats, standard), standard,
        random_relations(seed), target_codes(recipe), model.max_history,
    )  # fmt: skip
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
        item_part=scorer.item_part.numpy(),
        relations=scorer.relations,
        facts={
            "data_fingerprint": data_fingerprint,
            "text_dim": language.dim,
            "price_scale": [scale.mean, scale.deviation],
            "seed": seed,
            **facts,
        },
        outcomes=outcomes and outcomes.with_scores(scorer.item_part.numpy()[:, -1]),
    )
