"""A small generated log with tastes in it, a small language model, and the recipe on both."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.rehearsal.host import WORK
from benchmarks.rehearsal.servers import BUCKET
from recsys.schema import Col
from recsys.text.pretrained import TOKENIZER

FIRST_DAY, NUM_DAYS = dt.datetime(2026, 1, 1, tzinfo=dt.UTC), 90
CUTS = {"head": 50, "valid": 64, "test": 77}
NUM_ITEMS = 200
COLOURS, THINGS = ("red", "green", "blue", "black", "white"), ("cup", "lamp", "shoe", "pen", "bag")
#: Where the log and what the service gives back lie, and the language model on each host.
LOG, FEEDBACK = f"s3://{BUCKET}/log", f"s3://{BUCKET}/feedback"
LANGUAGE_DIR = "language"


def write_log(folder: Path, num_users: int, seed: int = 0) -> int:
    """Write the log, in a file of events for each month; returns how many events it has.

    People come every few days, look at four items and buy others, mostly of a colour or a kind that
    they like.
    """
    rng = np.random.default_rng(seed)
    rows = np.arange(NUM_ITEMS)
    colours, things = rows % 5, rows // 5 % 5
    events: list[tuple[str, str, str, dt.datetime, str]] = []
    for user in range(num_users):
        likes = (things == rng.integers(5)) | (colours == rng.integers(5))
        weights = np.where(likes, 8.0, 0.5)
        day, visit = rng.uniform(0, 6), 0
        while day < NUM_DAYS:
            chosen = rng.choice(NUM_ITEMS, size=7, replace=False, p=weights / weights.sum())
            at = FIRST_DAY + dt.timedelta(hours=round(24 * day))
            session = f"visit-{user}-{visit}"
            for place, row in enumerate(chosen[:4].tolist()):
                looked = at - dt.timedelta(minutes=10 - place)
                events.append((f"user-{user}", item_id(row), "view", looked, session))
            for row in chosen[4 : 5 + rng.integers(3)].tolist():
                events.append((f"user-{user}", item_id(row), "purchase", at, session))
            day, visit = day + rng.uniform(2, 8), visit + 1
    names = [Col.user, Col.item, Col.event_type, Col.timestamp, Col.session]
    table = pl.DataFrame(events, schema=names, orient="row").with_columns(
        pl.col(Col.timestamp).cast(pl.Datetime("us", "UTC"))
    )
    (folder / "events").mkdir(parents=True)
    for (month,), part in table.group_by(pl.col(Col.timestamp).dt.month()):
        part.write_parquet(folder / "events" / f"month-{month}.parquet")
    titles = [f"{COLOURS[row % 5]} {THINGS[row // 5 % 5]} {row}" for row in rows.tolist()]
    items = pl.DataFrame({Col.item: [item_id(row) for row in rows.tolist()], Col.title: titles})
    items.write_parquet(folder / "items.parquet")
    return table.height


def item_id(row: int) -> str:
    """The id of an item."""
    return f"item-{row:04d}"


def write_language_model(folder: Path) -> None:
    """Write a BERT of two layers with random weights, and a tokenizer of the titles' words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *COLOURS, *THINGS]
    words += [str(row) for row in range(NUM_ITEMS)]
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    folder.mkdir(parents=True)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save(str(folder / TOKENIZER))


def recipe(*, run_dir: str, registry: str, epochs: int) -> dict[str, Any]:
    """The recipe as plain data.

    Args:
        run_dir: path or URI.
        registry: likewise.
        epochs: of the training, all of which are trained.
    """
    return {
        "name": "rehearsal",
        "run_dir": run_dir,
        "data": {
            "source": LOG,
            "cuts": {name: FIRST_DAY + dt.timedelta(days=day) for name, day in CUTS.items()},
            "max_tokens": 16,
            "num_buckets": 4,
        },
        "model": {
            "language_model": str(WORK / LANGUAGE_DIR),
            "dim": 16, "num_layers": 1, "num_heads": 2, "max_history": 32,
        },
        "train": {
            "num_workers": 2, "epochs": epochs, "patience": epochs, "batch_size": 4,
            "fresh_texts_per_step": 16, "checkpoint_minutes": 0.1,
        },
        "embed": {"num_actors": 2},
        "evaluate": {"num_actors": 2, "num_bootstrap": 50},
        "promote": {"registry": registry},
        "storage": {"feedback": FEEDBACK},
        "serve": {
            "host": "0.0.0.0",
            "state": {"backend": "redis"},
            "autoscaling": {"min_replicas": 2, "max_replicas": 2},
        },
        "ray": {"address": "auto"},
    }  # fmt: skip
