"""The paper's three protocols, each a function from table to table (Zou et al., section 5).

A table of VisA follows the split files that the data set brings, to the letter. Everywhere else
samples are drawn, category by category and class by class, with generators of NumPy that draw
the same on every platform.
"""

import zlib

import numpy as np
import pandas as pd

from spdlib.datasets.visa import official_splits

# Shares of VisA's published splits that go to training.
ONE_CLASS, HIGH_SHOT, FEW_SHOT = 0.9, 0.6, 0.2
CLASSES = ("normal", "anomalous")


def one_class(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Normal samples to train on; other normal ones and all anomalies, if any, to test on.

    Each category keeps its own split where that is of this kind, as every data set's here is;
    otherwise 90 % of its normal samples are drawn for training. Samples that the table puts
    aside are left out.

    Args:
        table: A table of samples.
        seed: Seed for what is drawn.

    Returns:
        The table, with ``split`` set.

    Raises:
        ValueError: A category has fewer than two normal samples.

    >>> from spdlib.datasets import elpv
    >>> one_class(elpv("poly")).groupby(["split", "label"]).size().to_dict()
    {('test', 0): 278, ('test', 1): 94, ('train', 0): 642}
    """

    def draw(rows: pd.DataFrame) -> np.ndarray:
        train = (rows.split == "train").to_numpy()
        normal = (rows.label == 0).to_numpy()
        if train[normal].any() and not train[normal].all() and not train[~normal].any():
            return train
        return _share(rows, ONE_CLASS, seed, labels=[0])

    return _split(table[table.split != "aside"], "one_class", draw, needed=(0,))


def high_shot(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """60 % of the normal and of the anomalous samples to train on, the others to test on.

    Args:
        table: A table of samples; its own split is not looked at.
        seed: Seed for what is drawn; the splits that VisA brings do not depend on it.

    Returns:
        The table, with ``split`` set.

    Raises:
        ValueError: A category has fewer than two samples of a class.

    >>> from spdlib.datasets import elpv
    >>> high_shot(elpv("poly")).groupby(["split", "label"]).size().to_dict()
    {('test', 0): 368, ('test', 1): 161, ('train', 0): 552, ('train', 1): 241}
    """
    return _split(table, "high_shot", lambda rows: _share(rows, HIGH_SHOT, seed))


def few_shot(table: pd.DataFrame, k: int, seed: int = 0, pool_seed: int = 0) -> pd.DataFrame:
    """k normal and k anomalous samples to train on, drawn from 20 %; 80 % to test on.

    The paper reports the mean over five draws: seeds 0 to 4. They share the pool and the test
    samples. A draw of more samples holds those of a draw of fewer.

    Args:
        table: A table of samples; its own split is not looked at.
        k: Samples of each class and category; the paper has 5 and 10.
        seed: Seed for the draw from the pool.
        pool_seed: Seed for the pool, the 20 %; VisA brings its own.

    Returns:
        The table with ``split`` set, without the samples of the pool that were not drawn.

    Raises:
        ValueError: k is not positive, or a category's pool has fewer than k of a class.

    >>> from spdlib.datasets import elpv
    >>> few_shot(elpv("poly"), k=5).groupby(["split", "label"]).size().to_dict()
    {('test', 0): 736, ('test', 1): 322, ('train', 0): 5, ('train', 1): 5}
    """
    if k < 1:
        raise ValueError(f"k: {k} is not positive")
    pooled = _split(table, "few_shot", lambda rows: _share(rows, FEW_SHOT, pool_seed))
    kept = (pooled.split == "test").to_numpy(copy=True)
    for category, label, rows in _classes(pooled):
        pool = rows[~kept[rows]]
        if len(pool) < k:
            held = f"the 20 % to draw from hold {len(pool)} {CLASSES[label]} ones of {category}"
            hint = f"It needs about {5 * k} of each class in a category, or fewer shots"
            raise ValueError(f"k: {k} samples of each class are asked for; {held}. {hint}")
        # The word keeps this draw apart from the pool's, which may have the same seed.
        kept[_generator(seed, f"draw {category}", label).permutation(pool)[:k]] = True
    return pooled[kept].reset_index(drop=True)


def _split(table: pd.DataFrame, protocol: str, draw, needed=(0, 1)) -> pd.DataFrame:
    """The table with each category split officially, or as ``draw(rows)`` says (True: train)."""
    table = table.reset_index(drop=True)
    lacking = [(name, n) for name, n, rows in _classes(table) if n in needed and not len(rows)]
    missing = [f"{category} has no {CLASSES[label]} samples" for category, label in lacking]
    if missing or table.empty:
        raise ValueError(f"{protocol}: {'; '.join(missing) or 'the table is empty'}")
    split = np.array(official_splits(table.path, protocol), dtype=object)
    for _, rows in table.groupby("category", sort=False):
        if (split[rows.index] == None).any():  # noqa: E711 - elementwise
            split[rows.index] = np.where(draw(rows), "train", "test")
    return table.assign(split=split.astype(str))


def _share(rows: pd.DataFrame, share: float, seed: int, labels=(0, 1)) -> np.ndarray:
    """Mask of one category's rows that are drawn: this share of each class, not none or all."""
    drawn = np.zeros(len(rows), bool)
    category = rows.category.iloc[0]
    for label in labels:
        of_class = np.flatnonzero(rows.label == label)
        if len(of_class) < 2:
            raise ValueError(f"{category} has one {CLASSES[label]} sample; two are needed to split")
        count = min(max(round(share * len(of_class)), 1), len(of_class) - 1)
        drawn[_generator(seed, category, label).permutation(of_class)[:count]] = True
    return drawn


def _classes(table: pd.DataFrame):
    """Each category's normal and its anomalous rows, by position."""
    for category in table.category.unique():
        for label in (0, 1):
            rows = (table.category == category) & (table.label == label)
            yield category, label, np.flatnonzero(rows)


def _generator(seed: int, category: str, label: int) -> np.random.Generator:
    """One for each category and class: what else is in the table changes nothing."""
    return np.random.default_rng([seed, zlib.crc32(category.encode()), label])
