"""Figures of PaDiM's evaluation: samples, curves, maps side by side, gains, sizes of defects."""

import textwrap
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike
from torch import Tensor

from spdlib import metrics
from spdlib.notebooks.figures import style

# Labels and scores by category, then by method.
Detectors = Mapping[str, Mapping[str, tuple[ArrayLike, ArrayLike]]]

PERCENT = PercentFormatter(1, decimals=0, symbol=" %")
TRUTH = style.SKY  # outlines of masks; verdicts of a threshold are outlined in white
MAP = "distance to the normal images"


def glance(groups: Mapping[str, Sequence[tuple[Tensor, Tensor]]]) -> Figure:
    """Samples at a glance, a row a group; ground truth outlined.

    Args:
        groups: Images (3, H, W) and masks (H, W), by what they show.
    """
    columns = max(map(len, groups.values()))
    # Photographs weigh a lot in a notebook's file: no wider than they need to be.
    width = min(style.WIDTH, 0.3 + 1.15 * columns)
    height = len(groups) * (width - 0.3) / columns
    fig, axes = style.figure(len(groups), columns, height=height, width=width, squeeze=False)
    for row, (name, pictures) in zip(axes, groups.items(), strict=True):
        for ax in row:
            _bare(ax)
        row[0].set_ylabel(name)
        for ax, (image, mask) in zip(row, pictures, strict=False):
            _show(ax, image)
            _outline(ax, mask)
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    return fig


def curves(detectors: Detectors) -> Figure:
    """ROC and precision-recall curves, a row a category, a line an encoder."""
    fig, axes = style.figure(len(detectors), 2, height=3.5 * len(detectors), squeeze=False)
    for (roc, pr), (category, methods) in zip(axes, detectors.items(), strict=True):
        roc.plot([0, 1], [0, 1], ":", color=style.GREY)
        for method, (labels, scores) in methods.items():
            found = metrics.evaluate(labels, scores)
            look = {**style.method_style(method), "marker": None, "linewidth": 1.8}
            for ax, curve, area in (
                (roc, metrics.roc_curve(labels, scores), found.auroc),
                (pr, metrics.pr_curve(labels, scores), found.aupr),
            ):
                look["label"] = f"{style.method_name(method)}  {100 * area:.1f} %"
                ax.plot(curve.x, curve.y, **look)
        pr.axhline(found.prevalence, color=style.GREY, linestyle=":", zorder=0)
        _unit_square(roc, "false positive rate", "recall (true positive rate)")
        _unit_square(pr, "recall", "precision")
        roc.legend(title=f"{category}: AU-ROC", loc="lower right", title_fontsize=9.5)
        pr.legend(title=f"{category}: AU-PR (linear)", loc="lower left", title_fontsize=9.5)
    return fig


def histograms(detectors: Detectors) -> Figure:
    """Image scores of normal and anomalous images, a row a category, a panel an encoder.

    The dashed line is the threshold of the best F1.
    """
    columns = max(map(len, detectors.values()))
    fig, axes = style.figure(
        len(detectors), columns, height=0.5 + 2.1 * len(detectors), squeeze=False, sharex="row",
        sharey="row",
    )  # fmt: skip
    for row, (category, methods) in zip(axes, detectors.items(), strict=True):
        everything = np.concatenate([np.asarray(scores) for _, scores in methods.values()])
        bins = np.histogram_bin_edges(everything, 40)
        row[0].set_ylabel(f"{category}\nimages")
        for ax, (method, (labels, scores)) in zip(row, methods.items(), strict=False):
            labels, scores = np.asarray(labels), np.asarray(scores)
            for value, name, colour in (
                (0, "normal", style.NORMAL), (1, "anomalous", style.ANOMALY),
            ):  # fmt: skip
                chosen = scores[labels == value]
                ax.hist(chosen, bins, color=colour, alpha=0.35)
                ax.hist(chosen, bins, color=colour, histtype="step", linewidth=1.4, label=name)
            ax.axvline(metrics.max_f1(labels, scores).threshold, color=style.BLACK, linestyle="--")
            ax.set_title(style.method_name(method))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper right", ncols=2)
    fig.supxlabel("image score (Mahalanobis distance)", fontsize=10)
    return fig


