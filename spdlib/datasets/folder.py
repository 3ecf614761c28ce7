"""A folder of one's own images to evaluate on: ``normal/``, ``anomaly/``, optional ``masks/``.

Folders in ``anomaly/`` are types of defects. The mask of ``anomaly/dent/7.jpg`` is
``masks/dent/7.png`` (any image format, ``7_mask`` as well). Several categories lie beside each
other, each a folder with these three.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from spdlib.datasets.files import images_in, masks_in, wanted
from spdlib.datasets.samples import make_table


def folder(
    root: str | Path,
    categories: str | Sequence[str] | None = None,
    test_fraction: float = 0.3,
    seed: int = 0,
) -> pd.DataFrame:
    """The samples of one's own folder, split for one-class training.

    Some of the normal images, drawn at random, are held out for testing; anomalies are all test.

    Args:
        root: Holds ``normal/`` and ``anomaly/``, or a folder per category that does.
        categories: Which ones, by default all; a single category is named by its folder.
        test_fraction: Share of a category's normal images held out, in (0, 1).
        seed: Of what is held out.

    Returns:
        A table of samples.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: The layout is another, a category is unknown, the fraction is not in (0, 1),
            or a category has fewer than two normal images.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not there")
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction: {test_fraction} is not between 0 and 1")
    if is_category(root):
        found = {root.resolve().name: root}
    else:
        found = {path.name: path for path in sorted(root.iterdir()) if is_category(path)}
    if not found:
        raise ValueError(f"{root} is not laid out as normal/, anomaly/ and optionally masks/")
    rows = []
    for category in wanted(categories, list(found), root):
        rows += _samples(found[category], category, test_fraction, seed)
    return make_table(rows)


def is_category(path: Path) -> bool:
    """Whether a folder is laid out so: it has ``normal``."""
    return (path / "normal").is_dir()


def _samples(path: Path, category: str, test_fraction: float, seed: int) -> list[dict]:
    normal = images_in(path / "normal", deep=True)
    if len(normal) < 2:
        few = "one image" if normal else "no images"
        raise ValueError(f"{path / 'normal'} holds {few}; at least two are needed")
    held_out = min(max(1, round(test_fraction * len(normal))), len(normal) - 1)
    test = set(np.random.default_rng(seed).permutation(len(normal))[:held_out].tolist())
    common = {"mask_path": None, "category": category, "split": "test"}
    rows = [
        {
            **common,
            "path": str(image),
            "label": 0,
            "defect": "good",
            "split": "test" if number in test else "train",
        }
        for number, image in enumerate(normal)
    ]
    masks: dict[Path, dict[str, Path]] = {}
    for image in images_in(path / "anomaly", deep=True):
        inner = image.parent.relative_to(path / "anomaly")
        if inner not in masks:
            masks[inner] = masks_in(path / "masks" / inner)
        mask = masks[inner].get(image.stem)
        rows.append(
            {
                **common,
                "path": str(image),
                "mask_path": str(mask) if mask else None,
                "label": 1,
                "defect": inner.as_posix() if inner.parts else "anomaly",
            }
        )
    return rows
