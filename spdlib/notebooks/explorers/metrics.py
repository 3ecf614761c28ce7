"""Explorers of the metrics: the toy test set, and a threshold on real scores."""

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from spdlib import metrics, toy
from spdlib.datasets.samples import read_image
from spdlib.notebooks.explorers.explorer import explorer, slider, stops
from spdlib.notebooks.figures import metrics as plots
from spdlib.notebooks.figures import panels

NEGATIVES = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
FALSE_PER_TRUE = (0, 1, 2, 5, 9, 10, 20, 50, 100, 300, 1_000, 3_000, 10_000)
THUMBNAIL = 96  # pixels


def toy_explorer() -> widgets.VBox:
    """The toy test set with its numbers to move; starts as model A at its best threshold."""
    price, free = toy.MODEL_A["false_per_true"], toy.MODEL_A["free"]
    controls = {
        "positives": slider(toy.POSITIVES, 10, 1000, 10, description="anomalies"),
        "negatives": stops(NEGATIVES, "{:,}".format, toy.NEGATIVES, description="normal samples"),
        "false_per_true": stops(FALSE_PER_TRUE, "{:,}".format, price, description="false per true"),
        "free": slider(free, 0, 1, 0.05, ".0%", description="found for free"),
        "found": slider(1, 0, 1, 0.01, ".0%", description="threshold: found"),
    }
    return explorer(controls, draw_toy, height=360)


def draw_toy(
    positives: int, negatives: int, false_per_true: int, free: float, found: float
) -> Figure:
    """The toy explorer's figure.

    Args:
        positives: Anomalies.
        negatives: Normal samples.
        false_per_true: False alarms for each anomaly that is not free.
        free: Share of the anomalies found without one.
        found: Share of the anomalies above the threshold.
    """
    counts = toy.pairs(false_per_true, free, positives, negatives)
    labels, scores = toy.samples(counts, negatives)
    # The k-th anomaly has the k-th highest score, and scores end at 1.
    return plots.operating_point(labels, scores, positives + 1 - round(found * positives))


def threshold_explorer(
    labels: ArrayLike, scores: ArrayLike, paths: Sequence[str | Path]
) -> widgets.VBox:
    """A threshold to move over real image scores; starts at the best F1.

    Args:
        labels: 0 and 1, one an image.
        scores: Scores, one an image.
        paths: The image files, in the same order.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    paths = list(paths)  # a column of a table counts by its own index

    @lru_cache(maxsize=256)
    def thumbnail(i: int) -> Tensor:
        return F.resize(read_image(paths[i]), [THUMBNAIL, THUMBNAIL], antialias=True)

    low, high = float(scores.min()), float(scores.max())
    start = low if panels.missing(labels) else metrics.max_f1(labels, scores).threshold
    controls = {"threshold": slider(start, low, high, (high - low) / 200)}
    draw = partial(plots.threshold_view, labels, scores, image=thumbnail)
    return explorer(controls, draw, height=440)
