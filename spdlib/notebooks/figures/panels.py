"""Panels that figures are made of: grids of pictures, rows of intervals, curves, histograms."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
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

# Labels and scores of several detectors, by name.
Detectors = Mapping[str, tuple[ArrayLike, ArrayLike]]

PERCENT = FuncFormatter(lambda share, _: f"{100 * share + 0.0:g} %".replace("-", "−"))
POINTS = FuncFormatter(lambda share, _: f"{100 * share + 0.0:g}".replace("-", "−"))
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
LETTERS = 13  # of small text, an inch
CLASSES = ("normal", "anomalous")
VERDICTS = (("passed", "false alarm"), ("missed", "found"))  # by label, then whether flagged
COLOURS = (style.NORMAL, style.ANOMALY)  # by label

GREY_MARK = {"color": style.GREY, "marker": "|"}  # of what is no method
UNIT_SCALE = ScalarMappable(Normalize(0, 1), style.HEAT)
nothing = style.in_place_of_a_figure


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


def outline(
    ax: Axes, mask: Tensor | ArrayLike, colour: str = style.SKY, level: float = 0.5
) -> None:
    """Outlines where a mask or map (H, W) is at least the level, if it is anywhere."""
    values = np.asarray(mask, np.float32)
    if min(values.shape) > 1 and values.min() < level <= values.max():
        ax.contour(values, [level], colors=[colour], linewidths=1.3)


def show(ax: Axes, cell: Picture, scale: ScalarMappable = UNIT_SCALE) -> None:
    """Draws one picture, its map with the colours and limits of a scale."""
    bare(ax)
    # Averaged where it is drawn smaller than it is: no false grain, and smaller files.
    if cell.image is not None:
        ax.imshow(pixels(cell.image), cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    if cell.heat is not None:
        heat, over = np.asarray(cell.heat, np.float32), cell.image is not None
        clear = cell.strength * np.clip(heat, 0, 1) ** 0.7 if over else None
        how = "antialiased" if over else "nearest"
        norm: Any = scale.norm  # wider in the types than what imshow's say it takes
        ax.imshow(heat, cmap=scale.cmap, norm=norm, alpha=clear, interpolation=how)
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
        label: Name of what the maps show, below a colour bar.
    """
    lines = [
        (name, [cell if isinstance(cell, Picture) else Picture(cell) for cell in cells])
        for name, cells in rows
    ]
    longest = max((cells for _, cells in lines), key=len, default=[])
    if not longest:
        return nothing("no images to show")
    shapes = [np.asarray(c.heat if c.image is None else pixels(c.image)).shape for c in longest]
    ratios = [shape[1] / shape[0] if len(shape) > 1 else 1 for shape in shapes]
    room = min(side, (width - 0.5) / len(longest))
    high = min(room * len(longest) / sum(ratios), 1.5 * room)
    # Higher than they need: the layout moves pictures together, what is left is cut off.
    fig, axes = style.figure(
        len(lines), len(longest), len(lines) * (high + 0.25) + 0.5 + 0.6 * bool(label),
        len(longest) * (room + 0.04) + 0.5, squeeze=False, width_ratios=ratios
    )  # fmt: skip
    fig.set_layout_engine("compressed", w_pad=0.02, h_pad=0.03, wspace=0, hspace=0)
    for ax in axes.flat:
        bare(ax)
    for row, (name, cells) in zip(axes, lines, strict=True):
        row[0].set_ylabel(words(name, int(15 * high), 2), fontsize=9)
        for ax, cell in zip(row, cells, strict=False):
            show(ax, cell._replace(title=words(cell.title, int(LETTERS * room), 2)), scale)
    for ax, title in zip(axes[0], titles, strict=False):
        ax.set_title(words(title, int(LETTERS * room), 3), fontsize=9)
    if label:
        colour_bar(fig, axes, scale, label)
    return fig


def maps(
    images: Sequence[Any] | Tensor,
    masks: Sequence[Any] | Tensor,
    heats: Mapping[str, Any],
    titles: Sequence[str],
    scale: ScalarMappable,
    label: str,
) -> Figure:
    """Images, their ground truth, and maps with it outlined, a column an image, a row a name."""
    rows = [("image", list(images)), ("ground truth", list(masks))]
    for name, row in heats.items():
        cells = [Picture(heat=heat, mask=mask) for heat, mask in zip(row, masks, strict=True)]
        rows.append((name, cells))
    return grid(rows, titles, min(1.4, 7.3 / len(images)), scale=scale, label=label)


