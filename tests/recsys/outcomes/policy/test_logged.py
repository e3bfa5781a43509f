"""Which logged lists are judged, and what predicts their outcomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from drawn_lists import exposures_of, write_exposures

from recsys.outcomes.policy.logged import FOLDS, OUTCOMES, PRIOR, LoggedLists, Rates, fold_of
from recsys.schema import Col

HOUR = 3_600_000_000
USERS = [f"{number:064x}" for number in range(10)]


def lists(request: str, user: int | None, hour: float, **more: Any) -> list[dict[str, Any]]:
    more = {"propensity": [0.5, 1.0], Col.clicked: [True, False]} | more
    name = None if user is None else USERS[user]
    return exposures_of(request, name, int(hour * HOUR), ["a", "b"], **more)


@pytest.fixture
def logged(tmp_path: Path) -> LoggedLists:
    rows = [
        *lists("late", 1, 40.5, value=[3.0, None]),
        *lists("good", 1, 30),
        *lists("early", 1, 1),
        *lists("after", 1, 60),
        *lists("session", None, 30),
        *lists("sorted", 2, 30, propensity=1.0, arm="plain"),
        # One that its policy was sure of, of an arm that draws.
        *lists("sure", 2, 31, propensity=1.0),
        *lists("hole", 3, 30)[1:],
        *lists("shops", 3, 30, propensity=None, arm=None),
        *lists("alone", 3, 30, propensity=None, request_id=None),
    ]
    write_exposures(tmp_path, rows)
    days = ("1970-01-01", "1970-01-02", "1970-01-03")
    return LoggedLists(tmp_path / "exposures", days, 24 * HOUR, 50 * HOUR)


def test_every_list_is_accounted_for(logged: LoggedLists) -> None:
    survey = logged.survey()
    assert survey.counts == {
        "after_log": 1, "before_window": 1, "incomplete": 1, "judged": 3, "not_drawn": 1,
        "not_listed": 3, "session": 1,
    }  # fmt: skip
    assert survey.users.to_list() == USERS[1:3]
    found = logged.of(survey.users[:1], survey.explorers)
    assert found["us"].to_list() == [30 * HOUR, int(40.5 * HOUR)]
    assert found[Col.item].to_list() == [["a", "b"]] * 2
    assert found["revenue"].to_list() == [[0, 0], [3, 0]]
    assert found["clicks"].to_list() == [[1, 0]] * 2
    assert logged.of(pl.Series([USERS[5]]), survey.explorers).height == 0


def test_the_first_places_alone_and_a_sample_of_users(logged: LoggedLists, tmp_path: Path) -> None:
    first = LoggedLists(logged.folder, logged.days, 24 * HOUR, 50 * HOUR, places=1)
    assert first.of(pl.Series(USERS), first.survey().explorers)[Col.item].to_list() == [["a"]] * 3
    rng = np.random.default_rng(1)
    names = ["".join(rng.choice(list("0123456789abcdef"), 64)) for _ in range(400)]
    rows = [row for n, name in enumerate(names)
            for row in exposures_of(f"r{n}", name, HOUR, ["a"], propensity=0.5)]  # fmt: skip
    write_exposures(tmp_path / "many", rows)
    many = LoggedLists(tmp_path / "many" / "exposures", ("1970-01-01",), 0, 50 * HOUR)
    assert 70 < len(many.survey(100).users) < 130
    assert len(many.survey(400).users) == 400


def test_rates_predict_for_users_whom_they_do_not_know() -> None:
    """Of the others, an item's share of what its places would have given it, smoothed."""
    shown = pl.DataFrame(
        {
            "fold": [0, 0, 1, 1, None], Col.item: ["a", "b", "a", "b", "gone"],
            Col.position: [1, 2, 1, 2, 1], "shows": [100] * 5,
            **dict.fromkeys(OUTCOMES, [90.0, 90.0, 20.0, 10.0, 10.0]),
        },
        schema_overrides={Col.position: pl.Int32},
    )  # fmt: skip
    rates = Rates.fit(shown, np.array(["a", "b", "never"]))
    assert rates.of_position.shape == (FOLDS, 2, 5) and rates.of_item.shape == (FOLDS, 3, 5)
    assert rates.of_position[0, :, 0] == pytest.approx([30 / 200, 0.1])
    prior = PRIOR * 40 / 300
    assert rates.of_item[0, :, 0] == pytest.approx([(20 + prior) / (15 + prior), 1, 1])
    assert rates.of_position[1, :, 0] == pytest.approx([100 / 200, 0.9])


def test_folds_are_of_users() -> None:
    frame = pl.DataFrame({Col.user: [*USERS, None]})
    assert frame.select(fold_of(Col.user))["fold"].to_list() == [*range(5), *range(5), None]
