"""Explorers of the metrics: the toy test set, and a threshold on real scores."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from torchvision.transforms.v2 import functional as F

from spdlib import metrics, toy
from spdlib.datasets.samples import read_image
from spdlib.notebooks.explorers.explorer import explorer
from spdlib.notebooks.figures import metrics as plots

NEGATIVES = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
FALSE_PER_TRUE = (0, 1, 2, 5, 9, 10, 20, 50, 100, 300, 1_000, 3_000, 10_000)
THUMBNAIL = 96  # pixels


def toy_explorer() -> widgets.VBox:
    """The toy test set with its numbers to move; starts as model A at its best threshold."""
    controls = {
        "positives": widgets.IntSlider(
            toy.POSITIVES, 10, 1000, 10, description="anomalies", continuous_update=False
        ),
        "negatives": widgets.SelectionSlider(
            options=[(f"{n:,}", n) for n in NEGATIVES], value=toy.NEGATIVES,
            description="normal samples", continuous_update=False,
        ),
        "false_per_true": widgets.SelectionSlider(
            options=[(f"{n:,}", n) for n in FALSE_PER_TRUE], value=toy.MODEL_A["false_per_true"],
            description="false per true", continuous_update=False,
        ),
        "free": widgets.FloatSlider(
            toy.MODEL_A["free"], min=0, max=1, step=0.05, readout_format=".0%",
            description="found for free", continuous_update=False,
        ),
        "found": widgets.FloatSlider(
            1, min=0, max=1, step=0.01, readout_format=".0%",
            description="threshold: found", continuous_update=False,
        ),
    }  # fmt: skip
    return explorer(controls, draw_toy, height=360)


def draw_toy(
    positives: int, negatives: int, false_per_true: int, free: float, found: float
) -> Figure:
    """What the toy explorer shows.

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
        scores: One an image.
        paths: The image files, in the same order.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    paths = list(paths)  # a column of a table counts by its own index

    @lru_cache(maxsize=256)
    def thumbnail(i: int) -> NDArray[np.uint8]:
        small = F.resize(read_image(paths[i]), [THUMBNAIL, THUMBNAIL], antialias=True)
        return small.permute(1, 2, 0).numpy()

    low, high = float(scores.min()), float(scores.max())
    slider = widgets.FloatSlider(
        metrics.max_f1(labels, scores).threshold, min=low, max=high, step=(high - low) / 200,
        readout_format=".2f", description="threshold", continuous_update=False,
    )  # fmt: skip
    return explorer(
        {"threshold": slider},
        lambda threshold: plots.threshold_view(labels, scores, threshold, thumbnail),
        height=440,
        columns=1,
    )