def colour_bar(
    fig: Figure, axes: Axes | Iterable[Axes], scale: ScalarMappable, label: str, **layout: Any
) -> Colorbar:
    """A colour bar shared by axes, below them unless ``layout`` says otherwise."""
    layout = {"location": "bottom", "aspect": 40, "shrink": 0.6, "pad": 0.01, **layout}
    return fig.colorbar(scale, ax=axes, label=label, **layout)


def common_scale(maps: Iterable[Tensor | ArrayLike], cmap: str = style.HEAT) -> ScalarMappable:
    """One colour scale from the least to the largest value of several maps."""
    shown = [np.asarray(values) for values in maps]
    low, high = min(map(np.min, shown), default=0), max(map(np.max, shown), default=1)
    return ScalarMappable(Normalize(float(low), float(high)), cmap)


def legend(
    place: Figure | Axes, keys: Axes | Sequence[Artist], loc: str = "outside upper center",
    **more: Any
) -> None:  # fmt: skip
    """A legend of some artists, or of all in some axes, a name once, in as many columns as fit."""
    handles = keys.get_legend_handles_labels()[0] if isinstance(keys, Axes) else keys
    named = {str(handle.get_label()): handle for handle in handles}
    if named:
        lengths = [6 + len(label) for label in named]
        fits = len(named) if sum(lengths) < 130 else max(1, 130 // max(lengths))
        place.legend(list(named.values()), list(named), **{"loc": loc, "ncols": fits, **more})


def key(label: str, linestyle: Any = "", **look: Any) -> Line2D:
    """A legend's entry that stands for many artists."""
    return Line2D([], [], label=label, linestyle=linestyle, **look)


def interval(ax: Axes, y: float, value: float, low: float, high: float, **look: Any) -> None:
    """A dot with its interval, which may be NaN, in a row of its own."""
    ax.hlines(y, low, high, color=look["color"], linewidth=2)
    ax.plot([value], [y], **{"markersize": 7} | look | {"linestyle": "", "label": None})


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
        label: Name of what the axis shows, below all.
        mark: Value at which a vertical line stands.
        numbers: Whether values are written above their dots, as percentages.
        form: Format of the axis's numbers.
        sharex: Whether all panels have one scale.
        **limits: Limits of the axis, as ``Axes.set`` takes them.
    """
    if table.empty:
        return nothing("nothing to compare")
    panels, names = list(table.panel.unique()), list(table.row.unique())
    lines = sum(str(name).count("\n") + 1 for name in names)
    fig, axes = style.figure(1, len(panels), 1.2 + 0.2 * (len(names) + lines), squeeze=False,
                             sharex=sharex, sharey=True)  # fmt: skip
    for ax, panel in zip(axes[0], panels, strict=True):
        for one in table[table.panel == panel].itertuples():
            look = style.method_style(one.method) if one.method else GREY_MARK
            y = names.index(one.row) + getattr(one, "shift", 0)
            interval(ax, y, one.value, one.low, one.high, **look)
            if numbers:
                note(ax, f"{100 * one.value:.1f}", (one.value, y), (0, 7), fontsize=9, ha="center")
        if mark is not None:
            ax.axvline(mark, color=style.GREY, linewidth=1, zorder=0)
        ax.set(title=words(panel, int(80 / len(panels)), 2), **limits)
        ax.xaxis.set_major_locator(MaxNLocator(4 if len(panels) > 2 else 6))
        ax.xaxis.set_major_formatter(form)
        ax.grid(axis="x", alpha=0.3)
    name_rows(axes[0, 0], names)
    fig.supxlabel(label, fontsize=9.5)
    return fig


def note(
    ax: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], **look: Any
) -> None:
    """A text beside a point, moved by some points of print."""
    ax.annotate(text, at, offset, textcoords="offset points", **look)


def name_rows(ax: Axes, names: Sequence[str], width: int = 48, **text: Any) -> None:
    """Names rows at heights 0, 1, ..., the first on top."""
    ax.set_yticks(range(len(names)), [words(name, width) for name in names], **text)
    ax.set_ylim(len(names) - 0.5, -0.7)


def curves(
    roc: Axes,
    pr: Axes,
    detectors: Detectors,
    look: Callable[[str], dict[str, Any]],
    threshold: float | None = None,
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
        counts, line = metrics.confusion(labels, scores, at), {"linewidth": 1.8} | look(name)
        shown, colour = words(line["label"], 22), line["color"]
        best = percent(found.max_f1)
        for ax, curve, area in (
            (roc, metrics.roc_curve, f"AU-ROC {percent(found.auroc)}"),
            (pr, metrics.pr_curve, f"AU-PR {percent(found.aupr)}, best F1 {best}"),
        ):
            x, y, _ = curve(labels, scores)
            line |= {"marker": "", "clip_on": False, "label": f"{shown}: {area}"}
            ax.plot(x, y, **line)
        precision, recall, _ = rates(counts)
        dot(roc, counts.false_positives / found.negatives, recall, colour)
        dot(pr, recall, precision, colour)
        pr.axhline(found.prevalence, color=colour, linestyle=":", linewidth=1.5, zorder=0)
    unit_axes(roc, "false positive rate", "recall (true positive rate)")
    unit_axes(pr, "recall", "precision")
    return measured


def curve_rows(detectors: Mapping[str, Detectors], look: Callable[[str], dict[str, Any]]) -> Figure:
    """ROC and precision-recall curves side by side, a row a group of detectors.

    Args:
        detectors: Labels and scores, by group and name.
        look: Gives a detector's line by its name.
    """
    lines = max(map(len, detectors.values()))
    fig, axes = style.figure(len(detectors), 2, (4.0 + 0.2 * lines) * len(detectors), squeeze=False)
    for pair, (group, members) in zip(axes, detectors.items(), strict=True):
        pair[0].set_title(words(group, 24))
        lacking = {missing(labels) for labels, _ in members.values()} or {"no scores"}
        if lacking == {""}:
            curves(pair[0], pair[1], members, look)
        for ax in pair:
            if lacking == {""}:
                ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17))
            else:
                say(ax, f"{max(lacking)}, no curve")
    return fig


def unit_axes(ax: Axes, x: str, y: str) -> None:
    """Names axes that go from 0 to 100 %."""
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PERCENT)


def rates(counts: metrics.Confusion) -> tuple[float, float, float]:
    """Precision (1 if nothing is flagged), recall and F1."""
    tp, fp, fn, _ = counts
    return tp / (tp + fp) if tp + fp else 1.0, tp / (tp + fn), 2 * tp / (2 * tp + fp + fn)


def dot(ax: Axes, x: float, y: float, colour: str) -> None:
    """An operating point on a curve."""
    ax.plot([x], [y], "o", markersize=9, color=colour, markeredgecolor="white", clip_on=False,
            zorder=5)  # fmt: skip


def gains(ax: Axes, points: pd.DataFrame, gap: float = 5, **look: Any) -> None:
    """A dot a method, and an arrow from each baseline to its + SPD.

    Args:
        ax: Axes to draw on.
        points: Columns ``x`` and ``y``, by method.
        gap: Distance between dots and arrows, points.
        **look: Look of the dots, beside that of their methods.
    """
    for method, (x, y) in points[["x", "y"]].iterrows():
        line = style.method_style(str(method))
        ax.plot([x], [y], **line | {"linestyle": "", "markersize": 8} | look)
        baseline = baseline_of(str(method)) or str(method)
        if baseline != method and baseline in points.index:
            how = {"arrowstyle": "->", "color": line["color"], "shrinkA": gap, "shrinkB": gap}
            ax.annotate("", (x, y), points.loc[baseline, ["x", "y"]], arrowprops=how)


def missing(labels: ArrayLike) -> str:
    """Names of the classes that labels 0 and 1 lack, in words; empty if both are there."""
    there = set(np.unique(np.asarray(labels)).astype(int))
    return " and ".join(f"no {name} images" for k, name in enumerate(CLASSES) if k not in there)


def by_class(labels: ArrayLike, scores: ArrayLike) -> list[np.ndarray]:
    """Scores of normal and of anomalous images."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    return [scores[labels == value] for value in (0, 1)]


def histogram(
    ax: Axes, groups: Sequence[ArrayLike], bins: np.ndarray, names: Sequence[str] = CLASSES
) -> None:
    """Histograms of two groups over each other, the first as normal, the second as anomalous."""
    ax.hist(groups, bins.tolist(), label=names, histtype="stepfilled", alpha=0.5, color=COLOURS)
