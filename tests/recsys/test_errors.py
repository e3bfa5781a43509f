from __future__ import annotations

import pickle

import pytest

from recsys.errors import (
    BundleError,
    DataError,
    GateRefused,
    RaycommendError,
    RecipeError,
    cause_of,
)


def test_the_message_says_where_what_and_how_to_mend_it() -> None:
    error = DataError(
        "wrong type", where="a.parquet", field="price", value="x", mend="write a number"
    )
    assert str(error) == "a.parquet: [price] wrong type (got 'x'). Mend: write a number"
    assert str(RaycommendError("lost", mend="look")) == "lost. Mend: look"


def test_the_message_is_one_line_whatever_other_libraries_say() -> None:
    assert str(DataError("first\n  second", value="a\nb", mend="x")) == (
        "first second (got 'a\\nb'). Mend: x"
    )


@pytest.mark.parametrize(
    "kind", [RaycommendError, RecipeError, DataError, BundleError, GateRefused]
)
def test_it_crosses_a_process_boundary_with_its_fields(kind: type[RaycommendError]) -> None:
    error = kind("wrong", where="a.yaml", field="train.epochs", value=3, mend="correct it")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert again.exit_code == error.exit_code != 0


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
    ours = DataError("wrong", mend="correct it")
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


def test_of_other_errors_there_is_none() -> None:
    circle = RuntimeError("a")
    circle.__context__ = RuntimeError("b")
    circle.__context__.__context__ = circle
    for error in (None, ValueError("x"), circle, _OfTraining({}), _OfTraining({0: ValueError()})):
        assert cause_of(error) is None
