"""Exact AU-ROC, AU-PR and max F1, at any number of samples or pixels.

All three depend on the negatives only through two counts at each distinct score of a positive:
how many negatives lie above it, and how many at or above it. One pass over the negatives, in
sorted chunks against the sorted positives, gives both. The extra memory is set by the positives
and the chunk, ties are exact, and scores are used as they are: no binning, no sigmoid.

Two areas go by the name of AU-PR. :func:`aupr` joins the points of the curve by straight lines,
as Zou et al. and their metrics script do; :func:`average_precision` sums steps. The first
flatters a detector with few distinct scores: constant scores at a prevalence of 5 % give 0.525
and 0.05.
"""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

CHUNK = 1 << 21  # negatives sorted at a time
SPOOL = 256 << 20  # bytes of negatives kept in memory before they go to a temporary file
LEVELS = 2000  # distinct thresholds that weighted images keep

Array = NDArray[Any]


class MaxF1(NamedTuple):
    """The best F1 over all thresholds, and where it is reached.

    A sample counts as anomalous if its score is at least ``threshold``.
    """

    f1: float
    threshold: float
    precision: float
    recall: float


@dataclass(frozen=True)
class Metrics:
    """All metrics of one set of scores.

    Attributes:
        auroc: Area under the ROC curve.
        aupr: Area under the precision-recall curve, linear interpolation.
        average_precision: Area under the precision-recall curve, steps.
        max_f1: The best F1; ``threshold``, ``precision`` and ``recall`` are those it is at.
        positives: How many anomalous samples or pixels there are.
        negatives: How many normal ones.
    """

    auroc: float
    aupr: float
    average_precision: float
    max_f1: float
    threshold: float
    precision: float
    recall: float
    positives: int
    negatives: int

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
    return _auroc(_count(labels, scores))


