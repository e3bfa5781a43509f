"""What lies in a folder of runs, and how two of them differ."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.artifacts.run import Run
from recsys.config import differences, recipe_from_dict, searched
from recsys.errors import DataError, RaycommendError
from recsys.evaluation.gate import beats, comparison
from recsys.evaluation.report import METRIC, METRICS, OURS
from recsys.preparation.prepared import PREPARED, SUMMARY_FILE
from recsys.schema import Col
from recsys.storage.location import Location, Place
from recsys.storage.published import manifest_of
from recsys.storage.reading import read_json, read_parquet, reading

_FIX = "run `recsys evaluate` again"
#: What a run is known by, the last job first.
_FILES = ("report.json", "winner.json", f"{PREPARED}/{SUMMARY_FILE}")
_ROWS = "evaluation_rows.parquet"
CONFIDENCE, NUM_BOOTSTRAP, SEED = 0.95, 1000, 0


@dataclass(frozen=True)
class Summary:
    """A run in a few words; what is not there yet is None.

    Attributes:
        folder: of the run.
        recipe: its name.
        data: fingerprint of the prepared data.
        winner: settings of the trial that won.
        ndcg: nDCG@10 of the bundle on the test window.
        is_champion: whether the bundle is its registry's champion.
        is_forced: whether it became that against the gate.
    """

    folder: Path
    recipe: str
    data: str | None
    winner: str | None
    ndcg: float | None
    is_champion: bool
    is_forced: bool

    @staticmethod
    def read(folder: Path) -> Summary:
        """Summarise the run in a folder.

        Raises:
            DataError: one of its files is broken.
        """
        found = {name: _json(folder / name) for name in _FILES}
        report, winner, prepared = found.values()
        last = next(each for each in (report, winner, prepared) if each)
        recipe = recipe_from_dict(last["recipe"], where=folder)
        bundle = report.get("bundle")
        registry = Run.open(recipe).registry if bundle else None
        is_champion = registry is not None and registry.champion() == bundle
        return Summary(
            folder,
            recipe.name,
            last.get("data_fingerprint"),
            _settings(winner),
            _value(report, METRIC) if report else None,
            is_champion,
            registry is not None and is_champion and bool(registry.evidence().get("forced")),
        )


@contextmanager
def at_hand(place: Place) -> Iterator[Path]:
    """A folder of this machine; of one in a store a copy, of what is read of runs here.

    Args:
        place: of a run, or of a folder that holds runs' folders.

    Raises:
        StorageError: the store fails.
    """
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / place.uri.rpartition("/")[2]
        folder.mkdir()
        _copy_run(place, folder, (*_FILES, _ROWS))
        for name in place.folders():
            _copy_run(place / name, folder / name, _FILES)
        try:
            yield folder
        except RaycommendError as error:
            where = str(error.where).replace(str(folder), place.uri)
            raise type(error)(
                error.problem, where=where, field=error.field, value=error.value, fix=error.fix
            ) from None


def _copy_run(place: Location, folder: Path, names: Sequence[str]) -> None:
    """Copy files of a run; what lies elsewhere in a store has none of them."""
    for name in names:
        below, _, file = name.rpartition("/")
        if not below:
            data = place.read(name)
        else:
            manifest = manifest_of(place / below)
            data = None if manifest is None else (place / below).read(manifest.part(file))
        if data is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)


def runs_in(folder: Path) -> list[Summary]:
    """The runs whose folders lie in this one, by name.

    Raises:
        DataError: there is no such folder, or a run's file is broken.
    """
    if not folder.is_dir():
        raise DataError(
            "no such folder", where=folder, fix="name one that holds runs' folders, e.g. runs"
        )
    return [
        Summary.read(path)
        for path in sorted(folder.iterdir())
        if any((path / name).is_file() for name in _FILES)
    ]


def table_of(runs: list[Summary]) -> list[str]:
    """The runs as text, a line each."""
    rows = [("run", "recipe", "data", "winner", METRIC, "")]
    rows += [
        (
            run.folder.name,
            run.recipe,
            run.data or "-",
            run.winner or "-",
            "-" if run.ndcg is None else f"{run.ndcg:.4f}",
            f"champion{' (forced)' * run.is_forced}" if run.is_champion else "",
        )
        for run in runs
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def compare(first: Path, second: Path) -> list[str]:
    """Two runs' metrics side by side, the paired difference, and the recipe keys that differ.

    Args:
        first: folder of a run that was evaluated.
        second: of another one; differences are its own less those of `first`.

    Raises:
        DataError: one was not evaluated, or a file is broken.
    """
    reports = [_report(folder) for folder in (first, second)]
    width = max(12, len(first.name), len(second.name)) + 2
    lines = [f"{'metric':<12}{first.name:>{width}}{second.name:>{width}}{'difference':>12}"]
    for metric in METRICS:
        values = [_value(report, metric) for report in reports]
        if None not in values:
            one, two = (float(value or 0.0) for value in values)
            lines.append(f"{metric:<12}{one:>{width}.4f}{two:>{width}.4f}{two - one:>+12.4f}")
    lines += ["", f"{METRIC}, {second.name} less {first.name}: {_paired(first, second)}"]
    changed = list(differences(*(report["recipe"] for report in reports)))
    lines += ["", "recipe keys that differ:" if changed else "no recipe key differs"]
    return lines + [f"  {key}: {one!r} -> {two!r}" for key, one, two in changed]


def _paired(first: Path, second: Path) -> str:
    """The difference over the questions that both answered, with its 95 % interval."""
    one, two = (_rows(folder) for folder in (first, second))
    both = one.join(two, on=[Col.user, "basket"], suffix="_second", maintain_order="left")
    if both.is_empty():
        return "not paired: no question in common (other data, or another pseudonym key)"
    values = [both[name].to_numpy() for name in ("value_second", "value")]
    counts = ~np.isnan(values[0]) & ~np.isnan(values[1])
    users = both[Col.user].to_numpy()[counts]
    verdict = beats(values[0][counts], values[1][counts], users, CONFIDENCE, NUM_BOOTSTRAP, SEED)
    most = max(one.height, two.height)
    of_all = f" on {counts.sum():,} of {most:,} questions" if counts.sum() < most else ""
    return f"{comparison(verdict.as_json())} (paired, users resampled{of_all})"


def _rows(folder: Path) -> pl.DataFrame:
    path, ours = folder / _ROWS, f"{OURS}:{METRIC}"
    rows = read_parquet(path, _FIX, {Col.user: pl.String})
    with reading(path, _FIX):
        return rows.select(Col.user, "basket", pl.col(ours).cast(pl.Float64).alias("value"))


def _report(folder: Path) -> dict[str, Any]:
    path = folder / "report.json"
    if not path.is_file():
        raise DataError("this run was not evaluated", where=path, fix="run `recsys evaluate`")
    return read_json(path, _FIX, {"recipe": dict, "rows": list, "bundle": str})


def _json(path: Path) -> dict[str, Any]:
    return read_json(path, "run its job again", {"recipe": dict}) if path.is_file() else {}


def _settings(winner: dict[str, Any]) -> str | None:
    """The winner's settings of what its recipe searches."""
    if not winner:
        return None
    settings = searched(recipe_from_dict(winner["recipe"]))
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in settings.items()
    )


def _value(report: dict[str, Any], metric: str) -> float | None:
    for row in report["rows"]:
        if (row["model"], row["slice"], row["metric"]) == (OURS, "all", metric):
            return None if row["value"] is None else float(row["value"])
    return None
