"""Counts at each distinct score of an anomaly, and the metrics that follow from them."""

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

LIMIT = 0.3  # false positive rate up to which MVTec's papers integrate the overlap

Array: TypeAlias = NDArray[Any]


class MaxF1(NamedTuple):
    """The best F1 over all thresholds, and where it is reached.

    A sample counts as anomalous if its score is at least ``threshold``.
    """

    f1: float
    threshold: float
    precision: float
    recall: float


@dataclass(frozen=True)
class Counts:
    """Counts at each distinct score of a positive, from the highest down; last axis K.

    Attributes:
        thresholds: The scores.
        positives: Positives at the score.
        above: Negatives strictly above it.
        at_or_above: Negatives at or above it.
        negative_total: All negatives.
        overlap: Positives at the score, each as its share of its region's area; None where
            samples have no regions.
        limit: False positive rate up to which the overlap is integrated.
    """

    thresholds: Array
    positives: Array
    above: Array
    at_or_above: Array
    negative_total: Any
    overlap: Array | None = None
    limit: float = LIMIT

    @property
    def found(self) -> Array:
        """True positives at the threshold."""
        return np.cumsum(self.positives, -1)

    @property
    def positive_total(self) -> Any:
        """All positives."""
        return self.positives.sum(-1, keepdims=True)

    def auroc(self) -> Any:
        """Area under the ROC curve."""
        below = self.negative_total - (self.above + self.at_or_above) / 2
        total = (self.positive_total * self.negative_total)[..., 0]
        return _scalar((self.positives * below).sum(-1) / total)

    def aupr(self) -> Any:
        """Area under the precision-recall curve, linear."""
        # At one recall precision falls with each negative passed, an upright line without area;
        # the next slope starts at its foot, which is what `above` is for.
        foot, top = self.precisions()
        return _scalar((self.positives * (foot + top) / 2).sum(-1) / self.positive_total[..., 0])

    def average_precision(self) -> Any:
        """Area under the precision-recall curve, steps."""
        _, top = self.precisions()
        return _scalar((self.positives * top).sum(-1) / self.positive_total[..., 0])

    def aupro(self) -> Any:
        """Area under the per-region overlap up to the limit, as a share of it.

        What a score adds to the overlap comes evenly between the false positive rates just
        before and at it, and counts from there to the limit.
        """
        if self.overlap is None:
            raise ValueError("masks: regions are looked for in images, (H, W) or (N, H, W)")
        start, end = (count / self.negative_total for count in (self.above, self.at_or_above))
        width = end - start
        part = np.clip((self.limit - start) / np.where(width > 0, width, 1), 0, 1)
        reach = part**2 * width / 2 + np.maximum(self.limit - end, 0)
        return _scalar((self.overlap * reach).sum(-1) / (self.limit * self.overlap.sum(-1)))

    def precisions(self) -> tuple[Array, Array]:
        """Precision just before the positives of a score are added, and with them."""
        before, found = self.found - self.positives, self.found
        # Before anything is found precision is 1 by convention: the curve starts at (0, 1).
        nothing = before + self.above == 0
        foot = np.where(nothing, 1.0, before / np.where(nothing, 1, before + self.above))
        # A resample may lack the highest positives: 0/0 becomes 0; its weight is 0.
        flagged = found + self.at_or_above
        return foot, found / np.where(flagged == 0, 1, flagged)

    def f1(self) -> Array:
        """F1 at each threshold."""
        return 2 * self.found / (self.positive_total + self.found + self.at_or_above)

    def max_f1(self) -> MaxF1:
        """The best F1; of several equally good thresholds the highest."""
        f1 = self.f1()
        best = int(f1.argmax())
        found, wrong = self.found[best], self.at_or_above[best]
        return MaxF1(
            f1=float(f1[best]),
            threshold=float(self.thresholds[best]),
            precision=float(found / (found + wrong)),
            recall=float(found / self.positive_total[0]),
        )


def _scalar(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 else value
