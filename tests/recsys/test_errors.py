from __future__ import annotations

import copy
import errno
import sqlite3
from pathlib import Path

import pytest

from recsys.errors import (
    BundleError,
    DataError,
    DataErrors,
    GateRefused,
    NoSpaceError,
    RaycommendError,
    RecipeError,
    cause_of,
    raise_all,
)


def test_the_message_says_where_what_and_how_to_mend_it() -> None:
    error = DataError(
        "wrong type", where="a.parquet", field="price", value="x", fix="write a number"
    )
    assert str(error) == "a.parquet: [price] wrong type (got 'x'). Fix: write a number"
    assert str(RaycommendError("lost", fix="look")) == "lost. Fix: look"


def test_the_message_is_one_line_whatever_other_libraries_say() -> None:
    assert str(DataError("first\n  second", value="a\nb", fix="x")) == (
        "first second (got 'a\\nb'). Fix: x"
    )


@pytest.mark.parametrize(
    "kind", [RaycommendError, RecipeError, DataError, BundleError, GateRefused]
)
def test_it_crosses_a_process_boundary_with_its_fields(kind: type[RaycommendError]) -> None:
    error = kind("wrong", where="a.yaml", field="train.epochs", value=3, fix="correct it")
    again = copy.copy(error)
    assert type(again) is kind
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert again.exit_code == error.exit_code != 0


def test_several_are_told_in_one_list() -> None:
    first, second = DataError("a", fix="x"), RecipeError("b", where="r.yaml", fix="y")
    raise_all([])
    with pytest.raises(DataError) as alone:
        raise_all([first])
    assert alone.value is first
    with pytest.raises(DataErrors) as both:
        raise_all([first, second])
    assert str(both.value) == "2 problems:\n  1. a. Fix: x\n  2. r.yaml: b. Fix: y"
    again = copy.copy(both.value)
    assert str(again) == str(both.value) and again.exit_code == 2


class _Posing(DataError):
    """As Ray's error of a task: our type, a stack trace as its text, the real one inside."""

    def __init__(self, cause: Exception) -> None:
        Exception.__init__(self, "Traceback ...")
        self.cause = cause


class _OfTraining(Exception):
    def __init__(self, worker_failures: dict[int, Exception]) -> None:
        super().__init__("training failed")
        self.worker_failures = worker_failures


class _OfController(Exception):
    def __init__(self, controller_failure: Exception) -> None:
        super().__init__("training failed")
        self.controller_failure = controller_failure


def test_our_error_is_found_behind_others() -> None:
    ours = DataError("wrong", fix="correct it")
    chained = RuntimeError("task failed")
    chained.__cause__ = ours
    implied = RuntimeError("while that")
    implied.__context__ = chained
    # The others lost their connection to the one that ended.
    several = _OfTraining({0: RuntimeError("connection closed"), 1: _Posing(ours), 2: ValueError()})
    for error in (
        ours, chained, implied, _Posing(ours), _OfTraining({1: _Posing(ours)}), several,
        _OfController(several),
    ):  # fmt: skip
        assert cause_of(error) is ours


class TestFullDisk:
    """Every library says it in its own way."""

    @staticmethod
    def sqlite(code: int) -> sqlite3.Error:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = code
        return error

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.ENOSPC, "No space left on device"),
            OSError(errno.EDQUOT, "Disk quota exceeded"),
            # Polars, safetensors, Arrow.
            RuntimeError("No space left on device (os error 28)"),
            RuntimeError('IoError(Os { code: 28, message: "No space left on device" })'),
            OSError("Error writing bytes to file. Detail: [errno 122] Disk quota exceeded"),
            sqlite(sqlite3.SQLITE_FULL),
            sqlite(sqlite3.SQLITE_IOERR_SHMSIZE),
        ],
    )
    def test_it_is_found_behind_others(self, error: Exception, tmp_path: Path) -> None:
        behind = DataError("the file cannot be written", fix="correct its permissions")
        behind.__context__ = error
        for each in (error, behind, _OfTraining({0: ValueError(), 1: _OfController(error)})):
            ours = cause_of(each, tmp_path)
            assert isinstance(ours, NoSpaceError) and ours.exit_code == 2
            assert ours.where == tmp_path
            assert "the same command goes on" in ours.fix

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.EACCES, "Permission denied"),
            sqlite(sqlite3.SQLITE_IOERR_READ),
            RuntimeError("no space"),
        ],
    )
    def test_other_faults_of_a_disk_are_none(self, error: Exception) -> None:
        assert cause_of(error) is None

    def test_the_file_tells_where(self, tmp_path: Path) -> None:
        run, other = tmp_path / "run", tmp_path / "other"
        for path, folder in ((run / "a" / "b", run), (tmp_path / "x" / "y", tmp_path / "x")):
            error = OSError(errno.ENOSPC, "No space left on device", str(path))
            ours = cause_of(error, run, other)
            assert ours is not None and ours.where == folder
        # Ray puts a whole message where the name belongs.
        error = OSError(errno.ENOSPC, "x", "Failed to apply\n: No space left on device")
        ours = cause_of(error, run)
        assert ours is not None and ours.where == run

    def test_what_a_worker_found_gets_its_folder_from_the_command(self, tmp_path: Path) -> None:
        of_worker = cause_of(OSError(errno.ENOSPC, "No space left on device"))
        assert of_worker is not None and of_worker.where is None
        ours = cause_of(_OfController(copy.copy(of_worker)), tmp_path)
        assert ours is not None and ours.where == tmp_path

    def test_the_fullest_of_several_folders_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        free = {tmp_path / "a": 7, tmp_path / "b": 3}
        monkeypatch.setattr("recsys.errors._free", free.__getitem__)
        ours = cause_of(OSError(errno.ENOSPC, "No space left on device"), *free)
        assert ours is not None and ours.where == tmp_path / "b"


def test_of_other_errors_there_is_none() -> None:
    circle = RuntimeError("a")
    circle.__context__ = RuntimeError("b")
    circle.__context__.__context__ = circle
    for error in (None, ValueError("x"), circle, _OfTraining({}), _OfTraining({0: ValueError()})):
        assert cause_of(error) is None
