"""Explorer of SmoothBlend: what each setting does to one draw, which is kept.

Pixels go straight into the PNG, which takes a fraction of the time that a figure would.
"""

import io
import math
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import NamedTuple

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.colors import to_rgb
from matplotlib.font_manager import findfont
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from spdlib.notebooks.explorers.explorer import explorer, menu, plain, slider, stops
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
        draw: The draw behind them.
    """

    image: Tensor
    alpha: Tensor
    blended: Tensor
    draw: Draw


def smoothblend_explorer(images: Mapping[str, Mapping[str, Tensor]], seed: int = 0) -> widgets.VBox:
    """Every setting of SmoothBlend, on a draw that stays until a new one is asked for.

    Args:
        images: Square images (3, H, H), floats in [0, 1], by data set and name.
        seed: Seed of the first draw; each new draw takes the next.

    Returns:
        The explorer, with the attribute ``new_draw``, its button, beside the usual ones.
    """
    sets = {name: list(group.values()) for name, group in images.items()}
    first = next(iter(sets))
    size = sets[first][0].shape[-1]
    sigma = SmoothBlend().sigma_for((size, size))
    controls = {
        "data": menu(plain(sets), description="data set"),
        "number": menu(enumerate(images[first]), description="image"),
        "sigma": slider(sigma, 0, size / 7, size / 448, ".1f", description="sigma, pixels"),
        "jitter": slider(JITTER[0], 0, 0.5, 0.05, description="jitter, strength"),
        "area": stops(
            {f"{100 * a:.3g} %": a for a in AREAS}, AREA, description="area of the image"
        ),
        "aspect": stops({f"{a:g}": a for a in ASPECTS}, ASPECT, description="aspect, w / h"),
        "gain": stops({f"× {g}": g for g in GAINS}, plots.GAIN, description="show difference"),
        "weak": widgets.Checkbox(False, description="weak view first"),
        "seed": widgets.BoundedIntText(seed, min=0, max=2**31),
    }

    def list_images(change: dict[str, str]) -> None:
        controls["number"].options = menu(enumerate(images[change["new"]])).options

    controls["data"].observe(list_images, names="value")  # before the explorer redraws

    @lru_cache(maxsize=32)
    def draw(data: str, number: int, gain: float, **settings) -> bytes:
        return picture(scene(sets[data][number], **settings), gain)

    def next_seed(_: widgets.Button) -> None:
        controls["seed"].value += 1

    box = explorer(controls, draw, width=WIDTH, height=HEIGHT)
    tip = "the next seed: another patch, another place, other colours"
    box.new_draw = widgets.Button(description="new draw", icon="random", tooltip=tip)
    box.new_draw.layout.width = "98%"
    box.new_draw.on_click(next_seed)
    box.children[0].children += (box.new_draw,)
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
        seed: Seed of the numbers.
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
        shown: The scene.
        gain: Factor of the difference.
    """
    columns = {
        "image; dashed: cut, solid: pasted": _levels(shown.image),
        f"mask alpha, at most {shown.alpha.max():.2f}": _levels(shown.alpha.expand(3, -1, -1)),
        "blend": _levels(shown.blended),
        f"difference × {gain:g}; blue: darker": plots.difference(shown.image, shown.blended, gain),
    }
    canvas = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, below, scale = ImageDraw.Draw(canvas), LINE + PANEL, PANEL / shown.draw.size[0]
    source, target = (b[0].tolist() for b in (shown.draw.source_boxes, shown.draw.target_boxes))
    side = math.ceil(shown.draw.size[0] / CLOSE)
    texts = {(0, below): f"the same around the paste, {CLOSE} times as large"}
    for number, (title, pixels) in enumerate(columns.items()):
        left = number * (PANEL + GAP)
        close = plots.around(torch.from_numpy(pixels).permute(2, 0, 1), target, side)
        whole = _scaled(pixels)
        if number == 0:
            whole = _outlined(whole, [scale * edge for edge in source], plots.SOURCE, dash=4)
            whole = _outlined(
                whole, [scale * edge for edge in target], plots.TARGET, dash=2 * PANEL
            )
        canvas.paste(Image.fromarray(whole), (left, LINE))
        close = _scaled(close.permute(1, 2, 0).numpy())
        canvas.paste(Image.fromarray(close), (left, below + LINE))
        texts[left, 0] = title
    texts |= {(0, HEIGHT - (2 - n) * LINE): text for n, text in enumerate(_about(shown))}
    for (left, top), text in texts.items():
        pen.text((left, top + 2), text, "black", _font())
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


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


def _levels(image: Tensor) -> NDArray[np.uint8]:
    return (255 * image.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()


def _scaled(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    kind = Image.Resampling.BOX if len(pixels) > PANEL else Image.Resampling.NEAREST
    resized = Image.fromarray(np.ascontiguousarray(pixels)).resize((PANEL, PANEL), kind)
    return np.array(resized)


def _outlined(pixels: NDArray[np.uint8], box: list[float], colour: str, dash: int) -> NDArray:
    """Pixels with a box outlined in a colour on black, in dashes of so many pixels."""
    left, top, right, bottom = box
    y, x = np.ogrid[:PANEL, :PANEL]
    outside = np.maximum(np.maximum(left - x, x - right), np.maximum(top - y, y - bottom))
    near = np.abs(outside)
    pixels[near <= 2] = 0
    pixels[(near <= 1) & ((x + y) // dash % 2 == 0)] = 255 * np.array(to_rgb(colour))
    return pixels


@cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(findfont("DejaVu Sans"), 12)
