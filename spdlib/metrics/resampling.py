"""The metrics of resampled images: from counts of each image, made once, for all resamples."""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from spdlib import intervals
from spdlib.metrics.counting import check_both, checked, region_shares
from spdlib.metrics.counts import LIMIT, Array, Counts
from spdlib.metrics.measures import check_limit, values

LEVELS = 2000  # distinct thresholds that weighted images keep


def bootstrap(
    labels: ArrayLike,
    scores: ArrayLike,
    repeats: int = 1000,
    level: float = intervals.LEVEL,
    seed: int = 0,
    limit: float = LIMIT,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the metrics over resampled images (Efron, 1979).

    Args:
        labels: Labels, one an image, or masks: (N,) or (N, H, W), 0 and 1.
        scores: Scores or maps of the same shape. Images are resampled, never pixels, whose
            neighbours say nearly the same.
        repeats: Number of draws of the images with replacement.
        level: Coverage, e.g. 0.95.
        seed: Seed of the resampling; the same seed draws the same images for every detector.
        limit: Largest false positive rate, as for :func:`spdlib.metrics.aupro`.

    Returns:
        ``(low, high)`` by name of the metric, as exact as :func:`weighted` is.

    Raises:
        ValueError: As for :func:`spdlib.metrics.auroc`.
    """
    count = len(checked(labels, scores)[0])
    estimates = weighted(labels, scores, intervals.draws(count, repeats, seed), limit)
    return {name: intervals.percentile(found, level) for name, found in estimates.items()}


def bootstrap_difference(
    labels: ArrayLike,
    scores: ArrayLike,
    baseline: ArrayLike,
    repeats: int = 1000,
    level: float = intervals.LEVEL,
    seed: int = 0,
) -> dict[str, tuple[float, float, float]]:
    """Gain of one detector over another, on the same resampled images.

    Args:
        labels: Labels, one an image, or masks: (N,) or (N, H, W), 0 and 1.
        scores: Scores or maps of the detector, of the same shape.
        baseline: Scores or maps of the detector that it is compared with.
        repeats: Number of draws of the images with replacement, the same for both.
        level: Coverage.
        seed: Seed of the resampling.

    Returns:
        The difference and the interval's ends, ``(difference, low, high)``, by name of the
        metric, as exact as :func:`weighted` is.

    Raises:
        ValueError: As for :func:`spdlib.metrics.auroc`.
    """
    count = len(checked(labels, scores)[0])
    # The first row is every image once: what was measured, without resampling.
    weights = np.vstack([np.ones(count), intervals.draws(count, repeats, seed)])
    ours, theirs = (weighted(labels, one, weights) for one in (scores, baseline))
    gains = {name: found - theirs[name] for name, found in ours.items()}
    return {
        name: (float(gain[0]), *intervals.percentile(gain[1:], level))
        for name, gain in gains.items()
    }


def weighted(
    labels: ArrayLike, scores: ArrayLike, weights: ArrayLike, limit: float = LIMIT
) -> dict[str, Array]:
    """The metrics of weighted images, for many weightings at once.

    Args:
        labels: Labels, one an image, or masks: (N,) or (N, H, W), 0 and 1.
        scores: Scores or maps of the same shape.
        weights: Weight of each image, and with it of each of its regions, (R, N), 0 or more;
            fractions are fine.
        limit: Largest false positive rate, as for :func:`spdlib.metrics.aupro`.

    Returns:
        Arrays (R,) by name: ``auroc``, ``aupr``, ``average_precision``, ``max_f1`` and, of masks,
        ``aupro``; NaN where a weighting leaves a metric undefined. With more than 2,000 distinct
        scores of anomalies, scores are first rounded down to 2,000 of them.

    Raises:
        ValueError: As for :func:`spdlib.metrics.auroc`.
    """
    y, s = checked(labels, scores)
    check_both(y.sum(), (~y).sum(), "labels")
    if y.ndim < 3:  # not images: what a row holds has no neighbours
        y, s = y.reshape(len(y), -1), s.reshape(len(s), -1)
    return image_counts(zip(s, y, strict=True), thinned(np.unique(s[y]))).weighted(weights, limit)


def thinned(levels: Array) -> Array:
    """So many of the levels, ascending, that counts of each image fit into memory."""
    if len(levels) <= LEVELS:
        return levels
    return levels[np.linspace(0, len(levels) - 1, LEVELS).round().astype(int)]


class ImageCounts(NamedTuple):
    """Counts of N images at K levels, from the highest down.

    Attributes:
        levels: The levels (K,).
        parts: Each image's counts (N, 3 or 4, K): positives at or above the level and below the one
            before; negatives at the level; those above it and below the one before; and, with
            regions, the positives again, each as its share of its region.
        negatives: All negatives (N,).
    """

    levels: Array
    parts: Array
    negatives: Array

    def counts(self, weights: ArrayLike) -> Counts:
        """Counts (R, K) over images that count as often as ``weights`` (R, N) say."""
        drawn = np.tensordot(np.asarray(weights), self.parts, 1)
        positives, tied, between, *overlap = np.moveaxis(drawn, 1, 0)
        at_or_above = np.cumsum(tied + between, 1)
        total = (np.asarray(weights) @ self.negatives)[:, None]
        return Counts(self.levels, positives, at_or_above - tied, at_or_above, total, *overlap)

    def weighted(self, weights: ArrayLike, limit: float = LIMIT) -> dict[str, Array]:
        """The metrics that :func:`weighted` gives."""
        check_limit(limit)
        with np.errstate(invalid="ignore", divide="ignore"):
            return values(replace(self.counts(weights), limit=limit))


def image_counts(images: Iterable[tuple[Array, Array]], levels: Array) -> ImageCounts:
    """Counts of each image's scores and labels (bool), read one after the other.

    Args:
        images: Scores and labels of an image, (P,) or (H, W).
        levels: Ascending; scores are rounded down to them, positives below all to the lowest.
    """
    parts, negatives = [], []
    for scores, truth in images:
        shares, score, normal = region_shares(truth), scores.ravel(), ~truth.ravel()
        low = np.searchsorted(levels, score, "right") - 1  # the highest level not above it
        exact = (low >= 0) & (levels[low] == score)
        positive = low[~normal].clip(0)
        places = positive, low[normal & exact], low[normal & ~exact & (low >= 0)]
        counted = [np.bincount(place, minlength=len(levels)) for place in places]
        if shares is not None:
            counted.append(np.bincount(positive, shares, len(levels)))
        parts.append(np.stack(counted)[:, ::-1].astype(float))
        negatives.append(np.count_nonzero(normal))
    return ImageCounts(levels[::-1], np.stack(parts), np.array(negatives))


def at_thresholds(
    images: Iterable[tuple[Array, Array]], counts: Counts, low: float, high: float, number: int
) -> Counts:
    """Counts at some thresholds only, joined by straight lines, as VisA's script makes them.

    Half of the thresholds are percentiles of the anomalous scores, half are evenly spaced
    between their ends; a pixel is flagged above a threshold, not at it.

    Args:
        images: Scores and labels of each image.
        counts: The exact counts of them.
        low: Lowest of all scores.
        high: Highest.
        number: Number of thresholds; two more lie outside all scores.
    """
    found = np.repeat(counts.thresholds, counts.positives).astype(float)
    half = number // 2
    levels = np.concatenate([
        np.percentile(found, np.linspace(0, 100, half)),
        np.linspace(found.min(), found.max(), half), [low - 1e-8, high + 1e-8],
    ])  # fmt: skip
    one = image_counts(images, np.unique(np.nextafter(levels, np.inf)))
    positives, tied, between, *overlap = one.parts.sum(0)
    flagged = np.cumsum(tied + between)
    above, total = np.append(0, flagged[:-1]), one.negatives.sum()
    return Counts(one.levels, positives, above, flagged, total, *overlap)
