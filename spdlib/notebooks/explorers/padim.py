"""Explorer of PaDiM's maps: any test image, under any encoder and threshold."""

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure

from spdlib.evaluation import Evaluation
from spdlib.notebooks.explorers.explorer import explorer, menu, methods, plain, slider
from spdlib.notebooks.figures import padim as plots
from spdlib.notebooks.figures import panels

WRONG = "wrong at this threshold"


def threshold_explorer(found: Evaluation) -> widgets.VBox:
    """Test images to browse, highest score first, and a threshold to move over their maps.

    One threshold decides on pixels and on images: an image's score is the maximum of its map.

    Args:
        found: Scores, maps and masks of the encoders.
    """
    images = found.images
    labels = found.table.label.to_numpy()
    every = np.concatenate(list(found.scores.values()))
    low, high = float(every.min()), float(every.max())
    first, method = found.categories[0], found.methods[-1]
    most = int(found.table.category.value_counts().max())
    controls = {
        "category": menu(plain(found.categories)),
        "encoder": menu(methods(found.methods), value=method),
        "kind": menu(plain(("all", *panels.CLASSES, WRONG)), value="anomalous",
                     description="images"),
        "place": slider(1, 1, most, description="place by score"),
        "threshold": slider(found.alarm(first, method), 0.5 * low, high, (high - 0.5 * low) / 200),
    }  # fmt: skip

    def draw(category: str, encoder: str, kind: str, place: int, threshold: float) -> Figure:
        inside = np.flatnonzero(found.table.category == category)
        scores, truth = found.scores[encoder][inside], labels[inside]
        listed = {
            "all": truth >= 0, "normal": truth == 0, "anomalous": truth == 1,
            WRONG: (scores >= threshold) != (truth == 1),
        }[kind]  # fmt: skip
        order = np.argsort(-scores, kind="stable")
        order = order[listed[order]]
        if not len(order):
            return panels.nothing(f"{category}: no image is {kind}", height=3.9)
        place = min(place, len(order))
        number = int(order[place - 1])
        row = int(inside[number])
        title = f"{place} of {len(order)}: {_verdict(found, encoder, row, threshold)}"
        top = float(found.scores[encoder].max())  # encoders' distances have no common unit
        return plots.view(
            images[row]["image"], found.maps[encoder][row], found.masks[row], threshold, top,
            truth, scores, number, title,
        )  # fmt: skip

    return explorer(controls, draw, height=390)


def _verdict(found: Evaluation, method: str, row: int, threshold: float) -> str:
    sample, score = found.table.iloc[row], found.scores[method][row]
    word = panels.VERDICTS[int(sample.label)][int(score >= threshold)]
    text = f"{'normal' if sample.label == 0 else sample.defect}, score {score:.2f}: {word}"
    mask = found.masks[row]
    if mask.any():
        flagged = found.maps[method][row] >= threshold
        hit = (flagged & mask).sum() / mask.sum()
        right = (flagged & mask).sum() / max(int(flagged.sum()), 1)
        text += f"; {hit:.0%} of the defect's pixels flagged, {right:.0%} of the flagged are defect"
    return text
