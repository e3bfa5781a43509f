from __future__ import annotations

import argparse
import errno
import json
from pathlib import Path

import pytest

from benchmarks.command import add_json, add_overrides, overridden, run_command, run_report
from recsys.errors import DataError, RecipeError

NOTHING = argparse.Namespace()


def test_the_exit_code_is_the_commands() -> None:
    assert run_command(lambda options: None, NOTHING) == 0
    assert run_command(lambda options: 3, NOTHING) == 3


def test_an_error_of_ours_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def body(options: argparse.Namespace) -> None:
        raise DataError("no such column", field="price", fix="add it")

    assert run_command(body, NOTHING) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "price" in said and said.count("\n") == 1


def test_a_full_disk_is_said_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def body(options: argparse.Namespace) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert run_command(body, NOTHING, tmp_path) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_any_other_error_is_raised() -> None:
    def body(options: argparse.Namespace) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(body, NOTHING)


def test_common_options_and_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_json(parser)
    add_overrides(parser)
    out = tmp_path / "report.json"
    given = ["--json", str(out), "--set", "train.epochs=3", "--set", "seed=7"]
    options = parser.parse_args(given)
    cuts = {"valid": "2024-01-01", "test": "2024-02-01"}
    recipe = overridden({"name": "q", "data": {"source": "x", "cuts": cuts}}, options.overrides)
    assert (recipe.train.epochs, recipe.seed) == (3, 7)
    with pytest.raises(RecipeError):
        overridden({}, ["no override"])
    lines = ["a line"]
    assert run_report(lambda options: {"figure": 1}, lambda report: lines, options) == 0
    assert json.loads(out.read_text()) == {"figure": 1}
    assert capsys.readouterr().out == f"\na line\n\nwrote {out}\n"
