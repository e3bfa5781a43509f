"""Why a training failed, in one clause, whatever Ray has made of the error."""

from __future__ import annotations

import copy
import traceback
from pathlib import Path

import pytest

from ray_jobs.common import giving_up
from recsys.errors import NoSpaceError, RaycommendError, RecipeError

DIVERGED = RecipeError(
    "training has diverged: the loss of step 2 is nan", field="train.learning_rate", fix="x"
)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, None),
        (DIVERGED, "training has diverged: the loss of step 2 is nan"),
        (RuntimeError("out of\nmemory"), "memory"),
        ("Traceback\n  File\nValueError: x\n\n", "ValueError: x"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_a_reason_is_one_clause(error: object, reason: str | None) -> None:
    assert giving_up.reason_of(error) == reason


@pytest.mark.parametrize(
    "ours", [DIVERGED, NoSpaceError.on(Path("/disk/file"), ())], ids=["diverged", "no space"]
)
def test_the_text_of_a_trial_s_error_tells_the_reason(ours: RaycommendError) -> None:
    """It is read while the search runs: what else Tune writes of it is a pickle."""
    with pytest.raises(giving_up.TrialError) as raised, giving_up.told_in_text():
        raise RuntimeError("a worker failed") from ours
    text = "".join(traceback.format_exception(raised.value))
    assert "a worker failed" in text and str(ours) in text, "error.txt tells all of it"
    for error in (f"Failure # 1\n{text}\n", copy.copy(raised.value)):
        assert giving_up.reason_of(error) == ours.problem
        found = giving_up.failure_of(error)
        assert isinstance(found, NoSpaceError) == isinstance(ours, NoSpaceError)


def test_an_error_of_others_stays_as_it_is() -> None:
    with pytest.raises(ValueError, match="^x$"), giving_up.told_in_text():
        raise ValueError("x")
