"""The end of a preparation: the tasks' results are gathered, judged, and summed up."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recsys.config import Recipe
from recsys.data.adapters import Scan
from recsys.data.adapters.spellings import COUNTED, Spellings, added, spelling_warnings
from recsys.data.catalogue import Catalogue
from recsys.data.checks import examples_of, quarantine_problem, reasons
from recsys.preparation.build import CROWDED_FILE, SHARD_FILE
from recsys.preparation.coverage import Coverage, window_problem
from recsys.preparation.kept import Kept
from recsys.preparation.prepared import (
    HISTORIES_DIR,
    QUARANTINE_DIR,
    SUMMARY_FILE,
    WINDOWS,
    cut_us,
)
from recsys.preparation.split import PART_QUARANTINE
from recsys.preparation.statistics import write_statistics
from recsys.storage.outputs import write_json
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


def finish(recipe: Recipe, out: Path, kept: Kept, results: Results) -> None:
    """Refuse a log nothing can be learned from; write histories, statistics and the summary.

    Args:
        recipe: of the run.
        out: folder of the prepared data.
        kept: the parts and the buckets.
        results: what they came to.

    Raises:
        DataError: too many rows are in quarantine, or a window holds no basket.
    """
    _gather(out, kept, results)
    quarantined = _quarantined(recipe, out, sum(row["rows"] for row in results.split))
    counts = _counts(results, sum(quarantined.values()))
    parts = [Coverage.from_json(row["coverage"]) for row in results.split]
    coverage = Coverage.merged([each.by_cuts_of(recipe.data) for each in parts])
    unusable = window_problem(
        coverage, recipe.data, {window: counts[f"{window}_baskets"] for window in WINDOWS},
        learnable=sum(row["learnable"] for row in results.built),
        source=recipe.data.source or recipe.data.adapter,
    )  # fmt: skip
    if unusable:
        raise unusable
    buckets = [kept.buckets / row["key"] for row in results.built if row["users"]]
    write_statistics(out, buckets, results.catalogue.num_items)
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
        "quarantined": dict(sorted(quarantined.items())),
    }
    write_json(out / SUMMARY_FILE, summary)


def _gather(out: Path, kept: Kept, results: Results) -> None:
    """Copy the histories of the buckets, and the quarantine of both passes."""
    parts, buckets = ([base / row["key"] for row in rows] for base, rows in (
        (kept.parts, results.split), (kept.buckets, results.built)))  # fmt: skip
    kept.bring(parts, lambda name: name == PART_QUARANTINE)
    kept.bring(buckets, lambda name: "/" not in name)  # all but the pairs
    for number, row in enumerate(results.split):
        quarantine = kept.parts / row["key"] / PART_QUARANTINE
        shutil.copyfile(quarantine, out / QUARANTINE_DIR / f"part-{number:05d}.parquet")
    for number, row in enumerate(results.built):
        files = {SHARD_FILE: out / HISTORIES_DIR / f"bucket-{number:05d}.parquet",
                 CROWDED_FILE: out / QUARANTINE_DIR / f"users-{number:05d}.parquet"}  # fmt: skip
        for name, target in files.items():
            if (source := kept.buckets / row["key"] / name).is_file():
                shutil.copyfile(source, target)


def _quarantined(recipe: Recipe, out: Path, num_rows: int) -> Counter[str]:
    """Events in quarantine by reason, a file in memory at a time.

    Raises:
        DataError: the log is mostly unusable.
    """
    counts: Counter[str] = Counter()
    examples: dict[str, pl.DataFrame] = {}
    for path in sorted((out / QUARANTINE_DIR).glob("*.parquet")):
        if path.name != "items.parquet":
            frame = pl.read_parquet(path, glob=False)
            counts.update(reasons([frame]))
            examples = examples_of(frame) | examples
    problem = quarantine_problem(
        counts, examples, num_rows, recipe.data.max_quarantine_fraction, what="events",
        kept_at=_keep_quarantine(recipe, out),
    )  # fmt: skip
    if problem:
        raise problem
    return counts


def _keep_quarantine(recipe: Recipe, out: Path) -> Path:
    """Copy the quarantine beside the output, so that it outlives a run that is refused."""
    kept = recipe.root / QUARANTINE_DIR
    with recipe.shared.whole(kept) as aside:
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
