"""Any data set by its name or its folder, so that a notebook can take it as a parameter.

A new data set is one record in :data:`DATASETS`.
"""

import difflib
import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from spdlib import paths
from spdlib.datasets.elpv import elpv, elpv_painted
from spdlib.datasets.files import Categories, folders
from spdlib.datasets.layouts import folder, is_mvtec, is_own, mvtec
from spdlib.datasets.tree import tree
from spdlib.datasets.visa import layout, visa

# Tables by name, from the categories and the seed.
DATASETS: dict[str, Callable[[Categories, int], pd.DataFrame]] = {
    "elpv": lambda categories, seed: elpv(categories, seed=seed),
    "elpv_painted": lambda categories, seed: elpv_painted(categories, seed=seed),
    "visa": lambda categories, seed: visa(categories=categories),
    "mvtec": lambda categories, seed: mvtec(categories=categories),
}
NAMES = DATASETS.keys()


def load(dataset: str | Path, categories: Categories = None, seed: int = 0) -> pd.DataFrame:
    """A data set's table of samples, split for one-class training.

    Args:
        dataset: A key of :data:`DATASETS`, the published ones in ``data/``; or a folder laid
            out like one of these or as ``normal/``, ``anomaly/``, ``masks/``, or else a tree of
            images of good parts. A relative one is looked for in the current directory, then in
            the project.
        categories: Names of categories, by default all.
        seed: Seed for the split, where the data set has none of its own, and for painted
            defects.

    Returns:
        A table of samples.

    Raises:
        FileNotFoundError: Neither a name nor a folder that is there.
        ValueError: A category is unknown, the layout is not known, there are too few images,
            or none of the masks that are there fits an image.

    >>> load("elpv", "mono").category.unique().tolist()
    ['mono']
    """
    if dataset in DATASETS:
        return DATASETS[str(dataset)](categories, seed)
    root = find(dataset)
    inside = [root, *folders(root)]
    if protocol := layout(root):
        return visa(root, categories, protocol)
    if any(map(is_mvtec, inside)):
        return mvtec(root, categories)
    if any(map(is_own, inside)):
        return folder(root, categories, seed=seed)
    return tree(root, seed=seed, categories=categories)


def find(dataset: str | Path) -> Path:
    """The folder that a parameter means, whole and without links.

    Raises:
        FileNotFoundError: It is not there; the message says which names are known.
        NotADirectoryError: It is a file.
    """
    name = str(dataset)
    for path in (Path(os.path.expanduser(name)), paths.root() / name):
        if name and path.is_dir():
            return path.resolve()
        if name and path.is_file():
            raise NotADirectoryError(f"data set {name!r} is a file; name the folder it lies in")
    close = difflib.get_close_matches(name.lower(), NAMES, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known names: {', '.join(NAMES)}"
    raise FileNotFoundError(f"data set {name!r}: neither a known name nor a folder; {hint}")
