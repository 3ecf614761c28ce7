"""Panels that figures are made of: grids of pictures, rows of intervals, curves, histograms."""

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike
from torch import Tensor

from spdlib import metrics
from spdlib.methods import baseline_of
from spdlib.notebooks.figures import style
from spdlib.notebooks.figures.style import bare, percent, say, words

Array = Tensor | ArrayLike
Images = Sequence[Any] | Tensor
# Labels and scores of several detectors, by name.
Detectors = Mapping[str, tuple[ArrayLike, ArrayLike]]
Look = Callable[[str], dict[str, Any]]  # of a line, by name
Point = tuple[float, float]

PERCENT = FuncFormatter(lambda share, _: f"{100 * share + 0.0:g} %".replace("-", "−"))
POINTS = FuncFormatter(lambda share, _: f"{100 * share + 0.0:g}".replace("-", "−"))
PLAIN = FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−"))
LETTERS = 13  # of small text, an inch
CLASSES = ("normal", "anomalous")
VERDICTS = (("passed", "false alarm"), ("missed", "found"))  # by label, then whether flagged
COLOURS = (style.NORMAL, style.ANOMALY)  # by label

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

    image: Array | None = None
    heat: Array | None = None
    mask: Array | None = None
    title: str = ""
    colour: str = style.BLACK
    frame: str | None = None
    strength: float = 0.75


def pixels(image: Array | None) -> np.ndarray:
    """Pixels of an image as Matplotlib takes them, (H, W) or (H, W, 3)."""
    if isinstance(image, Tensor) and image.ndim == 3:
        image = image.permute(1, 2, 0) if len(image) > 1 else image[0]
    shown = np.asarray(image)
    return shown if shown.dtype == np.uint8 else np.clip(shown.astype(np.float32), 0, 1)


def outline(ax: Axes, mask: Array, colour: str = style.SKY, level: float = 0.5) -> None:
    """Outlines where a mask or map (H, W) is at least the level, if it is anywhere."""
    values = np.asarray(mask, np.float32)
    if min(values.shape) > 1 and values.min() < level <= values.max():
        ax.contour(values, [level], colors=[colour], linewidths=1.3)


def show(ax: Axes, cell: Picture, scale: ScalarMappable = UNIT_SCALE) -> None:
    """Draws one picture, its map with the colours and limits of a scale."""
    bare(ax)
    # Averaged where it is drawn smaller than it is: no false grain, and smaller files.
    if cell.image is not None:
        ax.imshow(pixels(cell.image), cmap="gray", vmin=0, vmax=1)
    if cell.heat is not None:
        heat, over = np.asarray(cell.heat, np.float32), cell.image is not None
        clear = cell.strength * np.clip(heat, 0, 1) ** 0.7 if over else None
        look: Any = {"cmap": scale.cmap, "norm": scale.norm, "alpha": clear}
        ax.imshow(heat, interpolation=None if over else "nearest", **look)
    if cell.mask is not None:
        outline(ax, cell.mask)
    if cell.frame is not None:
        ax.spines[:].set(visible=True, color=cell.frame, linewidth=2.5)
    ax.set_title(cell.title, fontsize=9, color=cell.colour)