def comparison(
    images: Sequence[Tensor],
    masks: Sequence[Tensor],
    maps: Mapping[str, Sequence[Tensor]],
    titles: Sequence[str],
) -> Figure:
    """Maps side by side as in Fig. 12 of Zou et al., all on one colour scale.

    Args:
        images: Images (3, H, W), a column each.
        masks: Ground truth (H, W), a column each.
        maps: Anomaly maps (H, W) by method, a row each.
        titles: Of the columns.
    """
    fig, axes, side = _grid(2 + len(maps), len(images), most=min(1.3, 7.3 / len(images)))
    scale = _scale([m for row in maps.values() for m in row])
    names = ["image", "ground truth", *map(style.method_name, maps)]
    for row, name in zip(axes, names, strict=True):
        row[0].set_ylabel(name, fontsize=9.5 if side > 1 else 8)
    for column, title in enumerate(titles):
        axes[0, column].set_title(textwrap.fill(title, int(13 * side)), fontsize=9)
        _show(axes[0, column], images[column])
        axes[1, column].imshow(masks[column], vmin=0, vmax=1)
        for ax, row in zip(axes[2:, column], maps.values(), strict=True):
            ax.imshow(row[column], cmap=style.HEAT, norm=scale)
            _outline(ax, masks[column])
    _colourbar(fig, axes, scale)
    return fig


def cases(
    groups: Mapping[str, Sequence[int]],
    image: Callable[[int], Tensor],
    maps: Tensor,
    masks: Tensor,
    labels: ArrayLike,
    scores: ArrayLike,
) -> Figure:
    """Telling test images beside their maps, a row a group.

    Args:
        groups: Numbers of images, by what they show.
        image: Returns the image (3, H, W) with a number.
        maps: Anomaly maps (N, H, W).
        masks: Ground truth (N, H, W).
        labels: 0 and 1, one an image.
        scores: One an image.
    """
    count = max(map(len, groups.values()))
    fig, axes, _ = _grid(len(groups), 2 * count, most=0.95)
    scale = _scale([maps[i] for numbers in groups.values() for i in numbers])
    for row, (name, numbers) in zip(axes, groups.items(), strict=True):
        row[0].set_ylabel(textwrap.fill(name, 10), fontsize=9.5)
        for ax in row[2 * len(numbers) :]:
            ax.set_visible(False)
        for left, right, i in zip(row[::2], row[1::2], numbers, strict=False):
            _show(left, image(i))
            _outline(left, masks[i])
            right.imshow(maps[i], cmap=style.HEAT, norm=scale)
            truth = "anomalous" if labels[i] else "normal"
            colour = style.ANOMALY if labels[i] else style.NORMAL
            left.set_title(truth, fontsize=9, color=colour)
            right.set_title(f"score {scores[i]:.1f}", fontsize=9)
    _colourbar(fig, axes, scale)
    return fig


