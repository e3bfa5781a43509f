from __future__ import annotations

import polars as pl
import pytest

from recsys.data.adapters.snapshots import latest_rows, merge_snapshots, ordered, snapshot_ranks
from recsys.schema import Col

Keys = dict[str, str | None]


@pytest.mark.parametrize(
    ("keys", "ranks"),
    [
        ([], []),
        ([{}, {}], [0, 0]),
        ([{"dt": "2024-01-10"}, {"dt": "2024-01-09"}], [1, 0]),
        ([{"version": "10"}, {"version": "9"}, {"version": "9.5"}], [2, 0, 1]),
        ([{"version": "v10"}, {"version": "v9"}], [0, 1]),  # texts
        ([{"dt": "2"}, {"dt": None}, {}, {"dt": "2"}], [1, 0, 0, 1]),
        (
            [{"year": "2023", "month": "12"}, {"year": "2024", "month": "2"},
             {"year": "2024", "month": "11"}],
            [0, 1, 2],
        ),
        ([{"month": "2", "year": "2024"}, {"month": "12", "year": "2023"}], [0, 1]),
    ],
)  # fmt: skip
def test_how_new_a_folder_is(keys: list[Keys], ranks: list[int]) -> None:
    assert snapshot_ranks(keys) == ranks


def rows(*pairs: tuple[str | None, str]) -> pl.DataFrame:
    schema = {Col.item: pl.String, Col.title: pl.String}
    return pl.DataFrame(list(pairs), schema=schema, orient="row")


NEW = rows(("a", "new"), ("a", "twice"), (None, "x"), ("", "y"))
OLD = rows(("a", "old"), ("b", "old"), (None, "z"), ("", "w"))


def test_older_rows_of_an_item_are_superseded_and_rows_without_an_id_stay() -> None:
    items = merge_snapshots([NEW, OLD, OLD])
    assert items.table.filter(pl.col(Col.item) != "").rows() == [
        ("a", "new"), ("a", "twice"), ("b", "old"),
    ]  # fmt: skip
    assert items.table.height == 3 + 6 and items.num_superseded == 3


def test_a_column_tells_the_same() -> None:
    every = pl.concat([OLD, NEW])
    items = latest_rows(every, pl.Series([None, 5, None, 1, 2, 2, 1, 1]))
    assert items.table.rows() == [
        ("b", "old"), (None, "z"), ("", "w"), ("a", "new"), ("a", "twice"), (None, "x"), ("", "y"),
    ]  # fmt: skip
    assert items.num_superseded == 1


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["10", "9", None], [10, 9, None]),
        (["9007199254740993", "-1"], [9007199254740993, -1]),
        (["1.5", "2"], [1.5, 2.0]),
        (["10", "9a"], ["10", "9a"]),
        (["1" * 30, "2"], [1.1111111111111111e29, 2.0]),
    ],
)
def test_texts_are_numbers_if_all_are(texts: list[str | None], expected: list[object]) -> None:
    assert ordered(pl.Series(texts)).to_list() == expected
