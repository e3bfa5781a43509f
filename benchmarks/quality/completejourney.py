"""Complete Journey as a folder that `benchmarks.quality` reads.

    python -m benchmarks.quality.completejourney DIR [--valid DATE]

The log comes out of the installed package (extra `demo`), see
`recsys.data.adapters.completejourney`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from benchmarks.command import run_command
from recsys.config import Data
from recsys.data.adapters import open_adapter


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality.completejourney",
        description="Write Complete Journey as a folder that benchmarks.quality reads.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument(
        "--valid", type=dt.date.fromisoformat, default="2017-11-01", metavar="DATE",
        help="the benchmark's cut: prices are those of 28 days before it (2017-11-01)",
    )  # fmt: skip
    return run_command(_run, parser.parse_args(argv))


def _run(options: argparse.Namespace) -> None:
    write(options.folder, options.valid)
    print(f"wrote {options.folder}")


def write(folder: Path, valid: dt.date) -> None:
    """Write `items.parquet` and `events.parquet`; the folder may be there already.

    Raises:
        DataError: the package is not installed.
    """
    cuts = {"valid": str(valid), "test": "9999-01-01"}  # the adapter reads no more than the first
    adapter = open_adapter(Data.model_validate({"adapter": "completejourney", "cuts": cuts}))
    events = pl.concat([adapter.read_events(part) for part in adapter.parts()])
    folder.mkdir(parents=True, exist_ok=True)
    events.write_parquet(folder / "events.parquet")
    adapter.read_items().table.write_parquet(folder / "items.parquet")


if __name__ == "__main__":
    sys.exit(main())
