from __future__ import annotations

import pickle

import pytest

from recsys.errors import BundleError, DataError, GateRefused, RaycommendError, RecipeError


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