def grid(
    rows: Collection[tuple[str, Images]],
    titles: Sequence[str] = (),
    side: float = 1.3,
    scale: ScalarMappable = UNIT_SCALE,
    label: str = "",
) -> Figure:
    """Pictures in rows and columns.

    Args:
        rows: Name and pictures of each row, :class:`Picture` or images; None is an empty place.
        titles: Titles of the columns.
        side: Width of a picture, inches, where the page has room for it.
        scale: Colours and limits of all maps.
        label: Name of what the maps show, below a colour bar.
    """
    lines = [[c if isinstance(c, Picture) else Picture(c) for c in cells] for _, cells in rows]
    longest = max(lines, key=len, default=[])
    if not longest:
        return style.nothing("no images to show")
    shapes = [pixels(c.heat if c.image is None else c.image).shape for c in longest]
    ratios = [shape[1] / shape[0] if shape else 1 for shape in shapes]
    room = min(side, (style.WIDTH - 0.5) / len(longest))
    high = min(room * len(longest) / sum(ratios), 1.5 * room)
    # Higher than they need: the layout moves pictures together, what is left is cut off.
    fig, axes = style.figure(
        len(lines), len(longest), len(lines) * (high + 0.25) + 0.5 + 0.6 * bool(label),
        len(longest) * (room + 0.04) + 0.5, squeeze=False, width_ratios=ratios
    )  # fmt: skip
    fig.set_layout_engine("compressed", w_pad=0.02, h_pad=0.03, wspace=0, hspace=0)
    for line, (name, _), row in zip(lines, rows, axes, strict=True):
        for ax, cell in zip(row, itertools.chain(line, itertools.repeat(Picture())), strict=False):
            show(ax, cell._replace(title=words(cell.title, int(LETTERS * room), 2)), scale)
        row[0].set_ylabel(words(name, int(15 * high), 2), fontsize=9)
    for ax, title in zip(axes[0], titles, strict=False):
        ax.set_title(words(title, int(LETTERS * room), 3), fontsize=9)
    if label:
        colour_bar(fig, axes, scale, label)
    return fig


def colour_bar(
    fig: Figure, axes: Axes | Iterable[Axes], scale: ScalarMappable, label: str, **layout: Any
) -> None:
    """A colour bar shared by axes, below them unless ``layout`` says otherwise."""
    layout = {"location": "bottom", "aspect": 40, "shrink": 0.6, "pad": 0.01, **layout}
    fig.colorbar(scale, ax=axes, label=label, **layout)


def scale_of(low: float, high: float, colours: Any = style.HEAT) -> ScalarMappable:
    """A colour scale between two values."""
    return ScalarMappable(Normalize(low, high), colours)


def common_scale(maps: Iterable[Array]) -> ScalarMappable:
    """One colour scale from the least to the largest value of several maps."""
    shown = np.concatenate([np.ravel(values) for values in maps] or [np.arange(2)])
    return scale_of(float(shown.min()), float(shown.max()))


