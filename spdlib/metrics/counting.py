"""From labels and scores, or maps and masks, to counts: checked, chunk by chunk."""

import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from spdlib.metrics.counts import Array, Counts

CHUNK = 1 << 21  # negatives sorted at a time
SPOOL = 256 << 20  # bytes of negatives kept in memory before they go to a temporary file
EIGHT = np.ones((3, 3), bool)  # pixels that touch at a corner are of one region
LABELS, PIXELS = ("labels", "scores"), ("masks", "maps")


def count(labels: ArrayLike, scores: ArrayLike, names: tuple[str, str] = LABELS) -> Counts:
    """Counts of arrays that are in memory; of masks and maps by region, too."""
    labels, scores = checked(labels, scores, names)
    shares = region_shares(labels) if names == PIXELS else None
    anomalous, values = labels.ravel(), scores.ravel()
    chunks = (
        values[start : start + CHUNK][~anomalous[start : start + CHUNK]]
        for start in range(0, len(values), CHUNK)
    )
    return _count_split(values[anomalous], chunks, names[0], shares)


def count_pixels(maps: Any, masks: Any) -> Counts:
    """Counts of all pixels of arrays, or of an iterator of batches of whole images."""
    if _is_array(maps) and _is_array(masks):
        return count(masks, maps, PIXELS)
    positives: list[Array] = []
    shares: list[Array] = []
    with tempfile.SpooledTemporaryFile(max_size=SPOOL) as spool:
        dtype = None
        for i, (scores, anomalous) in enumerate(_batches(maps, masks)):
            if dtype is not None and dtype != scores.dtype:
                raise ValueError(f"maps: batch {i} is {scores.dtype}, those before are {dtype}")
            dtype = scores.dtype
            positives.append(scores[anomalous])
            shares += [] if (parts := region_shares(anomalous)) is None else [parts]
            spool.write(scores[~anomalous].tobytes())
        if dtype is None:
            raise ValueError("maps: there are none")
        spool.seek(0)
        size = CHUNK * dtype.itemsize
        chunks = (np.frombuffer(part, dtype) for part in iter(lambda: spool.read(size), b""))
        # Where one batch has no regions, there are none of all.
        whole = np.concatenate(shares) if len(shares) == len(positives) else None
        return _count_split(np.concatenate(positives), chunks, "masks", whole)


def region_shares(masks: Array) -> Array | None:
    """What each anomalous pixel is of its region: 1 / area, in the order of ``masks[masks]``.

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
    positives: Array, negatives: Iterable[Array], name: str, shares: Array | None = None
) -> Counts:
    some_anomalous(len(positives), name)
    thresholds, positive_counts, overlap = _distinct(positives, shares)
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
    some_normal(total, name)
    return Counts(
        thresholds=thresholds[::-1],
        positives=positive_counts[::-1],
        above=(total - at_or_below)[::-1],
        at_or_above=(total - below)[::-1],
        negative_total=total,
        overlap=None if overlap is None else overlap[::-1],
    )


def _distinct(positives: Array, shares: Array | None) -> tuple[Array, Array, Array | None]:
    """The distinct scores, ascending, how often each occurs, and the sum of its shares."""
    if shares is None:
        return *np.unique(positives, return_counts=True), None
    thresholds, place, counts = np.unique(positives, return_inverse=True, return_counts=True)
    return thresholds, counts, np.bincount(place, shares)


def some_anomalous(count: int, name: str) -> None:
    """Refuses labels without an anomaly."""
    if not count:
        hint = "; class ids look black: binarise before any scaling, mask > 0"
        hint = hint if name == "masks" else ""
        raise ValueError(f"{name}: all are 0, there is no anomaly to find{hint}")


def some_normal(count: int, name: str) -> None:
    """Refuses labels without a normal sample."""
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
    if s.dtype.kind == "f" and not _all_finite(s):
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
        raise ValueError(
            f"{name}: expected 0 and 1, found {some[:40]} ...; for class ids or 0 and 255, "
            f"pass {name} > 0"
        )
    return ones


def _all_finite(values: Array) -> bool:
    # In chunks: no second array of the size of the first.
    flat = values.reshape(-1)
    return all(
        np.isfinite(flat[start : start + CHUNK]).all() for start in range(0, flat.size, CHUNK)
    )


def _batches(maps: Any, masks: Any) -> Iterator[tuple[Array, Array]]:
    missing: Any = object()
    ours, theirs = iter(maps), iter(masks)
    number = 0
    while True:
        scores, truth = next(ours, missing), next(theirs, missing)
        if scores is missing and truth is missing:
            return
        if scores is missing or truth is missing:
            more, fewer = ("masks", "maps") if scores is missing else ("maps", "masks")
            raise ValueError(f"{more}: there are more batches than {fewer} (of those: {number})")
        y, s = checked(truth, scores, (f"masks[{number}]", f"maps[{number}]"))
        yield s, y
        number += 1


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach")  # without an import of torch, which takes seconds


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or _is_tensor(value)


def _to_numpy(values: Any) -> Array:
    if _is_tensor(values):
        values = values.detach().cpu()
        return (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()
    return np.asarray(values)