def scatter(rows: pd.DataFrame, metric: str = "AU-ROC") -> Figure:
    """Segmentation against detection over encoders, as Fig. 8 of Zou et al.

    Arrows lead from each baseline to its + SPD. A panel a category where there are at most
    three, and one of their mean.

    Args:
        rows: As :func:`spdlib.evaluation.measure` returns them.
        metric: What is drawn.
    """
    rows = rows[rows.metric == metric]
    wide = rows.pivot(index=["category", "method"], columns="task", values="value").dropna()
    ends = {end: rows.pivot(index=["category", "method"], columns="task", values=end)
            for end in ("low", "high")}  # fmt: skip
    categories = [c for c in rows.category.unique() if c in wide.index]
    panels = {c: wide.loc[c] for c in categories} if len(categories) <= 3 else {}
    if len(categories) > 1:
        panels["mean over categories"] = wide.groupby("method").mean()
    fig, axes = style.figure(1, len(panels), height=3.7, squeeze=False)
    for ax, (title, points) in zip(axes[0], panels.items(), strict=True):
        for method in [m for m in rows.method.unique() if m in points.index]:
            x, y = points.loc[method, ["detection", "segmentation"]]
            look = style.method_style(method)
            if title in categories:
                low, high = (ends[end].loc[title, method] for end in ("low", "high"))
                ax.plot([low.detection, high.detection], [y, y], color=look["color"], lw=0.8)
                ax.plot([x, x], [low.segmentation, high.segmentation], color=look["color"], lw=0.8)
            ax.plot([x], [y], **{**look, "linestyle": "none", "markersize": 9})
            baseline = method.removesuffix(style.SPD_SUFFIX)
            if baseline != method and baseline in points.index:
                start = points.loc[baseline, ["detection", "segmentation"]]
                arrow = {"arrowstyle": "-|>", "color": look["color"], "shrinkA": 6, "shrinkB": 6}
                ax.annotate("", (x, y), tuple(start), arrowprops=arrow)
        ax.margins(0.12)
        ax.set_title(title)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=1, symbol=" %"))
            axis.get_major_locator().set_params(nbins=4)
    axes[0, 0].set_ylabel(f"segmentation {metric}")
    fig.supxlabel(f"detection {metric}", fontsize=10)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return fig


def differences(table: pd.DataFrame, shown: Sequence[str] = ("AU-PR", "AU-ROC")) -> Figure:
    """What + SPD gains over its baseline, with 95 % intervals, a panel a metric.

    Args:
        table: As :func:`spdlib.evaluation.differences` returns it.
        shown: Metrics.
    """
    places = table[["category", "task", "method"]].drop_duplicates()
    fig, axes = style.figure(
        1, len(shown), height=1.2 + 0.42 * len(places), sharey=True, squeeze=False
    )
    names = []
    for height, (category, task, method) in enumerate(places.itertuples(index=False, name=None)):
        names.append(f"{category}, {task}\n{style.method_name(method)}")
        for ax, metric in zip(axes[0], shown, strict=True):
            chosen = (table.category == category) & (table.task == task)
            row = table[chosen & (table.method == method) & (table.metric == metric)].iloc[0]
            look = style.method_style(method)
            look = {key: look[key] for key in ("color", "marker", "markerfacecolor")}
            ax.plot([100 * row.low, 100 * row.high], [height] * 2, color=look["color"], lw=2)
            ax.plot([100 * row.difference], [height], markersize=7, **look)
    for ax, metric in zip(axes[0], shown, strict=True):
        ax.axvline(0, color=style.GREY, linewidth=1)
        ax.set(title=metric, ylim=(len(names) - 0.5, -0.5))
        ax.grid(axis="x", alpha=0.3)
        ax.tick_params(axis="y", length=0)
    axes[0, 0].set_yticks(range(len(names)), names)
    fig.supxlabel("gain of + SPD over its baseline, percentage points", fontsize=10)
    return fig


