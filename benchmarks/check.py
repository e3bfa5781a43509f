"""Whether the benchmarks still give what they gave: runs them and compares with `expected.json`.

    python -m benchmarks.check DATA [--only NAME]

DATA holds one folder a data set, see `benchmarks.quality`. A folder that is not there is left out,
and said to be. `jobs` needs none: it reads the demo's log (extra `demo`). A figure that is better
than expected beyond its tolerance fails as well: it is either a leak or worth writing down.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import jobs
from benchmarks.command import run_command
from benchmarks.quality import measure
from recsys.errors import DataError

EXPECTED = Path(__file__).with_name("expected.json")


@dataclass(frozen=True)
class Figure:
    """One figure of a report and what it should be.

    Attributes:
        model, slice, metric: which figure.
        expected: what it was.
        tolerance: how far it may lie from that, either way.
    """

    model: str
    slice: str
    metric: str
    expected: float
    tolerance: float

    def found(self, report: dict[str, Any]) -> float:
        """The figure of a report.

        Raises:
            DataError: the report has none.
        """
        for row in [*report.get("rows", []), *report.get("response", [])]:
            if (row["model"], row["slice"], row["metric"]) == (self.model, self.slice, self.metric):
                return float(row["value"])
        raise DataError(
            "the report lacks a figure that is expected", where=report["dataset"],
            field=self.metric, value=f"{self.model}, {self.slice}",
            fix="let the command in expected.json run the model, or take the figure out",
        )  # fmt: skip

    def holds(self, report: dict[str, Any]) -> bool:
        """Whether the report agrees."""
        return abs(self.found(report) - self.expected) <= self.tolerance

    def line(self, report: dict[str, Any]) -> str:
        """One line of the table."""
        verdict = "ok" if self.holds(report) else "FAILED"
        return (
            f"{self.model:<20}{self.slice:<12}{self.metric:<12}{self.found(report):>8.4f}"
            f"{self.expected:>10.4f} +- {self.tolerance:.4f}  {verdict}"
        )


@dataclass(frozen=True)
class Benchmark:
    """One command and its figures.

    Attributes:
        folder: below DATA, of a command of `benchmarks.quality`; None: the command is
            `benchmarks.jobs`.
        arguments: of the command.
        figures: what it should give.
    """

    folder: str | None
    arguments: list[str]
    figures: list[Figure]


def read_expected(path: Path = EXPECTED) -> dict[str, Benchmark]:
    """The benchmarks by name."""
    return {
        name: Benchmark(
            entry["folder"],
            entry["arguments"],
            [Figure(*key.rsplit(" ", 2), *values) for key, values in entry["figures"].items()],
        )
        for name, entry in json.loads(path.read_text()).items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; 1 if a figure has moved."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.check",
        description="Run the benchmarks and compare them with benchmarks/expected.json.",
    )
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--only", choices=sorted(read_expected()), help="one of them")
    return run_command(_compare, parser.parse_args(argv))


def _compare(options: argparse.Namespace) -> int:
    moved = 0
    for name, benchmark in read_expected().items():
        if options.only not in (None, name):
            continue
        folder = None if benchmark.folder is None else options.data / benchmark.folder
        if folder is not None and not folder.is_dir():
            print(f"{name}: left out, there is no {folder}")
            continue
        report = run(folder, benchmark)
        print(f"\n{name}: figure, expected")
        print("\n".join(figure.line(report) for figure in benchmark.figures))
        moved += sum(not figure.holds(report) for figure in benchmark.figures)
    if moved:
        print(f"\n{moved} figures have moved", file=sys.stderr)
    return int(moved > 0)


def run(folder: Path | None, benchmark: Benchmark) -> dict[str, Any]:
    """The report of one benchmark, run from nothing.

    Args:
        folder: of the data; None: `benchmarks.jobs`.
        benchmark: what to run.

    Raises:
        DataError: the run failed; it has said why.
    """
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "report.json"
        arguments = [*benchmark.arguments, "--work", work, "--json", str(path)]
        failed = jobs.main(arguments) if folder is None else measure.main([str(folder), *arguments])
        if failed:
            raise DataError(
                "the benchmark could not be run", where=folder, fix="see the error above"
            )
        report: dict[str, Any] = json.loads(path.read_text())
    return report


if __name__ == "__main__":
    sys.exit(main())
