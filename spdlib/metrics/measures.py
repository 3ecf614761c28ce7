"""Exact metrics of scores, and of anomaly maps pixel by pixel: to add one, add a record here."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import nan
from typing import Any, NamedTuple, TypeAlias

from numpy.typing import ArrayLike

from spdlib.metrics.counting import checked, count, count_pixels
from spdlib.metrics.counts import LIMIT, Counts, MaxF1

Pixels: TypeAlias = ArrayLike | Iterable[ArrayLike]  # an array of images, or batches of them


class Metric(NamedTuple):
    """A metric that follows from counts.

    Attributes:
        title: Name, as tables and results write it.
        of: Function from counts to its value, or values (R,) where counts are of R weightings.
        regions: Whether it needs the regions of masks, which samples lack.
    """

    title: str
    of: Callable[[Counts], Any]
    regions: bool = False


# What is measured, resampled and written to results, by name.
METRICS = {
    "aupr": Metric("AU-PR", Counts.aupr),
    "auroc": Metric("AU-ROC", Counts.auroc),
    "average_precision": Metric("AP", Counts.average_precision),
    "max_f1": Metric("max F1", lambda counts: counts.f1().max(-1)),
    "aupro": Metric("AU-PRO", Counts.aupro, regions=True),
}


@dataclass
class Metrics:
    """All metrics of one set of scores; each of ``METRICS`` is an attribute of its name.

    Attributes:
        auroc: Area under the ROC curve.
        aupr: Area under the precision-recall curve, linear interpolation.
        average_precision: Area under the precision-recall curve, steps.
        max_f1: The best F1; ``threshold``, ``precision`` and ``recall`` are those it is at.
        positives: Number of anomalous samples or pixels.
        negatives: Number of normal ones.
        aupro: Area under the per-region overlap, of pixels only; else None.
    """

    auroc: float = nan
    aupr: float = nan
    average_precision: float = nan
    max_f1: float = nan
    threshold: float = nan
    precision: float = nan
    recall: float = nan
    positives: int = 0
    negatives: int = 0
    aupro: float | None = None

    @property
    def prevalence(self) -> float:
        """Share of anomalous samples: the average precision of a detector that guesses."""
        return self.positives / (self.positives + self.negatives)


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: how often an anomaly scores above a normal sample.

    Ties count half (Hanley and McNeil, 1982).

    Args:
        labels: 0 (normal) and 1 (anomaly), any shape; NumPy, torch, pandas or lists.
        scores: Finite real numbers of the same shape, higher for anomalies.

    Returns:
        The area, in [0, 1].

    Raises:
        ValueError: Shapes differ, nothing is given, only one class is there, labels are not
            binary, or a score is not finite. The message names the argument.

    >>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    return count(labels, scores).auroc()


def aupr(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the precision-recall curve by linear interpolation, from the point (0, 1).

    What Zou et al. report: ``sklearn.metrics.auc(recall, precision)``. Arguments and errors as
    for :func:`auroc`.

    >>> round(aupr([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
    0.7917
    """
    return count(labels, scores).aupr()


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the precision-recall curve by steps: the mean precision at each anomaly found.

    ``sklearn.metrics.average_precision_score``. Arguments and errors as for :func:`auroc`.

    >>> round(average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
    0.8333
    """
    return count(labels, scores).average_precision()


def max_f1(labels: ArrayLike, scores: ArrayLike) -> MaxF1:
    """The best F1 over all thresholds. Arguments and errors as for :func:`auroc`.

    Of several equally good thresholds the highest is returned.

    >>> max_f1([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    MaxF1(f1=0.8, threshold=0.35, precision=0.6666666666666666, recall=1.0)
    """
    return count(labels, scores).max_f1()


class Confusion(NamedTuple):
    """Counts at a threshold; a sample counts as anomalous if its score is at least that."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int


def confusion(labels: ArrayLike, scores: ArrayLike, threshold: float) -> Confusion:
    """Right and wrong verdicts at a threshold. Arguments and errors as for :func:`auroc`.

    >>> confusion([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], threshold=0.35)
    Confusion(true_positives=2, false_positives=1, false_negatives=0, true_negatives=1)
    """
    y, s = checked(labels, scores)
    flagged = s >= threshold
    parts = flagged & y, flagged & ~y, ~flagged & y, ~flagged & ~y
    return Confusion(*(int(part.sum()) for part in parts))


def evaluate(labels: ArrayLike, scores: ArrayLike) -> Metrics:
    """All metrics at once, from one pass. Arguments and errors as for :func:`auroc`."""
    return from_counts(count(labels, scores))


def pixel_metrics(maps: Pixels, masks: Pixels, limit: float = LIMIT) -> Metrics:
    """All metrics over all pixels of all images, normal images included.

    Args:
        maps: Anomaly maps: an array (N, H, W), a list of arrays of any shapes, or an iterator
            of batches, each read once. Batches of an iterator are of one dtype, and hold whole
            images, (H, W) or (N, H, W): a region ends where its array does.
        masks: The ground truth in the same form: 0 and 1, or bool.
        limit: False positive rate up to which AU-PRO integrates, in (0, 1].

    Returns:
        The metrics; ``aupro`` is None for pixels that are not laid out as images. Memory beyond
        what is handed in is bounded by the anomalous pixels and a chunk; from an iterator,
        normal pixels beyond 256 MiB wait in a temporary file.

    Raises:
        ValueError: As for :func:`auroc`, or there are more maps than masks or the reverse.

    >>> maps = [[[0.1, 0.9], [0.2, 0.3]]]; masks = [[[0, 1], [0, 0]]]
    >>> pixel_metrics(maps, masks).auroc
    1.0
    """
    check_limit(limit)
    return from_counts(count_pixels(maps, masks), limit)


def aupro(maps: Pixels, masks: Pixels, limit: float = LIMIT) -> float:
    """Area under the per-region overlap: the mean share of a defect that is found.

    A region is a connected patch of a mask (8 neighbours) within one image, and each counts the
    same, whatever its area. Their mean overlap with the flagged pixels is integrated over the
    false positive rate of all normal pixels, from 0 to ``limit``, and divided by it (Bergmann et
    al., IJCV 2021, section 5.2). Every threshold counts; between two of them the curve is a
    straight line, also where it is cut off at the limit.

    Args:
        maps: Anomaly maps, as for :func:`pixel_metrics`.
        masks: Ground truth, as for :func:`pixel_metrics`.
        limit: False positive rate up to which is integrated, in (0, 1].

    Returns:
        The area, in [0, 1]; a map that tells nothing has ``limit / 2``.

    Raises:
        ValueError: As for :func:`pixel_metrics`, or the arrays are not images.

    >>> masks = [[[1, 1, 0, 0, 1], [1, 1, 0, 0, 0]]]
    >>> aupro([[[9, 8, 1, 2, 0], [7, 6, 2, 1, 0]]], masks, limit=0.5)
    0.5
    """
    check_limit(limit)
    return replace(count_pixels(maps, masks), limit=limit).aupro()


def from_counts(counts: Counts, limit: float = LIMIT) -> Metrics:
    """All metrics that follow from the counts."""
    totals = int(counts.positive_total[0]), int(counts.negative_total)
    found = Metrics(nan, nan, nan, *counts.max_f1(), *totals)
    for name, value in values(replace(counts, limit=limit)).items():
        setattr(found, name, float(value))
    return found


def values(counts: Counts) -> dict[str, Any]:
    """Each of ``METRICS`` that the counts tell, by name."""
    regions = counts.overlap is not None
    return {name: m.of(counts) for name, m in METRICS.items() if regions or not m.regions}


def check_limit(limit: float) -> None:
    """Refuses what is no false positive rate to integrate up to."""
    if not 0 < limit <= 1:
        raise ValueError(f"limit: a false positive rate in (0, 1] is needed, not {limit}")
