"""Figures of two-class training: protocols, shots, paired differences, predicted masks, errors."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator
from numpy.typing import ArrayLike
from torch import Tensor

from spdlib.notebooks.figures import panels, style
from spdlib.notebooks.figures.panels import Picture
from spdlib.notebooks.figures.style import words

# Where an image goes: trained on (by class), left aside, tested on (by class, pale).
TRAINED = {0: style.NORMAL, 1: style.ANOMALY}
TESTED = {0: "#BFDCEC", 1: "#F3D0B5"}
ASIDE = "#E6E6E6"
GOES = {"train": TRAINED, "test": TESTED, "aside": {0: ASIDE, 1: ASIDE}}
HIGH = "high-shot"
STEPS = colormaps[style.HEAT].resampled(10)  # steps of 10 %: many small maps stay small files
RIGHT, EXTRA, MISSED = style.GREEN, style.ORANGE, style.SKY


def protocols(table: pd.DataFrame, splits: Mapping[str, pd.DataFrame]) -> Figure:
    """Use of each image: a thin line each, normal ones first, a row a protocol.

    Args:
        table: All images, one row each.
        splits: Tables of the same images by protocol; an image in none of the splits is aside.
    """
    if not splits or table.empty:
        return panels.nothing("no split to show")
    fig, ax = style.figure(height=1.2 + 0.42 * len(splits))
    goes = pd.DataFrame(
        {
            name: table.path.map(dict(zip(split.path, split.split, strict=True))).fillna("aside")
            for name, split in splits.items()
        }
    )
    # Within a class, images that more protocols train on come first: draws are nested.
    ordered = goes.assign(
        label=table.label, train=-(goes == "train").sum(axis=1), test=(goes == "test").sum(axis=1)
    ).sort_values(["label", "train", "test"], kind="stable")
    for row, name in enumerate(splits):
        kinds = zip(ordered[name], ordered.label, strict=True)
        strip = [[to_rgb(GOES[kind][label]) for kind, label in kinds]]
        ax.imshow(strip, extent=(0, len(table), row + 0.36, row - 0.36), aspect="auto")
    normal, count = int((table.label == 0).sum()), len(table)
    panels.bare(ax).axvline(normal, color=style.BLACK, linewidth=1)
    panels.name_rows(ax, list(splits))
    texts = f"{normal:,} normal images", f"{count - normal:,} anomalous images"
    ax.set_xticks([normal / 2, (normal + count) / 2], texts)
    ax.set_xlim(0, count)
    ax.tick_params(length=0)
    handles = [
        Patch(color=GOES[kind][label], label=f"{kind}, {name}")
        for kind in ("train", "test")
        for label, name in enumerate(panels.CLASSES)
    ]
    panels.legend(fig, [*handles, Patch(color=ASIDE, label="not used")])
    return fig


def draw(images: Tensor, labels: Sequence[int], title: str) -> Figure:
    """The images of one draw: normal ones above, anomalous ones below.

    Args:
        images: (N, 3, H, W) in [0, 1].
        labels: 0 and 1, one an image.
        title: Above all.
    """
    rows = [
        (name, [image for image, label in zip(images, labels, strict=True) if label == value])
        for value, name in enumerate(panels.CLASSES)
    ]
    fig = panels.grid(rows, side=1.7)
    fig.set_figheight(fig.get_figheight() + 0.3)
    fig.suptitle(words(title, int(12 * fig.get_figwidth()), 2), fontsize=10.5)
    return fig


def losses(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """The loss of each training, iteration by iteration, smoothed over five.

    Args:
        histories: As ``spdlib.twoclass.train`` returns them, by pretraining and, after a
            slash, task: ``"simsiam_spd/detection"``.
    """
    if not histories:
        return panels.nothing("no training to show")
    names = [name.rpartition("/")[::2] for name in histories]
    tasks = list(dict.fromkeys(task for _, task in names))
    titles = {"detection": "classifier: cross-entropy", "segmentation": "U-Net: focal loss"}
    fig, axes = style.figure(1, len(tasks), height=2.8, squeeze=False)
    axes = dict(zip(tasks, axes[0], strict=True))
    for (method, task), history in zip(names, histories.values(), strict=True):
        look = style.method_style(method) | {"marker": None, "linewidth": 1.8}
        axes[task].plot(history.iteration, history.loss.rolling(5, min_periods=1).mean(), **look)
    for task, ax in axes.items():
        ax.set(xlabel="iteration", ylabel="training loss", title=titles.get(task, task),
               yscale="log")  # fmt: skip
        ax.legend()
    return fig


def shots(curves: pd.DataFrame, lines: pd.DataFrame, metric: str = "AU-PR") -> Figure:
    """A result against the number of labelled images of each class, a panel a pretraining.

    Args:
        curves: Columns ``method``, ``shots`` (a number, or "high-shot"), ``mean``, ``low``,
            ``high``.
        lines: The same of the one-class detector; all numbers of shots share its line.
        metric: The metric shown.
    """
    methods = list(curves.method.unique())
    if not methods:
        return panels.nothing("no result to show")
    few = sorted({k for k in curves.shots if k != HIGH}) or [1]
    # Numbers stand on a logarithmic axis; the high-shot split, apart, at its right end.
    last = few[-1] * 3.2
    fig, axes = style.figure(1, len(methods), height=3.7, sharey=True, squeeze=False)
    for ax, method in zip(axes[0], methods, strict=True):
        own, line = curves[curves.method == method], lines[lines.method == method]
        numbers, look = own[own.shots != HIGH].sort_values("shots"), style.method_style(method)
        x = numbers.shots.to_numpy(float)
        low, high = numbers.low.clip(0), numbers.high.clip(upper=1)
        ax.fill_between(x, low, high, color=look["color"], alpha=0.18, linewidth=0)
        ax.plot(x, numbers["mean"], **look)
        for row in own[own.shots == HIGH].itertuples():
            ax.vlines(last, row.low, row.high, color=look["color"], linewidth=2)
            ax.plot(last, row.mean, **look | {"marker": "D"})
        for chosen, *reach in (
            (line.shots != HIGH, few[0] / 1.2, few[-1] * 1.2),
            (line.shots == HIGH, last / 1.35, last * 1.35),
        ):
            for row in line[chosen].head(1).itertuples():
                ax.plot(reach, [row.mean] * 2, color=style.BLACK, linewidth=1.8)
                ax.fill_between(reach, row.low, row.high, color=style.BLACK, alpha=0.1, lw=0)
        title = words(style.method_name(method), int(75 / len(methods)), 2)
        ax.set(xscale="log", title=title, xlim=(few[0] / 1.5, last * 1.6))
        ax.xaxis.set_major_locator(FixedLocator([*few, last]))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xticklabels([*map(str, few), "high"])
        ax.grid(axis="y", alpha=0.3)
    axes[0, 0].yaxis.set_major_formatter(panels.PERCENT)
    axes[0, 0].set_ylabel(f"{metric} on test images")
    handles = [
        panels.key("two-class, few-shot", "-", color=style.GREY, marker="o"),
        panels.key("two-class, high-shot", "-", color=style.GREY, marker="D"),
        panels.key("PaDiM, one-class", "-", color=style.BLACK),
    ]
    panels.legend(fig, handles)
    fig.supxlabel("labelled images of each class (high: the high-shot split)", fontsize=9.5)
    return fig


def differences(table: pd.DataFrame, baseline: str = "imagenet", metric: str = "AU-PR") -> Figure:
    """Paired differences to a baseline with their intervals, a panel a protocol.

    Args:
        table: Columns ``protocol``, ``method``, ``mean``, ``low``, ``high``.
        baseline: The pretraining that others are compared with.
        metric: The metric shown.
    """
    rows = table.rename(columns={"mean": "value", "protocol": "panel"})
    rows = rows.assign(row=rows.method.map(style.method_name))
    than = words(style.method_name(baseline))
    label = f"{metric} less that of {than}, percentage points (bar: 95 %)"
    return panels.intervals(rows, label, mark=0, form=panels.POINTS)


def masks(
    images: Tensor, truth: Tensor, maps: Mapping[str, ArrayLike], titles: Sequence[str]
) -> Figure:
    """Images, their masks and the masks that models predict, a column an image.

    Args:
        images: (N, 3, H, W) in [0, 1].
        truth: Masks (N, H, W).
        maps: Probabilities (N, H, W) in [0, 1] by the name of the row.
        titles: Titles of the columns.
    """
    rows = {"image": list(images), "ground truth": list(truth)} | {
        name: [Picture(heat=heat, mask=mask) for heat, mask in zip(heats, truth, strict=True)]
        for name, heats in maps.items()
    }
    scale = ScalarMappable(Normalize(0, 1), STEPS)
    label = "predicted (outlined: ground truth)"
    fig = panels.grid(rows.items(), titles, 1.4, scale=scale, label=label)
    fig.axes[-1].xaxis.set_major_formatter(panels.PERCENT)
    return fig


def mistakes(
    images: Sequence[Tensor], labels: ArrayLike, scores: ArrayLike, threshold: float, count: int = 6
) -> Figure:
    """The images that a classifier gets most wrong: normal ones above, anomalies below.

    Args:
        images: Returns the pixels (3, H, W) of the image with a number.
        labels: 0 and 1.
        scores: One an image.
        threshold: From here on an image is flagged; titles say on which side each is.
        count: Images of each class.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    rows = []
    for value, name in enumerate(panels.CLASSES):
        of_class = np.flatnonzero(labels == value)
        order = scores[of_class] if value else -scores[of_class]
        cells = []
        for i in of_class[np.argsort(order, kind="stable")][:count]:
            flagged = int(scores[i] >= threshold)
            title = f"{panels.VERDICTS[value][flagged]}\nlog odds {scores[i]:+.1f}"
            colour = style.VERMILION if flagged != value else style.BLACK
            cells.append(Picture(images[int(i)], title=title, colour=colour))
        rows.append((name, cells))
    return panels.grid(rows, side=1.4)


