"""The exposures of a run, made anew where something came: the steps, whatever runs their tasks.

    joined/parts/{key}/     rows of a part of the log, of live events or of answered lists, by
                            bucket of their requests, or of their users where they name none
    joined/requests/{key}/  the rows of a bucket of requests, joined, by bucket of their owners
    joined/buckets/{key}/   the exposures of a bucket of owners by day, and their items' counts
    joined/totals/{key}/    counts of items as of the days that they were shown on
    joined/days/{key}/      the exposures of a day

The pieces are kept as those of `prepare` are, see `preparation.kept`: each is named by all that it
is made of. So a file of the log that did not change is not read again, and of an event that comes
late the files of those days alone are written anew that it changes. Two shuffles go through
storage: the sender of an event need not be the user that its list was answered to.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pyarrow import fs

from recsys.config import Recipe
from recsys.data.adapters import Part, open_adapter
from recsys.data.adapters.base import Adapter, split_into_parts
from recsys.data.adapters.listing import file_version
from recsys.data.feedback import Feedback, finished, group_rows
from recsys.data.pseudonyms import key_check, load_key
from recsys.errors import raise_all
from recsys.outcomes.attribution import DOUBLE_EXPOSURES, WAYS
from recsys.outcomes.tasks import (
    EVENTS_KIND,
    FORMAT,
    LISTS_KIND,
    LOG_KIND,
    AddItems,
    JoinRequests,
    JoinUsers,
    SplitRows,
    WriteDay,
    day_file,
    of_requests,
    of_users,
)
from recsys.preparation.kept import Kept, part_key
from recsys.preparation.memory import buckets_of
from recsys.preparation.preparing import Rows, RunTasks, Task, one_by_one
from recsys.preparation.stored import kept_of
from recsys.storage.outputs import place, write_json
from recsys.storage.reading import read_json
from recsys.storage.seals import json_sha256

#: Folder of the exposures in a run's, of the pieces, and the file of the counts.
EXPOSURES_DIR: Final = "exposures"
JOINED_DIR: Final = "joined"
SUMMARY_FILE: Final = "exposures.json"
_KINDS: Final = ("parts", "requests", "buckets", "totals", "days")
_FIX: Final = "run `recsys exposures` again"


def join_exposures(recipe: Recipe, tasks: AbstractContextManager[RunTasks] | None = None) -> Path:
    """Join what was shown to what came of it.

    Args:
        recipe: names the log, the window, the key.
        tasks: as in `preparing.prepare`.

    Returns:
        The folder with a file a UTC day and the counts; whole, or what it was.

    Raises:
        DataError: the log cannot be used, or there is no pseudonym key yet.
    """
    adapter = open_adapter(recipe.data)
    scan = adapter.scan()
    raise_all(scan.problems)
    key = load_key(recipe.privacy, recipe.root, create=False)
    folder = recipe.root / EXPOSURES_DIR
    kept = kept_of(recipe, JOINED_DIR, job=EXPOSURES_DIR, kinds=_KINDS)
    with (
        tasks or nullcontext(one_by_one) as run_tasks,
        kept.locked(),
        recipe.shared.whole(folder) as out,
    ):
        steps = _Steps(recipe, key, kept, run_tasks)
        split = steps.split(adapter, scan.parts)
        asked = steps.join_requests(split)
        joined = steps.join_users(split, asked)
        totals, days = steps.write_days(joined)
        summary = {
            "format": FORMAT,
            "key_check": key_check(key),
            "attribution_window_h": recipe.data.attribution_window_h,
            "counts": _counts([*split, *asked, *joined]),
            "days": {row["day"]: row["counts"] for row in days},
        }
        write_json(out / SUMMARY_FILE, summary)
        names = {day_file(row["day"]) for row in days}
        kept.bring([kept.folder / "days" / row["key"] for row in days], names.__contains__)
        for row in days:
            name = day_file(row["day"])
            place(kept.folder / "days" / row["key"] / name, out / name)
        used = [row["key"] for row in (*split, *asked, *joined, *totals, *days)]
        kept.keep_only(used)
    return folder


def read_summary(folder: Path) -> dict[str, Any]:
    """`exposures.json` of a folder of exposures.

    Raises:
        DataError: it is missing or broken.
    """
    kinds = {"counts": dict, "days": dict}
    return read_json(folder / SUMMARY_FILE, _FIX, kinds)


def sources_of(feedback: Feedback) -> list[tuple[Path, str]]:
    """Files of what the service gave back, and the kind of each."""
    return [
        *((path, EVENTS_KIND) for path in finished(feedback.events)),
        *((path, LISTS_KIND) for path in finished(feedback.impressions)),
    ]


@dataclass
class _Steps:
    """The steps that tasks do; for the attributes see `join_exposures`."""

    recipe: Recipe
    key: bytes
    kept: Kept
    run_tasks: RunTasks
    num_buckets: int = 0

    def split(self, adapter: Adapter, parts: list[Part]) -> Rows:
        """Bucket the rows of log and feedback, none of them an erased user's."""
        feedback = Feedback.of(self.recipe.root)
        with feedback.locked(exclusive=False):
            erased = feedback.erased()
            self.kept.forget(erased)
            sources = [(part, adapter.version(part.path), LOG_KIND) for part in parts]
            for path, kind in sources_of(feedback):
                version = file_version(fs.LocalFileSystem().get_file_info(str(path)))
                found = split_into_parts(str(path), group_rows(path))
                sources += [(part, version, kind) for part in found]
            data = self.recipe.data
            self.num_buckets = buckets_of(data, sum(part.num_rows for part, _, _ in sources))
            settings = data.model_dump(mode="json", include={"adapter", "columns", "event_types"})
            common = json_sha256([FORMAT, settings, key_check(self.key), self.num_buckets])
            rows = [
                {"kind": kind, "key": part_key(part, version, kind != LOG_KIND, common),
                 **asdict(part)}
                for part, version, kind in sources
            ]  # fmt: skip
            latest_us = int(time.time() * 1e6) + data.max_clock_skew_s * 1_000_000
            for row in rows:
                self.kept.drop_outdated(row["key"], latest_us)
            task = SplitRows(self.recipe, self.key, self.kept, self.num_buckets, latest_us, erased)
            return self._each("parts", rows, task)

    def join_requests(self, split: Rows) -> Rows:
        """Join each bucket of requests."""
        files = [self._files("parts", split, "requests", at) for at in range(self.num_buckets)]
        return self._buckets("requests", files, JoinRequests(self.kept, self.num_buckets))

    def join_users(self, split: Rows, asked: Rows) -> Rows:
        """Join what is left, a bucket of owners a task."""
        files = [
            self._files("parts", split, "users", at) + self._files("requests", asked, "users", at)
            for at in range(self.num_buckets)
        ]
        window_h = self.recipe.data.attribution_window_h
        return self._buckets("buckets", files, JoinUsers(self.kept, window_h))

    def write_days(self, joined: Rows) -> tuple[Rows, Rows]:
        """Count the items, and write the exposures of each day; both with their keys."""
        buckets = [[row["key"], row["items"]] for row in joined]
        total = {"key": _key("totals", buckets), "buckets": [key for key, _ in buckets]}
        totals = self._each("totals", [total], AddItems(self.kept))
        files: dict[str, list[list[str]]] = {}
        for row in joined:
            for day, sha256 in row["days"].items():
                files.setdefault(day, []).append([sha256, f"buckets/{row['key']}/{day_file(day)}"])
        rows = [
            {"day": day, "files": [name for _, name in files[day]], "totals": total["key"],
             "key": _key("days", [day, [sha256 for sha256, _ in files[day]],
                                  totals[0]["days"][day]])}
            for day in sorted(files)
        ]  # fmt: skip
        return totals, self._each("days", rows, WriteDay(self.kept)) if rows else []

    def _files(self, kind: str, rows: Rows, by: str, number: int) -> list[list[str]]:
        """Hash and name of each file that holds rows of a bucket."""
        name = of_requests(number) if by == "requests" else of_users(number)
        return [
            [row[by][str(number)], f"{kind}/{row['key']}/{name}"]
            for row in rows
            if str(number) in row[by]
        ]

    def _buckets(self, kind: str, files: list[list[list[str]]], task: Task) -> Rows:
        """The results of the buckets that have files."""
        window_h = self.recipe.data.attribution_window_h if kind == "buckets" else None
        rows = [
            {"files": [name for _, name in named],
             "key": _key(kind, [window_h, self.num_buckets, at, [sha256 for sha256, _ in named]])}
            for at, named in enumerate(files) if named
        ]  # fmt: skip
        return self._each(kind, rows, task)

    def _each(self, kind: str, rows: Rows, task: Task) -> Rows:
        """The results of all pieces, with their rows; a task makes each that is not kept."""
        folder = self.kept.folder / kind
        new = [row for row in rows if not self.kept.is_made(folder / row["key"])]
        if new:
            self.run_tasks(new, task)
        results = self.kept.read_results([folder / row["key"] for row in rows])
        return [{**result, **row} for row, result in zip(rows, results, strict=True)]


def _key(kind: str, facts: list[Any]) -> str:
    return json_sha256([FORMAT, kind, facts])[:32]


def _counts(pieces: Rows) -> dict[str, int]:
    """What came in and where it went; every exposure and every outcome is accounted for."""
    counts = sum((Counter(row["counts"]) for row in pieces), Counter[str]())
    in_, outcomes = counts["exposures_in"], counts["outcomes_in"]
    out = counts["exposures"] + counts[DOUBLE_EXPOSURES]
    ways = sum(counts[way] for way in WAYS)
    assert in_ == out, f"{in_} exposures came in, {out} are accounted for"
    assert outcomes == ways, f"{outcomes} outcomes came in, {ways} are accounted for"
    names = ("exposures_in", "exposures", DOUBLE_EXPOSURES, "outcomes_in", *WAYS)
    return {name: counts[name] for name in (*names, "unusable", "erased")}
