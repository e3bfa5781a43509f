from __future__ import annotations

import pytest

from recsys.data.adapters.base import split_into_parts


@pytest.mark.parametrize(
    ("group_rows", "parts"),
    [
        ([], []),
        ([0], []),
        ([3], [(0, 1, 3)]),
        ([2_000_000, 1], [(0, 1, 2_000_000), (1, 2, 1)]),
        ([9_000_000, 5], [(0, 1, 9_000_000), (1, 2, 5)]),
        ([1_000_000] * 5, [(0, 2, 2_000_000), (2, 4, 2_000_000), (4, 5, 1_000_000)]),
    ],
)
def test_parts_are_whole_row_groups(
    group_rows: list[int], parts: list[tuple[int, int, int]]
) -> None:
    found = split_into_parts("f", group_rows)
    assert [(part.first_group, part.last_group, part.num_rows) for part in found] == parts
