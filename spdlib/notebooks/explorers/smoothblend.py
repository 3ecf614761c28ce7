"""Explorer of SmoothBlend: what each setting does to one draw, which is kept.

Pixels go straight into the PNG, which takes a fraction of the time that a figure would.
"""

import io
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple, get_args

import ipywidgets as widgets
import torch
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from spdlib.notebooks.explorers.explorer import explorer, menu, slider, stops
from spdlib.notebooks.figures import smoothblend as plots
from spdlib.notebooks.figures import style
from spdlib.smoothblend import AREA, ASPECT, JITTER, Draw, Foreground, SmoothBlend
from spdlib.views import WeakView

AREAS = (0.001, 0.002, 0.003, 0.0056, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2)
ASPECTS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0, 10.0)
GAINS = (1, 2, 4, 8, 16)
FOREGROUNDS, ALL = get_args(Foreground), "all, side by side"

PANEL, GAP, LINE = 224, 8, 22  # pixels of the picture: a panel's side, between panels, of text
WIDTH = 4 * PANEL + 3 * GAP
HEIGHT = 2 * (LINE + PANEL) + 2 * LINE + GAP
FONT = ImageFont.truetype(findfont("DejaVu Sans"), 12)
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
    first = next(iter(images.values()))
    size = next(iter(first.values())).shape[-1]
    sigma = SmoothBlend().sigma_for((size, size))
    controls = {
        "data": menu(images, description="data set"),
        "number": menu(range(len(first)), list(first).__getitem__, description="image"),
        "sigma": slider(sigma, 0, size / 7, size / 448, ".1f", description="sigma, pixels"),
        "jitter": slider(JITTER[0], 0, 0.5, 0.05, description="jitter, strength"),
        "area": stops(AREAS, lambda a: f"{100 * a:.3g} %", AREA, description="area of the image"),
        "aspect": stops(ASPECTS, "{:g}".format, ASPECT, description="aspect, w / h"),
        "foreground": menu((*FOREGROUNDS, ALL)),
        "gain": stops(GAINS, "× {}".format, plots.GAIN, description="show difference"),
        "weak": widgets.Checkbox(False, description="weak view first"),
        "seed": widgets.BoundedIntText(seed, min=0, max=2**31),
    }

    def list_images(change: dict[str, str]) -> None:
        numbered = enumerate(images[change["new"]])
        controls["number"].options = [(style.readable(name), n) for n, name in numbered]

    def next_seed(_: widgets.Button) -> None:
        controls["seed"].value += 1

    controls["data"].observe(list_images, names="value")  # before the explorer redraws

    @lru_cache(maxsize=32)
    def draw(data: str, number: int, gain: float, foreground: Any, **settings: Any) -> bytes:
        image = list(images[data].values())[number]
        kinds = FOREGROUNDS if foreground == ALL else (foreground,)
        return picture({kind: scene(image, foreground=kind, **settings) for kind in kinds}, gain)

    box = explorer(controls, draw, width=WIDTH, height=HEIGHT)
    tip = "the next seed: another patch, another place, other colours"
    box.new_draw = widgets.Button(description="new draw", icon="random", tooltip=tip)
    box.new_draw.layout.width = "98%"
    box.new_draw.on_click(next_seed)
    box.children[0].children += (box.new_draw,)
    return box


def scene(
    image: Tensor, weak: bool = False, seed: int = 0, jitter: float = JITTER[0], **settings: Any
) -> Scene:
    """An image blended by SmoothBlend, from uniform numbers that the seed alone decides.

    A setting changes only what it is about: the centres of what is cut and pasted stay where
    the paper's settings put them, and size, shape and colours keep their places in their
    ranges.

    Args:
        image: Square (3, H, H), floats in [0, 1].
        weak: Whether a weak global view is taken first, as for a negative.
        seed: Seed of the numbers.
        jitter: Strength, the same for brightness, contrast, saturation and hue.
        **settings: The other ones of :class:`SmoothBlend`.
    """
    blend = SmoothBlend(jitter=(jitter,) * 4, **settings)
    size = tuple(image.shape[-2:])
    numbers = torch.Generator().manual_seed(seed)
    places = SmoothBlend().draw(1, size, numbers)
    if weak:
        image = WeakView(size[0])(image[None], numbers)[0]
    draw = blend.draw(1, size, numbers.manual_seed(seed)).centred_on(places)
    return Scene(image, blend.alpha(draw)[0], blend.blend(image, draw), draw)


