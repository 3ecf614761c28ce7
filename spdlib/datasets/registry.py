"""Any data set by its name or its folder, so that a notebook can take it as a parameter."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from spdlib import paths
from spdlib.datasets.elpv import elpv, elpv_painted
from spdlib.datasets.files import folders
from spdlib.datasets.layouts import folder, is_mvtec, is_own, mvtec
from spdlib.datasets.tree import tree
from spdlib.datasets.visa import layout, visa

NAMES = ("elpv", "elpv_painted", "visa", "mvtec")


def load(
    dataset: str | Path, categories: str | Sequence[str] | None = None, seed: int = 0
) -> pd.DataFrame:
    """A data set's table of samples, split for one-class training.

    Args:
        dataset: ``"elpv"``, ``"elpv_painted"``, ``"visa"`` or ``"mvtec"`` (in ``data/``), or a
            folder laid out like one of these or as ``normal/``, ``anomaly/``, ``masks/``, or
            else a tree of images of good parts. A relative one is looked for in the current
            directory, then in the project.
        categories: Which ones, by default all.
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
    if dataset == "elpv":
        return elpv(**_given(categories), seed=seed)
    if dataset == "elpv_painted":
        return elpv_painted(**_given(categories), seed=seed)
    if dataset == "visa":
        return visa(categories=categories)
    if dataset == "mvtec":
        return mvtec(categories=categories)
    root = find(dataset)
    inside = [root, *folders(root)]
    if protocol := layout(root):
        return visa(root, categories, protocol)
    if any(is_mvtec(path) for path in inside):
        return mvtec(root, categories)
    if any(is_own(path) for path in inside):
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


def _given(categories) -> dict:
    return {} if categories is None else {"categories": categories}
