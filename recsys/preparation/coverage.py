"""Coverage of a log: its time range, event types, and target events in each window.

Counted part by part and added up, by a dry run and by a real one; both say what is wrong with the
cuts in the same words, and propose others.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import polars as pl

from recsys.config import Data
from recsys.data.checks import time_text
from recsys.errors import DataError
from recsys.preparation.prepared import WINDOWS, cut_us
from recsys.schema import ALL_EVENT_TYPES, Col

#: Before the first cut the encoders learn; what lies after `data.cuts.end` is left out.
BEFORE, AFTER = "before head", "after end"
_MOST_TYPES, _TOLD_TYPES = 100, 12
#: Times of targets that one part sends on, and that all parts together keep.
_NUM_POINTS, _MOST_POINTS = 64, 4096
_OTHERS = "(others)"
#: Shares of the targets that lie before each cut that is proposed.
_SHARES = {"head": 0.7, "valid": 0.8, "test": 0.9}
_UNITS = ("1d", "1h", "1m", "1s")


@dataclass(frozen=True)
class Coverage:
    """Counts of good rows.

    Attributes:
        first_us: time of the first event, microseconds; None without any.
        last_us: of the last one.
        types: the log's own event types -> rows, bad ones included.
        targets: window, or `before head`, `after end` -> rows with a target event.
        points: times of targets before the end, rising, microseconds, each with the number that it
            stands for.
        cuts: that `targets` was counted by, microseconds.
    """

    first_us: int | None = None
    last_us: int | None = None
    types: dict[str, int] = field(default_factory=dict)
    targets: dict[str, int] = field(default_factory=dict)
    points: list[tuple[int, float]] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)

    @staticmethod
    def of(good: pl.DataFrame, types: pl.Series, data: Data) -> Coverage:
        """Count one part.

        Args:
            good: checked events; `event_type` mapped.
            types: the raw rows' own event types.
            data: of the recipe.
        """
        times = good[Col.timestamp].dt.epoch("us")
        targeted = good.filter(pl.col(Col.event_type).is_in(list(data.target_events)))
        at = np.sort(targeted[Col.timestamp].dt.epoch("us").to_numpy())
        kept = at if data.cuts.end is None else at[at < int(data.cuts.end.timestamp() * 1e6)]
        cuts = _cuts(data)
        places = np.diff(np.searchsorted(kept, cuts), prepend=0, append=len(kept))
        targets = dict(zip((BEFORE, *WINDOWS), places.tolist(), strict=True))
        num_points = min(len(kept), _NUM_POINTS)
        picked = (2 * np.arange(num_points) + 1) * len(kept) // max(2 * num_points, 1)
        weight = len(kept) / max(num_points, 1)
        return Coverage(
            times.min(),  # type: ignore[arg-type]
            times.max(),  # type: ignore[arg-type]
            _commonest(dict(types.drop_nulls().value_counts().rows())),
            targets | {AFTER: len(at) - len(kept)},
            [(int(moment), weight) for moment in kept[picked]],
            cuts,
        )

    def by_cuts_of(self, data: Data) -> Coverage:
        """The same by the cuts of a recipe, with another one's end.

        Where they are others, `targets` is told by `points`: of more targets than a part sends on,
        it is about right.
        """
        if self.cuts == (cuts := _cuts(data)):
            return self
        windows, targets = (BEFORE, *WINDOWS), Counter[str]()
        for moment, weight in self.points:
            targets[windows[np.searchsorted(cuts, moment, "right")]] += weight  # type: ignore[assignment]
        told = {name: round(targets[name]) for name in windows}
        return replace(self, cuts=cuts, targets=told | {AFTER: self.targets[AFTER]})

    @staticmethod
    def merged(parts: Sequence[Coverage]) -> Coverage:
        """The counts of all parts together."""
        types, targets = Counter[str](), Counter[str]()
        for part in parts:
            types.update(part.types)
            targets.update(part.targets)
        firsts = [part.first_us for part in parts if part.first_us is not None]
        lasts = [part.last_us for part in parts if part.last_us is not None]
        points = _thinned(sorted(point for part in parts for point in part.points))
        return Coverage(
            min(firsts, default=None), max(lasts, default=None), _commonest(types),
            {name: targets[name] for name in (BEFORE, *WINDOWS, AFTER)}, points,
            parts[0].cuts if parts else [],
        )  # fmt: skip

    def to_json(self) -> str:
        """As text, to cross a process boundary."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Coverage:
        """What `to_json` wrote."""
        raw = json.loads(text)
        return Coverage(**raw | {"points": [tuple(point) for point in raw["points"]]})

    @property
    def range_text(self) -> str:
        """The time that the log covers, in words."""
        if self.first_us is None:
            return "the log holds no usable event"
        return f"the log runs from {_moment(self.first_us)} to {_moment(self.last_us)} UTC"


