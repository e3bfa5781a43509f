import json

import numpy as np
import pytest

from recsys.errors import DataError
from recsys.evaluation.gate import MIN_USERS, Verdict, beats, comparison


def verdict(challenger, incumbent, groups, **changed):
    settings = {"confidence": 0.95, "num_bootstrap": 400, "seed": 3} | changed
    return beats(np.asarray(challenger), np.asarray(incumbent), np.asarray(groups), **settings)


def test_a_model_does_not_beat_itself():
    values = np.random.default_rng(0).random(50)
    got = verdict(values, values, np.arange(50) // 5)
    assert got == Verdict(0.0, 0.0, 0.0)
    assert got.better is False


def test_a_constant_gain_is_seen_through_any_noise():
    noise = np.random.default_rng(0).normal(size=60) * 100
    got = verdict(noise + 0.5, noise, np.arange(60) // 3)
    assert got.difference == pytest.approx(0.5)
    assert (got.low, got.high) == (pytest.approx(0.5), pytest.approx(0.5))
    assert got.better is True
    assert verdict(noise, noise + 0.5, np.arange(60) // 3).better is False


def test_one_busy_user_does_not_decide():
    groups = np.repeat(["busy", "b", "c", "d", "e"], [200, 2, 2, 2, 2])
    gain = np.where(groups == "busy", 1.0, -0.1)
    assert gain.mean() > 0.9
    assert not verdict(gain, np.zeros(len(gain)), groups).better
    # As if rows were independent, the gain would look certain.
    assert verdict(gain, np.zeros(len(gain)), np.arange(len(gain))).better


def test_a_single_user_proves_nothing():
    got = verdict(np.ones(9), np.zeros(9), np.zeros(9, dtype=int))
    assert got.difference == 1
    assert np.isnan(got.low)
    assert got.better is False


def test_too_few_users_prove_nothing_however_they_agree():
    one_fewer = verdict(np.ones(MIN_USERS - 1), np.zeros(MIN_USERS - 1), np.arange(MIN_USERS - 1))
    assert (one_fewer.low, one_fewer.judged, one_fewer.better) == (1, False, False)
    enough = verdict(np.ones(MIN_USERS), np.zeros(MIN_USERS), np.arange(MIN_USERS))
    assert (enough.num_users, enough.judged, enough.better) == (MIN_USERS, True, True)
    # Rows make no users, nor do rows that do not count.
    rows = verdict(np.ones(400), np.zeros(400), np.arange(400) % 3)
    assert (rows.num_users, rows.better) == (3, False)
    nan = np.where(np.arange(40) < 25, np.nan, 1.0)
    assert verdict(nan, nan, np.arange(40)).num_users == 15


def test_the_least_number_of_users_keeps_luck_out():
    """Two equal models: how often one is called better, of so many users, by the interval alone."""
    rng = np.random.default_rng(0)

    def lucky(num_users):
        found = [
            verdict(rng.normal(size=num_users), np.zeros(num_users), np.arange(num_users)).low > 0
            for _ in range(500)
        ]
        return np.mean(found)

    assert lucky(3) > 0.08
    assert lucky(MIN_USERS) < 0.06


@pytest.mark.parametrize("values", [[], [1.0], [np.nan, 1.0], [1.0, 2.0]])
def test_what_is_told_is_json(values):
    told = verdict(
        values, np.zeros(len(values)) * np.array(values), np.arange(len(values))
    ).as_json()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert comparison(told).startswith("not judged: ")


def test_a_comparison_in_words():
    assert comparison(verdict(np.ones(30) / 4, np.zeros(30), np.arange(30)).as_json()) == (
        "+0.2500 [+0.2500, +0.2500]"
    )
    told = verdict([1.0], [0.0], [1]).as_json()
    assert told == {
        "difference": 1.0, "low": None, "high": None, "num_users": 1, "judged": False,
    }  # fmt: skip
    assert comparison(told) == (
        "not judged: 1 user has rows to compare, fewer than 20 prove nothing"
    )


def test_no_rows_prove_nothing():
    got = verdict([], [], np.array([], dtype=str))
    assert np.isnan(got.difference)
    assert got.better is False


def test_rows_that_count_for_neither_do_not_count():
    nan = np.nan
    got = verdict([1, nan, 1, 1], [0, nan, 0, 0], [1, 1, 2, 3])
    assert got == Verdict(1.0, 1.0, 1.0)


def test_more_confidence_widens_the_interval():
    rng = np.random.default_rng(1)
    gain, groups = rng.normal(0.1, 1, 400), np.arange(400) // 4
    narrow = verdict(gain, np.zeros(400), groups, confidence=0.8)
    wide = verdict(gain, np.zeros(400), groups, confidence=0.99)
    assert wide.low < narrow.low < narrow.difference < narrow.high < wide.high


@pytest.mark.parametrize(
    ("challenger", "incumbent", "groups"),
    [
        ([1.0, 1.0], [0.0], [1, 2]),
        ([1.0, 1.0], [0.0, 0.0], [1]),
        ([1.0, np.nan], [0.0, 0.0], [1, 2]),
        ([1.0, 1.0], [np.nan, 0.0], [1, 2]),
    ],
)
def test_different_rows_are_refused(challenger, incumbent, groups):
    # A challenger must not win by leaving out the rows that it is bad at.
    with pytest.raises(DataError, match="same rows"):
        verdict(challenger, incumbent, groups)
