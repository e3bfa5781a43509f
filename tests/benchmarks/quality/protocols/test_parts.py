"""The parts of published splits: what they are called, and what validates where none does."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from benchmarks.quality.protocols.parts import VALIDATION, read_parts
from recsys.errors import DataError

START = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)
PATH = Path("splits.parquet")


def splits(rows: list[tuple[Any, ...]], *more: str) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["split", "user_id", *more], orient="row")


def days(numbers: list[int], part: str = "train") -> list[tuple[str, str, dt.datetime]]:
    return [(part, f"u{n % 3}", START + dt.timedelta(days=n)) for n in numbers]


TEST = ("test", "u0", START + dt.timedelta(days=100))


def parts_of(frame: pl.DataFrame) -> tuple[list[str], list[str]]:
    notes: list[str] = []
    return read_parts(frame, PATH, notes)["split"].to_list(), notes


@pytest.mark.parametrize("name", VALIDATION)
def test_the_validation_part_may_have_any_of_its_names(name: str) -> None:
    found, notes = parts_of(splits([("train", "u"), (name.upper(), "u"), ("Test", "u")]))
    assert found == ["train", "valid", "test"]
    assert notes == ([] if name == "valid" else [f"validation part: {name}"])


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["train", "holdout", "test"], "unknown parts .*holdout"),
        (["train", "val", "dev", "test"], "more than one part .*dev, val"),
        (["train", None, "test"], "unknown parts .*None"),
        (["train", "valid"], "test part"),
    ],
)
def test_what_the_parts_do_not_say_is_refused(names: list[str | None], problem: str) -> None:
    with pytest.raises(DataError, match=problem) as error:
        parts_of(splits([(name, "u") for name in names]))
    assert error.value.field == "split"


def test_a_validation_part_is_left_as_it_is() -> None:
    frame = splits([*days([0, 1]), *days([2], "valid"), TEST], "timestamp")
    assert parts_of(frame) == (["train", "train", "valid", "test"], [])


def test_the_last_tenth_by_time_validates() -> None:
    numbers = [19, *range(19)]
    found, (note,) = parts_of(splits([*days(numbers), TEST], "timestamp"))
    valid = [
        number for number, part in zip([*numbers, None], found, strict=True) if part != "train"
    ]
    assert valid == [19, 18, None]
    assert note == (
        "no validation part: the last 2 of 20 training rows validate, "
        "those from 2024-05-19 00:00:00 on"
    )


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0] * 16 + [1] * 3 + [2], 1),  # 1 or 4 of 20: 2 is meant, and 1 is nearer
        ([0] * 17 + [1] * 3, 3),  # all of one time
        ([0] * 5 + [1] * 15, 15),
    ],
)
def test_rows_of_one_time_are_never_parted(times: list[int], expected: int) -> None:
    found, _ = parts_of(splits([*days(times), TEST], "timestamp"))
    assert found == ["train"] * (20 - expected) + ["valid"] * expected + ["test"]


@pytest.mark.parametrize("times", [[0] * 9, [3]])
def test_rows_that_cannot_be_shared_are_refused(times: list[int]) -> None:
    with pytest.raises(DataError, match="cannot be shared"):
        parts_of(splits([*days(times), TEST], "timestamp"))


def test_without_times_the_last_rows_of_users_validate() -> None:
    users = "abc" * 6 + "ab"  # each row of a user follows the one before
    frame = splits([("train", user) for user in users] + [("test", "a")])
    found, (note,) = parts_of(frame)
    assert [n for n, part in enumerate(found) if part == "valid"] == [18, 19]
    assert note.endswith("the last 2 of 20 training rows validate, the last ones of their users")
    # More than users: then the ones before, so that what validates is the end of each order.
    frame = splits([("train", "a")] * 40 + [("test", "a")])
    assert parts_of(frame)[0] == ["train"] * 36 + ["valid"] * 4 + ["test"]


def test_a_validation_part_of_dislikes_alone_is_none() -> None:
    rows = [
        *((*row, 1) for row in days(list(range(20)))),
        *((*row, 0) for row in days([18, 19, 20], "valid")),
        (*TEST, 1),
    ]
    found, (note,) = parts_of(splits(rows, "timestamp", "label"))
    assert found == ["train"] * 18 + ["valid"] * 5 + ["test"]
    assert note.startswith("the validation part holds nothing to predict: the last 2 of 20")


def test_a_test_part_of_dislikes_alone_is_refused() -> None:
    rows = [(*row, 1) for row in days([0, 1])] + [(*TEST, 0)]
    with pytest.raises(DataError, match="something to predict"):
        parts_of(splits(rows, "timestamp", "label"))
