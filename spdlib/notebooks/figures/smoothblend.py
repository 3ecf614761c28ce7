"""Figures of SmoothBlend: its steps, grids of views, what each setting does, how visible it is."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from torch import Tensor

from spdlib.notebooks.figures import style
from spdlib.smoothblend import Draw, SmoothBlend
from spdlib.visibility import Changes

GAIN = 4  # of differences: full colour at 255 / 4 levels
DIFFERENCE = "RdBu_r"  # blue: darker, red: brighter
SOURCE, TARGET = style.ORANGE, style.SKY
BLENDS = {"SmoothBlend": "-", "CutPaste": "--"}
PLACES = {"inside": ("in the pasted box", style.BLUE), "around": ("around it", style.VERMILION)}
PERCENT = PercentFormatter(1, decimals=0, symbol=" %")

Picture = Tensor | NDArray[np.uint8]  # (C, H, W) in [0, 1], or (H, W, 3)


def difference(before: Tensor, after: Tensor, gain: float = GAIN) -> NDArray[np.uint8]:
    """An amplified difference as a picture: blue where darker, red where brighter, white where not.

    Args:
        before: (C, H, W), floats in [0, 1].
        after: The same, changed. Of each pixel, the channel that changes most is shown.
        gain: How often it is amplified; full colour at 255 / gain levels.

    Returns:
        RGB (H, W, 3).
    """
    change = after - before
    most = change.abs().argmax(0, keepdim=True)
    signed = change.gather(0, most)[0]
    level = ((gain * signed).clamp(-1, 1) * 127.5 + 127.5).round().byte()
    return (255 * colormaps[DIFFERENCE](np.arange(256))[:, :3]).round().astype(np.uint8)[level]


def around(image: Tensor, box: Sequence[int], side: int) -> Tensor:
    """The square (..., side, side) of an image about a box, moved in where it would stick out."""
    left, top, right, bottom = map(int, box)
    height, width = image.shape[-2:]
    y = min(max((top + bottom - side) // 2, 0), max(height - side, 0))
    x = min(max((left + right - side) // 2, 0), max(width - side, 0))
    return image[..., y : y + side, x : x + side]


def pictures(
    images: Mapping[str, Picture], draw: Draw | None = None, width: float = style.WIDTH
) -> Figure:
    """Pictures in a row, as high as each other.

    Args:
        images: Pictures by title.
        draw: Outlined in the first: dashed what is cut, solid where it is pasted.
        width: Of the figure, inches.
    """
    shown = [_pixels(image) for image in images.values()]
    ratios = [pixels.shape[1] / pixels.shape[0] for pixels in shown]
    height = (width - 0.1 * len(shown)) / sum(ratios) + 0.35
    fig, axes = style.figure(
        1, len(shown), height=height, width=width, squeeze=False, width_ratios=ratios
    )
    for ax, pixels, title in zip(axes[0], shown, images, strict=True):
        _bare(ax).imshow(pixels)
        ax.set_title(title)
    if draw is not None:
        outline(axes[0, 0], draw)
    return fig


def grid(rows: Mapping[str, Sequence[Picture]], titles: Sequence[str], side: float = 1.4) -> Figure:
    """Pictures in rows and columns.

    Args:
        rows: The pictures of each row, by its name.
        titles: Of the columns.
        side: Width of a picture, inches, where the page's width allows it.
    """
    side = min(side, (style.WIDTH - 0.4) / len(titles))
    shown = [[_pixels(image) for image in images] for images in rows.values()]
    high = sum(side * line[0].shape[0] / line[0].shape[1] for line in shown)
    fig, axes = style.figure(
        len(rows), len(titles), width=0.4 + side * len(titles), squeeze=False,
        height=0.28 + 0.17 * max(title.count("\n") for title in titles) + high,
    )  # fmt: skip
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    for line, name, images in zip(axes, rows, shown, strict=True):
        line[0].set_ylabel(name, fontsize=9)
        for ax, pixels in zip(line, images, strict=True):
            _bare(ax).imshow(pixels)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=9)
    return fig


def patch(image: Tensor, draw: Draw) -> Figure:
    """An image with the boxes of a draw, and the patch, enlarged.

    Args:
        image: (C, H, W).
        draw: For one image.
    """
    left, top, right, bottom = draw.source_boxes[0].tolist()
    fig, (whole, cut) = style.figure(1, 2, height=2.9, width=5.8)
    _bare(whole).imshow(_pixels(image))
    outline(whole, draw)
    cut.imshow(_pixels(image[:, top:bottom, left:right]), vmin=0, vmax=1)
    _bare(cut).set_title(f"the patch: {right - left} × {bottom - top} pixels")
    whole.set_title("dashed: cut here; solid: pasted here")
    return fig


def layers(foreground: Tensor, draw: Draw, blend: SmoothBlend) -> Figure:
    """The foreground, the box mask, the smoothed mask, and both masks along a row.

    Args:
        foreground: (C, H, W), zero but for the patch.
        draw: For one image.
        blend: What smooths the mask.
    """
    left, top, right, bottom = draw.target_boxes[0].tolist()
    row = (top + bottom) // 2
    fig, axes = style.figure(1, 4, height=2.5, width_ratios=[1, 1, 1, 1.6])
    alphas = [b.alpha(draw)[0, 0] for b in (SmoothBlend(sigma=0), blend)]
    sigma = blend.sigma_for(draw.size)
    titles = ("foreground u", "box mask", f"smoothed, sigma {sigma:.3g} pixels")
    shown = (_pixels(foreground), *alphas)
    for ax, picture, title in zip(axes, shown, titles, strict=False):
        _bare(ax).imshow(picture, vmin=0, vmax=1)
        ax.set_title(title, fontsize=10)
        ax.set_anchor("N")
    for ax in axes[1:3]:
        ax.axhline(row, color=style.ORANGE, linewidth=1, linestyle=":")
    columns = np.arange(draw.size[1])
    axes[3].axvspan(left - 0.5, right - 0.5, color=style.SKY, alpha=0.25, linewidth=0)
    axes[3].step(columns, alphas[0][row], where="mid", color=style.GREY)
    axes[3].plot(columns, alphas[1][row], color=style.BLACK, linewidth=2)
    axes[3].text(right + 2, 0.96, "box mask", color=style.GREY, va="center")
    axes[3].text(right + 0.6 * sigma + 2, 0.3, "alpha", va="center")
    reach = 5 * sigma + 5
    axes[3].set(xlim=(left - reach, right + reach), ylim=(-0.02, 1.05),
                xlabel=f"column of row {row} (dotted), pixels")  # fmt: skip
    return fig


def steps(image: Tensor, blended: Tensor, width: float = style.WIDTH) -> Figure:
    """Image, blend, and their amplified difference.

    Args:
        image: (C, H, W).
        blended: The same, changed.
        width: Of the figure, inches.
    """
    side = (width - 1.1) / 3
    height = side * image.shape[-2] / image.shape[-1] + 0.35
    fig, axes = style.figure(1, 3, height=height, width=width)
    titles = ("image", "blended", f"difference × {GAIN}")
    shown = _pixels(image), _pixels(blended), difference(image, blended)
    for ax, pixels, title in zip(axes, shown, titles, strict=True):
        _bare(ax).imshow(pixels)
        ax.set_title(title)
    _difference_bar(fig, axes)
    return fig


def profiles(images: Mapping[str, Tensor], draw: Draw, side: int) -> Figure:
    """An image and what a draw makes of it, close up, and their levels along a row.

    Args:
        images: (C, H, W), by name; the first is the image itself.
        draw: For one image.
        side: Of what is shown around the paste, pixels.
    """
    box = left, top, right, bottom = draw.target_boxes[0].tolist()
    row = (top + bottom) // 2
    fig, axes = style.figure(1, len(images) + 1, height=2.6, width_ratios=[1] * len(images) + [2.2])
    rows, columns = (
        around(numbers, box, side)
        for numbers in torch.meshgrid(*map(torch.arange, draw.size), indexing="ij")
    )
    looks = ((style.GREY, "-", 1.3), (style.VERMILION, "--", 1.6), (style.BLUE, "-", 2),
             (style.GREEN, "-.", 1.6))  # fmt: skip
    axes[-1].axvspan(left - 0.5, right - 0.5, color=style.SKY, alpha=0.25, linewidth=0)
    for ax, (name, image), (colour, line, width) in zip(axes, images.items(), looks, strict=False):
        close = around(image, box, side)
        _bare(ax).imshow(_pixels(close))
        ax.axhline(row - int(rows[0, 0]), color=style.ORANGE, linewidth=1, linestyle=":")
        ax.set_title(name)
        ax.set_anchor("N")
        levels = 255 * close[:, row - int(rows[0, 0])].mean(0)
        axes[-1].plot(columns[0], levels, color=colour, linestyle=line, linewidth=width, label=name)
    axes[-1].set(xlabel=f"column along row {row} (dotted), pixels", ylabel="level of 255",
                 xlim=(int(columns[0, 0]), int(columns[0, -1])))  # fmt: skip
    axes[-1].legend(
        loc="lower center", bbox_to_anchor=(0.45, 0.98), ncols=2, handlelength=1.6,
    )  # fmt: skip
    return fig


def strip(
    images: Mapping[str, Tensor], blends: Mapping[str, SmoothBlend], seed: int, side: int
) -> Figure:
    """What a setting does: blends of one draw and their differences, close up, a column each.

    Args:
        images: (C, H, W), all of one size, by name.
        blends: By the title of the column. All draw from the same numbers, and all patches are
            cut and pasted about the same places, those of the paper's settings.
        seed: Of the draw.
        side: Of what is shown around the paste, pixels.
    """
    batch = torch.stack(list(images.values()))
    count, size = len(batch), tuple(batch.shape[-2:])
    places = SmoothBlend().draw(count, size, _generator(seed))
    draws = [b.draw(count, size, _generator(seed)).centred_on(places) for b in blends.values()]
    changed = [batch] + [b.blend(batch, d) for b, d in zip(blends.values(), draws, strict=True)]
    rows = {}
    for number, name in enumerate(images):
        box = places.target_boxes[number].tolist()
        close = [around(blended[number], box, side) for blended in changed]
        rows[name] = close
        rows[f"change × {GAIN}" + " " * number] = [difference(close[0], x) for x in close]
    return grid(rows, ["image", *blends], side=1.05)


def visibility(changes: Mapping[str, Changes], threshold: int) -> Figure:
    """How many pixels change by how much, and how many draws stay below a threshold.

    Args:
        changes: Of ``"SmoothBlend"`` and ``"CutPaste"``.
        threshold: Levels of 255 from which a change counts as visible.
    """
    fig, (pixels, draws) = style.figure(1, 2, height=3.2)
    levels = np.arange(1, 256)
    for name, found in changes.items():
        for number, (place, (where, colour)) in enumerate(PLACES.items()):
            label, look = f"{name}, {where}", {"color": colour, "linestyle": BLENDS[name]}
            at_least = found.pixels[number].flip(0).cumsum(0).flip(0)[1:]
            if at_least[0] == 0:
                continue
            pixels.plot(levels, at_least, linewidth=2, **look)
            below = np.searchsorted(np.sort(found.draws[place]), levels) / len(found.draws)
            draws.plot(levels, below, linewidth=2, label=label, **look)
    for ax in (pixels, draws):
        ax.axvline(threshold, color=style.GREY, linestyle=":")
        ax.text(threshold, 0.99, " visible", transform=ax.get_xaxis_transform(), va="top",
                color=style.GREY)  # fmt: skip
        ax.set(xscale="log", xlim=(1, 255))
        ax.set_xticks([1, 2, 4, 8, 16, 32, 64, 128, 255], [1, 2, 4, 8, 16, 32, 64, 128, 255])
        ax.minorticks_off()
    pixels.set(yscale="log", ylim=(0.5, None), xlabel="levels of 255", ylabel="pixels of an image",
               title="pixels that change by as much or more")  # fmt: skip
    draws.set(xlabel="levels of 255", ylabel="draws", ylim=(-0.02, 1.02),
              title="draws whose largest change is less")  # fmt: skip
    draws.yaxis.set_major_formatter(PERCENT)
    fig.legend(*draws.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return fig


def examples(
    images: Tensor, blend: SmoothBlend, draws: Draw, chosen: Sequence[int], titles: Sequence[str],
    side: int,
) -> Figure:  # fmt: skip
    """Some of many draws, close up: image, blend, change.

    Args:
        images: (N, C, H, W).
        blend: What the draws are for.
        draws: Number i is of image i % N, as in :func:`spdlib.visibility.changes`.
        chosen: The numbers of those to show, a column each.
        titles: Of the columns.
        side: Of what is shown around the paste, pixels.
    """
    rows = {"image": [], "blended": [], f"change × {GAIN}": []}
    for number in chosen:
        draw, image = draws[[number]], images[number % len(images)]
        box = draw.target_boxes[0].tolist()
        before, after = (around(x, box, side) for x in (image, blend.blend(image, draw)))
        columns = (before, after, difference(before, after))
        for row, picture in zip(rows.values(), columns, strict=True):
            row.append(picture)
    return grid(rows, titles, side=1.05)


def outline(ax: Axes, draw: Draw, number: int = 0) -> None:
    """Outlines what is cut, dashed, and where it is pasted, solid."""
    edge = [withStroke(linewidth=3.2, foreground="black")]
    for boxes, colour, line in (
        (draw.source_boxes, SOURCE, "--"),
        (draw.target_boxes, TARGET, "-"),
    ):
        left, top, right, bottom = boxes[number].tolist()
        ax.add_patch(
            Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False,
                      color=colour, linestyle=line, linewidth=1.6, path_effects=edge)
        )  # fmt: skip


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _difference_bar(fig: Figure, axes: Sequence[Axes]) -> None:
    span = 255 / GAIN
    scale = ScalarMappable(Normalize(-span, span), cmap=DIFFERENCE)
    bar = fig.colorbar(scale, ax=axes, fraction=0.03, pad=0.01, aspect=18, extend="both")
    bar.set_label("levels of 255")


def _pixels(image: Picture) -> NDArray:
    return image.permute(1, 2, 0).clamp(0, 1).numpy() if isinstance(image, Tensor) else image


def _bare(ax: Axes) -> Axes:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax
