"""MVTec AD (Bergmann et al., CVPR 2019), and any data set laid out like it.

``<category>/train/good``, ``<category>/test/<defect>``, ``<category>/ground_truth/<defect>``.
Images may end in .png, .jpg and others, in capitals too; the mask of ``000.png`` is
``000_mask.png`` or ``000.png``. A defect without a folder of masks has none. MVTec AD is
CC BY-NC-SA 4.0; see ``data/README.md`` for how to get it.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from spdlib import paths
from spdlib.datasets.files import images_in, masks_in, wanted
from spdlib.datasets.samples import make_table


def mvtec(
    root: str | Path | None = None, categories: str | Sequence[str] | None = None
) -> pd.DataFrame:
    """The samples of an MVTec AD tree, split as it is laid out.

    Args:
        root: The folder of categories, or one category's folder; by default ``data/mvtec``.
        categories: Which ones, by default all that are there.

    Returns:
        A table of samples. ``mask_path`` is ``None`` for normal samples and where an anomaly
        has no mask.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: No category is found in it, one asked for is not, or it holds no images.
    """
    root = Path(root or paths.data() / "mvtec").expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not there; data/README.md says how to get MVTec AD")
    if is_category(root):
        found = {root.resolve().name: root}
    else:
        found = {path.name: path for path in sorted(root.iterdir()) if is_category(path)}
    if not found:
        raise ValueError(f"{root} is not laid out like MVTec AD: no <category>/train/good in it")
    rows = []
    for category in wanted(categories, list(found), root):
        samples = category_samples(found[category], category)
        if not any(row["split"] == "train" for row in samples):
            raise ValueError(f"{found[category] / 'train' / 'good'} holds no images")
        rows += samples
    return make_table(rows)


def is_category(folder: Path) -> bool:
    """Whether a folder is a category of the layout: it has ``train/good``."""
    return (folder / "train" / "good").is_dir()


def category_samples(folder: Path, category: str) -> list[dict]:
    """One category's samples as rows of a table."""
    places = [("train", "good")]
    if (folder / "test").is_dir():
        defects = sorted(path.name for path in (folder / "test").iterdir() if path.is_dir())
        places += [("test", defect) for defect in defects]
    rows = []
    for split, defect in places:
        masks = {} if defect == "good" else masks_in(folder / "ground_truth" / defect)
        for image in images_in(folder / split / defect):
            mask = masks.get(image.stem)
            rows.append(
                {
                    "path": str(image),
                    "mask_path": str(mask) if mask else None,
                    "label": int(defect != "good"),
                    "category": category,
                    "defect": defect,
                    "split": split,
                }
            )
    return rows
