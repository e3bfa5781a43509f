"""The end of a preparation: the tasks' results are gathered, judged, and summed up."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import polars as pl

from recsys.config import Recipe
from recsys.data.adapters import Scan
from recsys.data.adapters.spellings import COUNTED, Spellings, added, spelling_warnings
from recsys.data.catalogue import Catalogue
from recsys.data.checks import enforce_quarantine_limit, reasons
from recsys.features.popularity import ItemStats
from recsys.preparation.coverage import Coverage, window_problem
from recsys.preparation.prepared import (
    BUCKETS_DIR,
    COUNTS_DIR,
    DAYS_DIR,
    DAYS_FILE,
    QUARANTINE_DIR,
    STATS_FILE,
    SUMMARY_FILE,
    WINDOWS,
    cut_us,
)
from recsys.schema import EVENTS, Col
from recsys.storage.outputs import whole_folder, write_json
from recsys.text.pretrained import fingerprint, locate

FORMAT = 4

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Results:
    """What the tasks of a preparation came to.

    Attributes:
        catalogue: of the items.
        scan: of the log.
        num_superseded: rows of items that newer ones replace.
        split: of each part, see `Split`.
        built: of each bucket, see `Build`.
        key_check: of the pseudonym key.
    """

    catalogue: Catalogue
    scan: Scan
    num_superseded: int
    split: Rows
    built: Rows
    key_check: str


def finish(recipe: Recipe, out: Path, results: Results) -> None:
    """Refuse a log nothing can be learned from; write statistics and the summary.

    Raises:
        DataError: too many rows are in quarantine, or a window holds no basket.
    """
    quarantined = _quarantined(recipe, out, sum(row["rows"] for row in results.split))
    counts = _counts(results, sum(frame.height for frame in quarantined))
    coverage = Coverage.merged([Coverage.from_json(row["coverage"]) for row in results.split])
    unusable = window_problem(
        coverage, recipe.data, {window: counts[f"{window}_baskets"] for window in WINDOWS},
        learnable=sum(row["learnable"] for row in results.built),
        source=recipe.data.source or recipe.data.adapter,
    )  # fmt: skip
    if unusable:
        raise unusable
    _write_statistics(out)
    end = recipe.data.cuts.end
    summary = {
        "format": FORMAT,
        "recipe": recipe.resolved(),
        "recipe_hash": recipe.fingerprint(),
        "data_fingerprint": _data_fingerprint(results),
        "catalogue_fingerprint": results.catalogue.fingerprint,
        "key_check": results.key_check,
        "language_model": fingerprint(locate(recipe.model.language_model)),
        "cuts_us": cut_us(recipe.data.cuts) | {"end": int(end.timestamp() * 1e6) if end else None},
        "counts": counts,
        "left_out_files": results.scan.left_out,
        "event_types": coverage.types,
        "log_us": [coverage.first_us, coverage.last_us],
        "warnings": results.scan.warnings + _spelling_warnings(results),
        "quarantined": reasons(quarantined),
    }
    write_json(out / SUMMARY_FILE, summary)
    for name in (BUCKETS_DIR, COUNTS_DIR, DAYS_DIR):
        shutil.rmtree(out / name)


def _quarantined(recipe: Recipe, out: Path, num_rows: int) -> list[pl.DataFrame]:
    """The events in quarantine, file by file; a log that is mostly unusable is refused."""
    frames = [
        pl.read_parquet(path, glob=False)
        for path in sorted((out / QUARANTINE_DIR).glob("*.parquet"))
        if path.name != "items.parquet"
    ]
    columns = (*EVENTS.names, Col.unreadable, Col.reason, Col.source)
    enforce_quarantine_limit(
        pl.concat([frame.select(columns) for frame in frames]),
        num_rows,
        recipe.data.max_quarantine_fraction,
        what="events",
        kept_at=_keep_quarantine(recipe, out),
    )
    return frames


def _keep_quarantine(recipe: Recipe, out: Path) -> Path:
    """Copy the quarantine beside the output, so that it outlives a run that is refused."""
    kept = recipe.root / QUARANTINE_DIR
    with whole_folder(kept) as aside:
        shutil.copytree(out / QUARANTINE_DIR, aside, dirs_exist_ok=True)
    return kept


def _counts(results: Results, num_quarantined: int) -> dict[str, int]:
    """Rows, users, items and baskets by name; every row that was read is accounted for."""
    of_parts = {
        name: sum(row[name] for row in results.split)
        for name in ("rows", "left_out", "live", "erased")
    }
    of_buckets = {
        name: sum(row[name] for row in results.built)
        for name in ("users", "events", "duplicates", *(f"{window}_baskets" for window in WINDOWS))
    }
    counts = {
        **of_parts,
        "items": results.catalogue.num_items,
        "superseded": results.num_superseded,
        "texts": results.catalogue.num_texts,
        **of_buckets,
    }
    kinds = ("left_out", "erased", "events", "duplicates")
    accounted = num_quarantined + sum(counts[name] for name in kinds)
    num_rows = counts["rows"]
    assert accounted == num_rows, f"{num_rows} rows were read, {accounted} are accounted for"
    return counts


def _write_statistics(out: Path) -> None:
    """Add up the buckets' item counts: as of each cut, and day by day."""
    partial = pl.concat(
        [pl.read_parquet(path, glob=False) for path in sorted((out / COUNTS_DIR).iterdir())]
    )
    stats = partial.group_by("as_of", Col.item_row).agg(
        pl.col([field.name for field in fields(ItemStats)]).sum()
    )
    stats.sort("as_of", Col.item_row).write_parquet(out / STATS_FILE)
    days = pl.concat([pl.read_parquet(p, glob=False) for p in sorted((out / DAYS_DIR).iterdir())])
    days = days.group_by("day", Col.item_row).sum().sort("day", Col.item_row)
    days.write_parquet(out / DAYS_FILE)


def _spelling_warnings(results: Results) -> list[str]:
    spelled = [json.loads(row["spelled"]) for row in results.split]
    totals = {
        name: added([Spellings(**each[name]) for each in spelled if name in each])
        for name in COUNTED
    }
    return spelling_warnings(results.scan.id_files, totals)


def _data_fingerprint(results: Results) -> str:
    """Of histories and catalogue; 16 hex digits."""
    digest = hashlib.sha256("".join(row["sha256"] for row in results.built).encode())
    digest.update(results.catalogue.fingerprint.encode())
    return digest.hexdigest()[:16]
