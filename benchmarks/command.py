"""What the benchmarks' commands share: common options, the report, errors in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from recsys.config import Recipe, apply_override, recipe_from_dict
from recsys.errors import cause_of
from recsys.storage.outputs import write_json


def run_command(
    body: Callable[[argparse.Namespace], int | None], options: argparse.Namespace, *folders: Path
) -> int:
    """Run a command; returns its exit code.

    An error of the project's own is printed in one line, any other is raised.

    Args:
        body: the command; returns its exit code, None for 0.
        options: parsed.
        folders: what it writes to, see `cause_of`.
    """
    try:
        return body(options) or 0
    except Exception as error:
        ours = cause_of(error, *folders)
        if ours is None:
            raise
        print(f"error: {ours}", file=sys.stderr)
        return ours.exit_code


def add_json(parser: argparse.ArgumentParser) -> None:
    """The option `--json FILE`."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report")


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """The option `--set A.B=C`, kept as `overrides`."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", dest="overrides",
        help="override one key of the recipe; may be given again",
    )  # fmt: skip


def overridden(raw: dict[str, Any], overrides: Sequence[str]) -> Recipe:
    """The recipe of plain data, which is changed in place.

    Raises:
        RecipeError: an override or the recipe is wrong.
    """
    for override in overrides:
        apply_override(raw, override)
    return recipe_from_dict(raw)


def print_report(lines: Sequence[str], report: Any, out: Path | None) -> None:
    """Print a report's text, and write its figures if a file is given."""
    print("\n" + "\n".join(lines))
    if out:
        write_json(out, report)
        print(f"\nwrote {out}")
