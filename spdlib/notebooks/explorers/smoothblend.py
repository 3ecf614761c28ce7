"""Explorer of SmoothBlend: what each setting does to one draw, which is kept.

Pixels go straight into the PNG, which takes a fraction of the time that a figure would.
"""

import io
import math
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from typing import NamedTuple

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.font_manager import findfont
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from spdlib.notebooks.explorers.explorer import explorer
from spdlib.notebooks.figures import smoothblend as plots
from spdlib.smoothblend import AREA, ASPECT, JITTER, Draw, SmoothBlend
from spdlib.views import WeakView

AREAS = (0.001, 0.002, 0.003, 0.0056, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2)
ASPECTS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0, 10.0)
GAINS = (1, 2, 4, 8, 16)

PANEL, GAP, LINE = 224, 8, 22  # pixels of the picture: a panel's side, between panels, of text
WIDTH = 4 * PANEL + 3 * GAP
HEIGHT = 2 * (LINE + PANEL) + 2 * LINE + GAP
CLOSE = 3  # how much larger the second row is


class Scene(NamedTuple):
    """One image under one draw: what the explorer shows.

    Attributes:
        image: (3, H, W), after the weak view if there is one.
        alpha: The smoothed mask (1, H, W).
        blended: (3, H, W).
        draw: Of what was done.
    """

    image: Tensor
    alpha: Tensor
    blended: Tensor
    draw: Draw


def smoothblend_explorer(images: Mapping[str, Mapping[str, Tensor]], seed: int = 0) -> widgets.VBox:
    """Every setting of SmoothBlend, on a draw that stays until a new one is asked for.

    Args:
        images: Square images (3, H, H), floats in [0, 1], by data set and name.
        seed: Of the first draw; each new draw takes the next.

    Returns:
        The explorer, with the attribute ``new_draw``, its button, beside the usual ones.
    """
    sets = {name: list(group.items()) for name, group in images.items()}
    first = next(iter(sets))
    size = sets[first][0][1].shape[-1]
    controls = {
        "data": widgets.Dropdown(options=list(sets), description="data set"),
        "number": widgets.Dropdown(options=_numbered(sets[first]), description="image"),
        "sigma": widgets.FloatSlider(
            SmoothBlend().sigma_for((size, size)), min=0, max=size / 7, step=size / 448,
            description="sigma, pixels", readout_format=".1f", continuous_update=False,
        ),
        "jitter": widgets.FloatSlider(
            JITTER[0], min=0, max=0.5, step=0.05, description="jitter, strength",
            continuous_update=False,
        ),
        "area": widgets.SelectionRangeSlider(
            options=[(f"{100 * a:.3g} %", a) for a in AREAS], value=AREA,
            description="area of the image", continuous_update=False,
        ),
        "aspect": widgets.SelectionRangeSlider(
            options=[(f"{a:g}", a) for a in ASPECTS], value=ASPECT,
            description="aspect, w / h", continuous_update=False,
        ),
        "gain": widgets.SelectionSlider(
            options=[(f"× {gain}", gain) for gain in GAINS], value=plots.GAIN,
            description="show difference", continuous_update=False,
        ),
        "weak": widgets.Checkbox(False, description="weak view first"),
        "seed": widgets.BoundedIntText(seed, min=0, max=2**31, description="seed"),
    }  # fmt: skip

    def list_images(change: dict[str, str]) -> None:
        controls["number"].options = _numbered(sets[change["new"]])

    controls["data"].observe(list_images, names="value")  # before the explorer redraws

    @lru_cache(maxsize=32)
    def draw(data: str, number: int, gain: float, **settings) -> bytes:
        return picture(scene(sets[data][number][1], **settings), gain)

    box = explorer(controls, draw, width=WIDTH, height=HEIGHT)
    new_draw = widgets.Button(
        description="new draw", icon="random", layout=widgets.Layout(width="98%"),
        tooltip="the next seed: another patch, another place, other colours",
    )  # fmt: skip

    def next_seed(_: widgets.Button) -> None:
        controls["seed"].value += 1

    new_draw.on_click(next_seed)
    grid = box.children[0]
    grid.children = (*grid.children, new_draw)
    box.new_draw = new_draw
    return box


def scene(
    image: Tensor,
    sigma: float | None = None,
    area: tuple[float, float] = AREA,
    aspect: tuple[float, float] = ASPECT,
    jitter: float = JITTER[0],
    weak: bool = False,
    seed: int = 0,
) -> Scene:
    """What SmoothBlend makes of an image, from uniform numbers that the seed alone decides.

    A setting changes only what it is about: the centres of what is cut and pasted stay where
    the paper's settings put them, and size, shape and colours keep their places in their
    ranges.

    Args:
        image: Square (3, H, H), floats in [0, 1].
        sigma: As for :class:`SmoothBlend`, as are ``area`` and ``aspect``.
        area: Range of the patch's area.
        aspect: Range of the patch's aspect.
        jitter: Strength, the same for brightness, contrast, saturation and hue.
        weak: Whether a weak global view is taken first, as for a negative.
        seed: Of the numbers.
    """
    blend, size = SmoothBlend(area, aspect, sigma, (jitter,) * 4), tuple(image.shape[-2:])
    numbers = torch.Generator().manual_seed(seed)
    places = SmoothBlend().draw(1, size, numbers)
    if weak:
        image = WeakView(size[0])(image[None], numbers)[0]
    draw = blend.draw(1, size, numbers.manual_seed(seed)).centred_on(places)
    return Scene(image, blend.alpha(draw)[0], blend.blend(image, draw), draw)


