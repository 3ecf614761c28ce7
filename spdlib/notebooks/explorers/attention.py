"""Explorer of the attention maps: an image, an encoder, a stage, a method."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import ipywidgets as widgets
from matplotlib.figure import Figure
from torch import Tensor

from spdlib.attention import METHODS, Attention, NormalBank, attention_maps, localisation, normalise
from spdlib.datasets.samples import SampleImages
from spdlib.encoders import Encoder
from spdlib.notebooks.explorers.explorer import explorer
from spdlib.notebooks.figures import attention as plots
from spdlib.notebooks.figures import style


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
        names: What to call them in the menu.
        masks: Ground truth (N, H, W), all False where there is none.
        encoders: Encoders by pretraining method.
        banks: The encoders' banks, by the same names.
        normals: The images the banks were built from.
    """
    controls = {
        "image": widgets.Dropdown(
            options=[(name, number) for number, name in enumerate(names)], description="image"
        ),
        "encoder": widgets.Dropdown(
            options=[(style.method_name(name), name) for name in encoders], description="encoder",
            value=list(encoders)[-1],
        ),
        "stage": widgets.IntSlider(4, 1, 4, description="stage", continuous_update=False),
        "method": widgets.Dropdown(
            options=[(cam.__name__, name) for name, cam in METHODS.items()], description="method"
        ),
        "strength": widgets.FloatSlider(
            plots.STRENGTH, min=0, max=1, step=0.05, readout_format=".0%",
            description="overlay", continuous_update=False,
        ),
    }  # fmt: skip

    @lru_cache(maxsize=64)
    def attend(image: int, encoder: str, stage: int, method: str) -> Attention:
        return attention_maps(
            encoders[encoder], images[image : image + 1], banks[encoder], stage, method
        )

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
