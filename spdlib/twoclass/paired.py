"""Comparisons on the same draws, where most of the luck cancels.

Few-shot results swing with the draw, and every encoder is given the same five: their
differences, draw by draw, are steadier than the results.
"""

import pandas as pd

from spdlib import intervals

GROUP = ("dataset", "category", "protocol", "task", "downstream_model", "encoder", "metric")


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
        As :func:`spdlib.intervals.of_means` of the differences, by group and ``method``.

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
    return intervals.of_means(pairs, [*GROUP, "method"], level=level)
