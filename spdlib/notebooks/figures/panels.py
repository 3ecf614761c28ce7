"""Panels that figures are made of: grids of pictures, rows of intervals, curves, histograms."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike
from torch import Tensor

from spdlib import metrics
from spdlib.notebooks.figures import style
from spdlib.notebooks.figures.style import words

PERCENT = FuncFormatter(lambda share, _: f"{100 * share + 0.0:g} %".replace("-", "−"))
POINTS = FuncFormatter(lambda share, _: f"{100 * share + 0.0:g}".replace("-", "−"))
LINE = 0.17  # inches: a line of small text
LETTERS = 13  # of small text, an inch
CLASSES = ("normal", "anomalous")
VERDICTS = (("passed", "false alarm"), ("missed", "found"))  # by label, then whether flagged

GREY_MARK = {"color": style.GREY, "marker": "|"}  # of what is no method
UNIT_SCALE = ScalarMappable(Normalize(0, 1), style.HEAT)


class Picture(NamedTuple):
    """A cell of a grid of pictures.

    Attributes:
        image: Tensor (C, H, W) or (H, W), or array (H, W) or (H, W, 3); floats in [0, 1], uint8
            or bool. None leaves the place empty, or to the map alone.
        heat: Map (H, W), drawn over the image if there is one; there it is clear where it is 0.
        mask: Outlined where it passes 0.5, (H, W).
        title: Text above it.
        colour: Colour of the text above it.
        frame: Colour of a frame around it.
        strength: Opacity of a map over an image, in [0, 1].
    """

    image: Tensor | ArrayLike | None = None
    heat: Tensor | ArrayLike | None = None
    mask: Tensor | ArrayLike | None = None
    title: str = ""
    colour: str = style.BLACK
    frame: str | None = None
    strength: float = 0.75


def pixels(image: Tensor | ArrayLike) -> np.ndarray:
    """Pixels of an image as Matplotlib takes them, (H, W) or (H, W, 3)."""
    if isinstance(image, Tensor) and image.ndim == 3:
        image = image.permute(1, 2, 0) if len(image) > 1 else image[0]
    shown = np.asarray(image)
    return shown if shown.dtype == np.uint8 else np.clip(shown.astype(np.float32), 0, 1)


def bare(ax: Axes) -> Axes:
    """The axes without ticks and frame."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def say(ax: Axes, text: str) -> None:
    """Writes into axes why nothing is drawn there."""
    bare(ax).text(0.5, 0.5, words(text, 90, 3), transform=ax.transAxes, ha="center", va="center",
                  color=style.GREY)  # fmt: skip


def nothing(text: str, height: float = 1.2) -> Figure:
    """A small figure that says why there is nothing to draw."""
    fig, ax = style.figure(height=height)
    say(ax, text)
    return fig


def outline(ax: Axes, mask: Tensor | ArrayLike, colour: str = style.SKY, level: float = 0.5):
    """Outlines where a mask or map (H, W) is at least the level, if it is anywhere."""
    values = np.asarray(mask, np.float32)
    if min(values.shape) > 1 and values.min() < level <= values.max():
        ax.contour(values, [level], colors=[colour], linewidths=1.3)


