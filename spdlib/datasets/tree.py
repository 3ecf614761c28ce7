"""A plain folder of images of good parts, an ImageFolder tree, or ImageNet's layout.

Every image counts as normal; its category is the folder it lies in. With folders ``train`` and
``val`` (or ``test``) these are the split, as in ImageNet's layout; otherwise some images are
held out at random.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from spdlib.datasets.files import (
    LAYOUTS,
    folders,
    is_good,
    is_image,
    is_masks,
    is_odd,
    kinds,
    refuse_masks_beside,
    refuse_odd,
    walk,
    wanted,
)  # fmt: skip
from spdlib.datasets.layouts import Found
from spdlib.datasets.samples import sample

HELD_OUT = ("val", "test")
SPLITS = ("train", *HELD_OUT)


def tree(
    root: str | Path,
    test_fraction: float = 0.1,
    seed: int = 0,
    categories: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """The images under a folder as a table of samples, in the order of their paths.

    Args:
        root: The folder; subfolders are searched.
        test_fraction: Share held out where the tree has no split of its own, in (0, 1).
        seed: Seed for what is held out.
        categories: Names of the innermost folders to take, by default all.

    Returns:
        The table; ``label`` is 0 throughout, ``category`` the innermost folder's name.

    Raises:
        NotADirectoryError: There is no such folder.
        ValueError: It holds no images, or fewer than two where some are to be held out; or
            folders or files in it are named like defects or masks.
    """
    root = Path(root).expanduser().resolve()
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder")
    files = walk(root)
    images = [path for path in files if is_image(path)]
    if not images:
        met = f"; its files are {kinds(files)}" if files else ""
        raise ValueError(f"{root} holds no images{met}. Known layouts:\n{LAYOUTS}")
    first = [path.relative_to(root).parts[0] for path in images]
    arranged = "train" in first and any(name in HELD_OUT for name in first)
    if arranged:
        images = [path for path, top in zip(images, first, strict=True) if top in SPLITS]
    names = dict.fromkeys(path.parent.name for path in images)
    asked = set(wanted(categories, names, root))
    images = [path for path in images if path.parent.name in asked]
    _refuse_defects(images, root)
    if arranged:
        train = np.array([path.relative_to(root).parts[0] == "train" for path in images])
    else:
        train = _drawn(len(images), test_fraction, seed, root)
    found = Found()
    for path, trained in zip(images, train, strict=True):
        split = "train" if trained else "test"
        found.rows.append(sample(path, 0, path.parent.name, "good", split))
    found.note_left_out(root, [path for path in files if not is_image(path)])
    return found.table()


def _refuse_defects(images: list[Path], root: Path) -> None:
    refuse_odd(images, root)
    refuse_masks_beside(images)
    if is_odd(root.name):
        if is_masks(root.name) or any(is_good(path.name) for path in folders(root.parent)):
            raise ValueError(
                f"{root} is named like defects or masks; name the folder that holds the good "
                f"parts, too. Known layouts:\n{LAYOUTS}"
            )
        warnings.warn(
            f"{root} is named like defects or masks; its images are taken for good parts",
            stacklevel=4,
        )


def _drawn(count: int, test_fraction: float, seed: int, root: Path) -> np.ndarray:
    """Which images are trained on: the others are held out at random."""
    if count < 2:
        raise ValueError(f"{root} holds one image; at least two are needed")
    held_out = round(test_fraction * count) or 1
    order = np.random.default_rng(seed).permutation(count)
    return ~np.isin(np.arange(count), order[:held_out])
