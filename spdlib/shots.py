"""How a result grows with the number of labelled images: probes, trainings, the one-class line.

Everything is measured on the test images of a protocol; what it says of them is kept as
:class:`~spdlib.twoclass.Predictions`, so that detectors can be compared image by image.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import DataLoader

from spdlib import metrics, results
from spdlib.augmentation import Decoded
from spdlib.datasets.protocols import few_shot, high_shot
from spdlib.encoders import Encoder
from spdlib.padim import PaDiM
from spdlib.progress import Bar, track
from spdlib.twoclass import Classifier, Predictions, Segmenter, predict, probe, train
from spdlib.twoclass_presets import TwoClass

Case = tuple[int | None, int]  # shots, None for the high-shot split, and number of the draw


def protocol_name(k: int | None) -> str:
    """How results name a two-class protocol: k shots, or the high-shot split.

    >>> protocol_name(5), protocol_name(None)
    ('2-class 5-shot', '2-class high-shot')
    """
    return f"2-class {'high' if k is None else k}-shot"


def draw(table: pd.DataFrame, cases: Iterable[Case]) -> dict[Case, pd.DataFrame]:
    """A table split for each case, by :mod:`spdlib.datasets.protocols`."""
    return {
        (k, number): high_shot(table) if k is None else few_shot(table, k, seed=number)
        for k, number in cases
    }


def probes(
    features: ArrayLike, images: Decoded, splits: Mapping[Case, pd.DataFrame]
) -> dict[Case, Predictions]:
    """A linear probe for each split, on features computed once.

    Args:
        features: Of all images (N, D).
        images: The images.
        splits: As :func:`draw` gives them.

    Returns:
        What each probe says of its split's test images.
    """
    features, labels = np.asarray(features), images.table.label.to_numpy()
    found = {}
    for case, table in splits.items():
        learned, tested = (images.rows(table[table.split == part]) for part in ("train", "test"))
        scores = probe(features[learned], labels[learned], features[tested])
        found[case] = Predictions(labels[tested], scores)
    return found


def run(
    encoder: Encoder, images: Decoded, table: pd.DataFrame, settings: TwoClass, bar: Bar | str
) -> tuple[pd.DataFrame, Predictions]:
    """Trains all weights on one part of a table and predicts the other.

    Args:
        encoder: Where the weights start from; it stays as it is.
        images: The table's images, among others.
        table: One of the tables that :func:`draw` gives.
        settings: How to train.
        bar: As for :func:`spdlib.twoclass.train`.

    Returns:
        The losses, and what the model says of the test images.
    """
    if settings.task == "detection":
        model: Classifier | Segmenter = Classifier(encoder, settings.seed)
    else:
        model = Segmenter(encoder, settings.decoder_width, settings.seed)
    losses = train(model, images.of(table[table.split == "train"]), settings, bar)
    return losses, predict(model, images.of(table[table.split == "test"]))


def never_tested(
    table: pd.DataFrame, splits: Mapping[Case, pd.DataFrame], most: int, seed: int = 0
) -> pd.DataFrame:
    """Normal samples of a table that are test images in none of the splits, at most so many."""
    tested = {path for split in splits.values() for path in split.path[split.split == "test"]}
    normal = table[(table.label == 0) & ~table.path.isin(tested)]
    return normal.sample(min(most, len(normal)), random_state=seed)


def one_class(
    encoders: Mapping[str, Encoder], normal: Decoded, images: Decoded, seed: int = 0
) -> dict[str, Predictions]:
    """What PaDiM says of images that it has not learned, for each encoder.

    Args:
        encoders: By pretraining.
        normal: What it learns.
        images: What it scores.
        seed: Of its choice of channels.
    """
    found = {}
    for method, encoder in track(encoders.items(), "PaDiM", "encoders", len(encoders)):
        detector = PaDiM(encoder, seed=seed).fit(DataLoader(normal, 32))
        maps, scores = detector.score(DataLoader(images, 32))
        labels = images.table.label.to_numpy()
        found[method] = Predictions(labels, scores.numpy(), images.masks.numpy(), maps.numpy())
    return found


def measure(
    found: Predictions, task: str, repeats: int = 0, seed: int = 0, **columns: Any
) -> pd.DataFrame:
    """All metrics of some predictions, as rows of results.

    Args:
        found: What a detector says of the test images.
        task: ``detection`` or ``segmentation``.
        repeats: Resamplings of the test images for the intervals; 0 for none.
        seed: Of the resampling.
        **columns: Further columns of :data:`spdlib.results.COLUMNS`.
    """
    if task == "segmentation":
        truth, scores = found.masks, found.maps
        values = metrics.pixel_metrics(scores, truth)
    else:
        truth, scores = found.labels, found.scores
        values = metrics.evaluate(truth, scores)
    spread = metrics.bootstrap(truth, scores, repeats, seed=seed) if repeats else None
    return results.rows(values, spread, task=task, **columns)


def verdicts(curves: pd.DataFrame, lines: Mapping[str, float]) -> dict[str, str]:
    """From how many shots on labels pay: where all of the interval lies above the line.

    Args:
        curves: Columns ``method``, ``shots``, ``low``, as :func:`spdlib.paired.over_draws` gives.
        lines: The one-class detector's result on the same test images, by method.

    Returns:
        A few words by method. A number counts only if all larger ones hold, too.
    """
    words = {}
    for method, rows in curves.groupby("method", sort=False):
        rows = rows.sort_values("shots")
        above = (rows.low > lines[method]).to_numpy()
        lasting: NDArray[np.bool_] = np.logical_and.accumulate(above[::-1])[::-1]
        if lasting.any():
            words[method] = f"from {rows.shots.iloc[int(lasting.argmax())]} of each class on"
        else:
            words[method] = f"not up to {rows.shots.max()} of each class"
    return words