def show(ax: Axes, picture: Any, scale: ScalarMappable = UNIT_SCALE) -> None:
    """Draws one picture.

    Args:
        ax: Where to.
        picture: A :class:`Picture`, or an image as one has it.
        scale: Colours and limits of the map.
    """
    cell = picture if isinstance(picture, Picture) else Picture(picture)
    bare(ax)
    # Averaged where it is drawn smaller than it is: no false grain, and smaller files.
    if cell.image is not None:
        ax.imshow(pixels(cell.image), cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    if cell.heat is not None:
        heat, over = np.asarray(cell.heat, np.float32), cell.image is not None
        clear = cell.strength * np.clip(heat, 0, 1) ** 0.7 if over else None
        how = "antialiased" if over else "nearest"
        ax.imshow(heat, cmap=scale.cmap, norm=scale.norm, alpha=clear, interpolation=how)
    if cell.mask is not None:
        outline(ax, cell.mask)
    if cell.frame is not None:
        ax.spines[:].set(visible=True, color=cell.frame, linewidth=2.5)
    ax.set_title(cell.title, fontsize=9, color=cell.colour)


def grid(
    rows: Iterable[tuple[str, Sequence[Any]]],
    titles: Sequence[str] = (),
    side: float = 1.3,
    width: float = style.WIDTH,
    scale: ScalarMappable = UNIT_SCALE,
    label: str = "",
) -> Figure:
    """Pictures in rows and columns.

    Args:
        rows: Name and pictures of each row, :class:`Picture` or images; None is an empty place.
        titles: Titles of the columns.
        side: Width of a picture, inches, where the page has room for it.
        width: Width of the page, inches.
        scale: Colours and limits of all maps.
        label: What the maps show; named below a colour bar.
    """
    lines = [
        (name, [cell if isinstance(cell, Picture) else Picture(cell) for cell in cells])
        for name, cells in rows
    ]
    columns = max((len(cells) for _, cells in lines), default=0)
    if not columns:
        return nothing("no images to show")
    shapes = [np.shape(pixels(c.image) if c.image is not None else c.heat)[:2]
              for c in max((cells for _, cells in lines), key=len)]  # fmt: skip
    ratios = [shape[1] / shape[0] if len(shape) == 2 else 1 for shape in shapes]
    named = max(bool(name) for name, _ in lines)
    room = min(side, (width - 0.1 - 0.4 * named) / columns)
    high = min(room * columns / sum(ratios), 1.5 * room)
    lines = [(words(name, int(15 * high), 2), cells) for name, cells in lines]
    # One title a column, and what stands over single pictures.
    above = [[words(cell.title, int(LETTERS * room), 2) for cell in cells] for _, cells in lines]
    heads = [words(title, int(LETTERS * room), 3) for title in titles]
    above[0] = [h or own for h, own in zip([*heads, *[""] * columns], above[0], strict=False)]
    text = LINE * sum(map(_lines, above))
    fig, axes = style.figure(
        len(lines), columns, squeeze=False, width_ratios=ratios,
        height=len(lines) * (high + 0.04) + text + 0.06 + 0.62 * bool(label),
        width=min(width, columns * (room + 0.04) + 0.1 + LINE * _lines(name for name, _ in lines)),
    )  # fmt: skip
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0, hspace=0)
    for ax in axes.flat:
        bare(ax)
    for row, (name, cells), over in zip(axes, lines, above, strict=True):
        row[0].set_ylabel(name, fontsize=9)
        for ax, cell, title in zip(row, cells, over, strict=False):
            show(ax, cell._replace(title=title), scale)
    if label:
        colour_bar(fig, axes, scale, label)
    return fig


def _lines(texts: Iterable[str]) -> int:
    """Lines of the longest of texts that stand side by side."""
    return max((text.count("\n") + bool(text) for text in texts), default=0)


def colour_bar(
    fig: Figure, axes: ArrayLike, scale: ScalarMappable, label: str, **layout: Any
) -> Colorbar:
    """A colour bar shared by axes, below them unless ``layout`` says otherwise."""
    layout = {"location": "bottom", "aspect": 40, "shrink": 0.6, "pad": 0.01} | layout
    return fig.colorbar(scale, ax=axes, label=label, **layout)


def common_scale(maps: Iterable[Tensor | ArrayLike], cmap: str = style.HEAT) -> ScalarMappable:
    """One colour scale from the least to the largest value of several maps."""
    shown = [np.asarray(values) for values in maps]
    low, high = min(map(np.min, shown), default=0), max(map(np.max, shown), default=1)
    return ScalarMappable(Normalize(float(low), float(high)), cmap)


