"""Explorer of predicted masks: an image, a model, a threshold."""

from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from spdlib.notebooks.explorers.explorer import explorer, menu, slider
from spdlib.notebooks.figures import twoclass as plots


def mask_explorer(
    images: Tensor, names: Sequence[str], masks: Tensor, maps: Mapping[str, np.ndarray]
) -> widgets.VBox:
    """The mask that a threshold makes of predicted probabilities; starts with the largest anomaly.

    Args:
        images: (N, 3, H, W) in [0, 1].
        names: Names of the images in the menu.
        masks: Ground truth (N, H, W), all False for normal images.
        maps: Log odds (N, H, W) by the model's name, as ``spdlib.twoclass.predict`` gives.
    """
    largest = int(masks.flatten(1).sum(1).argmax())
    controls = {
        "image": menu(range(len(names)), names.__getitem__, value=largest),
        "model": menu(maps),
        "threshold": slider(0.5, 0.05, 0.95, 0.05, ".0%"),
    }

    def draw(image: int, model: str, threshold: float) -> Figure:
        probability = 1 / (1 + np.exp(-np.asarray(maps[model][image], np.float64)))
        return plots.overlay(images[image], masks[image], probability, threshold)

    return explorer(controls, draw, height=370)