def picture(scenes: Mapping[str, Scene], gain: float) -> bytes:
    """A scene as a PNG: image, mask, blend and difference, whole and close up.

    Args:
        scenes: The scene; or several of one image, by title, whose blends are shown in its place,
            with their differences below.
        gain: Factor of the difference.
    """
    shown, alone = next(iter(scenes.values())), len(scenes) == 1
    what, titles = f"difference × {gain:g}", list(scenes)
    upper = [scene.blended for scene in scenes.values()]
    lower = [_difference(shown.image, blended, gain) for blended in upper]
    if alone:
        upper = lower = [shown.image, shown.alpha.expand(3, -1, -1), *upper, *lower]
        titles = [
            "image; orange: cut, blue: pasted",
            f"mask alpha, at most {shown.alpha.max():.2f}",
        ]
        titles += ["blend", f"{what}; blue: darker"]
    canvas = Image.new("RGB", (len(titles) * (PANEL + GAP) - GAP, HEIGHT), "white")
    pen, scale = ImageDraw.Draw(canvas), PANEL / shown.draw.size[0]
    source, target = (b[0].tolist() for b in (shown.draw.source_boxes, shown.draw.target_boxes))
    side = math.ceil(shown.draw.size[0] / CLOSE)
    for number, (title, above, below) in enumerate(zip(titles, upper, lower, strict=True)):
        left = number * (PANEL + GAP)
        canvas.paste(_panel(above), (left, LINE))
        canvas.paste(_panel(plots.around(below, target, side)), (left, 2 * LINE + PANEL))
        pen.text((left, 2), title, "black", FONT)
    for box, colour in ((source, plots.SOURCE), (target, plots.TARGET)) if alone else ():
        left, top, right, bottom = (scale * edge for edge in box)
        for grown, ink in ((2, "black"), (1, colour)):  # on a black edge
            edges = (left - grown, top - grown + LINE, right + grown, bottom + grown + LINE)
            pen.rectangle(edges, outline=ink, width=2 * grown)
    close = f"{'the same' if alone else what} around the paste, {CLOSE} times as large"
    pen.text((0, LINE + PANEL + 2), close, "black", FONT)
    pen.text((0, HEIGHT - 2 * LINE + 2), _about(shown), "black", FONT, spacing=6)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _difference(before: Tensor, after: Tensor, gain: float) -> Tensor:
    return torch.from_numpy(plots.difference(before, after, gain)).permute(2, 0, 1) / 255


def _panel(image: Tensor) -> Image.Image:
    """An image (3, H, W) as large as a panel; its pixels stay sharp."""
    pixels = (255 * image.clamp(0, 1)).round().byte().permute(1, 2, 0).contiguous().numpy()
    kind = Image.Resampling.BOX if len(pixels) > PANEL else Image.Resampling.NEAREST
    return Image.fromarray(pixels).resize((PANEL, PANEL), kind)


def _about(shown: Scene) -> str:
    draw, (height, width) = shown.draw, shown.draw.size
    h, w = int(draw.height), int(draw.width)
    light, contrast, saturation, hue = draw.jitter[0].tolist()
    change = 255 * (shown.blended - shown.image).abs().amax(0)
    inside = SmoothBlend(sigma=0).alpha(draw)[0, 0] > 0
    return (
        f"drawn: {w} × {h} pixels, {100 * h * w / (height * width):.2f} % of the image, "
        f"aspect {w / h:.2f};  brightness × {light:.2f}, contrast × {contrast:.2f}, "
        f"saturation × {saturation:.2f}, hue {hue:+.2f} turns\n"
        f"largest change: {(change * inside).max():.0f} levels of 255 in the pasted box, "
        f"{(change * ~inside).max():.0f} around it"
    )
