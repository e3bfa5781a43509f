import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recsys.evaluation.metrics import intervals
from recsys.evaluation.metrics.intervals import (
    Interval,
    bootstrap_mean,
    bootstrap_means,
    bootstrap_statistic,
)

NAN = np.nan


def test_a_constant_has_no_width():
    groups = np.array(["a", "a", "b", "c", "c", "c"])
    got = bootstrap_mean(np.full(6, 0.25), groups, num_bootstrap=50, seed=1)
    assert got == Interval(0.25, 0.25, 0.25, 6)


def test_two_groups_by_hand():
    # Resampled means: 0 (the first user twice), 1/4 (one each) and 1.
    values, groups = np.array([0.0, 0, 0, 1]), np.array([7, 7, 7, 9])
    got = bootstrap_mean(values, groups, num_bootstrap=400, confidence=0.9, seed=1)
    assert got == Interval(0.25, 0.0, 1.0, 4)


def test_resampled_means_are_weighted_by_rows_not_by_users():
    values, groups = np.array([0.0, 0, 0, 1]), np.array([0, 0, 0, 1])
    got = bootstrap_mean(values, groups, num_bootstrap=4001, confidence=0.2, seed=1)
    assert (got.low, got.high) == (0.25, 0.25)  # the middle fifth: one draw of each user


def test_rows_that_are_nan_do_not_count():
    values = np.array([1.0, NAN, 3.0, NAN, 5.0])
    groups = np.array([0, 0, 1, 2, 3])
    got = bootstrap_mean(values, groups, num_bootstrap=300, seed=5)
    assert (got.mean, got.num_rows) == (3.0, 3)
    assert 1 <= got.low < 3 < got.high <= 5


def test_only_nan_and_no_rows_at_all():
    for values in (np.full(4, NAN), np.zeros(0)):
        got = bootstrap_mean(values, np.arange(len(values)), num_bootstrap=10, seed=5)
        assert got.num_rows == 0
        assert np.isnan([got.mean, got.low, got.high]).all()


@pytest.mark.parametrize("second", [1, NAN])
def test_the_spread_of_one_group_is_unknown(second):
    values = np.array([1.0, 2.0, second])
    groups = np.array([4, 4, 4]) if second == 1 else np.array([4, 4, 5])
    got = bootstrap_mean(values, groups, num_bootstrap=10, seed=5)
    assert got.mean == np.nanmean(values)
    assert np.isnan([got.low, got.high]).all()


def test_all_columns_share_the_resamples():
    rng = np.random.default_rng(0)
    values, groups = rng.random((90, 3)), rng.integers(0, 20, 90)
    values[rng.random(values.shape) < 0.2] = NAN
    many = bootstrap_means(values, groups, num_bootstrap=100, seed=9)
    for column, interval in zip(values.T, many, strict=True):
        alone = bootstrap_mean(column, groups, num_bootstrap=100, seed=9)
        assert interval.num_rows == alone.num_rows
        assert (interval.mean, interval.low, interval.high) == pytest.approx(
            (alone.mean, alone.low, alone.high)
        )


def test_the_chunk_size_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    values, groups = rng.random(200), rng.integers(0, 30, 200)
    whole = bootstrap_mean(values, groups, num_bootstrap=101, seed=9)
    monkeypatch.setattr(intervals, "_CHUNK_WEIGHTS", 30 * 7)
    parts = bootstrap_mean(values, groups, num_bootstrap=101, seed=9)
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high))


def test_names_of_the_groups_do_not_matter():
    rng = np.random.default_rng(0)
    values, groups = rng.random(100), rng.integers(10, 40, 100)
    kwargs = {"num_bootstrap": 50, "seed": 2}
    as_text = groups.astype(str)
    assert bootstrap_mean(values, groups, **kwargs) == bootstrap_mean(values, as_text, **kwargs)
    as_objects = as_text.astype(object)
    assert bootstrap_mean(values, groups, **kwargs) == bootstrap_mean(values, as_objects, **kwargs)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Rows of a user share an effect of standard deviation 1; the truth is 0."""
    rng = np.random.default_rng(11)
    num_users, num_samples = 80, 300
    covered, covered_by_rows = 0, 0
    for sample in range(num_samples):
        groups = np.repeat(np.arange(num_users), rng.integers(1, 12, num_users))
        values = rng.normal(size=num_users)[groups] + rng.normal(size=len(groups))
        got = bootstrap_mean(values, groups, num_bootstrap=300, confidence=0.9, seed=sample)
        covered += got.low <= 0 <= got.high
        rows = bootstrap_mean(
            values, np.arange(len(values)), num_bootstrap=300, confidence=0.9, seed=sample
        )
        covered_by_rows += rows.low <= 0 <= rows.high
    assert 0.84 <= covered / num_samples <= 0.95
    assert covered_by_rows / num_samples < 0.7  # why users are resampled


@settings(max_examples=60, deadline=None)
@given(
    values=hnp.arrays(
        float, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=st.floats(-9, 9)
    ),
    data=st.data(),
)
def test_bounds_lie_within_the_data(values, data):
    hidden = data.draw(hnp.arrays(bool, values.shape))
    groups = data.draw(hnp.arrays(int, len(values), elements=st.integers(0, 5)))
    values = np.where(hidden, NAN, values)
    for column, got in zip(
        values.T, bootstrap_means(values, groups, num_bootstrap=20, seed=0), strict=True
    ):
        counted = column[~np.isnan(column)]
        assert got.num_rows == len(counted)
        if len(counted):
            assert got.mean == pytest.approx(counted.mean())
        if len(np.unique(groups[~np.isnan(column)])) >= 2:
            slack = 1e-9
            assert counted.min() - slack <= got.low <= got.high <= counted.max() + slack


def test_a_mean_as_a_statistic_has_the_bounds_of_a_mean():
    rng = np.random.default_rng(2)
    values, groups = rng.normal(size=60), rng.integers(9, size=60)
    options = {"num_bootstrap": 200, "seed": 3}
    expected = bootstrap_mean(values, groups, **options)
    got = bootstrap_statistic(lambda rows: float(values[rows].mean()), groups, **options)
    assert got.num_rows == 60
    np.testing.assert_allclose(
        [got.mean, got.low, got.high], [expected.mean, expected.low, expected.high]
    )


def test_a_statistic_of_one_user_has_no_bounds():
    got = bootstrap_statistic(lambda rows: float(len(rows)), np.zeros(4), num_bootstrap=9, seed=1)
    assert got.mean == 4 and np.isnan(got.low) and np.isnan(got.high)
