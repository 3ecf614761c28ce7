"""Intervals: of a mean, of a share, and of whatever is measured on resampled images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.95


def half_width(std: Any, count: ArrayLike, level: float = LEVEL) -> NDArray:
    """Half of Student's interval of a mean; NaN for a single value.

    Args:
        std: Standard deviation of the sample, with ``count - 1`` degrees of freedom.
        count: Number of values.
        level: Coverage, e.g. 0.95.

    >>> round(float(half_width(2.0, 4)), 3)
    3.182
    """
    count = np.asarray(count)
    t = stats.t.ppf((1 + level) / 2, np.maximum(count - 1, 1))
    return np.where(count > 1, std * t / np.sqrt(count), np.nan)


def of_means(
    rows: pd.DataFrame, by: Sequence[str], column: str = "value", level: float = LEVEL
) -> pd.DataFrame:
    """Mean of each group's values, with Student's interval.

    Args:
        rows: One value a row.
        by: Columns that tell groups apart; they may hold NaN.
        column: The values.
        level: Coverage.

    Returns:
        The columns ``by``, ``mean``, ``std`` (of the sample), ``n``, ``low`` and ``high``; with
        one value ``std``, ``low`` and ``high`` are NaN.
    """
    groups = rows.groupby(list(by), sort=False, dropna=False)[column]
    found = groups.agg(mean="mean", std="std", n="size").reset_index()
    half = half_width(found["std"], found.n, level)
    return found.assign(low=found["mean"] - half, high=found["mean"] + half)


def of_share(hits: int, count: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's interval of a share, ``hits`` of ``count``; NaN if ``count`` is 0.

    >>> [round(end, 3) for end in of_share(0, 1)]
    [0.0, 0.793]
    """
    if not count:
        return float("nan"), float("nan")
    found = stats.binomtest(int(hits), int(count)).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """P values of a family of tests, adjusted as Holm does (1979): below 0.05 they hold at 5 %.

    >>> holm([0.01, 0.04, 0.02]).tolist()
    [0.03, 0.04, 0.04]
    """
    p = np.asarray(p, float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted


def draws(count: int, repeats: int = 1000, seed: int = 0) -> NDArray[np.int64]:
    """Number of times that each of ``count`` images is drawn, with replacement: (repeats, count).

    The same seed draws the same images, so differences of two detectors on them are paired.
    """
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), repeats)


def percentile(estimates: NDArray, level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval of estimates on resampled images (Efron, 1979); NaN are left out."""
    low, high = np.nanquantile(estimates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def of_resampled_mean(
    values: ArrayLike, repeats: int = 1000, level: float = LEVEL, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean over resampled images, one value an image."""
    values = np.asarray(values)
    return percentile(draws(len(values), repeats, seed) @ values / len(values), level)
