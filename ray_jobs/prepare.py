"""Raw log -> prepared data: checked, pseudonymous, bucketed by user, cut by time.

    python -m ray_jobs.prepare --config recipes/demo.yaml

Each part of the log is split into user-hash buckets in storage; then one task builds one bucket's
histories. Ray Data shards and schedules, Polars works inside a shard, memory is bounded by the
bucket.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.common.cluster import connected
from recsys.config import Recipe, target_codes
from recsys.data.adapters import Part, Scan, open_adapter
from recsys.data.adapters.base import split_into_parts
from recsys.data.adapters.listing import told
from recsys.data.adapters.spellings import COUNTED, Spellings, added, spelling_warnings
from recsys.data.catalogue import (
    ITEMS_FILE,
    TEXTS_FILE,
    Catalogue,
    build_catalogue,
    catalogue_problem,
    check_items,
)
from recsys.data.checks import (
    drop_crowded_users,
    enforce_quarantine_limit,
    reasons,
    with_unreadable,
)
from recsys.data.feedback import (
    Feedback,
    count_rows,
    finished,
    group_rows,
    read_events,
    without_logged,
)
from recsys.data.histories import UserEvents, build_histories
from recsys.data.pseudonyms import key_check, load_key, pseudonymise
from recsys.data.time_split import ask
from recsys.errors import raise_all
from recsys.features.item_to_item import FILES, count_relations
from recsys.features.popularity import ItemStats, count_days, count_items
from recsys.preparation.coverage import Coverage, duplicates_told, window_problem
from recsys.preparation.intake import Intake
from recsys.preparation.prepared import (
    CATALOGUE_DIR,
    DAYS_FILE,
    HISTORIES_DIR,
    PREPARED,
    QUARANTINE_DIR,
    RELATIONS_DIR,
    STATS_FILE,
    SUMMARY_FILE,
    WINDOWS,
    cut_us,
)
from recsys.preparation.survey import survey
from recsys.schema import EVENTS, HISTORIES, Col
from recsys.state import Tombstone
from recsys.storage.matrices import save_matrix
from recsys.storage.outputs import whole_folder, write_json
from recsys.text.pretrained import fingerprint, load_tokenizer, locate, tokens_problem

FORMAT = 4
#: Column of the bucket files: whether the service took the event in, see `recsys.data.feedback`.
LIVE = "live"


def plan(recipe: Recipe) -> list[str]:
    """What a run would do and find; see `recsys.preparation.survey`.

    Raises:
        DataError: the run would be refused; one error for all the reasons there are.
    """
    found = survey(recipe)
    raise_all(found.problems)
    parts = found.scan.parts
    rows = sum(part.num_rows for part in parts)
    feedback = Feedback.of(recipe.root)
    live, erased = finished(feedback.events), feedback.erased()
    return [
        f"read {rows:,} rows in {len(parts)} parts ({recipe.data.adapter})",
        *(f"leave out {what}" for what in _left_out(found.scan.left_out)),
        *([f"read {count_rows(live):,} live events in {feedback.events}"] if live else []),
        *([f"leave out {len(erased):,} erased users"] if erased else []),
        *found.found,
        *(f"warn: {warning}" for warning in found.warnings),
        f"split them into {recipe.data.num_buckets} user buckets and build the histories",
        f"write {recipe.root / PREPARED}",
    ]


def run(recipe: Recipe) -> Path:
    """Prepare the recipe's log.

    Returns:
        The folder with the prepared data.

    Raises:
        DataError: the log or the catalogue cannot be used; nothing is written.
    """
    adapter = open_adapter(recipe.data)
    scan = adapter.scan()
    if scan.problems:
        raise scan.problems[0]  # a dry run tells them all
    key = load_key(recipe.privacy, recipe.root, create=True)
    with connected(recipe.ray), whole_folder(recipe.root / PREPARED) as out:
        for name in (HISTORIES_DIR, CATALOGUE_DIR, QUARANTINE_DIR, "buckets", "counts", "days"):
            (out / name).mkdir()
        items = adapter.read_items()
        catalogue = _write_catalogue(recipe, items.table, out)
        read = _split(recipe, key, out, scan.parts)
        build = _Build(recipe, out, max(row["latest_us"] for row in read) + 1)
        # By name: a folder that other nodes have just written into may be listed without them.
        files: list[list[str]] = [[] for _ in range(recipe.data.num_buckets)]
        for row in read:
            for number in row["buckets"]:
                files[number].append(f"{number:05d}/{row['order']:05d}.parquet")
        built = _each([{"bucket": b, "files": names} for b, names in enumerate(files)], build)
        shards = [str(out / HISTORIES_DIR / row["shard"]) for row in built if row["shard"]]
        _each([{"as_of": name} for name in cut_us(recipe.data.cuts)], _Relate(recipe, out, shards))
        _finish(recipe, out, catalogue, scan, items.num_superseded, read, built, key_check(key))
    return recipe.root / PREPARED


def _split(recipe: Recipe, key: bytes, out: Path, parts: list[Part]) -> list[dict[str, Any]]:
    """Bucket the log's parts and the live events, none of them an erased user's."""
    feedback = Feedback.of(recipe.root)
    with feedback.locked(exclusive=False):
        live = [
            part
            for path in finished(feedback.events)
            for part in split_into_parts(str(path), group_rows(path))
        ]
        sources = [(part, False) for part in parts] + [(part, True) for part in live]
        rows = [
            {"number": number, LIVE: is_live, **asdict(part)}
            for number, (part, is_live) in enumerate(sources)
        ]
        return _each(rows, _Split(recipe, key, out, int(time.time() * 1e6), feedback.erased()))


def _each(rows: list[dict[str, Any]], task: Any) -> list[dict[str, Any]]:
    """Run `task` on every row, one Ray Data task each; the results in the rows' order."""
    import ray.data

    numbered = [{"order": order, **row} for order, row in enumerate(rows)]
    done = ray.data.from_items(numbered, override_num_blocks=len(rows)).map(task).take_all()
    return sorted(done, key=lambda row: row["order"])