def legend(fig: Figure, keys: Axes | Sequence[Artist], loc: str = "outside upper center") -> None:
    """A figure's legend, of some artists or of all in some axes, in as many columns as fit."""
    handles = keys.get_legend_handles_labels()[0] if isinstance(keys, Axes) else keys
    named = {handle.get_label(): handle for handle in handles}
    if named:
        lengths = [6 + len(label) for label in named]
        fits = len(named) if sum(lengths) < 130 else max(1, 130 // max(lengths))
        fig.legend(named.values(), named, loc=loc, ncols=fits)


def key(label: str, linestyle: str = "", **look: Any) -> Line2D:
    """A legend's entry that stands for many artists."""
    return Line2D([], [], label=label, linestyle=linestyle, **look)


def interval(ax: Axes, y: float, value: float, low: float, high: float, **look: Any) -> None:
    """A dot with its interval, which may be NaN, in a row of its own."""
    ax.hlines(y, low, high, color=look["color"], linewidth=2)
    ax.plot([value], [y], linestyle="", **{"markersize": 7, **look})


def intervals(
    table: pd.DataFrame,
    label: str,
    mark: float | None = None,
    numbers: bool = False,
    form: FuncFormatter = PERCENT,
    sharex: bool = True,
    **limits: Any,
) -> Figure:
    """Rows of dots with their intervals, in panels side by side.

    Args:
        table: Columns ``panel`` and ``row`` (text), ``value``, ``low``, ``high``, ``method``, which
            gives the colour (grey if empty), and, optional, ``shift`` in rows.
        label: What the axis shows, below all.
        mark: Where a vertical line stands.
        numbers: Whether values are written above their dots, as percentages.
        form: How the axis is written.
        sharex: Whether all panels have one scale.
        **limits: Of the axis, as ``Axes.set`` takes them.
    """
    if table.empty:
        return nothing("nothing to compare")
    panels, names = list(table.panel.unique()), list(table.row.unique())
    lines = sum(str(name).count("\n") + 1 for name in names)
    fig, axes = style.figure(
        1, len(panels), height=1.2 + 0.2 * (len(names) + lines), sharex=sharex, sharey=True,
        squeeze=False,
    )  # fmt: skip
    for ax, panel in zip(axes[0], panels, strict=True):
        for one in table[table.panel == panel].itertuples():
            look = style.method_marker(one.method) if one.method else GREY_MARK
            y = names.index(one.row) + getattr(one, "shift", 0)
            interval(ax, y, one.value, one.low, one.high, **look)
            if numbers:
                ax.annotate(f"{100 * one.value:.1f}", (one.value, y), (0, 7), fontsize=9,
                            textcoords="offset points", ha="center")  # fmt: skip
        if mark is not None:
            ax.axvline(mark, color=style.GREY, linewidth=1, zorder=0)
        ax.set(title=words(panel, int(80 / len(panels)), 2), **limits)
        ax.xaxis.set_major_locator(MaxNLocator(4 if len(panels) > 2 else 6))
        ax.xaxis.set_major_formatter(form)
        ax.grid(axis="x", alpha=0.3)
    name_rows(axes[0, 0], names)
    fig.supxlabel(label, fontsize=9.5)
    return fig


def name_rows(ax: Axes, names: Sequence[str], width: int = 48, **text: Any) -> None:
    """Names rows at heights 0, 1, ..., the first on top."""
    ax.set_yticks(range(len(names)), [words(name, width) for name in names], **text)
    ax.set_ylim(len(names) - 0.5, -0.7)


def unit_axes(ax: Axes, x: str, y: str) -> None:
    """Both axes from 0 to 100 %."""
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PERCENT)


def curve_axes(roc: Axes, pr: Axes) -> None:
    """Axes of a ROC and a precision-recall curve; dotted, what guessing gives by AU-ROC."""
    roc.plot([0, 1], [0, 1], ":", color=style.GREY)
    unit_axes(roc, "false positive rate", "recall (true positive rate)")
    unit_axes(pr, "recall", "precision")


def curves(
    roc: Axes, pr: Axes, labels: ArrayLike, scores: ArrayLike, names: Sequence[str], **look: Any
) -> None:
    """A ROC and a precision-recall curve, each under its name."""
    for ax, curve, name in zip(
        (roc, pr), (metrics.roc_curve, metrics.pr_curve), names, strict=True
    ):
        x, y, _ = curve(labels, scores)
        ax.plot(x, y, **{"linewidth": 2, **look, "marker": "", "label": name})


def dot(ax: Axes, x: float, y: float, colour: str) -> None:
    """An operating point on a curve."""
    ax.plot([x], [y], "o", markersize=9, color=colour, markeredgecolor="white", clip_on=False,
            zorder=5)  # fmt: skip


def arrow(ax: Axes, start: Sequence[float], end: Sequence[float], colour: str, **look: Any) -> None:
    """An arrow from one point to another."""
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": colour, **look})


def missing(labels: ArrayLike) -> str:
    """Which class is not among labels 0 and 1, in words; empty if both are there."""
    there = set(np.unique(np.asarray(labels)).astype(int))
    return " and ".join(f"no {name} images" for k, name in enumerate(CLASSES) if k not in there)


def by_class(labels: ArrayLike, scores: ArrayLike) -> dict[str, np.ndarray]:
    """Scores of normal and of anomalous images, by that name."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    return {name: scores[labels == value] for value, name in enumerate(CLASSES)}


def histogram(ax: Axes, groups: Mapping[str, ArrayLike], bins: ArrayLike) -> None:
    """Histograms of two groups over each other, the first as normal, the second as anomalous."""
    for (name, values), colour in zip(groups.items(), (style.NORMAL, style.ANOMALY), strict=True):
        ax.hist(values, bins, histtype="stepfilled", facecolor=to_rgba(colour, 0.35),
                edgecolor=colour, linewidth=1.5, label=name)  # fmt: skip
