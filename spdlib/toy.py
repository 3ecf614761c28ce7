"""The toy test set of appendix B: detectors given by the counts they pass through."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

POSITIVES, NEGATIVES = 100, 100_000

# (true positives, false positives) after each threshold, from the strictest to the loosest.
Pairs = Sequence[tuple[int, int]]

# Model A finds each anomaly at the same price; model B finds 90 % for free, the rest dearly.
MODEL_A = {"false_per_true": 10, "free": 0.0}
MODEL_B = {"false_per_true": 3000, "free": 0.9}


def pairs(
    false_per_true: float,
    free: float = 0.0,
    positives: int = POSITIVES,
    negatives: int = NEGATIVES,
) -> Pairs:
    """Counts of a detector that finds some anomalies for free and pays for each of the rest.

    Args:
        false_per_true: False alarms for each further anomaly; sums are rounded.
        free: Share of the anomalies that costs none, in [0, 1].
        positives: Number of anomalies.
        negatives: Number of normal samples; false alarms end there.

    Returns:
        A pair (true positives, false positives) for each anomaly found.

    >>> pairs(10)[:2], pairs(**MODEL_B)[89:91]
    ([(1, 10), (2, 20)], [(90, 0), (91, 3000)])
    """
    paid = (max(0, k - round(free * positives)) for k in range(1, positives + 1))
    return [(k, min(round(false_per_true * n), negatives)) for k, n in enumerate(paid, 1)]


def samples(counts: Pairs, negatives: int = NEGATIVES) -> tuple[NDArray[Any], NDArray[Any]]:
    """Labels and scores of a detector whose curves pass through the given counts.

    Args:
        counts: (true positives, false positives) after each threshold, from the strictest.
        negatives: Number of normal samples in all.

    Returns:
        Labels (int) and scores (float), highest first. What one threshold adds shares one
        score: the text gives the points of the curves, not an order between them. Normal
        samples that no threshold reaches score 0.

    Raises:
        ValueError: Counts fall, or there are more false positives than negatives.

    >>> labels, scores = samples([(1, 0), (2, 1)], negatives=3)
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
