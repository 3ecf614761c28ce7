"""Curves to plot, thinned to what can be seen."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from spdlib.metrics.counting import count
from spdlib.metrics.counts import Array

NEAR = 1 / 200  # how far apart two points that a chord joins may lie, in x and in y
BLOCK = 1 << 14  # points looked at for a chord


class Curve(NamedTuple):
    """A curve to plot: x and y of its points, and the score threshold of each."""

    x: Array
    y: Array
    threshold: Array


def roc_curve(labels: ArrayLike, scores: ArrayLike, tolerance: float = 1e-6) -> Curve:
    """False and true positive rates, from (0, 0) to (1, 1).

    Args:
        labels: 0 and 1, as for :func:`auroc`.
        scores: Anomaly scores, as for :func:`auroc`.
        tolerance: Most that thinning may move the area under the curve, in all; 0 keeps all.

    Returns:
        The curve; millions of points become hundreds.
    """
    c = count(labels, scores)
    before = c.found - c.positives
    # Down to each positive's score, first past the negatives above it, then through its ties.
    x = np.concatenate([[0], _interleave(c.above, c.at_or_above), [c.negative_total]])
    y = np.concatenate([[0], _interleave(before, c.found), c.positive_total])
    threshold = np.concatenate([[np.inf], np.repeat(c.thresholds, 2), [-np.inf]])
    return _thin(x / c.negative_total, y / c.positive_total, threshold, tolerance)


def pr_curve(labels: ArrayLike, scores: ArrayLike, tolerance: float = 1e-6) -> Curve:
    """Recall and precision, from (0, 1) on, thinned as in :func:`roc_curve`."""
    c = count(labels, scores)
    before = c.found - c.positives
    recall = np.concatenate([[0.0], _interleave(before, c.found) / c.positive_total])
    precision = np.concatenate([[1.0], _interleave(*c.precisions())])
    threshold = np.concatenate([[np.inf], np.repeat(c.thresholds, 2)])
    return _thin(recall, precision, threshold, tolerance)


def _interleave(first: Array, second: Array) -> Array:
    return np.stack([first, second], 1).ravel()


def _thin(x: Array, y: Array, threshold: Array, tolerance: float) -> Curve:
    """Leaves out points while chords keep the area to ``tolerance`` and the shape to 1/200."""
    area = np.concatenate([[0], np.cumsum(np.diff(x) * (y[1:] + y[:-1]) / 2)])
    length = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    budget = tolerance * length / length[-1]  # the area's error may grow along the curve
    kept, drawn = [0], 0.0
    while (i := kept[-1]) < len(x) - 1:
        end = min(np.searchsorted(x, x[i] + NEAR, "right"), i + BLOCK)
        j = np.arange(i + 1, max(end, i + 2))
        reached = drawn + (x[j] - x[i]) * (y[i] + y[j]) / 2
        fits = (np.abs(y[j] - y[i]) <= NEAR) & (np.abs(reached - area[j]) <= budget[j])
        best = int(np.flatnonzero(fits).max(initial=0))  # the next point always does
        drawn = reached[best]
        kept.append(int(j[best]))
    return Curve(x[kept], y[kept], threshold[kept])
