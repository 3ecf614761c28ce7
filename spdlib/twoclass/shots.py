"""Results by number of labelled images: probes, trainings, the one-class line, differences.

Everything is measured on the test images of a protocol; what it says of them is kept as
:class:`~spdlib.twoclass.Predictions`, so that detectors can be compared image by image. Few-shot
results swing with the draw, and every encoder is given the same five: their differences, draw by
draw, are steadier than the results.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from torch.utils.data import DataLoader

from spdlib import intervals, metrics, results
from spdlib.datasets.protocols import FEW_SHOT, few_shot, high_shot
from spdlib.encoders import Encoder
from spdlib.images import Images, numbers_of
from spdlib.padim import PaDiM
from spdlib.progress import Bar
from spdlib.twoclass import Classifier, Predictions, Segmenter, predict, probe, train
from spdlib.twoclass.models import Model
from spdlib.twoclass.presets import TwoClass

Case = tuple[int | None, int]  # shots, None for the high-shot split, and number of the draw
Splits: TypeAlias = Mapping[Case, pd.DataFrame]  # a table's split for each
Found: TypeAlias = Mapping[Case, Predictions]  # and what is predicted on its test images
GROUP = (*results.CELL, "metric")


def protocol_name(k: int | None) -> str:
    """Name of a two-class protocol in results: k shots, or the high-shot split.

    >>> protocol_name(5), protocol_name(None)
    ('2-class 5-shot', '2-class high-shot')
    """
    return f"2-class {'high' if k is None else k}-shot"


def possible(table: pd.DataFrame, shots: Sequence[int]) -> list[int]:
    """Numbers of shots that the few-shot pool of a table holds; none if it is too small for all."""
    counts = table.label.value_counts().reindex([0, 1], fill_value=0)
    pool = min(max(round(FEW_SHOT * counts.min()), 1), counts.min() - 1)
    return [k for k in shots if k <= pool]


def draw(table: pd.DataFrame, cases: Iterable[Case]) -> dict[Case, pd.DataFrame]:
    """A table split for each case, by :mod:`spdlib.datasets.protocols`."""
    return {(k, n): high_shot(table) if k is None else few_shot(table, k, n) for k, n in cases}


def probes(features: ArrayLike, images: Images, splits: Splits) -> dict[Case, Predictions]:
    """A linear probe for each split, on features computed once.

    Args:
        features: Features of all images (N, D).
        images: The images.
        splits: Split tables by case, as :func:`draw` gives them.

    Returns:
        Each probe's scores of its split's test images.
    """
    features, labels = np.asarray(features), images.table.label.to_numpy()

    def of(table: pd.DataFrame) -> Predictions:
        learned, tested = (images.rows(table[table.split == part]) for part in ("train", "test"))
        scores = probe(features[learned], labels[learned], features[tested])
        return Predictions(labels[tested], scores)

    return {case: of(table) for case, table in splits.items()}


def run(
    encoder: Encoder, images: Images, table: pd.DataFrame, settings: TwoClass, bar: Bar | str
) -> tuple[pd.DataFrame, Predictions]:
    """Trains a model on one part of a table and predicts the other.

    Args:
        encoder: Gives the weights to start from; it stays as it is.
        images: The table's images, among others.
        table: One of the tables that :func:`draw` gives.
        settings: Settings of the training; their task decides the model.
        bar: Progress bar or its text, as for :func:`spdlib.twoclass.train`.

    Returns:
        The losses, and what the model says of the test images.
    """
    if settings.task == "detection":
        model: Model = Classifier(encoder, settings.seed)
    else:
        model = Segmenter(encoder, settings.decoder_width, settings.seed)
    losses = train(model, images.of(table[table.split == "train"]), settings, bar)
    return losses, predict(model, images.of(test_images(table)))


def never_tested(table: pd.DataFrame, splits: Splits, most: int, seed: int = 0) -> pd.DataFrame:
    """Normal samples of a table that are test images in none of the splits, at most so many."""
    tested = {path for split in splits.values() for path in test_images(split).path}
    normal = table[(table.label == 0) & ~table.path.isin(tested)]
    return normal.sample(min(most, len(normal)), random_state=seed)


def test_images(split: pd.DataFrame) -> pd.DataFrame:
    """The test images of a split table, in its order, which is that of predictions."""
    return split[split.split == "test"]


def one_class(
    encoder: Encoder, normal: Images, images: Images, splits: Splits, seed: int = 0
) -> dict[Case, Predictions]:
    """PaDiM's predictions of the test images of each number of shots, which were not learned.

    Args:
        encoder: Source of PaDiM's features.
        normal: Images that it learns.
        images: Images of the splits' table.
        splits: Split tables of :func:`draw`. Draws share their test images, so the first will do.
        seed: Seed of PaDiM.
    """
    model = PaDiM(encoder, seed=seed).fit(DataLoader(normal, 32))
    maps, scores = (part.numpy() for part in model.score(DataLoader(images, 32)))
    labels = images.table.label.to_numpy()
    found = Predictions(labels, scores, images.masks.numpy(), maps)
    first = {case: split for case, split in splits.items() if case[1] == 0}
    return {case: found.of(images.rows(test_images(split))) for case, split in first.items()}


def of_images(found: Predictions, split: pd.DataFrame, table: pd.DataFrame) -> Predictions:
    """Predictions of some of a split's test images, in the order of a table of them.

    Raises:
        KeyError: An image of the table is no test image of the split.
    """
    return found.of(numbers_of(table, test_images(split)))


def measure(
    found: Found, task: str, repeats: int = 0, prefix: str = "", seed: int = 0, **columns: Any
) -> pd.DataFrame:
    """All metrics of a detector, case by case, as rows of results.

    Args:
        found: Its scores of each case's test images.
        task: ``detection`` or ``segmentation``.
        repeats: Resamplings of test images for the intervals, where there is one draw only;
            0 for none.
        prefix: Comes before the protocol's name.
        seed: Seed of the run, and of the resampling.
        **columns: Further columns of :data:`spdlib.results.COLUMNS`.
    """
    parts = []
    for (k, number), predicted in found.items():
        pair: tuple[Any, Any] = predicted.labels, predicted.scores
        if task == "detection":
            values = metrics.evaluate(*pair)
        elif predicted.masks is not None and predicted.masks.any():
            pair = predicted.masks, predicted.maps
            values = metrics.pixel_metrics(*reversed(pair))
        else:
            raise ValueError("masks: no test image has a marked pixel; segmentation needs some")
        alone = k is None or (k, 1) not in found
        spread = metrics.bootstrap(*pair, repeats, seed=seed) if repeats and alone else None
        columns |= {"protocol": prefix + protocol_name(k), "task": task, "seed": seed}
        columns["draw"] = None if k is None else number
        parts.append(results.rows(values, spread, **columns))
    return pd.concat(parts, ignore_index=True)


def curve(rows: pd.DataFrame, metric: str = "AU-PR") -> pd.DataFrame:
    """One detector's results by number of shots.

    Args:
        rows: Results of :func:`measure`, of one task and downstream model.
        metric: The metric.

    Returns:
        Columns ``method``, ``shots`` (a number, or ``"high-shot"``), ``mean``, ``std``,
        ``low``, ``high``. The interval is Student's t over draws; with one draw, the row's own.
    """
    rows = rows[rows.metric == metric].copy()
    names = rows.protocol.str.split("2-class ").str[-1]
    rows["shots"] = [n if n == "high-shot" else int(n.removesuffix("-shot")) for n in names]
    by = ["method", "shots"]
    found = intervals.of_means(rows, by)
    ends = rows.astype({"low": float, "high": float}).groupby(by, sort=False)[["low", "high"]]
    return found.fillna(ends.first().reset_index()[["low", "high"]])


def differences(table: pd.DataFrame, baseline: str = "imagenet") -> pd.DataFrame:
    """Each pretraining's results less the baseline's on the same draw: mean and interval.

    The interval speaks of the draw's luck alone: all draws share a pool and the test images.

    Args:
        table: Results, one value a row, with a column ``draw``.
        baseline: The pretraining that others are compared with.

    Returns:
        Table of :func:`spdlib.intervals.of_means` of the differences, by group and ``method``.

    Raises:
        ValueError: There is no such pretraining, it lacks a draw that another has, or one result
            is there twice.
    """
    if baseline not in set(table.method):
        raise ValueError(f"baseline: {baseline!r} is not among {', '.join(table.method.unique())}")
    # A result that is there twice is refused by pandas.
    wide = table.pivot(index=[*GROUP, "seed", "draw"], columns="method", values="value")
    if wide[baseline].isna().any():
        raise ValueError(f"table: {baseline} lacks a draw that others have")
    less = wide.drop(columns=baseline).sub(wide[baseline], axis=0)
    tall = less.melt(ignore_index=False).dropna(subset="value").reset_index()
    return intervals.of_means(tall, [*GROUP, "method"])


def gaps(
    rows: pd.DataFrame,
    found: Mapping[str, Found],
    pairs: Iterable[tuple[str, str]],
    shown: Sequence[int],
    repeats: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """AU-PR less a baseline's: over draws where there are several, else over test images.

    Args:
        rows: Results of the detection, as :func:`measure` gives them.
        found: The predictions by method that they were measured on.
        pairs: Pretrainings to compare: a baseline, and the one that it is taken from.
        shown: Numbers of shots, in order; high-shot comes last.
        repeats: Resamplings of the high-shot test images.
        seed: Seed of the resampling.

    Returns:
        Columns ``protocol``, ``method``, ``mean``, ``low``, ``high``.
    """
    names = [protocol_name(k) for k in shown]
    few = rows[(rows.metric == "AU-PR") & rows.protocol.isin(names)]
    columns = ["protocol", "method", "mean", "low", "high"]
    parts = [pd.DataFrame(columns=columns)]
    for pair in pairs:
        less = differences(few[few.method.isin(pair)], pair[0]).set_index("protocol")
        parts.append(less.loc[names].reset_index()[columns])
        reference, ours = (found[method][None, 0] for method in pair)
        scores = ours.scores, reference.scores
        ends = metrics.bootstrap_difference(ours.labels, *scores, repeats, seed=seed)["aupr"]
        parts.append(pd.DataFrame([[protocol_name(None), pair[1], *ends]], columns=columns))
    return pd.concat(parts, ignore_index=True).astype(dict.fromkeys(columns[2:], float))


def verdicts(curves: pd.DataFrame, lines: pd.DataFrame) -> pd.DataFrame:
    """Number of shots from which labels pay: all of the interval lies above the line.

    Args:
        curves: Table of :func:`curve` for the two-class detector.
        lines: The same of the one-class detector, on the same test images.

    Returns:
        Columns ``labels pay``, in words, and ``high-shot gain``, in percentage points, by method. A
        number of shots counts only if all larger ones hold, too.
    """
    both = curves.merge(lines, on=["method", "shots"], suffixes=("", "_line"))
    both["ahead"] = both.low > both.mean_line
    found = {}
    for method, rows in both.groupby("method", sort=False):
        high = rows[rows.shots == "high-shot"]
        few = rows[rows.shots != "high-shot"].sort_values("shots", ascending=False)
        lasting = few.shots[few.ahead.cummin()]
        words = f"not up to {few.shots.max()} of each"
        found[method] = {
            "labels pay": f"from {lasting.min()} of each on" if len(lasting) else words,
            "high-shot gain": (100 * (high["mean"] - high.mean_line)).round(1).squeeze(),
        }
    return pd.DataFrame(found).T
