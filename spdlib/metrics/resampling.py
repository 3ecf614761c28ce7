"""The metrics of resampled images: from counts of each image, made once, for all resamples."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from spdlib import intervals
from spdlib.metrics.counting import checked, region_shares, some_anomalous, some_normal
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
        labels: One an image, or a mask an image: (N,) or (N, H, W).
        scores: Scores or maps of the same shape. Images are resampled, never pixels, whose
            neighbours say nearly the same.
        repeats: How often images are drawn with replacement.
        level: Coverage, e.g. 0.95.
        seed: Seed of the resampling; the same seed draws the same images for every detector.
        limit: As for :func:`spdlib.metrics.aupro`.

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
    """How much better one detector is than another, on the same resampled images.

    Args:
        labels: One an image, or a mask an image: (N,) or (N, H, W).
        scores: Scores or maps of the detector, of the same shape.
        baseline: Those of the one it is compared with.
        repeats: How often images are drawn with replacement, the same for both.
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
        labels: One an image, or a mask an image: (N,) or (N, H, W).
        scores: Scores or maps of the same shape.
        weights: How often each image counts, and with it each of its regions, (R, N), 0 or
            more; fractions are fine.
        limit: As for :func:`spdlib.metrics.aupro`.

    Returns:
        Arrays (R,) by name: ``auroc``, ``aupr``, ``average_precision``, ``max_f1`` and, of masks,
        ``aupro``; NaN where a weighting leaves a metric undefined. With more than 2,000 distinct
        scores of anomalies, scores are first rounded down to 2,000 of them.

    Raises:
        ValueError: As for :func:`spdlib.metrics.auroc`.
    """
    y, s = checked(labels, scores)
    some_anomalous(int(y.sum()), "labels")
    some_normal(int((~y).sum()), "labels")
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
        positives: Positives at or above the level and below the one before, (N, K).
        tied: Negatives at the level.
        between: Negatives above the level and below the one before.
        negatives: All negatives (N,).
        overlap: As ``positives``, each as its share of its region; None without regions.
    """

    levels: Array
    positives: Array
    tied: Array
    between: Array
    negatives: Array
    overlap: Array | None

    def counts(self, weights: ArrayLike) -> Counts:
        """Counts (R, K) over images that count as often as ``weights`` (R, N) say."""
        weights = np.asarray(weights)
        tied = weights @ self.tied
        at_or_above = np.cumsum(tied + weights @ self.between, 1)
        return Counts(
            thresholds=self.levels,
            positives=weights @ self.positives,
            above=at_or_above - tied,
            at_or_above=at_or_above,
            negative_total=(weights @ self.negatives)[:, None],
            overlap=None if self.overlap is None else weights @ self.overlap,
        )

    def weighted(self, weights: ArrayLike, limit: float = LIMIT) -> dict[str, Array]:
        """As :func:`weighted`."""
        check_limit(limit)
        with np.errstate(invalid="ignore", divide="ignore"):
            return values(replace(self.counts(weights), limit=limit))


def image_counts(images: Iterable[tuple[Array, Array]], levels: Array) -> ImageCounts:
    """Counts of each image's scores and labels (bool), read one after the other.

    Args:
        images: Scores and labels of an image, (P,) or (H, W).
        levels: Ascending; scores are rounded down to them, positives below all to the lowest.
    """
    rows = [_at_levels(score, truth, levels) for score, truth in images]
    positives, tied, between, negatives, shares = zip(*rows, strict=True)
    return ImageCounts(
        levels=levels[::-1],
        positives=np.stack(positives),
        tied=np.stack(tied),
        between=np.stack(between),
        negatives=np.stack(negatives),
        overlap=None if shares[0] is None else np.stack(shares),
    )


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
        number: How many thresholds; two more lie outside all scores.
    """
    found = np.repeat(counts.thresholds, counts.positives).astype(float)
    half = number // 2
    levels = np.concatenate([
        np.percentile(found, np.linspace(0, 100, half)),
        np.linspace(found.min(), found.max(), half), [low - 1e-8, high + 1e-8],
    ])  # fmt: skip
    one = image_counts(images, np.unique(np.nextafter(levels, np.inf)))
    coarse = one.counts(np.ones((1, len(one.negatives))))
    at_or_above = coarse.at_or_above[0]
    return Counts(
        thresholds=coarse.thresholds,
        positives=coarse.positives[0],
        above=np.append(0, at_or_above[:-1]),
        at_or_above=at_or_above,
        negative_total=coarse.negative_total[0, 0],
        overlap=None if coarse.overlap is None else coarse.overlap[0],
    )


def _at_levels(score: Array, truth: Array, levels: Array) -> tuple[Any, ...]:
    shares, score, truth = region_shares(truth), score.ravel(), truth.ravel()
    low = np.searchsorted(levels, score, "right") - 1  # the highest level not above it
    exact = (low >= 0) & (levels[low] == score)
    between = ~truth & ~exact & (low >= 0)

    def counted(places: Array, weights: Array | None = None) -> Array:
        return np.bincount(places, weights, len(levels))[::-1].astype(float)

    return (
        counted(low[truth].clip(0)),
        counted(low[~truth & exact]),
        counted(low[between]),
        np.count_nonzero(~truth),
        None if shares is None else counted(low[truth].clip(0), shares),
    )
