"""A plain folder of images, an ImageFolder tree, or ImageNet's layout, to pretrain on.

Every image counts as normal; its category is the folder it lies in. With folders ``train`` and
``val`` (or ``test``) these are the split, as in ImageNet's layout; otherwise some images are
held out at random.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from spdlib.datasets.samples import COLUMNS

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
HELD_OUT = ("val", "test")


def tree(root: str | Path, test_fraction: float = 0.1, seed: int = 0) -> pd.DataFrame:
    """The images under a folder as a table of samples, in the order of their paths.

    Args:
        root: The folder; subfolders are searched.
        test_fraction: Share held out where the tree has no split of its own, in (0, 1).
        seed: Of what is held out.

    Returns:
        The table; ``label`` is 0 throughout, ``category`` the innermost folder's name.

    Raises:
        NotADirectoryError: There is no such folder.
        ValueError: It holds no images, or fewer than two where some are to be held out.
    """
    root = Path(root).expanduser().resolve()
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder")
    # os.walk, unlike rglob, is quick on a million files and follows links where datasets use them.
    found = sorted(
        Path(folder, name)
        for folder, _, names in os.walk(root, followlinks=True)
        for name in names
        if name.lower().endswith(SUFFIXES)
    )
    if not found:
        raise ValueError(f"{root} holds no images ({', '.join(SUFFIXES)})")
    first = [path.relative_to(root).parts[0] for path in found]
    if "train" in first and any(name in HELD_OUT for name in first):
        kept = [i for i, name in enumerate(first) if name in ("train", *HELD_OUT)]
        found = [found[i] for i in kept]
        split = ["train" if first[i] == "train" else "test" for i in kept]
    else:
        held_out = round(test_fraction * len(found)) or 1
        order = np.random.default_rng(seed).permutation(len(found))
        split = np.where(np.isin(np.arange(len(found)), order[:held_out]), "test", "train")
        if len(found) < 2:
            raise ValueError(f"{root} holds one image; at least two are needed")
    return pd.DataFrame(
        {
            "path": [str(path) for path in found],
            "mask_path": None,
            "label": 0,
            "category": [path.parent.name for path in found],
            "defect": "good",
            "split": split,
        },
        columns=list(COLUMNS),
    )