def _write_catalogue(recipe: Recipe, items: pl.DataFrame, out: Path) -> Catalogue:
    source = recipe.data.source or recipe.data.adapter
    good, bad = check_items(items, recipe.data.text_fields)
    limit = recipe.data.max_quarantine_fraction
    wrong = catalogue_problem(good, bad, limit, source=source, kept_at="the items table")
    if wrong:
        raise wrong
    bad = bad.with_columns(pl.lit(f"{source} (items)").alias(Col.source))
    bad.write_parquet(out / QUARANTINE_DIR / "items.parquet")
    language = locate(recipe.model.language_model)
    too_long = tokens_problem(language, recipe.data.max_tokens)
    if too_long:
        raise too_long
    tokenizer = load_tokenizer(language, recipe.data.max_tokens)
    numbered, texts = build_catalogue(good, tokenizer)
    numbered.write_parquet(out / CATALOGUE_DIR / ITEMS_FILE)
    texts.write_parquet(out / CATALOGUE_DIR / TEXTS_FILE)
    return Catalogue(numbered, texts)


@lru_cache(maxsize=2)
def _item_rows(path: Path, run_us: int) -> pl.DataFrame:
    """Item id -> row; read once a worker process and run."""
    return pl.read_parquet(path, columns=[Col.item, Col.item_row], glob=False)


@dataclass(frozen=True)
class _Split:
    """One part of the raw log, or of the live events -> bucket files and quarantine."""

    recipe: Recipe
    key: bytes
    out: Path
    now_us: int
    erased: dict[str, Tombstone]

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        data, live = self.recipe.data, row[LIVE]
        part = Part(row["path"], row["first_group"], row["last_group"], row["num_rows"])
        raw = (
            read_events(part.path, part.first_group, part.last_group)
            if live
            else open_adapter(data).read_events(part)
        )
        items = _item_rows(self.out / CATALOGUE_DIR / ITEMS_FILE, self.now_us)
        intake = Intake(data, self.key, self.erased, self.now_us)
        taken = intake.take(raw, known_items=items[Col.item], live=live)
        users = taken.ready[Col.user]
        bucket = users.str.slice(0, 8).str.to_integer(base=16, dtype=pl.Int64) % data.num_buckets
        ready = taken.ready.with_columns(bucket.alias("bucket"), pl.lit(live).alias(LIVE)).join(
            items, on=Col.item
        )
        buckets = ready.partition_by("bucket", as_dict=True)
        for (number,), frame in buckets.items():
            folder = self.out / "buckets" / f"{number:05d}"
            folder.mkdir(exist_ok=True)
            frame.drop("bucket").write_parquet(folder / f"{row['number']:05d}.parquet")
        quarantine = taken.bad.with_columns(
            pl.lit(part.path).alias(Col.source),
            # Session and request ids are often made of the user's, and a context may hold anything.
            *(
                pseudonymise(taken.bad[name], self.key).alias(name)
                for name in (Col.session, Col.request)
            ),
            pl.lit(None, pl.String).alias(Col.context),
        )
        quarantine.write_parquet(self.out / QUARANTINE_DIR / f"part-{row['number']:05d}.parquet")
        latest = (
            ready.select(pl.col(Col.timestamp).dt.epoch("us").max()).item() if ready.height else 0
        )
        return {
            "order": row["order"],
            "rows": raw.height,
            "left_out": taken.num_left_out,
            "erased": taken.num_erased,
            "live": raw.height if live else 0,
            "buckets": sorted(int(number) for (number,) in buckets),
            "latest_us": latest,
            "coverage": taken.coverage.to_json(),
            "spelled": json.dumps({name: asdict(each) for name, each in taken.spelled.items()}),
        }


