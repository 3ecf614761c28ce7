"""Intervals against scipy's own and closed forms."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from spdlib import intervals


def test_means_have_students_interval_and_single_values_none():
    values = {"a": [0.6, 0.7, 0.8], None: [1.0, 3.0], "b": [5.0]}
    rows = pd.DataFrame(
        [{"group": group, "value": v} for group, column in values.items() for v in column]
    )
    found = intervals.of_means(rows, ["group"], level=0.9)
    assert found.n.tolist() == [3, 2, 1]
    for row, column in zip(found.itertuples(), list(values.values())[:2], strict=False):
        mean, std = np.mean(column), np.std(column, ddof=1)
        expected = stats.t.interval(0.9, len(column) - 1, mean, stats.sem(column))
        assert (row.mean, row.std, row.low, row.high) == pytest.approx((mean, std, *expected))
    assert found["mean"][2] == 5 and found.loc[2, ["std", "low", "high"]].isna().all()


def test_a_share_has_wilsons_interval():
    # From its closed form: none of one is [0, z^2 / (1 + z^2)].
    z = stats.norm.ppf(0.975)
    assert intervals.of_share(0, 1) == pytest.approx((0, z**2 / (1 + z**2)), abs=1e-9)
    centre, reach = (30 + z**2 / 2) / (100 + z**2), z * np.sqrt(100 * 0.21 + z**2 / 4)
    expected = (centre - reach / (100 + z**2), centre + reach / (100 + z**2))
    assert intervals.of_share(30, 100) == pytest.approx(expected)
    assert np.isnan(intervals.of_share(0, 0)).all()


def test_a_resampled_mean_is_scipys():
    values = np.random.default_rng(0).gamma(2, size=60)
    low, high = intervals.of_resampled_mean(values, repeats=5000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=5000, method="percentile")
    np.testing.assert_allclose((low, high), theirs.confidence_interval, atol=0.03)


def test_draws_are_with_replacement_and_the_same_for_a_seed():
    drawn = intervals.draws(50, repeats=2000, seed=3)
    assert (drawn.sum(1) == 50).all() and drawn.mean() == 1
    assert drawn.var() == pytest.approx(1 - 1 / 50, abs=0.02)  # binomial, 50 of 1 / 50
    assert (drawn == intervals.draws(50, repeats=2000, seed=3)).all()
