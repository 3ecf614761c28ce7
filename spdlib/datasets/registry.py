"""Any data set by its name or its folder, so that a notebook can take it as a parameter."""

import difflib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from spdlib import paths
from spdlib.datasets.elpv import elpv, elpv_painted
from spdlib.datasets.folder import folder
from spdlib.datasets.folder import is_category as is_own
from spdlib.datasets.mvtec import is_category as is_mvtec
from spdlib.datasets.mvtec import mvtec
from spdlib.datasets.visa import layout, visa

NAMES = ("elpv", "elpv_painted", "visa", "mvtec")
LAYOUTS = """\
  VisA:      split_csv/ beside the objects, or 1cls/<object>/train/good/
  MVTec AD:  <category>/train/good/, test/<defect>/, ground_truth/<defect>/
  your own:  normal/, anomaly/, masks/ (optional), or these in a folder per category"""


def load(
    dataset: str | Path, categories: str | Sequence[str] | None = None, seed: int = 0
) -> pd.DataFrame:
    """A data set's table of samples, split for one-class training.

    Args:
        dataset: ``"elpv"``, ``"elpv_painted"``, ``"visa"`` or ``"mvtec"`` (in ``data/``), or a
            folder laid out like one of these or as ``normal/``, ``anomaly/``, ``masks/``. A
            relative one is looked for in the current directory, then in the project.
        categories: Which ones, by default all.
        seed: Of the split, where the data set has none of its own, and of painted defects.

    Returns:
        A table of samples.

    Raises:
        FileNotFoundError: Neither a name nor a folder that is there.
        ValueError: A category is unknown, the layout is not known, or there are no images.

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
    inside = [root, *(path for path in root.iterdir() if path.is_dir())]
    if protocol := layout(root):
        return visa(root, categories, protocol)
    if any(is_mvtec(path) for path in inside):
        return mvtec(root, categories)
    if any(is_own(path) for path in inside):
        return folder(root, categories, seed=seed)
    raise ValueError(f"{root}: its layout is none of these:\n{LAYOUTS}")


def find(dataset: str | Path) -> Path:
    """The folder that a parameter means.

    Raises:
        FileNotFoundError: It is not there; the message says which names are known.
    """
    for root in (Path(dataset).expanduser(), paths.root() / dataset):
        if str(dataset) and root.is_dir():
            return root
    close = difflib.get_close_matches(str(dataset), NAMES, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known names: {', '.join(NAMES)}"
    raise FileNotFoundError(f"data set {str(dataset)!r}: neither a known name nor a folder; {hint}")


def _given(categories) -> dict:
    return {} if categories is None else {"categories": categories}
