"""Figures of SmoothBlend: its steps, grids of views, what each setting does, how visible it is."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from torch import Tensor

from spdlib.notebooks.figures import panels, style
from spdlib.smoothblend import Draw, SmoothBlend
from spdlib.visibility import Changes

GAIN = 4  # of differences: full colour at 255 / 4 levels
DIFFERENCE = "RdBu_r"  # blue: darker, red: brighter
SOURCE, TARGET = style.ORANGE, style.SKY
BLENDS = {"SmoothBlend": "-", "CutPaste": "--"}
PLACES = {"inside": ("in the pasted box", style.BLUE), "around": ("around it", style.VERMILION)}
LEVELS = (1, 2, 4, 8, 16, 32, 64, 128, 255)
PROFILES = ((style.GREY, "-"), (style.VERMILION, "--"), (style.BLUE, "-"), (style.GREEN, "-."))

Picture: TypeAlias = Tensor | NDArray[np.uint8]  # (C, H, W) in [0, 1], or (H, W, 3)


def difference(before: Tensor, after: Tensor, gain: float = GAIN) -> NDArray[np.uint8]:
    """An amplified difference as a picture: blue where darker, red where brighter, else white.

    Args:
        before: (C, H, W), floats in [0, 1].
        after: The same, changed. The channel that changes most is shown of each pixel.
        gain: Factor of amplification; full colour at 255 / gain levels.

    Returns:
        RGB (H, W, 3).
    """
    change = after - before
    signed = change.gather(0, change.abs().argmax(0, keepdim=True))[0]
    return colormaps[DIFFERENCE]((gain * signed.numpy() + 1) / 2, bytes=True)[..., :3]


def around(image: Tensor, box: Iterable[float], side: int) -> Tensor:
    """The square (..., side, side) of an image about a box, moved in where it would stick out."""
    left, top, right, bottom = map(int, box)
    height, width = image.shape[-2:]
    y = min(max((top + bottom - side) // 2, 0), max(height - side, 0))
    x = min(max((left + right - side) // 2, 0), max(width - side, 0))
    return image[..., y : y + side, x : x + side]


@style.shows("no images to show")
def pictures(images: Mapping[str, Picture], width: float = style.WIDTH) -> Figure:
    """Pictures in a row, as high as each other.

    Args:
        images: Pictures by title.
        width: Width of the figure, inches.
    """
    return panels.grid([("", list(images.values()))], list(images), (width - 0.5) / len(images))


@style.shows("no images to show")
def grid(rows: Mapping[str, Sequence[Picture]], titles: Sequence[str], side: float = 1.4) -> Figure:
    """Pictures in rows and columns.

    Args:
        rows: The pictures of each row, by its name.
        titles: Titles of the columns.
        side: Width of a picture, inches, where the page's width allows it.
    """
    return panels.grid(rows.items(), titles, side)


@style.shows()
def patch(image: Tensor, draw: Draw) -> Figure:
    """An image with the boxes of a draw, and the patch, enlarged.

    Args:
        image: (C, H, W).
        draw: Draw for one image.
    """
    left, top, right, bottom = draw.source_boxes[0].tolist()
    cut = f"the patch: {right - left} × {bottom - top} pixels"
    shown = {"dashed: cut here; solid: pasted": image, cut: image[:, top:bottom, left:right]}
    fig, edge = pictures(shown, 5.8), [withStroke(linewidth=3.2, foreground="black")]
    for boxes, colour, line in (
        (draw.source_boxes, SOURCE, "--"), (draw.target_boxes, TARGET, "-")
    ):  # fmt: skip
        left, top, right, bottom = boxes[0].tolist()
        look: dict[str, Any] = {"color": colour, "linestyle": line, "linewidth": 1.6}
        place = (left - 0.5, top - 0.5), right - left, bottom - top
        fig.axes[0].add_patch(Rectangle(*place, fill=False, path_effects=edge, **look))
    return fig


@style.shows()
def layers(foreground: Tensor, draw: Draw, blend: SmoothBlend) -> Figure:
    """The foreground, the box mask, the smoothed mask, and both masks along a row.

    Args:
        foreground: (C, H, W), zero but for the patch.
        draw: Draw for one image.
        blend: Smooths the mask.
    """
    row, sigma = _middle(draw), blend.sigma_for(draw.size)
    box, alpha = (b.alpha(draw)[0, 0] for b in (SmoothBlend(sigma=0), blend))
    shown = {"foreground u": foreground, "box mask": box}
    fig, ax = _along_row(shown | {f"smoothed, sigma {sigma:.3g} pixels": alpha}, draw, row)
    columns = np.arange(draw.size[1])
    ax.step(columns, box[row], where="mid", color=style.GREY, label="box mask")
    ax.plot(columns, alpha[row], color=style.BLACK, linewidth=2, label="alpha")
    left, _, right, _ = draw.target_boxes[0].tolist()
    ax.set(xlim=(left - 5 * sigma - 5, right + 5 * sigma + 5), ylim=(-0.02, 1.05))
    panels.legend(fig, ax, "outside upper right")
    return fig


@style.shows()
def profiles(images: Mapping[str, Tensor], draw: Draw, side: int) -> Figure:
    """An image and what a draw makes of it, close up, and their levels along a row.

    Args:
        images: (C, H, W), by name; the first is the image itself.
        draw: Draw for one image.
        side: Side of what is shown around the paste, pixels.
    """
    box, row = draw.target_boxes[0].tolist(), _middle(draw)
    places = torch.meshgrid(*map(torch.arange, draw.size), indexing="ij")
    rows, columns = (around(numbers, box, side) for numbers in places)
    inside = row - int(rows[0, 0])
    close = {name: around(image, box, side) for name, image in images.items()}
    fig, ax = _along_row(close, draw, inside)
    for (name, image), (colour, line) in zip(close.items(), PROFILES, strict=False):
        levels = 255 * image[:, inside].mean(0)
        ax.plot(columns[0], levels, color=colour, linestyle=line, linewidth=1.8, label=name)
    ax.set(ylabel="level of 255", xlim=(int(columns[0, 0]), int(columns[0, -1])))
    panels.legend(fig, ax, "outside upper right")
    return fig


def _middle(draw: Draw) -> int:
    """The row through the middle of what a draw pastes."""
    _, top, _, bottom = draw.target_boxes[0].tolist()
    return (top + bottom) // 2


def _along_row(shown: Mapping[str, Tensor], draw: Draw, dotted: int) -> tuple[Figure, Axes]:
    """Pictures with a row dotted, and axes beside them for what is along the row."""
    count, (left, _, right, _) = len(shown), draw.target_boxes[0].tolist()
    fig, (*axes, along) = style.figure(1, count + 1, 2.6, width_ratios=[1] * count + [0.55 * count])
    for ax, (title, image) in zip(axes, shown.items(), strict=True):
        panels.show(ax, panels.Picture(image, title=title))
        ax.axhline(dotted, color=style.ORANGE, linewidth=1, linestyle=":")
        ax.set_anchor("N")
    along.axvspan(left - 0.5, right - 0.5, color=style.SKY, alpha=0.25, linewidth=0)
    along.set_xlabel(f"column along row {_middle(draw)} (dotted), pixels")
    return fig, along


@style.shows()
def steps(image: Tensor, blended: Tensor, width: float = style.WIDTH) -> Figure:
    """Image, blend, and their amplified difference.

    Args:
        image: (C, H, W).
        blended: The same, changed.
        width: Width of the figure, inches.
    """
    change = difference(image, blended)
    fig = pictures({"image": image, "blended": blended, f"difference × {GAIN}": change}, width)
    scale = panels.scale_of(-255 / GAIN, 255 / GAIN, DIFFERENCE)
    panels.colour_bar(fig, fig.axes, scale, "levels of 255", location="right", fraction=0.03,
                      aspect=18, shrink=1, extend="both")  # fmt: skip
    return fig


@style.shows("no images to show")
def strip(
    images: Mapping[str, Tensor], blends: Mapping[str, SmoothBlend], seed: int, side: int
) -> Figure:
    """Blends of one draw under several settings, and their differences, close up.

    Args:
        images: (C, H, W), all of one size, by name.
        blends: A column each, by its title. All draw from the same numbers, and all patches are
            cut and pasted about the same places, those of the paper's settings.
        seed: Seed of the draw.
        side: Side of what is shown around the paste, pixels.
    """
    batch = torch.stack(list(images.values()))
    count, size = len(batch), (batch.shape[-2], batch.shape[-1])
    places = SmoothBlend().draw(count, size, torch.Generator().manual_seed(seed))
    changed = [batch]
    for blend in blends.values():
        draw = blend.draw(count, size, torch.Generator().manual_seed(seed)).centred_on(places)
        changed.append(blend.blend(batch, draw))
    rows: list[tuple[str, Sequence[Picture]]] = []
    for name, box, *views in zip(images, places.target_boxes.tolist(), *changed, strict=True):
        close = [around(view, box, side) for view in views]
        rows += [(name, close), (f"change × {GAIN}", [difference(close[0], c) for c in close])]
    return panels.grid(rows, ["image", *blends], side=1.05)


@style.shows()
def visibility(changes: Mapping[str, Changes], threshold: int) -> Figure:
    """Shares of pixels by how much they change, and of draws that stay below a threshold.

    Args:
        changes: Changes by ``"SmoothBlend"`` and ``"CutPaste"``.
        threshold: Levels of 255 from which a change counts as visible.
    """
    fig, (pixels, draws) = style.figure(1, 2, 3.2)
    levels = np.arange(1, 256)
    for name, found in changes.items():
        for number, (place, (where, colour)) in enumerate(PLACES.items()):
            look = {"color": colour, "linestyle": BLENDS[name], "label": f"{name}, {where}"}
            at_least = found.pixels[number].flip(0).cumsum(0).flip(0)[1:]
            if at_least[0] > 0:
                below = np.searchsorted(np.sort(found.draws[place]), levels) / len(found.draws)
                pixels.plot(levels, at_least, linewidth=2, **look)
                draws.plot(levels, below, linewidth=2, **look)
    for ax in (pixels, draws):
        ax.axvline(threshold, color=style.GREY, linestyle=":", label="visible from here on")
        ax.set(xscale="log", xlim=(1, 255), xlabel="levels of 255")
        ax.set_xticks(LEVELS, LEVELS)
        ax.minorticks_off()
    pixels.set(yscale="log", ylim=(0.5, None), ylabel="pixels of an image",
               title="pixels that change by as much or more")  # fmt: skip
    draws.set(ylabel="draws", ylim=(-0.02, 1.02), title="draws whose largest change is less")
    draws.yaxis.set_major_formatter(panels.PERCENT)
    panels.legend(fig, draws)
    return fig


@style.shows()
def examples(
    images: Tensor, blend: SmoothBlend, draws: Draw, chosen: Sequence[int], titles: Sequence[str],
    side: int
) -> Figure:  # fmt: skip
    """Some of many draws, close up: image, blend, change.

    Args:
        images: (N, C, H, W).
        blend: Applies the draws.
        draws: Number i is for image i % N, as in :func:`spdlib.visibility.changes`.
        chosen: Numbers of those to show, a column each.
        titles: Titles of the columns.
        side: Side of what is shown around the paste, pixels.
    """
    columns = []
    for number in chosen:
        draw, image = draws[[number]], images[number % len(images)]
        both = image, blend.blend(image, draw)
        before, after = (around(view, draw.target_boxes[0], side) for view in both)
        columns.append((before, after, difference(before, after)))
    names = ("image", "blended", f"change × {GAIN}")
    return panels.grid([*zip(names, zip(*columns, strict=True), strict=True)], titles, side=1.05)
