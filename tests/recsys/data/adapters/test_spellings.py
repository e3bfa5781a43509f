from __future__ import annotations

import polars as pl
import pytest

from recsys.data.adapters.spellings import (
    IdFiles,
    Spellings,
    added,
    count_spellings,
    spelling_warnings,
)
from recsys.schema import Col

A = IdFiles(Col.user, "integer", 2, "a.parquet")
B = IdFiles(Col.user, "text", 1, "b.parquet")


@pytest.mark.parametrize(
    ("odd", "form"),
    [("007", "007"), ("+7", "+7"), ("7.0", "7.0"), ("7.", "7.0"), (" 7", " 7"), ("7 ", " 7"),
     ("-007", "007"), ("00", "007"), ("-0", "007")],
)  # fmt: skip
def test_another_spelling_of_an_integer(odd: str, form: str) -> None:
    """Of users, only the form is told: a raw id stands in no report."""
    assert count_spellings(pl.Series(Col.user, [odd, None])) == Spellings(1, 0, form)
    assert count_spellings(pl.Series(Col.item, [odd])) == Spellings(1, 0, odd)


@pytest.mark.parametrize("plain", ["7", "0", "-7", "", "7a", "u007", "7.5", "1e3", "0x7", "٧"])
def test_other_ids_are_no_integers_or_plain_ones(plain: str) -> None:
    assert count_spellings(pl.Series(Col.user, [plain])) == Spellings()


@pytest.mark.parametrize(
    ("odd", "plain"),
    [("007", "7"), ("+7", "7"), ("7.00", "7"), (" -7 ", "-7"), ("-0", "0"), ("000", "0"),
     ("0070", "70"), ("-07.0", "-7")],
)  # fmt: skip
def test_both_spellings_in_one_part(odd: str, plain: str) -> None:
    ids = pl.Series(Col.item, [odd, plain, odd, "x", None])
    assert count_spellings(ids) == Spellings(1, 1, odd)
    assert count_spellings(ids.filter(ids != plain)).num_twice == 0


def test_parts_are_added_up() -> None:
    assert added([Spellings(), Spellings(2, 1, "07"), Spellings(1, 0, "+7")]) == (
        Spellings(3, 1, "+7")
    )
    assert added([]) == Spellings()


def test_a_column_of_two_kinds_is_told_with_files_and_counts() -> None:
    (line,) = spelling_warnings([A, B, B], {Col.user: Spellings(3, 0, "007")})
    assert line == (
        "user_id is integer in 2 files (a.parquet), text in 2 files (b.parquet); of the text ids "
        "3 are another spelling of an integer, such as '007' (distinct ids by part, added up), and "
        "count as other ids: write the column as one type"
    )
    (line,) = spelling_warnings([A, B], {})
    assert "of the text ids 0 are another spelling of an integer: write" in line
    session = [IdFiles(Col.session, each.kind, 1, each.example) for each in (A, B)]
    assert spelling_warnings(session, {}) == [
        "session_id is integer in 1 file (a.parquet), text in 1 file (b.parquet): write the column "
        "as one type"
    ]


def test_one_kind_is_told_only_where_both_spellings_are_there() -> None:
    assert spelling_warnings([B], {Col.user: Spellings(9, 0, "007")}) == []
    (line,) = spelling_warnings([B], {Col.user: Spellings(9, 2, "007")})
    assert line.startswith("user_id: 2 ids spell an integer that stands there as plain digits too")
