"""Explorer of the attention maps: an image, an encoder, a stage, a method."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import ipywidgets as widgets
from matplotlib.figure import Figure
from torch import Tensor

from spdlib.attention import METHODS, Attention, NormalBank, attention_maps, localisation, normalise
from spdlib.datasets.samples import SampleImages
from spdlib.encoders import Encoder
from spdlib.notebooks.explorers.explorer import explorer, menu, methods, slider
from spdlib.notebooks.figures import attention as plots


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
        names: Their names in the menu.
        masks: Ground truth (N, H, W), all False where there is none.
        encoders: Encoders by pretraining method.
        banks: The encoders' banks, by the same names.
        normals: The images the banks were built from.
    """
    controls = {
        "image": menu(enumerate(names)),
        "encoder": menu(methods(encoders), value=list(encoders)[-1]),
        "stage": slider(4, 1, 4),
        "method": menu((name, cam.__name__) for name, cam in METHODS.items()),
        "strength": slider(plots.STRENGTH, 0, 1, 0.05, ".0%", description="overlay"),
    }

    @lru_cache(maxsize=64)
    def attend(image: int, encoder: str, stage: int, method: str) -> Attention:
        one = images[image : image + 1]
        return attention_maps(encoders[encoder], one, banks[encoder], stage, method)

    def draw(image: int, encoder: str, stage: int, method: str, strength: float) -> Figure:
        found = attend(image, encoder, stage, method)
        titles = [
            names[image],
            f"nearest normal image, distance {found.nearest.distance[0]:.3g}",
            _verdict(found.maps, masks[image : image + 1]),
        ]
        normal = normals[int(found.nearest.index[0])]["image"]
        energy = normalise(found.maps)[0]
        return plots.overlay(images[image], normal, energy, masks[image], titles, strength)

    return explorer(controls, draw, height=340)


def _verdict(maps: Tensor, masks: Tensor) -> str:
    if not maps.any():
        return "no cell raises the distance"
    if not masks.any():
        return "map (no ground truth)"
    found = localisation(maps, masks).iloc[0]
    return f"energy inside {100 * found.energy_share:.0f} %, by chance {100 * found.area:.1f} %"
