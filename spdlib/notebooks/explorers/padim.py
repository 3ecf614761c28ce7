"""Explorer of PaDiM's maps: any test image, under any encoder and threshold."""

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure

from spdlib.datasets.samples import SampleImages
from spdlib.evaluation import Evaluation
from spdlib.notebooks.explorers.explorer import explorer
from spdlib.notebooks.figures import padim as plots
from spdlib.notebooks.figures import style

KINDS = ("all", "normal", "anomalous", "wrong at this threshold")


def threshold_explorer(found: Evaluation) -> widgets.VBox:
    """Test images to browse, highest score first, and a threshold to move over their maps.

    One threshold decides on pixels and on images: an image's score is the maximum of its map.

    Args:
        found: Scores, maps and masks of the encoders.
    """
    size = found.masks.shape[-1]
    images = SampleImages(found.table, size)
    labels = found.table.label.to_numpy()
    low, high = (float(end([s for s in found.scores.values()])) for end in (np.min, np.max))
    first, method = found.categories[0], found.methods[-1]
    most = int(found.table.category.value_counts().max())
    controls = {
        "category": widgets.Dropdown(options=found.categories, description="category"),
        "encoder": widgets.Dropdown(
            options=[(style.method_name(name), name) for name in found.methods], value=method,
            description="encoder",
        ),
        "kind": widgets.Dropdown(options=KINDS, value="anomalous", description="images"),
        "place": widgets.IntSlider(
            1, 1, most, description="place by score", continuous_update=False
        ),
        "threshold": widgets.FloatSlider(
            found.alarm(first, method), min=0.5 * low, max=high, step=(high - 0.5 * low) / 200,
            readout_format=".2f", description="threshold", continuous_update=False,
        ),
    }  # fmt: skip

    def draw(category: str, encoder: str, kind: str, place: int, threshold: float) -> Figure:
        inside = np.flatnonzero(found.table.category == category)
        scores = found.scores[encoder]
        flagged = scores[inside] >= threshold
        chosen = {
            "all": np.ones(len(inside), bool),
            "normal": labels[inside] == 0,
            "anomalous": labels[inside] == 1,
            "wrong at this threshold": flagged != (labels[inside] == 1),
        }[kind]
        listed = np.flatnonzero(chosen)
        if not len(listed):
            return _nothing(f"{category}: no image is wrong at this threshold")
        listed = listed[np.argsort(-scores[inside[listed]], kind="stable")]
        place = min(place, len(listed))
        number = int(listed[place - 1])
        row = int(inside[number])
        title = f"{place} of {len(listed)}: {_verdict(found, encoder, row, threshold)}"
        return plots.view(
            images[row]["image"], found.maps[encoder][row], found.masks[row], threshold, high,
            labels[inside], scores[inside], number, title,
        )  # fmt: skip

    return explorer(controls, draw, height=390)


def _verdict(found: Evaluation, method: str, row: int, threshold: float) -> str:
    sample, score = found.table.iloc[row], found.scores[method][row]
    word = {
        (1, True): "found", (1, False): "missed", (0, True): "false alarm", (0, False): "passed",
    }[int(sample.label), bool(score >= threshold)]  # fmt: skip
    text = f"{'normal' if sample.label == 0 else sample.defect}, score {score:.2f}: {word}"
    mask = found.masks[row]
    if mask.any():
        flagged = found.maps[method][row] >= threshold
        hit = (flagged & mask).sum() / mask.sum()
        right = (flagged & mask).sum() / max(int(flagged.sum()), 1)
        text += f"; {hit:.0%} of the defect's pixels flagged, {right:.0%} of the flagged are defect"
    return text


def _nothing(text: str) -> Figure:
    fig, ax = style.figure(height=3.9)
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", fontsize=12)
    return fig