def legend(
    fig: Figure, keys: Axes | Sequence[Artist], loc: str = "outside upper center", **more: Any
) -> None:
    """A legend of some artists, or of all in some axes, a name once, in as many columns as fit."""
    handles = keys.get_legend_handles_labels()[0] if isinstance(keys, Axes) else keys
    named = {str(handle.get_label()): handle for handle in handles}
    if named:
        lengths = [6 + len(label) for label in named]
        fits = len(named) if sum(lengths) < 130 else max(1, 130 // max(lengths))
        fig.legend(list(named.values()), list(named), **{"loc": loc, "ncols": fits, **more})


def key(label: str, linestyle: Any = "", **look: Any) -> Line2D:
    """A legend's entry that stands for many artists."""
    return Line2D([], [], label=label, linestyle=linestyle, **look)


def interval(ax: Axes, y: float, value: float, low: float, high: float, **look: Any) -> None:
    """A dot with its interval, which may be NaN, in a row of its own."""
    ax.hlines(y, low, high, color=look["color"], linewidth=2)
    ax.plot([value], [y], **{"markersize": 7} | look | {"linestyle": "", "label": None})


def side_by_side(
    titles: Sequence[str], height: float, rows: int = 1, **subplots: Any
) -> tuple[Figure, list[Axes]]:
    """Panels, one a title, in a row or several."""
    columns = -(-len(titles) // rows)
    fig, axes = style.figure(rows, columns, height, squeeze=False, **subplots)
    for ax, title in zip(axes.flat, titles, strict=False):
        ax.set_title(words(title, int(105 / columns), 2))
    for ax in axes.flat[len(titles) :]:
        ax.set_axis_off()
    return fig, list(axes.flat[: len(titles)])


def intervals(
    table: pd.DataFrame,
    label: str,
    mark: float | None = None,
    form: FuncFormatter = PERCENT,
    sharex: bool = True,
    stacked: int = 1,
    **limits: Any,
) -> Figure:
    """Rows of dots with their intervals, in panels side by side.

    Args:
        table: Columns ``value`` (or ``mean``, or ``difference``), ``low``, ``high``, and
            ``method``, which gives the colour (grey if empty). Optional: ``panel`` (text; by
            default the metric), ``row`` (text; by default the method), ``shift`` in rows, ``note``
            above the dot, ``look`` of the dot, in place of its method's, and ``dots``, single
            values behind the interval.
        label: Name of what the axis shows, below all.
        mark: Value at which a vertical line stands.
        form: Format of the axis's numbers.
        sharex: Whether all panels have one scale.
        stacked: Rows of panels.
        **limits: Limits of the axis, as ``Axes.set`` takes them.
    """
    if table.empty:
        return style.nothing("nothing to compare")
    table = table.rename(columns={"mean": "value", "difference": "value"})
    usual = {"panel": table.get("metric"), "row": table.method.map(style.method_name)}
    usual |= dict.fromkeys(("look", "dots")) | {"shift": 0.0, "note": ""}
    table = table.assign(**usual | dict(table.items()))
    panels, names = list(table.panel.unique()), list(table.row.unique())
    high = stacked * (1.2 + 0.2 * sum(str(name).count("\n") + 2 for name in names))
    fig, axes = side_by_side(panels, high, stacked, sharex=sharex, sharey=True)
    for ax, panel in zip(axes, panels, strict=True):
        for one in table[table.panel == panel].itertuples():
            look = one.look or (style.method_style(one.method) if one.method else GREY_MARK)
            y = names.index(one.row) + one.shift
            interval(ax, y, one.value, one.low, one.high, **look)
            for dot in one.dots or ():
                ax.plot(dot, y, "o", color=look["color"], markersize=3, alpha=0.6)
            note(ax, one.note, (one.value, y), (0, 6), fontsize=9, ha="center")
        if mark is not None:
            ax.axvline(mark, color=style.GREY, linewidth=1, zorder=0)
        ax.set(**limits)
        ax.xaxis.set_major_locator(MaxNLocator(4 if len(panels) > 2 else 6))
        ax.xaxis.set_major_formatter(form)
        ax.grid(axis="x", alpha=0.3)
    name_rows(axes[0], names)
    fig.supxlabel(label, fontsize=9.5)
    return fig


def note(ax: Axes, text: str, at: Point, offset: Point, **look: Any) -> None:
    """A text beside a point, moved by some points of print."""
    ax.annotate(text, at, offset, textcoords="offset points", **look)


def name_rows(ax: Axes, names: Sequence[str], width: int = 48, **text: Any) -> None:
    """Names rows at heights 0, 1, ..., the first on top."""
    ax.set_yticks(range(len(names)), [words(name, width) for name in names], **text)
    ax.set_ylim(len(names) - 0.5, -0.7)


def curves(
    roc: Axes, pr: Axes, detectors: Detectors, look: Look, threshold: float | None = None
) -> dict[str, metrics.Metrics]:
    """ROC and precision-recall curves; dots at a threshold, dotted what guessing gives.

    Args:
        roc: Axes of the ROC curves.
        pr: Axes of the precision-recall curves.
        detectors: Labels and scores, by name.
        look: Gives a detector's line by its name.
        threshold: Score at which the dots are; by default that of each one's best F1.

    Returns:
        The metrics of each, by name.
    """
    roc.plot([0, 1], [0, 1], ":", color=style.GREY)
    measured = {}
    for name, (labels, scores) in detectors.items():
        found = measured[name] = metrics.evaluate(labels, scores)
        at = found.threshold if threshold is None else threshold
        counts = metrics.confusion(labels, scores, at)
        precision, recall, _ = rates(counts)
        line: dict[str, Any] = {"linewidth": 1.8} | look(name) | {"marker": "", "clip_on": False}
        shown, colour = words(line.pop("label"), 22), line["color"]
        area = f"AU-PR {percent(found.aupr)}, best F1 {percent(found.max_f1)}"
        x, y, _ = metrics.roc_curve(labels, scores)
        roc.plot(x, y, label=f"{shown}: AU-ROC {percent(found.auroc)}", **line)
        dot(roc, counts.false_positives / found.negatives, recall, colour)
        x, y, _ = metrics.pr_curve(labels, scores)
        pr.plot(x, y, label=f"{shown}: {area}", **line)
        dot(pr, recall, precision, colour)
        pr.axhline(found.prevalence, color=colour, linestyle=":", linewidth=1.5, zorder=0)
    unit_axes(roc, "false positive rate", "recall (true positive rate)")
    unit_axes(pr, "recall", "precision")
    return measured


def curve_rows(detectors: Mapping[str, Detectors], look: Look) -> Figure:
    """ROC and precision-recall curves side by side, a row a group of detectors.

    Args:
        detectors: Labels and scores, by group and name.
        look: Gives a detector's line by its name.
    """
    lines = max(map(len, detectors.values()))
    fig, axes = style.figure(len(detectors), 2, (4.0 + 0.2 * lines) * len(detectors), squeeze=False)
    for (roc, pr), (group, members) in zip(axes, detectors.items(), strict=True):
        roc.set_title(words(group, 24))
        lacking = max((missing(labels) for labels, _ in members.values()), default="no scores")
        if not lacking:
            curves(roc, pr, members, look)
        for ax in (roc, pr):
            if lacking:
                say(ax, f"{lacking}, no curve")
            else:
                ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17))
    return fig


