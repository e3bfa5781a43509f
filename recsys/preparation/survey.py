"""Dry run of `prepare`: what the log holds, and all its problems.

No cluster, and nothing is written. Folders and footers are read whole; of the rows the needed
columns, part by part, so that memory is bounded by a part and by the number of users. Of a very
large log a sample of evenly spaced parts is read: what it lacks is a warning then, no problem.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import polars as pl

from recsys.config import Recipe
from recsys.data.adapters import Adapter, Part, Scan, open_adapter
from recsys.data.adapters.base import EVENTS_NEEDED, split_into_parts
from recsys.data.adapters.spellings import COUNTED, Spellings, added, spelling_warnings
from recsys.data.catalogue import catalogue_problem, check_items
from recsys.data.checks import examples_of, quarantine_problem, reasons
from recsys.data.feedback import Feedback, finished, group_rows, read_rows
from recsys.data.pseudonyms import has_key, load_key
from recsys.errors import DataError, RaycommendError
from recsys.preparation.coverage import Coverage, targets_text, types_text, window_problem
from recsys.preparation.intake import Intake, Taken
from recsys.preparation.prepared import cut_us, lost_key
from recsys.schema import EVENT_TYPES, EVENTS, Col
from recsys.text.pretrained import is_here, locate, tokens_problem

#: Up to so many rows all are read; of more, parts that have about so many.
MOST_ROWS = 20_000_000
#: Stands in for the key that the first run will make: buckets are estimates then.
_NO_KEY = b"no key has been made yet"


@dataclass
class Survey:
    """What was found.

    Attributes:
        scan: of folders and footers.
        problems: what stops a run, or the training after it.
        warnings: what does not, in words.
        found: what is there, in words.
    """

    scan: Scan
    problems: list[RaycommendError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Take an error of the block for one more problem."""
        try:
            yield
        except RaycommendError as error:
            self.problems.append(error)


def survey(recipe: Recipe) -> Survey:
    """Look through a recipe's log.

    Raises:
        DataError: the source cannot be opened at all.
    """
    adapter = open_adapter(recipe.data)
    scan = adapter.scan()
    result = Survey(scan, list(scan.problems), list(scan.warnings))
    with result.collected():
        if is_here(recipe.model.language_model):
            folder = locate(recipe.model.language_model)
            wrong = tokens_problem(folder, recipe.data.max_tokens)
            result.problems += [wrong] if wrong else []
    lost = lost_key(recipe)
    result.problems += [lost] if lost else []
    key = None
    with result.collected():
        if has_key(recipe.privacy, recipe.root):
            key = load_key(recipe.privacy, recipe.root, create=False)
    known_items = None if "items" in scan.broken else _look_at_items(adapter, recipe, result)
    _look_at_events(adapter, recipe, key, known_items, result)
    return result


