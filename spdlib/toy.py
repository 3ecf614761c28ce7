"""The toy test set of appendix B: detectors given by the counts they pass through."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

POSITIVES, NEGATIVES = 100, 100_000

Counts = Sequence[tuple[int, int]]


def model_a(false_per_true: int = 10) -> Counts:
    """Model A: every anomaly found costs the same number of false alarms, ten in the text."""
    return [(k, false_per_true * k) for k in range(1, POSITIVES + 1)]


def model_b(free: int = 90, false_per_true: int = 3000) -> Counts:
    """Model B: the first 90 anomalies are free, each of the rest costs 3,000 false alarms."""
    return [(k, false_per_true * max(0, k - free)) for k in range(1, POSITIVES + 1)]


def scores_from_counts(
    counts: Counts, negatives: int = NEGATIVES
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels and scores of a detector whose curves pass through the given counts.

    Args:
        counts: (true positives, false positives) after each threshold, from the strictest.
        negatives: How many normal samples there are in all.

    Returns:
        Labels and scores, highest first. What one threshold adds shares one score: the text
        gives the points of the curves, not an order between them. Normal samples that no
        threshold reaches score 0.

    Raises:
        ValueError: Counts fall, or there are more false positives than negatives.

    >>> labels, scores = scores_from_counts([(1, 0), (2, 1)], negatives=3)
    >>> labels.tolist(), scores.tolist()
    ([1, 1, 0, 0, 0], [2.0, 1.0, 1.0, 0.0, 0.0])
    """
    steps = np.diff(np.array([(0, 0), *counts]), axis=0)
    if (steps < 0).any():
        raise ValueError("counts: true and false positives never fall as the threshold does")
    if counts[-1][1] > negatives:
        raise ValueError(f"counts: {counts[-1][1]:,} false positives, {negatives:,} negatives")
    score = np.arange(len(steps), 0, -1.0)
    labels = np.tile([1, 0], len(steps)).repeat(steps.ravel())
    scores = score.repeat(steps.sum(1))
    rest = negatives - counts[-1][1]
    return np.append(labels, np.zeros(rest, int)), np.append(scores, np.zeros(rest))