@dataclass(frozen=True)
class _Build:
    """One bucket -> a shard of histories, item counts as of each cut, baskets in each window."""

    recipe: Recipe
    out: Path
    end_us: int

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        number = row["bucket"]
        files = [self.out / "buckets" / name for name in sorted(row["files"])]
        result = {"order": row["order"], "users": 0, "events": 0, "duplicates": 0}
        result |= {f"{window}_baskets": 0 for window in WINDOWS}
        result |= {"learnable": 0, "sha256": "", "shard": ""}
        if not files:
            return result
        events = pl.concat([pl.read_parquet(path, glob=False) for path in files])
        known = without_logged(events, LIVE)
        result["duplicates"] = events.height - known.height
        kept, crowded = drop_crowded_users(known, self.recipe.data.max_events_per_user)
        if crowded.height:
            crowded = with_unreadable(crowded.select(*EVENTS.names, Col.reason))
            crowded = crowded.with_columns(pl.lit("the whole log").alias(Col.source))
            crowded.write_parquet(self.out / QUARANTINE_DIR / f"users-{number:05d}.parquet")
        once = kept.unique([Col.user, Col.item, Col.event_type, Col.timestamp, Col.session])
        if once.is_empty():
            return result
        table = build_histories(once)
        path = self.out / HISTORIES_DIR / f"bucket-{number:05d}.parquet"
        pq.write_table(table, path, compression="zstd", write_page_checksum=True)
        users = UserEvents.from_arrow(table)
        codes = target_codes(self.recipe)
        cuts = cut_us(self.recipe.data.cuts)
        for name, moment in cuts.items():
            as_of = self.end_us if moment is None else moment
            counts = count_items(users, as_of, codes).with_columns(pl.lit(name).alias("as_of"))
            counts.write_parquet(self.out / "counts" / f"{number:05d}-{name}.parquet")
        count_days(users, codes).write_parquet(self.out / "days" / f"{number:05d}.parquet")
        for window, (start, end) in WINDOWS.items():
            asked = ask(users, start=cuts[start] or 0, end=cuts[end], target_codes=codes)
            result[f"{window}_baskets"] = len(asked)
        learned = ask(users.before(cuts["head"] or 0), start=0, end=None, target_codes=codes)
        result["learnable"] = int((learned.stops > learned.starts).sum())
        result |= {
            "users": len(users),
            "events": once.height,
            "duplicates": result["duplicates"] + kept.height - once.height,
        }
        result |= {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "shard": path.name}
        return result


@dataclass(frozen=True)
class _Relate:
    """All histories -> what goes with what, as of one cut."""

    recipe: Recipe
    out: Path
    shards: list[str]

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        tables = [HISTORIES.empty_table(), *(pq.read_table(path) for path in self.shards)]
        users = UserEvents.from_arrow(pa.concat_tables(tables))
        cut = cut_us(self.recipe.data.cuts)[row["as_of"]]
        items = pq.read_metadata(self.out / CATALOGUE_DIR / ITEMS_FILE).num_rows
        known = users if cut is None else users.before(cut)
        folder = self.out / RELATIONS_DIR / row["as_of"]
        folder.mkdir(parents=True)
        for name, matrix in count_relations(known, items, target_codes(self.recipe)).items():
            save_matrix(folder, FILES[name], matrix)
        return row


