"""Figures of two-class training: protocols, shots, paired differences, predicted masks, errors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from spdlib.notebooks.figures import padim, panels, style

# Where an image goes: trained on (by class), tested on (by class, pale), left aside.
GOES = {"train, normal": style.NORMAL, "train, anomalous": style.ANOMALY,
        "test, normal": "#BFDCEC", "test, anomalous": "#F3D0B5", "not used": "#E6E6E6"}  # fmt: skip
SPLITS = {"train": 0, "test": 2}
HIGH = "high-shot"
STEPS = colormaps[style.HEAT].resampled(10)  # steps of 10 %: many small maps stay small files
MARKED = {"found": style.GREEN, "marked in error": style.ORANGE, "missed": style.SKY}
TITLES = {"detection": "classifier: cross-entropy", "segmentation": "U-Net: focal loss"}


@style.shows("no split to show")
def protocols(table: pd.DataFrame, splits: Mapping[str, pd.DataFrame]) -> Figure:
    """Use of each image: a thin line each, normal ones first, a row a protocol.

    Args:
        table: All images, one row each.
        splits: Tables of the same images by protocol; an image in none of the splits is aside.
    """
    goes = {name: table.path.map(split.set_index("path").split) for name, split in splits.items()}
    goes = pd.DataFrame(goes)
    # Within a class, images that more protocols train on come first: draws are nested.
    train, test = ((goes == name).sum(axis=1) for name in SPLITS)
    order = np.lexsort([test, -train, table.label])
    kinds = goes.replace(SPLITS).astype(float).add(table.label, axis=0).fillna(4).iloc[order]
    normal, count = int((table.label == 0).sum()), len(table)
    fig, ax = style.figure(height=1.2 + 0.42 * len(splits))
    ax.imshow(kinds.T, ListedColormap(list(GOES.values())), aspect="auto", vmin=0, vmax=4,
              interpolation="nearest", extent=(0, count, len(splits) - 0.5, -0.5))  # fmt: skip
    style.bare(ax).axvline(normal, color=style.BLACK, linewidth=1)
    panels.name_rows(ax, list(splits))
    ax.hlines(np.arange(len(splits) + 1) - 0.5, 0, count, color="white", linewidth=6)
    texts = f"{normal:,} normal images", f"{count - normal:,} anomalous images"
    ax.set_xticks([normal / 2, (normal + count) / 2], texts)
    ax.tick_params(length=0)
    panels.legend(fig, [Patch(color=colour, label=name) for name, colour in GOES.items()])
    return fig


@style.shows("no images to show")
def draw(images: Tensor, labels: Sequence[int], title: str) -> Figure:
    """The images of one draw: normal ones above, anomalous ones below.

    Args:
        images: (N, 3, H, W) in [0, 1].
        labels: 0 and 1, one an image.
        title: Title of the first row's first image, above all.
    """
    of_class = [images[np.asarray(labels) == value] for value in (0, 1)]
    fig = panels.grid(list(zip(panels.CLASSES, of_class, strict=True)), side=1.7)
    fig.suptitle(style.words(title, int(12 * fig.get_figwidth()), 2), fontsize=10.5)
    return fig


@style.shows("no training to show")
def losses(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """The loss of each training, iteration by iteration, smoothed over five.

    Args:
        histories: Tables of ``spdlib.twoclass.train``, by pretraining and, after a
            slash, task: ``"simsiam_spd/detection"``.
    """
    tasks = list(dict.fromkeys(name.rpartition("/")[2] for name in histories))
    fig, axes = panels.side_by_side([TITLES[task] for task in tasks], 2.8)
    for name, history in histories.items():
        method, _, task = name.rpartition("/")
        look = style.method_style(method) | {"marker": "", "linewidth": 1.8}
        ax = axes[tasks.index(task)]
        ax.plot(history.iteration, history.loss.rolling(5, min_periods=1).mean(), **look)
        ax.set(xlabel="iteration", ylabel="training loss", yscale="log")
        ax.legend()
    return fig


@style.shows("no result to show")
def shots(curves: pd.DataFrame, lines: pd.DataFrame) -> Figure:
    """AU-PR against the number of labelled images of each class, a panel a pretraining.

    Args:
        curves: Columns ``method``, ``shots`` (a number, or "high-shot"), ``mean``, ``low``,
            ``high``.
        lines: The same of the one-class detector; all numbers of shots share its line.
    """
    methods = list(curves.method.unique())
    few = sorted({k for k in curves.shots if k != HIGH}) or [1]
    # Numbers stand on a logarithmic axis; the high-shot split, apart, at its right end.
    last = few[-1] * 3.2
    reach = {False: (few[0] / 1.2, few[-1] * 1.2), True: (last / 1.35, last * 1.35)}
    fig, axes = panels.side_by_side([*map(style.method_name, methods)], 3.7, sharey=True)
    for ax, method in zip(axes, methods, strict=True):
        own, line = (table[table.method == method] for table in (curves, lines))
        look, black = style.method_style(method), {"color": style.BLACK}
        _band(ax, own[own.shots != HIGH].sort_values("shots"), look)
        _band(ax, own[own.shots == HIGH].assign(shots=last), look | {"marker": "D"})
        for high, ends in reach.items():
            level = line[(line.shots == HIGH) == high].head(1)
            _band(ax, pd.concat([level, level]).assign(shots=ends[: 2 * len(level)]), black)
        ax.set(xscale="log", xlim=(few[0] / 1.5, last * 1.6))
        ax.set_xticks([*few, last], [*map(str, few), "high"])
        ax.set_xticks([], minor=True)
        ax.grid(axis="y", alpha=0.3)
    axes[0].yaxis.set_major_formatter(panels.PERCENT)
    axes[0].set_ylabel("AU-PR on test images")
    kinds = {"two-class, few-shot": "o", "two-class, high-shot": "D"}
    keys = [panels.key(name, "-", color=style.GREY, marker=mark) for name, mark in kinds.items()]
    panels.legend(fig, [*keys, panels.key("PaDiM, one-class", "-", color=style.BLACK)])
    fig.supxlabel("labelled images of each class (high: the high-shot split)", fontsize=9.5)
    return fig


def _band(ax: Axes, rows: pd.DataFrame, look: dict[str, Any]) -> None:
    """Means against shots, in a band of their intervals; with a bar if there is only one."""
    x = rows.shots.astype(float)
    if len(rows) > 1:
        ends = rows.low.clip(0), rows.high.clip(upper=1)
        ax.fill_between(x, *ends, color=look["color"], alpha=0.15, linewidth=0)
    else:
        ax.vlines(x, rows.low, rows.high, color=look["color"], linewidth=2)
    ax.plot(x, rows["mean"], **look)


@style.shows("nothing to compare")
def differences(table: pd.DataFrame, baseline: str = "imagenet") -> Figure:
    """Paired differences to a baseline with their intervals, a panel a protocol.

    Args:
        table: Columns ``protocol``, ``method``, ``mean``, ``low``, ``high``.
        baseline: The pretraining that others are compared with.
    """
    than = style.words(style.method_name(baseline))
    label = f"AU-PR less that of {than}, percentage points (bar: 95 %)"
    rows = table.rename(columns={"protocol": "panel"})
    return panels.intervals(rows, label, mark=0, form=panels.POINTS)


@style.shows("no images to show")
def masks(
    images: Tensor, truth: Tensor, maps: Mapping[str, panels.Array], titles: Sequence[str]
) -> Figure:
    """Images, their masks and the masks that models predict, a column an image.

    Args:
        images: (N, 3, H, W) in [0, 1].
        truth: Masks (N, H, W).
        maps: Probabilities (N, H, W) in [0, 1] by the name of the row.
        titles: Titles of the columns.
    """
    text, scale = "predicted (outlined: ground truth)", panels.scale_of(0, 1, STEPS)
    fig = padim.comparison(images, truth, maps, titles, text, scale)
    fig.axes[-1].xaxis.set_major_formatter(panels.PERCENT)
    return fig


@style.shows("no images to show")
def mistakes(
    images: Tensor, labels: np.ndarray, scores: np.ndarray, threshold: float, count: int = 6
) -> Figure:
    """The images that a classifier gets most wrong: normal ones above, anomalies below.

    Args:
        images: (N, 3, H, W) in [0, 1].
        labels: 0 and 1.
        scores: Scores, one an image.
        threshold: Least score of a flagged image; titles say on which side each is.
        count: Images of each class.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    worst = np.argsort(np.where(labels == 1, scores, -scores), kind="stable")
    rows: dict[str, list[panels.Picture]] = {name: [] for name in panels.CLASSES}
    for i in worst:
        kind, flagged = int(labels[i]), int(scores[i] >= threshold)
        title = f"{panels.VERDICTS[kind][flagged]}\nlog odds {scores[i]:+.1f}"
        colour = style.VERMILION if flagged != kind else style.BLACK
        cell = panels.Picture(images[int(i)], title=title, colour=colour)
        rows[panels.CLASSES[kind]].append(cell)
    return panels.grid([(name, cells[:count]) for name, cells in rows.items()], side=1.4)


@style.shows()
def overlay(image: Tensor, mask: Tensor, probability: np.ndarray, threshold: float) -> Figure:
    """One image, its predicted probabilities, and the mask that a threshold makes of them.

    Args:
        image: (3, H, W) in [0, 1].
        mask: Its ground truth (H, W).
        probability: (H, W), in [0, 1].
        threshold: Least probability of a pixel that is marked.
    """
    truth, marked = np.asarray(mask, bool), probability >= threshold
    cells = [panels.Picture(image, mask=truth), panels.Picture(heat=probability, mask=truth), image]
    fig = panels.grid([("", cells)], ("image and ground truth", "predicted", ""), side=2.9)
    inks = np.array([to_rgba("none"), *(to_rgba(colour, 0.8) for colour in MARKED.values())])
    fig.axes[2].imshow(inks[np.select([marked & truth, marked, truth], [1, 2, 3])])
    fig.axes[2].set_title(panels.overlap(truth, marked), fontsize=9)
    keys = [Patch(color=colour, label=name) for name, colour in MARKED.items()]
    panels.legend(fig, keys, "outside lower right")
    return fig
