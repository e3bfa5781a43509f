"""Ids in two spellings: what is an integer in one file and text in another, or `007` beside `7`.

Each spelling is a user, or an item, of its own. Only the shop knows which of them are one, so
this is told and nothing is changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from recsys.schema import Col

#: Columns whose spellings are counted.
COUNTED = (Col.user, Col.item)
_INTEGER = r"^\s*[+-]?[0-9]+(\.0*)?\s*$"
_AS_WE_WRITE_IT = r"^(0|-?[1-9][0-9]*)$"
#: What is odd about a spelling -> a made-up one: no user's id stands in a message.
_FORMS = {r"^\s|\s$": " 7", r"\+": "+7", r"\.": "7.0", "": "007"}


@dataclass(frozen=True)
class IdFiles:
    """Files that hold an id column as one kind of type.

    Attributes:
        column: of ours.
        kind: `integer`, `text` or `UUID`.
        num_files: how many.
        example: the first one's path.
    """

    column: str
    kind: str
    num_files: int
    example: str


@dataclass(frozen=True)
class Spellings:
    """Integers in another spelling, in one id column.

    Attributes:
        num_odd: distinct ids that spell an integer otherwise than its digits.
        num_twice: those whose digits stand in the same part as well.
        example: one of them; of users a made-up one of the same form. Empty without any.
    """

    num_odd: int = 0
    num_twice: int = 0
    example: str = ""


def count_spellings(ids: pl.Series) -> Spellings:
    """Count odd spellings of integers in a part's ids.

    Args:
        ids: [N] strings; nulls do not count. Its name is the column's.
    """
    distinct = ids.drop_nulls().unique()
    odd = distinct.filter(
        distinct.str.contains(_INTEGER) & ~distinct.str.contains(_AS_WE_WRITE_IT)
    ).sort()
    if odd.is_empty():
        return Spellings()
    number = pl.col("odd").str.strip_chars().str.extract(r"^([+-]?)0*([0-9]+?)(\.0*)?$", 2)
    minus = pl.when(pl.col("odd").str.contains("-", literal=True) & (number != "0"))
    digits = pl.DataFrame({"odd": odd}).select(
        minus.then(pl.lit("-")).otherwise(pl.lit("")) + number
    )
    twice = int(digits.to_series().is_in(distinct.implode()).sum())
    example = odd[0] if ids.name == Col.item else _form(odd[0])
    return Spellings(odd.len(), twice, example)


def added(counts: Sequence[Spellings]) -> Spellings:
    """The sum over parts: an id counts once in each of them."""
    return Spellings(
        sum(each.num_odd for each in counts),
        sum(each.num_twice for each in counts),
        min((each.example for each in counts if each.num_odd), default=""),
    )


def spelling_warnings(files: Sequence[IdFiles], spelled: Mapping[str, Spellings]) -> list[str]:
    """What there is to tell about kinds and spellings, a line a column.

    Args:
        files: of all tables.
        spelled: column -> its counts over all parts.
    """
    lines = []
    for column in dict.fromkeys([each.column for each in files] + list(spelled)):
        kinds = _by_kind([each for each in files if each.column == column])
        found = spelled.get(column, Spellings())
        if len(kinds) > 1:
            where = ", ".join(
                f"{each.kind} in {_files(each.num_files)} ({each.example})" for each in kinds
            )
            line = f"{column} is {where}"
            if column in COUNTED:
                line += f"; of the text ids {found.num_odd:,} are another spelling of an integer"
                line += (
                    f", such as {found.example!r} (distinct ids by part, added up), "
                    "and count as other ids"
                    if found.num_odd
                    else ""
                )
            lines.append(f"{line}: write the column as one type")
        elif found.num_twice:
            lines.append(
                f"{column}: {found.num_twice:,} ids spell an integer that stands there as plain "
                f"digits too, such as {found.example!r} (distinct ids by part, added up), and "
                "count as other ids: write them alike"
            )
    return lines


def _by_kind(files: Sequence[IdFiles]) -> list[IdFiles]:
    kinds: dict[str, IdFiles] = {}
    for each in files:
        there = kinds.get(each.kind)
        num_files = each.num_files + (there.num_files if there else 0)
        example = there.example if there else each.example
        kinds[each.kind] = IdFiles(each.column, each.kind, num_files, example)
    return list(kinds.values())


def _files(count: int) -> str:
    return f"{count:,} file{'s' if count > 1 else ''}"


def _form(odd: str) -> str:
    found = pl.Series([odd])
    return next(form for mark, form in _FORMS.items() if found.str.contains(mark)[0])
