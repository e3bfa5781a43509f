"""What stands of a user's events: removals, returns and dislikes, one rule after another."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.data.standing import Hidden, standing
from recsys.schema import EVENT_CODE

Told = tuple[int, str]


def read(*events: Told, times: list[int] | None = None) -> tuple[list[Told], Hidden]:
    rows = np.array([row for row, _ in events], dtype=np.int32)
    codes = [EVENT_CODE[name] for _, name in events]
    places, hidden = standing(rows, codes, times or list(range(len(events))))
    return [events[place] for place in places.tolist()], hidden


VIEW, CART, BUY = (7, "view"), (7, "add_to_cart"), (7, "purchase")
REMOVE, RETURN, DISLIKE = (7, "remove_from_cart"), (7, "return"), (7, "dislike")


@pytest.mark.parametrize(
    ("events", "left"),
    [
        ([], []),
        ([VIEW, CART, BUY], [VIEW, CART, BUY]),
        ([VIEW, CART, REMOVE], [VIEW]),
        ([CART, CART, REMOVE], [CART]),
        ([CART, REMOVE, REMOVE, CART], [CART]),
        ([REMOVE], []),
        ([(8, "add_to_cart"), REMOVE], [(8, "add_to_cart")]),
        ([CART, BUY, REMOVE], [BUY]),
        ([BUY, BUY, RETURN], [BUY]),
        ([CART, BUY, RETURN], [CART]),
        ([VIEW, DISLIKE], [VIEW]),
    ],
)
def test_what_was_taken_back_does_not_stand(events: list[Told], left: list[Told]) -> None:
    assert read(*events)[0] == left


def test_of_one_moment_what_takes_back_comes_last() -> None:
    assert read(REMOVE, CART, times=[5, 5])[0] == []
    assert read(REMOVE, CART, times=[5, 6])[0] == [CART]


def test_a_dislike_hides_until_the_user_wants_the_item_after_all() -> None:
    category = (7, "dislike_category")
    for told, attribute in ((DISLIKE, "items"), (category, "of_categories")):
        hidden = read(VIEW, told, VIEW, (9, "purchase"))[1]
        assert hidden and getattr(hidden, attribute).tolist() == [7]
        for after in (CART, BUY):
            assert not read(told, after)[1]
        assert read(told, CART, told)[1]
    assert not read(VIEW, BUY, RETURN)[1]


def test_a_category_hides_its_items_and_no_category_hides_one() -> None:
    categories = np.array([3, 5, 3, -1, -1])

    def rows(*items: int) -> np.ndarray:
        return np.array(items, dtype=np.int32)

    def hides(hidden: Hidden) -> list[int]:
        return np.flatnonzero(hidden.mask(categories, -1)).tolist()

    assert hides(Hidden(rows(2), rows())) == [2]
    assert hides(Hidden(rows(), rows(0))) == [0, 2]
    assert hides(Hidden(rows(1), rows(3))) == [1, 3]
