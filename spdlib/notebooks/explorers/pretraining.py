"""Explorer of pretrained encoders: spot the difference, against them."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import ipywidgets as widgets
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from spdlib.encoders import Encoder
from spdlib.notebooks.explorers.explorer import explorer, menu, slider
from spdlib.notebooks.figures import pretraining as plots
from spdlib.smoothblend import JITTER, SmoothBlend
from spdlib.views import WeakView, spd_triplet


def spot_explorer(
    images: Tensor,
    names: Sequence[str],
    encoders: Mapping[str, Encoder],
    units: Mapping[str, float],
    size: int,
) -> widgets.VBox:
    """A blended view to find, and whether each encoder notices it; starts without the answer.

    Args:
        images: uint8 (N, 3, H, W).
        names: Names of the images in the menu.
        encoders: Encoders by pretraining method.
        units: Median distance of each encoder between two images, as
            :func:`spdlib.notebooks.figures.pretraining.unit` gives it.
        size: Side of the views that the encoders see, pixels.
    """
    controls = {
        "image": menu(range(len(names)), names.__getitem__, description="cell"),
        "draw": slider(0, 0, 50),
        "jitter": slider(JITTER[0], 0, 0.5, 0.05, description="patch jitter"),
        "answer": widgets.Checkbox(False, description="show the answer"),
    }

    @lru_cache(maxsize=64)
    @torch.no_grad()
    def play(image: int, draw: int, jitter: float):
        pixels, generator = images[[image]].float() / 255, torch.Generator().manual_seed(draw)
        blend = SmoothBlend(jitter=(jitter,) * 4)
        *triplet, alpha = spd_triplet(pixels, WeakView(size), blend, generator, alpha=True)
        found = {}
        for name, encoder in encoders.items():
            anchor, *views = encoder(torch.cat(triplet)).split(1)
            apart = [max(1 - F.cosine_similarity(anchor, view).item(), 1e-7) for view in views]
            found[name] = apart[0] / units[name], apart[1] / units[name]
        return tuple(view[0] for view in triplet), alpha[0], found

    def show(image: int, draw: int, jitter: float, answer: bool) -> Figure:
        triplet, alpha, found = play(image, draw, jitter)
        return plots.spot_game(triplet, alpha, found, answer)

    return explorer(controls, show, height=310)