def _finish(
    recipe: Recipe,
    out: Path,
    catalogue: Catalogue,
    scan: Scan,
    num_superseded: int,
    read: list[dict[str, Any]],
    built: list[dict[str, Any]],
    check: str,
) -> None:
    """Gather the tasks' results, refuse a log nothing can be learned from, write the summary."""
    import shutil

    quarantined = [
        pl.read_parquet(path, glob=False)
        for path in sorted((out / QUARANTINE_DIR).glob("*.parquet"))
        if path.name != "items.parquet"
    ]
    num_rows = sum(row["rows"] for row in read)
    enforce_quarantine_limit(
        pl.concat(
            [
                frame.select(*EVENTS.names, Col.unreadable, Col.reason, Col.source)
                for frame in quarantined
            ]
        ),
        num_rows,
        recipe.data.max_quarantine_fraction,
        what="events",
        kept_at=_keep_quarantine(recipe, out),
    )
    num_quarantined = sum(frame.height for frame in quarantined)
    counts = {
        "rows": num_rows,
        "left_out": sum(row["left_out"] for row in read),
        "live": sum(row["live"] for row in read),
        "erased": sum(row["erased"] for row in read),
        "items": catalogue.num_items,
        "superseded": num_superseded,
        "texts": catalogue.num_texts,
        **{
            name: sum(row[name] for row in built)
            for name in (
                "users",
                "events",
                "duplicates",
                *(f"{window}_baskets" for window in WINDOWS),
            )
        },
    }
    accounted = num_quarantined + sum(
        counts[name] for name in ("left_out", "erased", "events", "duplicates")
    )
    assert accounted == num_rows, f"{num_rows} rows were read, {accounted} are accounted for"
    coverage = Coverage.merged([Coverage.from_json(row["coverage"]) for row in read])
    unusable = window_problem(
        coverage, recipe.data, {window: counts[f"{window}_baskets"] for window in WINDOWS},
        learnable=sum(row["learnable"] for row in built),
        source=recipe.data.source or recipe.data.adapter,
    )  # fmt: skip
    if unusable:
        raise unusable
    partial = pl.concat(
        [pl.read_parquet(path, glob=False) for path in sorted((out / "counts").iterdir())]
    )
    stats = partial.group_by("as_of", Col.item_row).agg(
        pl.col([field.name for field in fields(ItemStats)]).sum()
    )
    stats.sort("as_of", Col.item_row).write_parquet(out / STATS_FILE)
    days = pl.concat([pl.read_parquet(p, glob=False) for p in sorted((out / "days").iterdir())])
    days = days.group_by("day", Col.item_row).sum().sort("day", Col.item_row)
    days.write_parquet(out / DAYS_FILE)
    spelled = [json.loads(row["spelled"]) for row in read]
    totals = {
        name: added([Spellings(**each[name]) for each in spelled if name in each])
        for name in COUNTED
    }
    digest = hashlib.sha256("".join(row["sha256"] for row in built).encode())
    digest.update(catalogue.fingerprint.encode())
    cuts = cut_us(recipe.data.cuts)
    end = recipe.data.cuts.end
    summary = {
        "format": FORMAT,
        "recipe": recipe.resolved(),
        "recipe_hash": recipe.fingerprint(),
        "data_fingerprint": digest.hexdigest()[:16],
        "catalogue_fingerprint": catalogue.fingerprint,
        "key_check": check,
        "language_model": fingerprint(locate(recipe.model.language_model)),
        "cuts_us": cuts | {"end": int(end.timestamp() * 1e6) if end else None},
        "counts": counts,
        "left_out_files": scan.left_out,
        "event_types": coverage.types,
        "log_us": [coverage.first_us, coverage.last_us],
        "warnings": scan.warnings + spelling_warnings(scan.id_files, totals),
        "quarantined": reasons(quarantined),
    }
    write_json(out / SUMMARY_FILE, summary)
    for name in ("buckets", "counts", "days"):
        shutil.rmtree(out / name)


def _left_out(left_out: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Files that were no data, table by table, in words."""
    return [f"in {table}: {told(whys)}" for table, whys in left_out.items() if whys]


def _keep_quarantine(recipe: Recipe, out: Path) -> Path:
    """Copy the quarantine beside the output, so that it outlives a run that is refused."""
    import shutil

    kept = recipe.root / QUARANTINE_DIR
    with whole_folder(kept) as aside:
        shutil.copytree(out / QUARANTINE_DIR, aside, dirs_exist_ok=True)
    return kept


def report(recipe: Recipe) -> list[str]:
    """What a finished run made."""
    from recsys.preparation.prepared import Prepared

    prepared = Prepared.open(recipe.root)
    counts = prepared.summary["counts"]
    lines = [
        f"{counts['events']:,} events of {counts['users']:,} users, {counts['items']:,} items with "
        f"{counts['texts']:,} distinct texts",
        f"baskets: head {counts['head_baskets']:,}, valid {counts['valid_baskets']:,}, "
        f"test {counts['test_baskets']:,}",
    ]
    lines += duplicates_told(counts["duplicates"], counts["events"])
    if counts["superseded"]:
        lines.append(f"{counts['superseded']:,} rows of items superseded by newer ones")
    if counts["live"]:
        lines.append(f"{counts['live']:,} of the rows were taken in by the service")
    if counts["erased"]:
        lines.append(f"{counts['erased']:,} rows of erased users left out")
    lines += [f"left out {what}" for what in _left_out(prepared.summary["left_out_files"])]
    if prepared.summary["quarantined"]:
        lines.append(f"quarantined: {prepared.summary['quarantined']} (in {QUARANTINE_DIR}/)")
    return lines + [f"warning: {warning}" for warning in prepared.summary["warnings"]]


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("prepare")