def picture(shown: Scene, gain: float) -> bytes:
    """A scene as a PNG: image, mask, blend and difference, whole and close up.

    Args:
        shown: What to show.
        gain: How often the difference is amplified.
    """
    change = plots.difference(shown.image, shown.blended, gain)
    panels = [_levels(x) for x in (shown.image, shown.alpha.expand(3, -1, -1), shown.blended)]
    panels.append(change)
    box = shown.draw.target_boxes[0].tolist()
    canvas = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, below = ImageDraw.Draw(canvas), LINE + PANEL
    side = math.ceil(shown.draw.size[0] / CLOSE)
    for number, (panel, title) in enumerate(zip(panels, _titles(shown, gain), strict=True)):
        left = number * (PANEL + GAP)
        pen.text((left, 2), title, "black", _font())
        canvas.paste(_scaled(panel), (left, LINE))
        close = plots.around(torch.from_numpy(panel).permute(2, 0, 1), box, side)
        canvas.paste(_scaled(close.permute(1, 2, 0).numpy()), (left, below + LINE))
    pen.text((0, below + 2), f"the same around the paste, {CLOSE} times as large", "black", _font())
    scale = PANEL / shown.draw.size[0]
    for boxes, colour, dashed in (
        (shown.draw.source_boxes, plots.SOURCE, True),
        (shown.draw.target_boxes, plots.TARGET, False),
    ):
        corners = [round(scale * edge) for edge in boxes[0].tolist()]
        _outline(pen, corners, colour, dashed)
    for number, text in enumerate(_about(shown)):
        pen.text((0, HEIGHT - (2 - number) * LINE + 2), text, "black", _font())
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _titles(shown: Scene, gain: float) -> list[str]:
    return [
        "image; dashed: cut, solid: pasted",
        f"mask alpha, at most {shown.alpha.max():.2f}",
        "blend",
        f"difference × {gain:g}; blue: darker",
    ]


def _about(shown: Scene) -> tuple[str, str]:
    draw, (height, width) = shown.draw, shown.draw.size
    h, w = int(draw.height), int(draw.width)
    light, contrast, saturation, hue = draw.jitter[0].tolist()
    change = 255 * (shown.blended - shown.image).abs().amax(0)
    inside = SmoothBlend(sigma=0).alpha(draw)[0, 0] > 0
    return (
        f"drawn: {w} × {h} pixels, {100 * h * w / (height * width):.2f} % of the image, "
        f"aspect {w / h:.2f};  brightness × {light:.2f}, contrast × {contrast:.2f}, "
        f"saturation × {saturation:.2f}, hue {hue:+.2f} turns",
        f"largest change: {(change * inside).max():.0f} levels of 255 in the pasted box, "
        f"{(change * ~inside).max():.0f} around it",
    )


def _numbered(group: Sequence[tuple[str, Tensor]]) -> list[tuple[str, int]]:
    return [(name, number) for number, (name, _) in enumerate(group)]


def _levels(image: Tensor) -> NDArray[np.uint8]:
    return (255 * image.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()


def _scaled(pixels: NDArray[np.uint8]) -> Image.Image:
    smaller = pixels.shape[0] > PANEL
    kind = Image.Resampling.BOX if smaller else Image.Resampling.NEAREST
    return Image.fromarray(np.ascontiguousarray(pixels)).resize((PANEL, PANEL), kind)


def _outline(pen: ImageDraw.ImageDraw, box: Sequence[int], colour: str, dashed: bool) -> None:
    left, top, right, bottom = box
    top, bottom = top + LINE, bottom + LINE
    corners = ((left, top), (right, top), (right, bottom), (left, bottom), (left, top))
    for (x0, y0), (x1, y1) in pairwise(corners):
        pen.line((x0, y0, x1, y1), "black", 4)
    for (x0, y0), (x1, y1) in pairwise(corners):
        length = max(abs(x1 - x0), abs(y1 - y0), 1)
        dash = 4 if dashed else length
        for start in range(0, length, 2 * dash):
            a, b = start / length, min(start + dash, length) / length
            pen.line((x0 + a * (x1 - x0), y0 + a * (y1 - y0),
                      x0 + b * (x1 - x0), y0 + b * (y1 - y0)), colour, 2)  # fmt: skip


@cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(findfont("DejaVu Sans"), 12)