def _cuts(data: Data) -> list[int]:
    return [moment for moment in cut_us(data.cuts).values() if moment is not None]


def types_text(types: Mapping[str, int], data: Data) -> str:
    """The log's event types, with counts, and what the recipe takes each for."""

    def taken(name: str) -> str:
        if name == _OTHERS:
            return "of many more types"
        target = data.event_types.get(name, name)
        if target is None:
            return "left out"
        return target if target in ALL_EVENT_TYPES else "unknown: quarantined"

    told = [f"{name} {count:,} -> {taken(name)}" for name, count in types.items()][:_TOLD_TYPES]
    more = f" and {len(types) - _TOLD_TYPES} more" if len(types) > _TOLD_TYPES else ""
    return (", ".join(told) + more) or "none"


def targets_text(coverage: Coverage, data: Data) -> str:
    """How many target events lie before, between and after the cuts."""
    cuts = {"head": data.cuts.head_at, "valid": data.cuts.valid, "test": data.cuts.test}
    told = [f"{coverage.targets[BEFORE]:,} before head ({_cut(cuts['head'])})"]
    told += [
        f"{coverage.targets[window]:,} in the {window} window (from {_cut(cuts[start])})"
        for window, (start, _) in WINDOWS.items()
    ]
    if coverage.targets[AFTER]:
        told.append(f"{coverage.targets[AFTER]:,} from end on, which are left out")
    return f"{', '.join(data.target_events)} events: {', '.join(told)}"


def window_problem(
    coverage: Coverage,
    data: Data,
    in_window: Mapping[str, int],
    *,
    learnable: int,
    source: object,
) -> DataError | None:
    """Why nothing can be learned, validated or reported, if so.

    Args:
        coverage: of the whole log.
        data: of the recipe.
        in_window: window -> baskets, or target events, that lie in it.
        learnable: users with a target event before `head` that follows an event at an earlier time.
        source: the log, for the message.
    """
    wanted = ", ".join(data.target_events)
    cuts = {"head": data.cuts.head_at, "valid": data.cuts.valid, "test": data.cuts.test}
    faults: list[tuple[str, str]] = []
    if not learnable:
        faults.append((
            "head",
            f"nothing to learn: no user has a {wanted} event before {_cut(cuts['head'])} that "
            "follows an event at an earlier time",
        ))  # fmt: skip
    faults += [
        (start, f"the {window} window holds no {wanted} event")
        for window, (start, _) in WINDOWS.items()
        if not in_window[window]
    ]
    if not faults:
        return None
    cut = faults[0][0]
    default = " (data.cuts.head is not given: it is 28 days before valid)"
    told = [
        "; ".join(fault for _, fault in faults)
        + (default if cut == "head" and data.cuts.head is None else ""),
        coverage.range_text,
        targets_text(coverage, data),
        f"event types there: {types_text(coverage.types, data)}",
    ]
    field, value = f"data.cuts.{cut}", str(cuts[cut])
    if not coverage.points:
        late = bool(coverage.targets.get(AFTER))
        field = "data.cuts.end" if late else "data.target_events"
        value = str(data.cuts.end) if late else wanted
    fix = _fix(coverage, data, wanted)
    return DataError("; ".join(told), where=source, field=field, value=value, fix=fix)


