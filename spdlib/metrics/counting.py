"""Counts of labels and scores, or maps and masks: checked, chunk by chunk."""

import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from spdlib.metrics.counts import Array, Counts

CHUNK = 1 << 21  # negatives sorted at a time
SPOOL = 256 << 20  # bytes of negatives kept in memory before they go to a temporary file
EIGHT = np.ones((3, 3), bool)  # pixels that touch at a corner are of one region
LABELS, PIXELS = ("labels", "scores"), ("masks", "maps")
NONE: Any = object()  # where one iterator ends before the other


def count(labels: ArrayLike, scores: ArrayLike, names: tuple[str, str] = LABELS) -> Counts:
    """Counts of arrays that are in memory; of masks and maps by region, too."""
    anomalous, values = checked(labels, scores, names)
    shares = region_shares(anomalous) if names == PIXELS else None
    anomalous, values = anomalous.ravel(), values.ravel()

    def negatives(size: int) -> Iterator[Array]:
        parts = (slice(start, start + size) for start in range(0, len(values), size))
        return (values[part][~anomalous[part]] for part in parts)

    return _count_split(values[anomalous], negatives, names[0], shares)


def count_pixels(maps: Any, masks: Any) -> Counts:
    """Counts of all pixels of arrays, or of an iterator of batches of whole images."""
    if hasattr(maps, "ndim") and hasattr(masks, "ndim"):
        return count(masks, maps, PIXELS)
    positives: list[Array] = []
    shares: list[Array | None] = []
    with tempfile.SpooledTemporaryFile(max_size=SPOOL) as spool:
        for i, (scores, anomalous) in enumerate(_batches(maps, masks)):
            if positives and (before := positives[0].dtype) != scores.dtype:
                raise ValueError(f"maps: batch {i} is {scores.dtype}, those before are {before}")
            positives.append(scores[anomalous])
            shares.append(region_shares(anomalous))
            spool.write(scores[~anomalous].tobytes())
        if not positives:
            raise ValueError("maps: there are none")
        spool.seek(0)
        dtype = positives[0].dtype

        def negatives(size: int) -> Iterator[Array]:
            parts = iter(lambda: spool.read(size * dtype.itemsize), b"")
            return (np.frombuffer(part, dtype) for part in parts)

        # Where one batch has no regions, there are none of all.
        regions = [part for part in shares if part is not None]
        whole = np.concatenate(regions) if len(regions) == len(shares) else None
        return _count_split(np.concatenate(positives), negatives, "masks", whole)


def region_shares(masks: Array) -> Array | None:
    """Share that each anomalous pixel is of its region: 1 / area, in the order of ``masks[masks]``.

    Regions are 8-connected and end with their image. None if ``masks`` (bool) are no images.
    """
    if masks.ndim < 2:
        return None
    shares = [np.empty(0)]
    for image in masks.reshape(-1, *masks.shape[-2:]):
        rows, columns = (np.flatnonzero(image.any(axis)) for axis in (1, 0))
        if len(rows):
            # Only what surrounds all regions is searched for them.
            around = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            regions = ndimage.label(around, EIGHT)[0][around]
            shares.append(1 / np.bincount(regions)[regions])
    return np.concatenate(shares)


def _count_split(
    positives: Array, negatives: Callable[[int], Iterable[Array]], name: str, shares: Array | None
) -> Counts:
    thresholds, place, counts = np.unique(positives, return_inverse=True, return_counts=True)
    below = np.zeros(len(thresholds), np.int64)
    at_or_below = np.zeros(len(thresholds), np.int64)
    total = 0
    # In chunks not shorter than what is looked up in each.
    for chunk in negatives(max(CHUNK, len(positives))):
        # Sorting the chunk and looking the positives up in it, in order, is several times
        # faster than looking the unsorted negatives up among the positives.
        chunk = np.sort(chunk)
        below += np.searchsorted(chunk, thresholds, "left")
        at_or_below += np.searchsorted(chunk, thresholds, "right")
        total += len(chunk)
    check_both(len(positives), total, name)
    return Counts(
        thresholds=thresholds[::-1],
        positives=counts[::-1],
        above=(total - at_or_below)[::-1],
        at_or_above=(total - below)[::-1],
        negative_total=total,
        overlap=None if shares is None else np.bincount(place, shares)[::-1],
    )


def check_both(anomalous: int, normal: int, name: str) -> None:
    """Refuses labels without an anomaly, or without a normal sample."""
    if not anomalous:
        hint = "; class ids look black: binarise before any scaling, mask > 0"
        hint = hint if name == "masks" else ""
        raise ValueError(f"{name}: all are 0, there is no anomaly to find{hint}")
    if not normal:
        raise ValueError(f"{name}: all are 1, there is nothing normal to tell apart")


def checked(
    labels: ArrayLike, scores: ArrayLike, names: tuple[str, str] = LABELS
) -> tuple[Array, Array]:
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
    if not np.isfinite([s.min(), s.max()]).all():  # NaN is passed on
        raise ValueError(f"{names[1]}: {(~np.isfinite(s)).sum():,} are NaN or infinite")
    return y if y.dtype.kind == "b" else _binary(y, names[0]), s


def _binary(labels: Array, name: str) -> Array:
    if labels.dtype.kind == "O":  # None, or pandas' NA, compares with nothing: as text it does
        known = [v if isinstance(v, int | float | np.generic) else str(v) for v in labels.flat]
        labels = np.array(known, object).reshape(labels.shape)
    ones = labels == 1
    strange = ~ones & (labels != 0)
    if strange.any():
        some = ", ".join(dict.fromkeys(str(value) for value in labels[strange][:1000]))
        hint = f"for class ids or 0 and 255, pass {name} > 0"
        raise ValueError(f"{name}: expected 0 and 1, found {some[:40]} ...; {hint}")
    return ones


def _batches(maps: Any, masks: Any) -> Iterator[tuple[Array, Array]]:
    for number, (scores, truth) in enumerate(itertools.zip_longest(maps, masks, fillvalue=NONE)):
        if scores is NONE or truth is NONE:
            more, fewer = ("masks", "maps") if scores is NONE else ("maps", "masks")
            raise ValueError(f"{more}: there are more batches than {fewer} (of those: {number})")
        y, s = checked(truth, scores, (f"masks[{number}]", f"maps[{number}]"))
        yield s, y


def _to_numpy(values: Any) -> Array:
    if hasattr(values, "detach"):  # a tensor; an import of torch takes seconds
        values = values.detach().cpu()
        return (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()
    return np.asarray(values)
