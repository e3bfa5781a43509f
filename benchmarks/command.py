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


def run_report(
    run: Callable[[argparse.Namespace], dict[str, Any]],
    render: Callable[[dict[str, Any]], Sequence[str]],
    options: argparse.Namespace,
    *folders: Path,
) -> int:
    """Run a command that makes a report, as `run_command` does; prints it, and writes `--json`.

    Args:
        run: makes the report.
        render: the report as lines of text.
        options: parsed, with `json`.
        folders: what it writes to.
    """

    def body(options: argparse.Namespace) -> None:
        report = run(options)
        print("\n" + "\n".join(render(report)))
        if options.json:
            write_json(options.json, report)
            print(f"\nwrote {options.json}")

    return run_command(body, options, *folders)


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