def duplicates_told(num_duplicates: int, num_events: int) -> list[str]:
    """How many rows said what another one had said, in words; nothing if none did.

    Args:
        num_duplicates: rows left out as equal to an event.
        num_events: events that are left.
    """
    if not num_duplicates:
        return []
    share = num_duplicates / (num_duplicates + num_events)
    line = (
        f"{num_duplicates:,} duplicates left out, {share:.1%} of the usable rows: same user, item, "
        "event type, time and session"
    )
    if share > 0.5:
        line += (
            ". More than half: do times have the resolution of a day, was an export joined twice, "
            "or is each piece of a quantity a row?"
        )
    return [line]


def propose_cuts(points: Sequence[tuple[int, float]]) -> dict[str, dt.datetime] | None:
    """Cuts with targets before the first, between each two and after the last, if there can be any.

    About a tenth of the targets lies in each window; the cuts are round where that leaves a target
    in each.

    Args:
        points: of `Coverage`.
    """
    times = sorted({moment for moment, _ in points})
    last = len(times) - 1
    if last < len(_SHARES):
        return None
    weights = np.zeros(len(times))
    for moment, weight in points:
        weights[np.searchsorted(times, moment)] += weight
    before = np.cumsum(weights) / weights.sum()
    places: list[int] = []
    for number, share in enumerate(_SHARES.values()):
        least = places[-1] + 1 if places else 1
        found = int(np.searchsorted(before, share))
        places.append(min(max(found, least), last - (len(_SHARES) - 1 - number)))
    picked = pl.Series([times[0], *(times[place] for place in places)]).cast(pl.Datetime("us"))
    rounded = (picked.dt.truncate(unit) for unit in _UNITS)
    cuts = next((each for each in rounded if _keeps(each, picked)), picked)
    moments = cuts.dt.replace_time_zone("UTC").to_list()[1:]
    return dict(zip(_SHARES, moments, strict=True))


def _keeps(rounded: pl.Series, picked: pl.Series) -> bool:
    """Whether each rounded cut lies behind the one before, and the first behind the first time."""
    return bool(rounded[1] > picked[0]) and rounded[1:].n_unique() == len(rounded) - 1


def _fix(coverage: Coverage, data: Data, wanted: str) -> str:
    if not coverage.points and coverage.targets.get(AFTER):
        return "move data.cuts.end behind the events that count, or leave it out"
    if not coverage.points:
        return (
            f"name event types that are there in data.target_events, or map one of them to "
            f"{wanted} under data.event_types"
        )
    cuts = propose_cuts(coverage.points)
    if cuts is None:
        return f"give a longer log: {wanted} events at four times or more are needed"
    inner = ", ".join(f"{name}: {_cut(moment)}" for name, moment in cuts.items())
    return (
        f"move data.cuts into the time that the log covers, e.g. data.cuts: {{{inner}}}; check "
        "data.target_events and that user ids repeat"
    )


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Fewer times with the same weight in all, evenly by weight."""
    if len(points) <= _MOST_POINTS:
        return points
    weights = np.cumsum([weight for _, weight in points])
    kept, total = _MOST_POINTS // 4, float(weights[-1])
    places = np.searchsorted(weights, (np.arange(kept) + 0.5) * total / kept)
    return [(points[place][0], total / kept) for place in places.tolist()]


def _commonest(types: Mapping[str, int]) -> dict[str, int]:
    """The commonest types first; the rest as one, so that no log's types fill the memory."""
    ranked = sorted(types.items(), key=lambda each: (each[0] == _OTHERS, -each[1], each[0]))
    kept = dict(ranked[:_MOST_TYPES])
    rest = sum(count for _, count in ranked[_MOST_TYPES:])
    return kept | ({_OTHERS: kept.get(_OTHERS, 0) + rest} if rest else {})


def _moment(us: int | None) -> str:
    return time_text(us).removesuffix("+00:00")[:19]


def _cut(moment: dt.datetime) -> str:
    """As a recipe would write it."""
    utc = moment.astimezone(dt.UTC).replace(tzinfo=None)
    return f"{utc:%Y-%m-%d}" if utc.time() == dt.time() else utc.isoformat()
