"""Problems of a table's files, found together before long work starts."""

import hashlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from spdlib.datasets.reading import decode, mask_values, opened, threads, value_range
from spdlib.datasets.samples import levels_of
from spdlib.progress import track

SHOWN = 20  # problems in an error message
LONG = 2000  # images from which on a progress bar is shown
AT_ONCE = 64  # megapixels in memory
MOST_MARKED = 0.5  # share of an image; more is rather a mask that is inverted
FAINT = 3  # values that a lossy format leaves beside zero


def check(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the table if its files are sound; warns once of what may be wrong.

    Raises:
        ValueError: Going on would give wrong numbers; the message lists the reasons, the first
            20 at most.
    """
    wrong, doubtful = _examine(table)
    if wrong:
        raise ValueError(f"{len(wrong)} problems with the samples:\n  {_listed(wrong)}")
    if doubtful:
        warnings.warn(f"samples to look at:\n  {_listed(doubtful)}", stacklevel=2)
    return table


def problems(table: pd.DataFrame) -> list[str]:
    """What is wrong or doubtful about a table's files, one line each, the wrong first.

    What is wrong would make numbers wrong. What may be meant so begins with "doubtful"; lists
    of both are in ``data/README.md``. Each file is read once, on several threads.

    Args:
        table: A table of samples.

    >>> from spdlib.datasets import elpv
    >>> problems(elpv("mono").head(3))
    []
    """
    wrong, doubtful = _examine(table)
    return wrong + [f"doubtful: {line}" for line in doubtful]


def _examine(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    with threads(table.path, AT_ONCE) as pool:
        looks: Any = pool.map(_look, table.itertuples(index=False))
        if len(table) >= LONG:
            looks = track(looks, "checking samples", "images", len(table))
        looks = list(looks)
    seen = table.reset_index(drop=True).assign(
        digest=[look.digest for look in looks], marked=[look.marked for look in looks]
    )
    wrong = [line for look in looks for line in look.problems]
    wrong += table.attrs.get("problems", [])
    wrong += [*_maskless(seen), *_inverted(seen), *_contradictory(seen)]
    return wrong, [*table.attrs.get("doubts", []), *_doubts(seen, looks)]


class _Look(NamedTuple):
    problems: list[str]
    digest: str | None = None  # of the image's pixels
    marked: float = np.nan  # share of the image that its mask marks
    beyond: bool = False  # brighter than its category's white


def _look(row: Any) -> _Look:
    """Looks at one sample."""
    try:
        size, digest, beyond = _read(row.path, levels_of(row))
    except ValueError as error:
        return _Look([str(error) if Path(row.path).is_file() else f"{row.path}: missing"])
    if not (isinstance(row.mask_path, str | Path) and row.label):
        return _Look([], digest, beyond=beyond)
    if not Path(row.mask_path).is_file():
        return _Look([f"{row.mask_path}: missing"], digest)
    try:
        values, lossy = mask_values(row.mask_path)
    except ValueError as error:
        return _Look([str(error)], digest)
    marked = values > (127 if lossy else 0)
    found = [f"{row.mask_path}: {text}" for text in _mask_problems(values, marked, lossy, size)]
    return _Look(found, digest, float(marked.mean()), beyond)


def _mask_problems(values, marked, lossy: bool, size: tuple[int, int]) -> Iterator[str]:
    height, width = marked.shape
    if (height, width) != size:
        yield (
            f"the mask has {width} x {height} pixels, its image {size[1]} x {size[0]} "
            "(both as their EXIF orientation shows them)"
        )
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
    has = anomalies.mask_path.notna().groupby(anomalies.category).any()
    for category in has[~has].index if has.any() else []:
        yield (
            f"{category}: it has no masks, though {has[has].index[0]} has; one would be measured "
            "on images only, the other on pixels too: load them one by one, or add masks"
        )
    for (category, defect), rows in anomalies.groupby(["category", "defect"]):
        lacking = rows.path[rows.mask_path.isna()]
        if 0 < len(lacking) < len(rows):
            for path in lacking:
                yield f"{path}: no mask, though others of {category}, {defect}, have one"


def _inverted(table: pd.DataFrame) -> Iterator[str]:
    """Categories whose masks mark more than half of the image, most of them."""
    for category, marked in table.dropna(subset="marked").groupby("category").marked:
        if marked.median() > MOST_MARKED and not (marked == 1).any():
            path = table.mask_path[marked.idxmax()]
            yield (
                f"{category}: its masks mark {marked.median():.0%} of an image, are they inverted? "
                f"E.g. {path}"
            )


def _contradictory(table: pd.DataFrame) -> Iterator[str]:
    """Images that are in training and in test, or normal and anomalous."""
    table = table.dropna(subset="digest")
    for _, alike in table[table.duplicated("digest", keep=False)].groupby("digest", sort=False):
        train, normal = alike.split == "train", alike.label == 0
        leak = "in training, and the same image in test"
        sides = [(train & label, ~train & label, leak) for label in (normal, ~normal)]
        sides.append((normal, ~normal, "normal, and the same image anomalous"))
        for first, second, text in sides:
            for path in alike.path[first]:
                same = (other for other in alike.path[second] if _same(path, other))
                if (other := next(same, None)) is not None:
                    yield f"{path}: {text}, {other}"


def _same(path: str, other: str) -> bool:
    return path == other or _read(path, None, False) == _read(other, None, False)


def _doubts(table: pd.DataFrame, looks: list[_Look]) -> Iterator[str]:
    large = table[table.marked > MOST_MARKED]
    if len(large):
        path = large.mask_path.iloc[0]
        yield f"{len(large)} masks mark more than half of their image, e.g. {path}"
    beyond = table[[look.beyond for look in looks]]
    if len(beyond):
        path = beyond.path.iloc[0]
        yield f"{len(beyond)} images hold values beyond their category's white, e.g. {path}"


def _listed(lines: list[str]) -> str:
    more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n  ".join(lines[:SHOWN] + more)