def unit_axes(ax: Axes, x: str, y: str) -> None:
    """Names axes that go from 0 to 100 %."""
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y)
    both_axes(ax, PERCENT)


def both_axes(ax: Axes, form: FuncFormatter) -> None:
    """Gives both axes a format of their numbers."""
    ax.xaxis.set_major_formatter(form)
    ax.yaxis.set_major_formatter(form)


def rates(counts: metrics.Confusion) -> tuple[float, float, float]:
    """Precision (1 if nothing is flagged), recall and F1."""
    tp, fp, fn, _ = counts
    return tp / (tp + fp) if tp + fp else 1.0, tp / (tp + fn), 2 * tp / (2 * tp + fp + fn)


def overlap(truth: np.ndarray, marked: np.ndarray) -> str:
    """What a mask has of the true one (both bool), in words."""
    both = int((truth & marked).sum())
    if not truth.any():
        return f"nothing to find, {int(marked.sum()):,} pixels marked"
    precision = f"{both / marked.sum():.0%}" if marked.any() else "undefined"
    return f"precision {precision}, recall {both / truth.sum():.0%} of pixels"


def dot(ax: Axes, x: float, y: float, colour: str) -> None:
    """An operating point on a curve."""
    ax.plot([x], [y], "o", markersize=9, color=colour, markeredgecolor="white", clip_on=False,
            zorder=5)  # fmt: skip


def gains(ax: Axes, points: pd.DataFrame) -> None:
    """A dot a method, at the columns ``x`` and ``y``; arrows from each baseline to its + SPD."""
    for method, (x, y) in points[["x", "y"]].iterrows():
        line = style.method_style(str(method))
        ax.plot([x], [y], **line | {"linestyle": "", "markersize": 8})
        if (baseline := baseline_of(str(method))) in points.index:
            how = {"arrowstyle": "->", "color": line["color"], "shrinkA": 5, "shrinkB": 5}
            ax.annotate("", (x, y), points.loc[baseline, ["x", "y"]], arrowprops=how)


def missing(labels: ArrayLike) -> str:
    """Names of the classes that labels 0 and 1 lack, in words; empty if both are there."""
    there = set(np.unique(np.asarray(labels)).astype(int))
    return " and ".join(f"no {name} images" for k, name in enumerate(CLASSES) if k not in there)


def histogram(ax: Axes, labels: ArrayLike, scores: ArrayLike, bins: Any) -> None:
    """Histograms of the scores of normal and of anomalous images, over each other."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    groups = [scores[labels == value] for value in (0, 1)]
    ax.hist(groups, bins, label=CLASSES, histtype="stepfilled", alpha=0.5, color=COLOURS)
