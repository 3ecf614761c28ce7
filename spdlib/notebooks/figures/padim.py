"""Figures of PaDiM's evaluation: samples, curves, maps side by side, gains, sizes of defects."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from torch import Tensor

from spdlib import metrics
from spdlib.evaluation import TASKS
from spdlib.notebooks.figures import panels, style
from spdlib.notebooks.figures.panels import Picture

MAP = "distance to the normal images"


@style.shows("no images to show")
def glance(groups: Mapping[str, Sequence[tuple[Tensor, Tensor]]]) -> Figure:
    """Samples at a glance, a row a group; ground truth outlined.

    Args:
        groups: Images (3, H, W) and masks (H, W), by what they show.
    """
    rows = {
        name: [Picture(image, mask=mask) for image, mask in pictures]
        for name, pictures in groups.items()
    }
    # Photographs weigh a lot in a notebook's file: no wider than they need to be.
    return panels.grid(rows.items(), side=1.15)


@style.shows("no scores to show")
def curves(detectors: Mapping[str, panels.Detectors]) -> Figure:
    """ROC and precision-recall curves, a row a category, a line an encoder.

    The dot is the operating point of the best F1; the dotted lines are detectors that guess.

    Args:
        detectors: Labels and scores by category, then by method.
    """
    return panels.curve_rows(detectors, style.method_style)


@style.shows("no scores to show")
def histograms(detectors: Mapping[str, panels.Detectors]) -> Figure:
    """Image scores of normal and anomalous images, a row a category, a panel an encoder.

    The dashed line is the threshold of the best F1.

    Args:
        detectors: Labels and scores by category, then by method.
    """
    columns = len(next(iter(detectors.values())))  # the same encoders in each category
    fig, axes = style.figure(len(detectors), columns, 0.5 + 2.1 * len(detectors), squeeze=False,
                             sharex="row", sharey="row")  # fmt: skip
    for row, (category, methods) in zip(axes, detectors.items(), strict=True):
        bins = np.histogram_bin_edges(np.stack([scores for _, scores in methods.values()]), 40)
        row[0].set_ylabel(f"{style.words(category, 24)}\nimages")
        for ax, (method, (labels, scores)) in zip(row, methods.items(), strict=True):
            panels.histogram(ax, labels, scores, bins)
            if not panels.missing(labels):
                best = metrics.max_f1(labels, scores).threshold
                ax.axvline(best, color=style.BLACK, linestyle="--")
            ax.set_title(style.words(style.method_name(method), int(70 / columns)))
    panels.legend(fig, axes[0, 0], "outside upper right")
    fig.supxlabel("image score (Mahalanobis distance)", fontsize=10)
    return fig


@style.shows("no images to show")
def comparison(
    images: panels.Images,
    masks: panels.Images,
    maps: Mapping[str, Any],
    titles: Sequence[str],
    label: str = MAP,
    scale: ScalarMappable | None = None,
) -> Figure:
    """Maps side by side as in Fig. 12 of Zou et al., ground truth outlined, on one colour scale.

    Args:
        images: Images (3, H, W), a column each.
        masks: Ground truth (H, W), a column each.
        maps: Anomaly maps (H, W) by method, a row each.
        titles: Titles of the columns.
        label: Name of what the maps show.
        scale: Their colours and limits; by default from the least to the largest value.
    """
    scale = scale or panels.common_scale(heat for heats in maps.values() for heat in heats)
    rows: dict[str, panels.Images] = {"image": images, "ground truth": masks}
    for name, heats in maps.items():
        cells = zip(heats, masks, strict=True)
        rows[style.method_name(name)] = [Picture(heat=heat, mask=mask) for heat, mask in cells]
    return panels.grid(rows.items(), titles, min(1.4, 7.3 / len(images)), scale, label)


@style.shows("no images to show")
def cases(
    groups: Mapping[str, Sequence[int]],
    image: Callable[[int], Tensor],
    maps: Tensor,
    masks: Tensor,
    labels: np.ndarray,
    scores: np.ndarray,
) -> Figure:
    """Telling test images beside their maps, a row a group.

    Args:
        groups: Numbers of images, by what they show.
        image: Returns the image (3, H, W) with a number.
        maps: Anomaly maps (N, H, W).
        masks: Ground truth (N, H, W).
        labels: 0 and 1, one an image.
        scores: Scores, one an image.
    """
    rows: dict[str, list[Picture]] = {name: [] for name in groups}
    for name, numbers in groups.items():
        for i in numbers:
            kind = int(labels[i])
            seen = Picture(image(i), None, masks[i], panels.CLASSES[kind], panels.COLOURS[kind])
            rows[name] += [seen, Picture(heat=maps[i], title=f"score {scores[i]:.1f}")]
    scale = panels.common_scale(maps[i] for numbers in groups.values() for i in numbers)
    return panels.grid(rows.items(), side=0.95, scale=scale, label=MAP)


@style.shows()
def scatter(rows: pd.DataFrame) -> Figure:
    """AU-ROC of segmentation against detection over encoders, as Fig. 8 of Zou et al.

    Arrows lead from each baseline to its + SPD. A panel a category where there are at most
    three, and one of their mean.

    Args:
        rows: Results, as :func:`spdlib.evaluation.measure` returns them.
    """
    rows = rows[rows.metric == "AU-ROC"].set_index(["category", "method"])
    x, y = (rows.loc[rows.task == task, ["value", "low", "high"]] for task in TASKS)
    both = x.join(y, how="inner", lsuffix="_x", rsuffix="_y", sort=False)
    both = both.rename(columns={"value_x": "x", "value_y": "y"}).dropna(subset=["x", "y"])
    if both.empty:
        return style.nothing("no category has both AU-ROC of detection and of segmentation")
    categories = list(both.index.unique("category"))
    shown = {c: both.loc[c] for c in categories} if len(categories) <= 3 else {}
    if len(categories) > 1:
        mean = both[["x", "y"]].groupby("method", sort=False).mean()
        shown["mean over categories"] = mean.reindex(columns=both.columns)
    fig, axes = panels.side_by_side(list(shown), 3.7)
    for ax, points in zip(axes, shown.values(), strict=True):
        panels.gains(ax, points)
        colours = [style.method_style(method)["color"] for method in points.index]
        ax.hlines(points.y, points.low_x, points.high_x, colours, linewidth=0.8)
        ax.vlines(points.x, points.low_y, points.high_y, colours, linewidth=0.8)
        ax.margins(0.12)
        ax.locator_params(nbins=4)
        panels.both_axes(ax, panels.PERCENT)
    axes[0].set_ylabel("segmentation AU-ROC")
    fig.supxlabel("detection AU-ROC", fontsize=10)
    panels.legend(fig, [line for ax in axes for line in ax.lines])
    return fig


@style.shows("nothing to compare")
def differences(table: pd.DataFrame) -> Figure:
    """Gains of + SPD over its baseline, with 95 % intervals, a panel a metric.

    Args:
        table: Table of :func:`spdlib.evaluation.differences`.
    """
    rows = table[table.metric.isin(("AU-PR", "AU-ROC"))]
    names = rows.task + ", " + rows.category + "\n" + rows.method.map(style.method_name)
    text = "gain of + SPD over its baseline, percentage points"
    rows = rows.assign(row=names)
    return panels.intervals(rows, text, mark=0, form=panels.POINTS, sharex=False)


@style.shows("no image has a mask, so no defect has an area")
def recall_by_area(table: pd.DataFrame) -> Figure:
    """Share of the defects found against their area, with Wilson's 95 % intervals.

    Args:
        table: Table of :func:`spdlib.evaluation.recall_by_area`.
    """
    fig, ax = style.figure(height=3.4, width=6.5)
    for number, (method, rows) in enumerate(table.groupby("method", sort=False)):
        # A little apart, so that intervals do not hide each other.
        area = 100 * rows.area * 1.05 ** (number - (table.method.nunique() - 1) / 2)
        reach = [rows.recall - rows.low, rows.high - rows.recall]
        ax.errorbar(area, rows.recall, reach, **style.method_style(method), elinewidth=1)
    ax.set(xscale="log", ylim=(-0.03, 1.03), ylabel="defects found",
           xlabel="area of the defect, % of the image")  # fmt: skip
    ax.set_xticks(100 * np.unique(table.area))
    ax.set_xticks([], minor=True)
    ax.xaxis.set_major_formatter("{x:.2g}")
    ax.yaxis.set_major_formatter(panels.PERCENT)
    panels.legend(fig, ax, "outside right upper", ncols=1)
    return fig


@style.shows()
def view(
    cell: Picture, threshold: float, top: float, labels: np.ndarray, scores: np.ndarray, number: int
) -> Figure:
    """One test image under a threshold: outlines, map, and its place among all scores.

    Args:
        cell: The image, its anomaly map, its ground truth (all False where there is none), and
            the title above all.
        threshold: Least score of a pixel, and of an image, that is flagged.
        top: Upper end of the colour scale.
        labels: 0 and 1, of all test images of the category.
        scores: Image scores of them.
        number: Number of the image shown, in ``scores``.
    """
    fig, (left, middle, right) = style.figure(1, 3, 4.0, width_ratios=[1.35, 1.35, 1])
    scale = panels.scale_of(0, top)
    flagged = "yellow: flagged" + ("; blue: ground truth" if np.asarray(cell.mask).any() else "")
    panels.show(left, cell._replace(heat=None, title=flagged))
    panels.show(middle, cell._replace(image=None, title="anomaly map"), scale)
    for ax, colour in ((left, style.YELLOW), (middle, "white")):
        ax.set_anchor("N")
        panels.outline(ax, np.asarray(cell.heat), colour, threshold)
    panels.colour_bar(fig, middle, scale, MAP, shrink=0.9, pad=0.03, aspect=20)
    panels.histogram(right, labels, scores, 30)
    right.axvline(threshold, color=style.BLACK, linestyle="--", label="threshold")
    right.axvline(scores[number], color=style.BLACK, linewidth=2.2, label="this image")
    right.set(xlabel="image score", ylabel="images", title="all images of the category")
    right.legend(loc="upper center", bbox_to_anchor=(0.45, -0.24), ncols=2, fontsize=8,
                 columnspacing=1, handlelength=1.4)  # fmt: skip
    fig.suptitle(style.words(cell.title, 120, 2), fontsize=11)
    return fig
