"""Problems of a table's files, found together before long work starts."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from spdlib.datasets.samples import read_mask
from spdlib.progress import track

SHOWN = 20  # problems in an error message
LONG = 2000  # images from which on a progress bar is shown


def check(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the table if :func:`problems` finds none in it.

    Raises:
        ValueError: It finds some; the message lists them, the first 20 at most.
    """
    found = problems(table)
    if found:
        more = [f"... and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        listed = "\n  ".join(found[:SHOWN] + more)
        raise ValueError(f"{len(found)} problems with the samples:\n  {listed}")
    return table


def problems(table: pd.DataFrame) -> list[str]:
    """What is wrong with a table's files, one line each; an empty list if nothing is.

    Found are files that are missing, images that do not decode, masks of another size than
    their image, masks without any anomalous pixel, anomalies without a mask where others of
    their kind have one, and images that are in training and in test, under whatever name.
    Each file is read once, on several threads.

    Args:
        table: A table of samples.

    >>> from spdlib.datasets import elpv
    >>> problems(elpv("mono").head(3))
    []
    """
    with ThreadPoolExecutor() as pool:
        looks = pool.map(_look, table.path, table.mask_path, table.label)
        if len(table) >= LONG:
            looks = track(looks, "checking samples", "images", len(table))
        looks = list(looks)
    found = [problem for look in looks for problem in look.problems]
    return found + list(_maskless(table)) + list(_shared(table, [look.digest for look in looks]))


class _Look(NamedTuple):
    problems: list[str]
    digest: str | None  # of the image's pixels


def _look(path: str, mask_path: str | None, label: int) -> _Look:
    """Looks at one sample."""
    found, digest, size = [], None, None
    try:
        size, digest = _read(path)
    except FileNotFoundError:
        found.append(f"{path}: missing")
    except (OSError, SyntaxError, ValueError) as error:
        found.append(f"{path}: the image does not decode ({error})")
    if isinstance(mask_path, str | Path) and label:
        if not Path(mask_path).is_file():
            return _Look([*found, f"{mask_path}: missing"], digest)
        try:
            mask = read_mask(mask_path)
        except ValueError as error:
            return _Look([*found, str(error)], digest)
        height, width = mask.shape
        if size and (width, height) != size:
            found.append(
                f"{mask_path}: the mask has {width} x {height} pixels, its image "
                f"{size[0]} x {size[1]}"
            )
        if not mask.any():
            found.append(f"{mask_path}: the mask has no anomalous pixel")
    return _Look(found, digest)


def _read(path: str, fast: bool = True) -> tuple[tuple[int, int], str]:
    """An image's size and a digest of its pixels."""
    with Image.open(path) as image:
        size = image.size
        if fast:
            # All of a JPEG is read, but an eighth of its side decoded: several times as fast.
            image.draft(None, (size[0] // 8, size[1] // 8))
        return size, hashlib.sha1(
            np.asarray(image.convert("RGB")), usedforsecurity=False
        ).hexdigest()


def _maskless(table: pd.DataFrame) -> Iterator[str]:
    anomalies = table[table.label == 1]
    for (category, defect), rows in anomalies.groupby(["category", "defect"]):
        lacking = rows.path[rows.mask_path.isna()]
        if 0 < len(lacking) < len(rows):
            for path in lacking:
                yield f"{path}: no mask, though others of {category}, {defect}, have one"


def _shared(table: pd.DataFrame, digests: Sequence[str | None]) -> Iterator[str]:
    """Images that are in training and in test."""
    rows = pd.DataFrame({"path": table.path.array, "split": table.split.array, "digest": digests})
    for _, alike in rows.dropna().groupby("digest", sort=False):
        train, test = (alike.path[alike.split == split] for split in ("train", "test"))
        for path in train:
            same = (other for other in test if _read(path, False) == _read(other, False))
            if (other := next(same, None)) is not None:
                yield f"{path}: in training, and the same image in test, {other}"
