"""ELPV: electroluminescence images of solar cells (Buerhop-Lutz et al., 2018).

2,624 grey 300 x 300 images of mono- and polycrystalline cells, each with the probability that
it is defective: 0, 1/3, 2/3 or 1. They come with the ``elpv-dataset`` package, so they are
there wherever pip is. No masks. Images are CC BY-NC-SA 4.0.
"""

from importlib.resources import files

import numpy as np
import pandas as pd

from spdlib.datasets.defects import painted
from spdlib.datasets.files import Categories, wanted
from spdlib.datasets.samples import COLUMNS

CATEGORIES = ("mono", "poly")
DEFECTS = {0: "good", 1: "doubtful (1/3)", 2: "doubtful (2/3)", 3: "defective"}
MODULE = 60  # cells of most modules


def elpv(
    categories: Categories = None, test_fraction: float = 0.3, doubtful: bool = False, seed: int = 0
) -> pd.DataFrame:
    """The ELPV cells as a table of samples, split by modules for one-class training.

    Cells of one module look alike, so a module is trained on or tested on, never both. Modules
    are drawn for testing until their normal cells (probability 0) are nearest to the fraction
    asked for; their defective cells (probability 1) are the anomalies of the test. The normal
    cells of other modules are trained on, the defective ones are put "aside". The data set has
    no split of its own.

    Args:
        categories: ``"mono"``, ``"poly"`` or both, the default.
        test_fraction: Share of the normal cells held out for testing, in (0, 1), as nearly as
            whole modules make it.
        doubtful: Whether to return the cells of probability 1/3 and 2/3, too, as anomalies whose
            ``defect`` says so.
        seed: Seed for the split; the same seed splits the same way everywhere.

    Returns:
        The table, with the columns of a table of samples.

    Raises:
        ValueError: A category is unknown, or the fraction is not in (0, 1).

    >>> elpv("poly").groupby(["split", "label"]).size().to_dict()
    {('aside', 1): 308, ('test', 0): 278, ('test', 1): 94, ('train', 0): 642}
    """
    asked = wanted(categories, CATEGORIES, "ELPV")
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction: {test_fraction} is not between 0 and 1")
    folder = files("elpv_dataset") / "data"
    columns = ["path", "probability", "category"]
    cells = pd.read_csv(str(folder / "labels.csv"), sep=r"\s+", names=columns)
    thirds = (cells.probability * 3).round().astype(int)
    cells["path"] = [str(folder / path) for path in cells.path]
    cells["mask_path"] = None
    cells["label"] = (thirds > 0).astype(int)
    cells["defect"] = thirds.map(DEFECTS)
    cells["split"] = np.where(thirds == 0, "train", "aside")
    table = cells.reindex(columns=list(COLUMNS))
    module = modules(cells.category)
    # Each category is split by a generator of its own: asking for one changes nothing in it.
    for number, category in enumerate(CATEGORIES):
        normal = module[(table.label == 0) & (table.category == category)]
        rng = np.random.default_rng([seed, number])
        table.loc[module.isin(_held_out(normal, test_fraction, rng)), "split"] = "test"
    kept = table.category.isin(asked) & (doubtful | thirds.isin([0, 3]))
    return table[kept].reset_index(drop=True)


def elpv_painted(
    categories: Categories = None, test_fraction: float = 0.3, seed: int = 0
) -> pd.DataFrame:
    """ELPV's normal cells, with synthetic defects painted on half of those held out.

    The other half are the normal test samples. For segmentation, which ELPV has no masks for;
    real defective cells are not in it. The images are made once, below ``data/painted``.

    Args:
        categories: Names of categories, as for :func:`elpv`.
        test_fraction: Share of the test split, as for :func:`elpv`.
        seed: Seed for the split, for the halves and for the defects.

    Returns:
        A table of samples; every anomaly has a mask and a ``defect`` that begins with "painted".

    Raises:
        ValueError: As for :func:`elpv`.
    """
    return painted(elpv(categories, test_fraction, seed=seed), seed)


def modules(category: pd.Series) -> pd.Series:
    """Number of the module that each cell was cut from, as nearly as the data tell.

    The cells lie in the order of 44 modules. Runs of one category are cut into equal blocks of
    about 60 cells, which gives the 18 modules of mono and 26 of poly that are published. In two
    runs, which lack 6 and 10 cells of whole modules, a border may be a few cells off.

    Args:
        category: Category of each cell (N,), in the order of the package's list.

    Returns:
        Numbers from 0 (N,), with the index of ``category``.
    """
    run = (category != category.shift()).cumsum()
    cells = category.groupby(run)
    length = cells.transform("size")
    block = cells.cumcount() * (length / MODULE).round().clip(1) // length
    return category.groupby([run, block]).ngroup()


def _held_out(module: pd.Series, fraction: float, rng: np.random.Generator) -> list[int]:
    """Modules drawn until they hold this share of the cells, by the cells' modules."""
    counts = module.value_counts().sort_index()
    drawn = counts.iloc[rng.permutation(len(counts))]
    excess = drawn.cumsum() - fraction * len(module)
    return list(drawn.index[: 1 + int(excess.iloc[:-1].abs().argmin())])