def aupr(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the precision-recall curve by linear interpolation, from the point (0, 1).

    What Zou et al. report: ``sklearn.metrics.auc(recall, precision)``. Arguments and errors as
    for :func:`auroc`.

    >>> round(aupr([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
    0.7917
    """
    return _aupr(_count(labels, scores))


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the precision-recall curve by steps: the mean precision at each anomaly found.

    ``sklearn.metrics.average_precision_score``. Arguments and errors as for :func:`auroc`.

    >>> round(average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
    0.8333
    """
    return _average_precision(_count(labels, scores))


def max_f1(labels: ArrayLike, scores: ArrayLike) -> MaxF1:
    """The best F1 over all thresholds. Arguments and errors as for :func:`auroc`.

    Of several equally good thresholds the highest is returned.

    >>> max_f1([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    MaxF1(f1=0.8, threshold=0.35, precision=0.6666666666666666, recall=1.0)
    """
    return _max_f1(_count(labels, scores))


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
    y, s = _checked(labels, scores, ("labels", "scores"))
    flagged = s >= threshold
    return Confusion(
        true_positives=int((flagged & y).sum()),
        false_positives=int((flagged & ~y).sum()),
        false_negatives=int((~flagged & y).sum()),
        true_negatives=int((~flagged & ~y).sum()),
    )


def evaluate(labels: ArrayLike, scores: ArrayLike) -> Metrics:
    """All metrics at once, from one pass. Arguments and errors as for :func:`auroc`."""
    return _metrics(_count(labels, scores))


def pixel_metrics(
    maps: ArrayLike | Iterable[ArrayLike], masks: ArrayLike | Iterable[ArrayLike]
) -> Metrics:
    """All metrics over all pixels of all images, normal images included.

    Args:
        maps: Anomaly maps: an array (N, H, W), a list of arrays of any shapes, or an iterator
            of batches, each read once. Batches of an iterator are of one dtype.
        masks: The ground truth in the same form: 0 and 1, or bool.

    Returns:
        The metrics. Memory beyond what is handed in is bounded by the anomalous pixels and a
        chunk; from an iterator, normal pixels beyond 256 MiB wait in a temporary file.

    Raises:
        ValueError: As for :func:`auroc`, or there are more maps than masks or the reverse.

    >>> maps = np.array([[[0.1, 0.9], [0.2, 0.3]]]); masks = np.array([[[0, 1], [0, 0]]])
    >>> pixel_metrics(maps, masks).auroc
    1.0
    """
    if _is_array(maps) and _is_array(masks):
        return _metrics(_count(masks, maps, ("masks", "maps")))
    positives: list[Array] = []
    with tempfile.SpooledTemporaryFile(max_size=SPOOL) as spool:
        dtype = None
        for i, (scores, anomalous) in enumerate(_batches(maps, masks)):
            if dtype is not None and dtype != scores.dtype:
                raise ValueError(f"maps: batch {i} is {scores.dtype}, those before are {dtype}")
            dtype = scores.dtype
            positives.append(scores[anomalous])
            spool.write(scores[~anomalous].tobytes())
        if dtype is None:
            raise ValueError("maps: there are none")
        spool.seek(0)
        size = CHUNK * dtype.itemsize
        chunks = (np.frombuffer(part, dtype) for part in iter(lambda: spool.read(size), b""))
        return _metrics(_count_split(np.concatenate(positives), chunks, "masks"))


class Curve(NamedTuple):
    """A curve to plot: x and y of its points, and the score threshold of each."""

    x: Array
    y: Array
    threshold: Array


def roc_curve(labels: ArrayLike, scores: ArrayLike, tolerance: float = 1e-6) -> Curve:
    """False and true positive rates, from (0, 0) to (1, 1).

    Args:
        labels: As for :func:`auroc`.
        scores: As for :func:`auroc`.
        tolerance: How much thinning may move the area under the curve in all; 0 keeps all.

    Returns:
        The curve; millions of points become hundreds.
    """
    c = _count(labels, scores)
    before = c.found - c.positives
    # Down to each positive's score, first past the negatives above it, then through its ties.
    x = np.concatenate([[0], _interleave(c.above, c.at_or_above), [c.negative_total]])
    y = np.concatenate([[0], _interleave(before, c.found), c.positive_total])
    threshold = np.concatenate([[np.inf], np.repeat(c.thresholds, 2), [-np.inf]])
    return _thin(x / c.negative_total, y / c.positive_total, threshold, tolerance)


def pr_curve(labels: ArrayLike, scores: ArrayLike, tolerance: float = 1e-6) -> Curve:
    """Recall and precision, from (0, 1) on, thinned as in :func:`roc_curve`."""
    c = _count(labels, scores)
    before = c.found - c.positives
    recall = np.concatenate([[0.0], _interleave(before, c.found) / c.positive_total])
    precision = np.concatenate([[1.0], _interleave(*_precisions(c))])
    threshold = np.concatenate([[np.inf], np.repeat(c.thresholds, 2)])
    return _thin(recall, precision, threshold, tolerance)


def bootstrap(
    labels: ArrayLike,
    scores: ArrayLike,
    repeats: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the metrics over resampled images (Efron, 1979).

    Args:
        labels: One an image, or a mask an image: (N,) or (N, H, W).
        scores: Scores or maps of the same shape. Images are resampled, never pixels, whose
            neighbours say nearly the same.
        repeats: How often images are drawn with replacement.
        level: Coverage, e.g. 0.95.
        seed: Of the resampling; the same seed draws the same images for every detector.

    Returns:
        ``(low, high)`` of ``auroc``, ``aupr``, ``average_precision`` and ``max_f1``, as exact as
        :func:`weighted` is.

    Raises:
        ValueError: As for :func:`auroc`.
    """
    count = len(_checked(labels, scores, ("labels", "scores"))[0])
    draws = np.random.default_rng(seed).multinomial(count, [1 / count] * count, repeats)
    estimates = weighted(labels, scores, draws)
    ends = [(1 - level) / 2, (1 + level) / 2]
    return {
        name: tuple(float(end) for end in np.nanquantile(values, ends))
        for name, values in estimates.items()
    }


def weighted(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike) -> dict[str, Array]:
    """The metrics of weighted images, for many weightings at once.

    Args:
        labels: One an image, or a mask an image: (N,) or (N, H, W).
        scores: Scores or maps of the same shape.
        weights: How often each image counts, (R, N), 0 or more.

    Returns:
        Arrays (R,) by name: ``auroc``, ``aupr``, ``average_precision`` and ``max_f1``; NaN where
        a weighting leaves a metric undefined. With more than 2,000 distinct scores of anomalies,
        scores are first rounded down to 2,000 of them.

    Raises:
        ValueError: As for :func:`auroc`.
    """
    y, s = _checked(labels, scores, ("labels", "scores"))
    _some_anomalous(np.count_nonzero(y), "labels")
    _some_normal(np.count_nonzero(~y), "labels")
    y, s = y.reshape(len(y), -1), s.reshape(len(s), -1)
    levels = np.unique(s[y])
    if len(levels) > LEVELS:
        levels = levels[np.linspace(0, len(levels) - 1, LEVELS).round().astype(int)]
    k = len(levels)
    positive, tied, above = (np.zeros((len(y), k)) for _ in range(3))
    for i, (truth, score) in enumerate(zip(y, s, strict=True)):
        low = np.searchsorted(levels, score, "right") - 1  # the highest level not above it
        exact = (low >= 0) & (levels[low] == score)
        positive[i] = np.bincount(low[truth].clip(0), minlength=k)[::-1]
        tied[i] = np.bincount(low[~truth & exact], minlength=k)[::-1]
        between = low[~truth & ~exact & (low >= 0)]
        above[i] = np.bincount(between, minlength=k)[::-1]
    weights = np.asarray(weights)
    positive, tied, above = (weights @ counts for counts in (positive, tied, above))
    strictly = np.cumsum(tied + above, 1) - tied
    counts = _Counts(
        thresholds=levels[::-1],
        positives=positive,
        above=strictly,
        at_or_above=strictly + tied,
        negative_total=(weights @ (~y).sum(1))[:, None],
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "auroc": _auroc(counts),
            "aupr": _aupr(counts),
            "average_precision": _average_precision(counts),
            "max_f1": _f1(counts).max(1),
        }


@dataclass(frozen=True)
class _Counts:
    """Counts at each distinct score of a positive, from the highest down; last axis K.

    Attributes:
        thresholds: The scores.
        positives: Positives at the score.
        above: Negatives strictly above it.
        at_or_above: Negatives at or above it.
        negative_total: All negatives.
    """

    thresholds: Array
    positives: Array
    above: Array
    at_or_above: Array
    negative_total: Any

    @property
    def found(self) -> Array:
        """True positives at the threshold."""
        return np.cumsum(self.positives, -1)

    @property
    def positive_total(self) -> Any:
        return self.positives.sum(-1, keepdims=True)


def _auroc(c: _Counts) -> Any:
    below = c.negative_total - (c.above + c.at_or_above) / 2
    return _scalar((c.positives * below).sum(-1) / (c.positive_total * c.negative_total)[..., 0])


def _aupr(c: _Counts) -> Any:
    # At one recall precision falls with each negative passed, an upright line without area; the
    # next slope starts at its foot, which is what `above` is for.
    foot, top = _precisions(c)
    return _scalar((c.positives * (foot + top) / 2).sum(-1) / c.positive_total[..., 0])


def _average_precision(c: _Counts) -> Any:
    _, top = _precisions(c)
    return _scalar((c.positives * top).sum(-1) / c.positive_total[..., 0])


def _precisions(c: _Counts) -> tuple[Array, Array]:
    """Precision just before the positives of a score are added, and with them."""
    before, found = c.found - c.positives, c.found
    # Before anything is found precision is 1 by convention: the curve starts at (0, 1).
    nothing = before + c.above == 0
    foot = np.where(nothing, 1.0, before / np.where(nothing, 1, before + c.above))
    # A resample may lack the highest positives: nothing is predicted there, nothing is weighed.
    top = found / np.maximum(found + c.at_or_above, 1)
    return foot, top


def _f1(c: _Counts) -> Array:
    return 2 * c.found / (c.positive_total + c.found + c.at_or_above)


def _max_f1(c: _Counts) -> MaxF1:
    f1 = _f1(c)
    best = int(f1.argmax())
    found, wrong = c.found[best], c.at_or_above[best]
    return MaxF1(
        f1=float(f1[best]),
        threshold=float(c.thresholds[best]),
        precision=float(found / (found + wrong)),
        recall=float(found / c.positive_total[0]),
    )


def _metrics(c: _Counts) -> Metrics:
    best = _max_f1(c)
    return Metrics(
        auroc=_auroc(c),
        aupr=_aupr(c),
        average_precision=_average_precision(c),
        max_f1=best.f1,
        threshold=best.threshold,
        precision=best.precision,
        recall=best.recall,
        positives=int(c.positive_total[0]),
        negatives=int(c.negative_total),
    )


def _count(
    labels: ArrayLike, scores: ArrayLike, names: tuple[str, str] = ("labels", "scores")
) -> _Counts:
    anomalous, values = (array.ravel() for array in _checked(labels, scores, names))
    chunks = (
        values[start : start + CHUNK][~anomalous[start : start + CHUNK]]
        for start in range(0, len(values), CHUNK)
    )
    return _count_split(values[anomalous], chunks, names[0])


def _count_split(positives: Array, negatives: Iterable[Array], name: str) -> _Counts:
    _some_anomalous(len(positives), name)
    thresholds, positive_counts = np.unique(positives, return_counts=True)
    below = np.zeros(len(thresholds), np.int64)
    at_or_below = np.zeros(len(thresholds), np.int64)
    total = 0
    for chunk in _at_least(negatives, len(thresholds)):
        # Sorting the chunk and looking the positives up in it, in order, is several times
        # faster than looking the unsorted negatives up among the positives.
        chunk = np.sort(chunk)
        below += np.searchsorted(chunk, thresholds, "left")
        at_or_below += np.searchsorted(chunk, thresholds, "right")
        total += len(chunk)
    _some_normal(total, name)
    return _Counts(
        thresholds=thresholds[::-1],
        positives=positive_counts[::-1],
        above=(total - at_or_below)[::-1],
        at_or_above=(total - below)[::-1],
        negative_total=total,
    )


def _some_anomalous(count: int, name: str) -> None:
    if not count:
        hint = "; class ids look black: binarise before any scaling, mask > 0"
        hint = hint if name == "masks" else ""
        raise ValueError(f"{name}: all are 0, there is no anomaly to find{hint}")


def _some_normal(count: int, name: str) -> None:
    if not count:
        raise ValueError(f"{name}: all are 1, there is nothing normal to tell apart")


def _at_least(chunks: Iterable[Array], length: int) -> Iterator[Array]:
    """Joins chunks until they are as long as what will be looked up in each."""
    waiting: list[Array] = []
    for chunk in chunks:
        waiting.append(chunk)
        if sum(map(len, waiting)) >= length:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)


def _checked(labels: ArrayLike, scores: ArrayLike, names: tuple[str, str]) -> tuple[Array, Array]:
    """Labels as bool and scores as a NumPy array, or an error that names the argument."""
    y, s = _to_numpy(labels), _to_numpy(scores)
    if y.shape != s.shape:
        raise ValueError(f"{names[0]} and {names[1]}: shapes {y.shape} and {s.shape} differ")
    if not s.size:
        raise ValueError(f"{names[1]}: there are none")
    if s.dtype.kind not in "fiub":
        raise ValueError(f"{names[1]}: {s.dtype} are not real numbers")
    if s.dtype.kind == "b":
        s = s.astype(np.uint8)
    if s.dtype.kind == "f" and not _all_finite(s):
        raise ValueError(f"{names[1]}: {(~np.isfinite(s)).sum():,} are NaN or infinite")
    if y.dtype.kind != "b":
        ones = y == 1
        if np.count_nonzero(ones) + np.count_nonzero(y == 0) != y.size:
            some = ", ".join(str(value) for value in np.unique(y)[:5])
            raise ValueError(
                f"{names[0]}: expected 0 and 1, found {some} ...; for class ids or 0 and 255, "
                f"pass {names[0]} > 0"
            )
        y = ones
    return y, s


def _all_finite(values: Array) -> bool:
    # In chunks: no second array of the size of the first.
    flat = values.reshape(-1)
    return all(
        np.isfinite(flat[start : start + CHUNK]).all() for start in range(0, flat.size, CHUNK)
    )


def _batches(maps: Any, masks: Any) -> Iterator[tuple[Array, Array]]:
    missing = object()
    ours, theirs = iter(maps), iter(masks)
    number = 0
    while True:
        scores, truth = next(ours, missing), next(theirs, missing)
        if scores is missing and truth is missing:
            return
        if scores is missing or truth is missing:
            more, fewer = ("masks", "maps") if scores is missing else ("maps", "masks")
            raise ValueError(f"{more}: there are more batches than {fewer} (of those: {number})")
        y, s = _checked(truth, scores, (f"masks[{number}]", f"maps[{number}]"))
        yield s.ravel(), y.ravel()
        number += 1


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | torch.Tensor)


def _to_numpy(values: Any) -> Array:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)


def _interleave(first: Array, second: Array) -> Array:
    return np.stack([first, second], 1).ravel()


def _scalar(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 else value


def _thin(x: Array, y: Array, threshold: Array, tolerance: float) -> Curve:
    """Leaves out points while chords keep the area to ``tolerance`` and the shape to 1/200."""
    area = np.concatenate([[0], np.cumsum(np.diff(x) * (y[1:] + y[:-1]) / 2)])
    length = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    budget = tolerance * length / length[-1]  # the area's error may grow along the curve
    last, kept, drawn = len(x) - 1, [0], 0.0

    def fits(i: int, j: int) -> bool:
        if x[j] - x[i] > 0.005 or abs(y[j] - y[i]) > 0.005:
            return False
        return abs(drawn + chord(i, j) - area[j]) <= budget[j]

    def chord(i: int, j: int) -> float:
        return (x[j] - x[i]) * (y[i] + y[j]) / 2

    while kept[-1] < last:
        i, step = kept[-1], 1
        while i + 2 * step <= last and fits(i, i + 2 * step):
            step *= 2
        reach = i + step
        while step > 1:
            step //= 2
            if reach + step <= last and fits(i, reach + step):
                reach += step
        drawn += chord(i, reach)
        kept.append(reach)
    return Curve(x[kept], y[kept], threshold[kept])
