"""A plain folder of images of good parts, an ImageFolder tree, or ImageNet's layout.

Every image counts as normal; its category is the folder it lies in. With folders ``train`` and
``val`` (or ``test``) these are the split, as in ImageNet's layout; otherwise some images are
held out at random.
"""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from spdlib.datasets import files
from spdlib.datasets.files import Categories
from spdlib.datasets.layouts import need
from spdlib.datasets.samples import make_table, sample

HELD_OUT = ("val", "test")


def tree(
    root: str | Path, test_fraction: float = 0.1, seed: int = 0, categories: Categories = None
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
    found = files.walk(root)
    top = {path: path.relative_to(root).parts[0] for path in found if files.is_image(path)}
    if not top:
        met = f"; its files are {files.kinds(found)}" if found else ""
        files.refuse(root, f"holds no images{met}")
    arranged = "train" in top.values() and any(name in HELD_OUT for name in top.values())
    images = [path for path in top if not arranged or top[path] in ("train", *HELD_OUT)]
    names = dict.fromkeys(path.parent.name for path in images)
    asked = set(files.wanted(categories, names, root))
    images = [path for path in images if path.parent.name in asked]
    _refuse_defects(images, root)
    if arranged:
        held_out = {path for path in images if top[path] != "train"}
    else:
        need(root, len(images), 2, "at least two")
        order = np.random.default_rng(seed).permutation(len(images))
        held_out = {images[i] for i in order[: round(test_fraction * len(images)) or 1]}
    split = {path: "test" if path in held_out else "train" for path in images}
    rows = [sample(path, 0, path.parent.name, "good", split[path]) for path in images]
    return make_table(rows, files.left_out(root, [path for path in found if path not in top]))


def _refuse_defects(images: list[Path], root: Path) -> None:
    files.refuse_odd(images, root)
    files.refuse_masks_beside(images)
    if files.is_odd(root.name):
        good = any(files.is_good(path.name) for path in files.folders(root.parent))
        if good or files.is_masks(root.name):
            why = "is named like defects or masks; name the folder that holds the good parts, too"
            files.refuse(root, why)
        text = f"{root} is named like defects or masks; its images are taken for good parts"
        warnings.warn(text, stacklevel=4)
