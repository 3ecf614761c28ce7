"""Explorer of PaDiM's maps: any test image, under any encoder and threshold."""

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure

from spdlib.evaluation import Evaluation
from spdlib.notebooks.explorers.explorer import explorer, menu, slider
from spdlib.notebooks.figures import padim as plots
from spdlib.notebooks.figures import panels, style
from spdlib.notebooks.figures.panels import Picture


def threshold_explorer(found: Evaluation) -> widgets.VBox:
    """Test images to browse, highest score first, and a threshold to move over their maps.

    One threshold decides on pixels and on images: an image's score is the maximum of its map.

    Args:
        found: Scores, maps and masks of the encoders.
    """
    images, table = found.images, found.table
    every = np.concatenate(list(found.scores.values()))
    low, high = 0.5 * float(every.min()), float(every.max())
    first, method = found.categories[0], found.methods[-1]
    kinds = ("all", *panels.CLASSES, "wrong at this threshold")
    most = int(table.category.value_counts().max())
    controls = {
        "category": menu(found.categories),
        "encoder": menu(found.methods, style.method_name, value=method),
        "kind": menu(kinds, value="anomalous", description="images"),
        "place": slider(1, 1, most, description="place by score"),
        "threshold": slider(found.alarm(first, method), low, high, (high - low) / 200),
    }

    def draw(category: str, encoder: str, kind: str, place: int, threshold: float) -> Figure:
        inside = np.flatnonzero(table.category == category)
        scores, truth = found.scores[encoder][inside], table.label.to_numpy()[inside]
        wrong = (scores >= threshold) != (truth == 1)
        listed = dict(zip(kinds, (truth >= 0, truth == 0, truth == 1, wrong), strict=True))[kind]
        order = sorted(np.flatnonzero(listed), key=lambda number: -scores[number])
        if not order:
            return style.nothing(f"{category}: no image is {kind}", height=3.9)
        place = min(place, len(order))
        number = int(order[place - 1])
        row = int(inside[number])
        title = f"{place} of {len(order)}: {_verdict(found, encoder, row, threshold)}"
        cell = Picture(images[row]["image"], found.maps[encoder][row], found.masks[row], title)
        top = float(found.scores[encoder].max())  # encoders' distances have no common unit
        return plots.view(cell, threshold, top, truth, scores, number)

    return explorer(controls, draw, height=390)


def _verdict(found: Evaluation, method: str, row: int, threshold: float) -> str:
    sample, score, mask = found.table.iloc[row], found.scores[method][row], found.masks[row]
    word = panels.VERDICTS[int(sample.label)][int(score >= threshold)]
    text = f"{'normal' if sample.label == 0 else sample.defect}, score {score:.2f}: {word}"
    flagged = found.maps[method][row] >= threshold
    pixels = panels.overlap(mask.numpy(), flagged.numpy())
    return f"{text}; {pixels}" if mask.any() else text
