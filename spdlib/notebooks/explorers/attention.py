"""Explorer of the attention maps: an image, an encoder, a stage, a method."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import ipywidgets as widgets
from matplotlib.figure import Figure
from torch import Tensor

from spdlib.attention import METHODS, Attention, NormalBank, attention_maps, localisation, normalise
from spdlib.datasets.samples import SampleImages
from spdlib.encoders import Encoder
from spdlib.notebooks.explorers.explorer import explorer, menu, slider
from spdlib.notebooks.figures import panels, style
from spdlib.notebooks.figures.panels import Picture


def attention_explorer(
    images: Tensor,
    names: Sequence[str],
    masks: Tensor,
    encoders: Mapping[str, Encoder],
    banks: Mapping[str, NormalBank],
    normals: SampleImages,
) -> widgets.VBox:
    """Any map of any image; starts as the paper has it, GradCAM at the last stage.

    Args:
        images: Anomalous images (N, 3, H, W).
        names: Names of the images in the menu.
        masks: Ground truth (N, H, W), all False where there is none.
        encoders: Encoders by pretraining method.
        banks: The encoders' banks, by the same names.
        normals: The images the banks were built from.
    """
    controls = {
        "image": menu(range(len(names)), names.__getitem__),
        "encoder": menu(encoders, style.method_name, value=list(encoders)[-1]),
        "stage": slider(4, 1, 4),
        "method": menu(METHODS, lambda name: METHODS[name].__name__),
        "strength": slider(Picture().strength, 0, 1, 0.05, ".0%", description="overlay"),
    }

    @lru_cache(maxsize=64)
    def attend(image: int, encoder: str, stage: int, method: str) -> Attention:
        return attention_maps(encoders[encoder], images[[image]], banks[encoder], stage, method)

    @style.shows()
    def draw(image: int, encoder: str, stage: int, method: str, strength: float) -> Figure:
        """An image, its nearest normal image, and its map."""
        found, mask = attend(image, encoder, stage, method), masks[image]
        verdict = "map (no ground truth)" if found.maps.any() else "no cell raises the distance"
        if found.maps.any() and mask.any():
            seen = localisation(found.maps, mask[None]).iloc[0]
            share, chance = 100 * seen.energy_share, 100 * seen.area
            verdict = f"energy inside {share:.0f} %, by chance {chance:.1f} %"
        distance = f"nearest normal image, distance {found.nearest.distance[0]:.3g}"
        normal = normals[int(found.nearest.index[0])]["image"]
        seen = Picture(images[image], normalise(found.maps)[0], mask, strength=strength)
        cells, titles = [seen._replace(heat=None), normal, seen], [names[image], distance, verdict]
        return panels.grid([("", cells)], titles, side=2.9)

    return explorer(controls, draw, height=340)