def recall_by_area(table: pd.DataFrame) -> Figure:
    """Share of the defects found against their area, with Wilson's 95 % intervals.

    Args:
        table: As :func:`spdlib.evaluation.recall_by_area` returns it.
    """
    fig, ax = style.figure(height=3.4, width=6.5)
    methods = list(table.method.unique())
    for number, method in enumerate(methods):
        rows, look = table[table.method == method], style.method_style(method)
        # A little apart, so that intervals do not hide each other.
        area = 100 * rows.area * 1.05 ** (number - (len(methods) - 1) / 2)
        ax.vlines(area, rows.low, rows.high, color=look["color"], linewidth=1)
        ax.plot(area, rows.recall, **look)
    ax.set(xscale="log", ylim=(-0.03, 1.03), ylabel="defects found",
           xlabel="area of the defect, % of the image")  # fmt: skip
    ax.set_xticks(100 * np.unique(table.area), minor=False)
    ax.set_xticks([], minor=True)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.2g}")
    ax.yaxis.set_major_formatter(PERCENT)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def view(
    image: Tensor,
    heat: Tensor,
    mask: Tensor,
    threshold: float,
    top: float,
    labels: ArrayLike,
    scores: ArrayLike,
    number: int,
    title: str,
) -> Figure:
    """One test image under a threshold: outlines, map, and its place among all scores.

    Args:
        image: The image (3, H, W).
        heat: Its anomaly map (H, W).
        mask: Its ground truth (H, W), all False where there is none.
        threshold: From here on a pixel, and an image, is flagged.
        top: Upper end of the colour scale.
        labels: 0 and 1, of all test images of the category.
        scores: Image scores of them.
        number: Which of them is shown.
        title: Above all.
    """
    fig, (left, middle, right) = style.figure(1, 3, height=4.0, width_ratios=[1.35, 1.35, 1])
    _show(_bare(left), image)
    drawn = _bare(middle).imshow(heat, cmap=style.HEAT, vmin=0, vmax=top)
    for ax, colour in ((left, style.YELLOW), (middle, "white")):
        ax.set_anchor("N")
        if (heat >= threshold).any():
            ax.contour(heat, [threshold], colors=[colour], linewidths=1.3)
        _outline(ax, mask)
    left.set_title("yellow: flagged" + ("; blue: ground truth" if mask.any() else ""))
    middle.set_title("anomaly map")
    fig.colorbar(drawn, ax=middle, location="bottom", shrink=0.9, pad=0.03, label=MAP)
    bins = np.histogram_bin_edges(scores, 30)
    for value, name, colour in ((0, "normal", style.NORMAL), (1, "anomalous", style.ANOMALY)):
        chosen = np.asarray(scores)[np.asarray(labels) == value]
        right.hist(chosen, bins, color=colour, alpha=0.5, label=name)
    right.axvline(threshold, color=style.BLACK, linestyle="--", label="threshold")
    right.axvline(scores[number], color=style.BLACK, linewidth=2.2, label="this image")
    right.set(xlabel="image score", ylabel="images", title="all images of the category")
    right.legend(loc="upper center", bbox_to_anchor=(0.45, -0.24), ncols=2, fontsize=8,
                 columnspacing=1, handlelength=1.4)  # fmt: skip
    fig.suptitle(title, fontsize=11)
    return fig


def _grid(rows: int, columns: int, most: float):
    side = min(most, (style.WIDTH - 0.7) / columns)
    fig, axes = style.figure(
        rows, columns, height=rows * (side + 0.2) + 0.6, width=columns * side + 0.7, squeeze=False
    )
    for ax in axes.flat:
        _bare(ax)
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    return fig, axes, side


def _scale(maps: Sequence[Tensor]) -> Normalize:
    return Normalize(min(float(m.min()) for m in maps), max(float(m.max()) for m in maps))


def _colourbar(fig: Figure, axes: ArrayLike, scale: Normalize) -> None:
    mappable = ScalarMappable(scale, cmap=style.HEAT)
    fig.colorbar(mappable, ax=axes, location="bottom", aspect=40, shrink=0.6, pad=0.01, label=MAP)


def _bare(ax: Axes) -> Axes:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def _show(ax: Axes, image: Tensor) -> None:
    ax.imshow(image.permute(1, 2, 0).clamp(0, 1))


def _outline(ax: Axes, mask: Tensor) -> None:
    if mask.any():
        ax.contour(mask.float(), [0.5], colors=[TRUTH], linewidths=1.2)


def _unit_square(ax: Axes, x: str, y: str) -> None:
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PERCENT)
