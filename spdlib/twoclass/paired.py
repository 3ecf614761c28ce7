"""Comparisons on the same draws and the same test images, where most of the luck cancels.

Few-shot results swing with the draw, and every encoder is given the same five: their
differences, draw by draw, are steadier than the results. Where there is one training only, test
images are resampled, for both detectors alike.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from spdlib import metrics

GROUP = ("dataset", "category", "protocol", "task", "downstream_model", "encoder", "metric")
Metric = Callable[[ArrayLike, ArrayLike], float]


def over_draws(
    table: pd.DataFrame, by: Sequence[str] = (*GROUP, "method"), level: float = 0.95
) -> pd.DataFrame:
    """Mean, standard deviation and interval of each result over its draws.

    Args:
        table: Results, one value a row, with a column ``draw``.
        by: Columns that tell results apart.
        level: Coverage of the interval, which is Student's t for the mean over draws.

    Returns:
        The columns ``by``, ``mean``, ``std`` (of the sample), ``low``, ``high`` and ``draws``;
        with one draw ``std``, ``low`` and ``high`` are NaN.
    """
    groups = table.groupby(list(by), sort=False).value
    found = groups.agg(mean="mean", std="std", draws="size").reset_index()
    reach = _reach(found["std"], found.draws, level)
    return found.assign(low=found["mean"] - reach, high=found["mean"] + reach)


def differences(
    table: pd.DataFrame, baseline: str = "imagenet", level: float = 0.95
) -> pd.DataFrame:
    """Each pretraining's results less the baseline's on the same draw: mean and interval.

    The interval speaks of the draw's luck alone: all draws share a pool and the test images.

    Args:
        table: Results, one value a row, with a column ``draw``.
        baseline: The pretraining that others are compared with.
        level: Coverage of the interval, Student's t.

    Returns:
        As :func:`over_draws` of the differences, one row a pretraining and group.

    Raises:
        ValueError: There is no such pretraining, a pretraining lacks one of the baseline's
            draws, or one result is there twice.
    """
    if baseline not in set(table.method):
        raise ValueError(f"baseline: {baseline!r} is not among {', '.join(table.method.unique())}")
    keys = [*GROUP, "seed", "draw"]
    twice = table.duplicated([*keys, "method"])
    if twice.any():
        raise ValueError(f"table: {twice.sum()} results are there twice")
    others = table[table.method != baseline]
    own = table[table.method == baseline][[*keys, "value"]]
    pairs = others.merge(own, on=keys, how="left", suffixes=("", "_baseline"))
    if pairs.value_baseline.isna().any():
        lacking = pairs[pairs.value_baseline.isna()].iloc[0]
        raise ValueError(
            f"table: {baseline} lacks draw {lacking.draw} of {lacking.protocol}, {lacking.metric}"
        )
    pairs["value"] -= pairs.pop("value_baseline")
    return over_draws(pairs, level=level)


def bootstrap_difference(
    labels: ArrayLike,
    scores: ArrayLike,
    baseline: ArrayLike,
    metric: Metric = metrics.aupr,
    repeats: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """How much better one detector is than another on the same images, with an interval.

    Args:
        labels: 0 and 1, one an image.
        scores: Of the detector.
        baseline: Scores of the one it is compared with.
        metric: A function of labels and scores.
        repeats: How often images are drawn with replacement, the same for both.
        level: Coverage of the percentile interval.
        seed: Of the resampling.

    Returns:
        The difference, and the interval's ends. Resamples without both classes are left out.
    """
    labels, scores, baseline = (np.asarray(values) for values in (labels, scores, baseline))
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(repeats):
        drawn = rng.integers(len(labels), size=len(labels))
        truth = labels[drawn]
        if 0 < truth.sum() < len(truth):
            found.append(metric(truth, scores[drawn]) - metric(truth, baseline[drawn]))
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return metric(labels, scores) - metric(labels, baseline), float(low), float(high)


def _reach(std: pd.Series, draws: pd.Series, level: float) -> pd.Series:
    # One draw has no spread: NaN.
    return std / np.sqrt(draws) * stats.t.ppf((1 + level) / 2, (draws - 1).clip(lower=1))