def spread(parts: Sequence[Part], most: int) -> list[Part]:
    """Parts that lie evenly over the log and have about `most` rows together; at least one."""
    rows = sum(part.num_rows for part in parts)
    if rows <= most:
        return list(parts)
    count = max(1, len(parts) * most // rows)
    return [parts[int((number + 0.5) * len(parts) / count)] for number in range(count)]


def _look_at_items(adapter: Adapter, recipe: Recipe, result: Survey) -> pl.Series | None:
    """The ids that can be used; None where the table cannot be read."""
    data = recipe.data
    with result.collected():
        items = adapter.read_items()
        good, bad = check_items(items.table, data.text_fields)
        source = str(data.source or data.adapter)
        wrong = catalogue_problem(good, bad, data.max_quarantine_fraction, source=source)
        result.problems += [wrong] if wrong else []
        told = [f"find {good.height:,} items"]
        if items.num_superseded:
            told.append(f"{items.num_superseded:,} rows superseded by newer ones")
        if bad.height:
            told.append(f"quarantined {_counted(reasons([bad]))}")
        result.found.append(", ".join(told))
        return good[Col.item]
    return None


def _look_at_events(
    adapter: Adapter,
    recipe: Recipe,
    key: bytes | None,
    known_items: pl.Series | None,
    result: Survey,
) -> None:
    feedback, seen = Feedback.of(recipe.root), _Seen(recipe)
    with result.collected(), feedback.locked(exclusive=False):
        live = [
            part
            for path in finished(feedback.events)
            for part in split_into_parts(str(path), group_rows(path))
        ]
        every = [*result.scan.parts, *live]
        intake = Intake(recipe.data, key or _NO_KEY, feedback.erased(), int(time.time() * 1e6))
        num_rows, ours = sum(part.num_rows for part in every), {part.path for part in live}
        picked = spread(every, MOST_ROWS)
        for part in picked:
            with result.collected():
                is_live = part.path in ours
                if is_live:
                    raw = read_rows(part.path, part.first_group, part.last_group, EVENTS)
                else:
                    raw = seen.filled(adapter.read_needed(part))
                known = None if Col.item in seen.absent else known_items
                seen.add(intake.take(raw, known_items=known, live=is_live), raw.height, part.path)
        if len(picked) < len(every):
            result.found.append(
                f"look into {len(picked):,} of {len(every):,} parts, spread evenly "
                f"({seen.num_rows:,} of {num_rows:,} rows): what follows is of these"
            )
        if seen.num_rows:
            seen.conclude(result, num_rows, has_key=key is not None)


class _Seen:
    """What was seen in the parts so far."""

    def __init__(self, recipe: Recipe) -> None:
        self.num_rows = 0
        #: Needed columns that some part does not have, or not as what they should be.
        self.absent: set[str] = set()
        self._recipe, self._reasons = recipe, Counter[str]()
        self._examples: dict[str, pl.DataFrame] = {}
        self._coverage = Coverage()
        self._spelled: list[dict[str, Spellings]] = []
        self._users: pl.DataFrame | None = None

    def filled(self, rows: pl.DataFrame) -> pl.DataFrame:
        """A part's needed columns as events: what could not be read at all is made up.

        That it is missing is a problem already; what else is wrong is to be found as well.
        """
        made_up = {
            Col.user: pl.lit("?"), Col.item: pl.lit("?"), Col.event_type: pl.lit(EVENT_TYPES[0]),
            Col.timestamp: pl.lit(0).cast(pl.Datetime("us", "UTC")),
        }  # fmt: skip
        absent = [name for name in EVENTS_NEEDED if name not in rows.columns]
        self.absent.update(absent)
        empty = pl.Schema(EVENTS)
        others = [name for name in EVENTS.names if name not in EVENTS_NEEDED]
        return rows.with_columns(
            *(made_up[name].alias(name) for name in absent),
            *(pl.lit(None, empty[name]).alias(name) for name in others),
        )

    def add(self, taken: Taken, num_rows: int, path: str) -> None:
        """Count one part's rows."""
        self.num_rows += num_rows
        self._reasons.update(reasons([taken.bad]))
        bad = taken.bad.with_columns(pl.lit(path).alias(Col.source))
        self._examples = examples_of(bad) | self._examples
        self._coverage = Coverage.merged([self._coverage, taken.coverage])
        self._spelled.append(taken.spelled)
        self._users = _added_users(self._users, _users_of(taken.ready, self._recipe))

    def conclude(self, result: Survey, num_rows: int, *, has_key: bool) -> None:
        """Say what was found, and what is wrong with it.

        Args:
            result: to be told.
            num_rows: of the whole log; with fewer seen, only what they prove is a problem.
            has_key: whether the pseudonyms are those of the runs to come.
        """
        data, whole = self._recipe.data, self.num_rows == num_rows
        source = str(data.source or data.adapter)
        assert self._users is not None
        crowded = pl.col("events") > data.max_events_per_user
        self._count_crowded(self._users.filter(crowded))
        users = self._users.filter(~crowded & pl.col("first_us").is_not_null())
        num_bad = sum(self._reasons.values())
        limit = data.max_quarantine_fraction
        wrong = quarantine_problem(
            self._reasons, self._examples, self.num_rows, limit, what="events"
        )
        if wrong and (whole or num_bad > limit * num_rows):
            result.problems.append(wrong)
        elif wrong:
            result.warnings.append(wrong.problem)
        result.found += [
            f"find {users.height:,} users; {self._coverage.range_text}",
            f"find the event types {types_text(self._coverage.types, data)}",
            f"quarantine {num_bad:,} of {self.num_rows:,} events, {limit:.2%} are allowed"
            + (f": {_counted(self._reasons)}" if num_bad else ""),
            f"find {targets_text(self._coverage, data)}",
        ]
        # Without a good row the windows are empty for a reason that has been given.
        all_bad = wrong is not None and self._coverage.first_us is None
        if not all_bad and not self.absent & {Col.event_type, Col.timestamp}:
            learnable = users.filter(pl.col("first_us") < pl.col("target_us")).height
            cuts = window_problem(
                self._coverage, data, self._coverage.targets,
                learnable=1 if Col.user in self.absent else learnable, source=source,
            )  # fmt: skip
            if cuts and whole:
                result.problems.append(cuts)
            elif cuts:
                result.warnings.append(f"in the parts looked into, {cuts.problem}")
        if users.height and Col.user not in self.absent:
            self._look_at_shards(users, result, certain=whole and has_key)
        spelled = {
            name: added([each[name] for each in self._spelled if name in each]) for name in COUNTED
        }
        result.warnings += spelling_warnings(result.scan.id_files, spelled)

    def _count_crowded(self, users: pl.DataFrame) -> None:
        if users.is_empty():
            return
        self._reasons["too_many_events"] = int(users["events"].sum())
        self._examples["too_many_events"] = pl.DataFrame({
            Col.user: [f"{users['user'][0]:016x}..."], Col.source: ["the whole log"],
        })  # fmt: skip

    def _look_at_shards(self, users: pl.DataFrame, result: Survey, *, certain: bool) -> None:
        """A bucket without users is no shard, and a worker without a shard takes no step."""
        num_buckets, workers = self._recipe.data.num_buckets, self._recipe.train.most_workers
        # Of a pseudonym's first 64 bits, the bucket is made of the first 32.
        buckets = users.select((pl.col("user") // 2**32 % num_buckets).n_unique()).item()
        about = "" if certain else "about "
        result.found.append(f"fill {about}{buckets:,} of {num_buckets:,} user buckets")
        if buckets >= workers:
            return
        wrong = DataError(
            f"{users.height:,} users fill {about}{buckets:,} of {num_buckets:,} buckets, fewer "
            "than there are workers", where=self._recipe.data.source or self._recipe.data.adapter,
            field="train.num_workers", value=workers,
            fix="use fewer workers, more data.num_buckets, or a log of more users",
        )  # fmt: skip
        if certain or users.height < workers:
            result.problems.append(wrong)
        else:
            result.warnings.append(wrong.problem)


def _users_of(ready: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """Users by the first 64 bits of their pseudonyms, with what tells whether they can be learned.

    Columns `user`, `events`, `first_us` (null: they did nothing but take back), and `target_us`:
    the last target before `cuts.head`.
    """
    is_interest = pl.col(Col.event_type).is_in(EVENT_TYPES)
    us = pl.col(Col.timestamp).dt.epoch("us")
    wanted = pl.col(Col.event_type).is_in(list(recipe.data.target_events))
    early = us < (cut_us(recipe.data.cuts)["head"] or 0)
    users = ready.group_by(Col.user).agg(
        pl.len().alias("events"), us.filter(is_interest).min().alias("first_us"),
        us.filter(wanted & early).max().alias("target_us"),
    )  # fmt: skip
    number = pl.col(Col.user).str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64)
    return users.select(number.alias("user"), "events", "first_us", "target_us")


def _added_users(before: pl.DataFrame | None, users: pl.DataFrame) -> pl.DataFrame:
    if before is None:
        return users
    return (
        pl.concat([before, users])
        .group_by("user")
        .agg(pl.col("events").sum(), pl.col("first_us").min(), pl.col("target_us").max())
    )


def _counted(counts: dict[str, int] | Counter[str]) -> str:
    ranked = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"{count:,} x {reason}" for reason, count in ranked)
