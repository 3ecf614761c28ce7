"""ELPV: electroluminescence images of solar cells (Buerhop-Lutz et al., 2018).

2,624 grey 300 x 300 images of mono- and polycrystalline cells, each with the probability that
it is defective: 0, 1/3, 2/3 or 1. They come with the ``elpv-dataset`` package, so they are
there wherever pip is. No masks. Images are CC BY-NC-SA 4.0.
"""

from collections.abc import Sequence
from importlib.resources import files

import numpy as np
import pandas as pd

from spdlib.datasets.defects import painted
from spdlib.datasets.samples import COLUMNS

CATEGORIES = ("mono", "poly")
DEFECTS = {0: "good", 1: "doubtful (1/3)", 2: "doubtful (2/3)", 3: "defective"}


def elpv(
    categories: str | Sequence[str] = CATEGORIES,
    test_fraction: float = 0.3,
    doubtful: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """The ELPV cells as a table of samples, split for one-class training.

    Normal cells (probability 0) are split at random into training and test; defective ones
    (probability 1) are all test. The data set has no split of its own. With 30 % of the normal
    cells held out, normal and defective test cells are of like number.

    Args:
        categories: ``"mono"``, ``"poly"`` or both.
        test_fraction: Share of the normal cells held out for testing, in (0, 1).
        doubtful: Also return the cells of probability 1/3 and 2/3, as anomalies of the test
            split whose ``defect`` says so.
        seed: Of the split; the same seed splits the same way everywhere.

    Returns:
        The table, with the columns of a table of samples.

    Raises:
        ValueError: A category is unknown, or the fraction is not in (0, 1).

    >>> elpv("poly").groupby(["split", "label"]).size().to_dict()
    {('test', 0): 276, ('test', 1): 402, ('train', 0): 644}
    """
    wanted = [categories] if isinstance(categories, str) else list(categories)
    unknown = [name for name in wanted if name not in CATEGORIES]
    if unknown or not wanted:
        raise ValueError(f"categories: {unknown or wanted} not among {', '.join(CATEGORIES)}")
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction: {test_fraction} is not between 0 and 1")

    folder = files("elpv_dataset") / "data"
    cells = pd.read_csv(
        str(folder / "labels.csv"), sep=r"\s+", names=["path", "probability", "category"]
    )
    thirds = (cells.probability * 3).round().astype(int)
    table = pd.DataFrame(
        {
            "path": [str(folder / path) for path in cells.path],
            "mask_path": None,
            "label": (thirds > 0).astype(int),
            "category": cells.category,
            "defect": thirds.map(DEFECTS),
            "split": "test",
        },
        columns=list(COLUMNS),
    )
    # Each category is split by a generator of its own: asking for one changes nothing in it.
    for number, category in enumerate(CATEGORIES):
        normal = np.flatnonzero((table.category == category) & (table.label == 0))
        shuffled = np.random.default_rng([seed, number]).permutation(normal)
        train = shuffled[round(test_fraction * len(normal)) :]
        table.loc[train, "split"] = "train"

    kept = table.category.isin(wanted) & (doubtful | thirds.isin([0, 3]))
    return table[kept].reset_index(drop=True)


def elpv_painted(
    categories: str | Sequence[str] = CATEGORIES, test_fraction: float = 0.3, seed: int = 0
) -> pd.DataFrame:
    """ELPV's normal cells, with synthetic defects painted on half of those held out.

    The other half are the normal test samples. For segmentation, which ELPV has no masks for;
    real defective cells are not in it. The images are made once, below ``data/painted``.

    Args:
        categories: As for :func:`elpv`.
        test_fraction: As for :func:`elpv`.
        seed: Of the split, of the halves and of the defects.

    Returns:
        A table of samples; every anomaly has a mask and a ``defect`` that begins with "painted".

    Raises:
        ValueError: As for :func:`elpv`.
    """
    return painted(elpv(categories, test_fraction, seed=seed), seed)