def overlay(image: Tensor, truth: Tensor, probability: ArrayLike, threshold: float) -> Figure:
    """One image, its predicted probabilities, and the mask that a threshold makes of them.

    Args:
        image: (3, H, W) in [0, 1].
        truth: Its mask (H, W).
        probability: (H, W), in [0, 1].
        threshold: From here on a pixel is marked.
    """
    truth, probability = np.asarray(truth, bool), np.asarray(probability)
    marked = probability >= threshold
    cells = [Picture(image, mask=truth), Picture(heat=probability, mask=truth), image]
    titles = ("image and ground truth", "predicted", _verdict(truth, marked))
    fig = panels.grid([("", cells)], titles, side=3)
    layer = np.zeros((*truth.shape, 4))
    layer[marked & truth] = to_rgba(RIGHT, 0.8)
    layer[marked & ~truth] = to_rgba(EXTRA, 0.8)
    layer[truth & ~marked] = to_rgba(MISSED, 0.8)
    fig.axes[2].imshow(layer)
    fig.set_figheight(fig.get_figheight() + 0.3)
    kinds = {"found": RIGHT, "marked in error": EXTRA, "missed": MISSED}
    handles = [Patch(color=colour, label=name) for name, colour in kinds.items()]
    panels.legend(fig, handles, "outside lower right")
    return fig


def _verdict(truth: np.ndarray, marked: np.ndarray) -> str:
    both = int((truth & marked).sum())
    if not truth.any():
        return f"nothing to find, {int(marked.sum()):,} pixels marked"
    precision = f"{both / marked.sum():.0%}" if marked.any() else "undefined"
    return f"precision {precision}, recall {both / truth.sum():.0%} of pixels"
