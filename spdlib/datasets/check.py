"""Problems of a table's files, found together before long work starts."""

import hashlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spdlib.datasets.files import DOUBT
from spdlib.datasets.reading import decode, mask_values, opened, threads, value_range
from spdlib.datasets.samples import levels_of
from spdlib.progress import track

SHOWN = 20  # problems in an error message
LONG = 2000  # images from which on a progress bar is shown
MOST_MARKED = 0.5  # share of an image; more is rather a mask that is inverted
FAINT = 3  # values that a lossy format leaves beside zero


def check(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the table if its files are sound; warns once of what may be wrong.

    Raises:
        ValueError: Going on would give wrong numbers; the message lists the reasons, the first
            20 at most.
    """
    lines = problems(table)
    if wrong := [line for line in lines if not line.startswith(DOUBT)]:
        raise ValueError(f"{len(wrong)} problems with the samples:{_listed(wrong)}")
    if lines:
        said = _listed([line.removeprefix(DOUBT) for line in lines])
        warnings.warn(f"samples to look at:{said}", stacklevel=2)
    return table


def problems(table: pd.DataFrame) -> list[str]:
    """Lists what is wrong or doubtful about a table's files, one line each, the wrong first.

    What is wrong would make numbers wrong. What may be meant so begins with "doubtful"; lists
    of both are in ``data/README.md``. Each file is read once, on several threads.

    Args:
        table: A table of samples.

    >>> from spdlib.datasets import elpv
    >>> problems(elpv("mono").head(3))
    []
    """
    with threads(table.path) as pool:
        looks: Any = pool.map(_look, table.itertuples(index=False))
        if len(table) >= LONG:
            looks = track(looks, "checking samples", "images", len(table))
        looks = pd.DataFrame(list(looks), columns=["problems", "digest", "marked", "beyond"])
    seen = pd.concat([table.reset_index(drop=True), looks], axis=1)
    lines = [line for some in seen.problems for line in some] + table.attrs.get("notes", [])
    lines += [*_maskless(seen), *_odd_masks(seen), *_contradictory(seen)]
    if beyond := list(seen.path[seen.beyond]):
        text = "images hold values beyond their category's white"
        lines.append(f"{DOUBT}{len(beyond)} {text}, e.g. {beyond[0]}")
    return sorted(lines, key=lambda line: line.startswith(DOUBT))


def _look(row: Any) -> tuple[list[str], str | None, float, bool]:
    """One sample's problems, digest of pixels, share that is marked, and if it exceeds white."""
    found, digest, marked, beyond, path = [], None, np.nan, False, row.path
    try:
        size, digest, beyond = _read(path, levels_of(row))
        if row.label and isinstance(row.mask_path, str | Path):
            path = row.mask_path
            mask = mask_values(path)
            marked = float(mask[1].mean())
            found = [f"{path}: {text}" for text in _mask_problems(*mask, size)]
    except ValueError as error:
        found = [str(error) if Path(path).is_file() else f"{path}: missing"]
    return found, digest, marked, beyond


def _mask_problems(values, marked, lossy: bool, size: tuple[int, int]) -> Iterator[str]:
    height, width = marked.shape
    if (height, width) != size:
        sizes = f"{width} x {height} pixels, its image {size[1]} x {size[0]}"
        yield f"the mask has {sizes} (both as their EXIF orientation shows them)"
    if not marked.any():
        yield "the mask has no anomalous pixel"
    if marked.all():
        yield "the mask marks the whole image; is its background not 0?"
    faint = int((marked & (values <= FAINT)).sum())
    strong = int((values == 255).sum())
    if not lossy and strong and faint > max(marked.sum() - faint - strong, strong / 100):
        yield f"{faint:,} pixels of 1 to {FAINT} beside those of 255; noise of a lossy format?"


def _read(path: str, levels, fast: bool = True) -> tuple[tuple[int, int], str, bool]:
    """An image's height and width, a digest of its pixels, and whether they exceed white."""
    with opened(path) as image:
        width, height = image.size
        if fast:
            # All of a JPEG is read, but an eighth of its side decoded: several times as fast.
            image.draft(None, (width // 8, height // 8))
        pixels = decode(image)
        turned = (image.width > image.height) != (width > height)
    size = (width, height) if turned else (height, width)
    beyond = bool(levels) and pixels.dtype != np.uint8 and value_range(pixels)[1] > levels[1]
    digest = hashlib.sha1(np.ascontiguousarray(pixels), usedforsecurity=False)
    digest.update(str(size).encode())
    return size, digest.hexdigest(), beyond


def _maskless(table: pd.DataFrame) -> Iterator[str]:
    """Anomalies without a mask where others of their kind, or of another category, have one."""
    anomalies = table[(table.label == 1) & ~table.defect.str.startswith("painted")]
    masked = anomalies.mask_path.notna()
    has = masked.groupby(anomalies.category).any()
    for category in has[~has].index if has.any() else []:
        why = "one would be measured on images only, the other on pixels too"
        text = f"it has no masks, though {has[has].index[0]} has; {why}"
        yield f"{category}: {text}: load them one by one, or add masks"
    for (category, defect), rows in anomalies.groupby(["category", "defect"]):
        if masked[rows.index].any():
            for path in rows.path[~masked[rows.index]]:
                yield f"{path}: no mask, though others of {category}, {defect}, have one"


def _odd_masks(table: pd.DataFrame) -> Iterator[str]:
    """Categories whose masks mark more than half of the image, most of them; and single masks."""
    for category, marked in table.dropna(subset="marked").groupby("category").marked:
        if marked.median() > MOST_MARKED and not (marked == 1).any():
            share, path = f"{marked.median():.0%}", table.mask_path[marked.idxmax()]
            yield f"{category}: its masks mark {share} of an image, are they inverted? E.g. {path}"
    if large := list(table.mask_path[table.marked > MOST_MARKED]):
        yield f"{DOUBT}{len(large)} masks mark more than half of their image, e.g. {large[0]}"


def _contradictory(table: pd.DataFrame) -> Iterator[str]:
    """Images that are in training and in test, or normal and anomalous."""
    table = table.dropna(subset="digest")
    for _, alike in table[table.duplicated("digest", keep=False)].groupby("digest", sort=False):
        rows = list(alike.itertuples()) if len(alike.value_counts(["label", "split"])) > 1 else []
        for row in rows:
            for other in rows:
                text = _contradiction(row, other)
                if text and _same(row.path, other.path):
                    yield f"{row.path}: {text}, {other.path}"
                    break


def _contradiction(row: Any, other: Any) -> str | None:
    if row.label < other.label:
        return "normal, and the same image anomalous"
    if row.label == other.label and row.split == "train" != other.split:
        return "in training, and the same image in test"
    return None


def _same(path: str, other: str) -> bool:
    return path == other or _read(path, None, False) == _read(other, None, False)


def _listed(lines: list[str]) -> str:
    more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "".join(f"\n  {line}" for line in lines[:SHOWN] + more)
