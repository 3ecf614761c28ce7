"""Figures of two-class training: protocols, shots, paired differences, predicted masks, errors."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter
from numpy.typing import ArrayLike
from torch import Tensor

from spdlib.notebooks.figures import style

PERCENT = PercentFormatter(1, decimals=0, symbol=" %")
POINTS = PercentFormatter(1, decimals=0, symbol="")
# Where an image goes: trained on (by class), left aside, tested on (by class, pale).
TRAINED = {0: style.NORMAL, 1: style.ANOMALY}
TESTED = {0: "#BFDCEC", 1: "#F3D0B5"}
ASIDE = "#E6E6E6"
HIGH = "high-shot"
STEPS = colormaps[style.HEAT].resampled(10)  # steps of 10 %: many small maps stay small files
RIGHT, EXTRA, MISSED = style.GREEN, style.ORANGE, style.SKY


def protocols(table: pd.DataFrame, splits: Mapping[str, pd.DataFrame]) -> Figure:
    """Which images go where: a thin line each, normal ones first, a row a protocol.

    Args:
        table: All images, one row each.
        splits: Tables of the same images by protocol; what is in none of its splits is aside.
    """
    fig, ax = style.figure(height=1.2 + 0.42 * len(splits))
    ordered = table.sort_values("label", kind="stable")
    strips = [_strip(ordered, split) for split in splits.values()]
    trained, tested = (np.sum([kind == name for kind in strips], 0) for name in ("train", "test"))
    # Within a class, images that more protocols train on come first: draws are nested.
    order = np.lexsort((tested, -trained, ordered.label.to_numpy()))
    labels = ordered.label.to_numpy()[order]
    colours = {"train": TRAINED, "test": TESTED, "aside": {0: ASIDE, 1: ASIDE}}
    pixels = np.array(
        [[to_rgb(colours[kind[i]][label]) for i, label in zip(order, labels, strict=True)]
         for kind in strips]
    )  # fmt: skip
    for row, strip in enumerate(pixels):
        ax.imshow(strip[None], extent=(0, len(table), row + 0.36, row - 0.36), aspect="auto")
    normal = int((labels == 0).sum())
    ax.axvline(normal, color=style.BLACK, linewidth=1)
    ax.set(xlim=(0, len(table)), ylim=(len(splits) - 0.5, -0.5))
    ax.set_yticks(range(len(splits)), list(splits))
    ax.tick_params(axis="y", length=0)
    ax.set_xticks(
        [normal / 2, (normal + len(table)) / 2],
        [f"{normal:,} normal images", f"{len(table) - normal:,} anomalous images"],
    )
    ax.tick_params(axis="x", length=0)
    ax.spines[:].set_visible(False)
    fig.legend(
        handles=[
            Patch(color=TRAINED[0], label="train, normal"),
            Patch(color=TRAINED[1], label="train, anomalous"),
            Patch(color=TESTED[0], label="test, normal"),
            Patch(color=TESTED[1], label="test, anomalous"),
            Patch(color=ASIDE, label="not used"),
        ],
        loc="outside upper center",
        ncols=5,
    )
    return fig


def _strip(table: pd.DataFrame, split: pd.DataFrame) -> np.ndarray:
    return table.path.map(dict(zip(split.path, split.split, strict=True))).fillna("aside").array


def draw(images: Tensor, labels: Sequence[int], title: str) -> Figure:
    """The images of one draw: normal ones above, anomalous ones below.

    Args:
        images: (N, 3, H, W) in [0, 1].
        labels: 0 and 1, one an image.
        title: What they are.
    """
    rows = [[i for i, label in zip(images, labels, strict=True) if label == v] for v in (0, 1)]
    columns = max(map(len, rows))
    fig, axes = style.figure(2, columns, height=2 * style.WIDTH / (columns + 0.5) + 0.5)
    for row, name, shown in zip(axes, ("normal", "anomalous"), rows, strict=True):
        row[0].set_ylabel(name)
        for number, ax in enumerate(row):
            _bare(ax)
            if number < len(shown):
                _show(ax, shown[number])
    fig.suptitle(title, fontsize=10.5)
    return fig


def losses(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """The loss of each training, iteration by iteration, smoothed over five.

    Args:
        histories: As ``spdlib.twoclass.train`` returns them, by pretraining and, after a
            slash, task: ``"simsiam_spd/detection"``.
    """
    tasks = list(dict.fromkeys(name.split("/")[1] for name in histories))
    titles = {"detection": "classifier: cross-entropy", "segmentation": "U-Net: focal loss"}
    fig, axes = style.figure(1, len(tasks), height=2.8, squeeze=False)
    for ax, task in zip(axes[0], tasks, strict=True):
        for name, history in histories.items():
            method, of = name.split("/")
            if of == task:
                line = style.method_style(method) | {"marker": None, "linewidth": 1.8}
                smooth = history.loss.rolling(5, min_periods=1).mean()
                ax.plot(history.iteration, smooth, **line)
        ax.set(
            xlabel="iteration", ylabel="training loss", title=titles.get(task, task), yscale="log"
        )
        ax.legend()
    return fig


def shots(curves: pd.DataFrame, lines: pd.DataFrame, metric: str = "AU-PR") -> Figure:
    """A result against the number of labelled images of each class, a panel a pretraining.

    Args:
        curves: Columns ``method``, ``shots`` (a number, or "high-shot"), ``mean``, ``low``,
            ``high``.
        lines: The same of the one-class detector; all numbers of shots share its line.
        metric: What is shown.
    """
    methods = list(curves.method.unique())
    few = sorted({k for k in curves.shots if k != HIGH})
    # Numbers stand on a logarithmic axis; the high-shot split, apart, at its right end.
    last = few[-1] * 3.2
    fig, axes = style.figure(1, len(methods), height=3.7, sharey=True, squeeze=False)
    for ax, method in zip(axes[0], methods, strict=True):
        own = curves[curves.method == method]
        numbers = own[own.shots != HIGH].sort_values("shots")
        x = numbers.shots.to_numpy(float)
        drawn = style.method_style(method)
        low, high = numbers.low.clip(0), numbers.high.clip(upper=1)
        ax.fill_between(x, low, high, color=drawn["color"], alpha=0.18, linewidth=0)
        ax.plot(x, numbers["mean"], **drawn | {"label": "two-class: k of each"})
        for row in own[own.shots == HIGH].itertuples():
            reach = [[row.mean - row.low], [row.high - row.mean]]
            style_of = {k: v for k, v in drawn.items() if k not in ("label", "linestyle", "marker")}
            ax.errorbar(last, row.mean, yerr=reach, marker="D", linewidth=2, **style_of)
        line = lines[lines.method == method]
        spans = (
            (line.shots != HIGH, few[0] / 1.2, few[-1] * 1.2),
            (line.shots == HIGH, last / 1.35, last * 1.35),
        )
        for chosen, *reach in spans:
            row = line[chosen].iloc[0]
            ax.plot(reach, [row["mean"]] * 2, color=style.BLACK, linewidth=1.8)
            ax.fill_between(reach, row.low, row.high, color=style.BLACK, alpha=0.1, linewidth=0)
        ax.set(xscale="log", title=style.method_name(method), xlim=(few[0] / 1.5, last * 1.6))
        ax.xaxis.set_major_locator(FixedLocator([*few, last]))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xticklabels([*map(str, few), "high"])
        ax.grid(axis="y", alpha=0.3)
    axes[0, 0].yaxis.set_major_formatter(PERCENT)
    axes[0, 0].set_ylabel(f"{metric} on test images")
    fig.legend(
        handles=[
            Line2D([], [], color=style.GREY, marker="o", label="two-class, few-shot"),
            Line2D([], [], color=style.GREY, marker="D", label="two-class, high-shot"),
            Line2D([], [], color=style.BLACK, linewidth=1.8, label="PaDiM, one-class"),
        ],
        loc="outside upper center",
        ncols=3,
    )
    fig.supxlabel("labelled images of each class (high: the high-shot split)", fontsize=9.5)
    return fig


def differences(table: pd.DataFrame, baseline: str = "imagenet", metric: str = "AU-PR") -> Figure:
    """Paired differences to a baseline with their intervals, a panel a protocol.

    Args:
        table: Columns ``protocol``, ``method``, ``mean``, ``low``, ``high``.
        baseline: The pretraining that others are compared with.
        metric: What is shown.
    """
    protocols, methods = list(table.protocol.unique()), list(table.method.unique())
    fig, axes = style.figure(
        1, len(protocols), height=1.15 + 0.4 * len(methods), sharex=True, sharey=True, squeeze=False
    )
    for ax, protocol in zip(axes[0], protocols, strict=True):
        rows = table[table.protocol == protocol].set_index("method")
        for height, method in enumerate(methods):
            if method in rows.index:
                row = rows.loc[method]
                drawn = style.method_style(method)
                drawn = {k: v for k, v in drawn.items() if k not in ("label", "linestyle")}
                reach = [[row["mean"] - row.low], [row.high - row["mean"]]]
                ax.errorbar(row["mean"], height, xerr=reach, linewidth=2, markersize=7, **drawn)
        ax.axvline(0, color=style.GREY, linewidth=1)
        ax.set_title(protocol)
        ax.xaxis.set_major_formatter(POINTS)
        ax.grid(axis="x", alpha=0.3)
    axes[0, 0].set_yticks(range(len(methods)), [style.method_name(name) for name in methods])
    axes[0, 0].set_ylim(len(methods) - 0.5, -0.5)
    than = style.method_name(baseline)
    fig.supxlabel(f"{metric} less that of {than}, percentage points (bar: 95 %)", fontsize=9.5)
    return fig


def masks(
    images: Tensor, truth: Tensor, maps: Mapping[str, ArrayLike], titles: Sequence[str]
) -> Figure:
    """Images, their masks and what models predict, a column an image.

    Args:
        images: (N, 3, H, W) in [0, 1].
        truth: Masks (N, H, W).
        maps: Probabilities (N, H, W) in [0, 1] by the name of the row.
        titles: Of the columns.
    """
    rows, columns = 2 + len(maps), len(images)
    side = (style.WIDTH - 1.1) / columns
    fig, axes = style.figure(rows, columns, height=rows * side + 0.9, squeeze=False)
    for row, name in zip(axes, ["image", "ground truth", *maps], strict=True):
        row[0].set_ylabel(name, fontsize=9)
        for ax in row:
            _bare(ax)
    for column in range(columns):
        _show(axes[0, column], images[column])
        axes[0, column].set_title(titles[column], fontsize=9)
        axes[1, column].imshow(truth[column], cmap="gray", vmin=0, vmax=1)
        for ax, probability in zip(axes[2:, column], maps.values(), strict=True):
            ax.imshow(probability[column], cmap=STEPS, vmin=0, vmax=1)
            if truth[column].any():
                ax.contour(truth[column].float(), [0.5], colors=[style.SKY], linewidths=0.9)
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    bar = fig.colorbar(
        ScalarMappable(cmap=STEPS), ax=axes, location="bottom", aspect=40, shrink=0.6, pad=0.01
    )
    bar.set_label("predicted (outlined: ground truth)")
    bar.ax.xaxis.set_major_formatter(PERCENT)
    return fig


def mistakes(
    images: Sequence[Tensor], labels: ArrayLike, scores: ArrayLike, threshold: float, count: int = 6
) -> Figure:
    """What a classifier gets most wrong: normal images above, anomalies below.

    Args:
        images: Returns the pixels (3, H, W) of the image with a number.
        labels: 0 and 1.
        scores: One an image.
        threshold: From here on an image is flagged; titles say on which side each is.
        count: Images of each class.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    fig, axes = style.figure(2, count, height=2 * style.WIDTH / (count + 0.4) + 0.9, squeeze=False)
    for row, value, sign, name in ((axes[0], 0, -1, "normal"), (axes[1], 1, 1, "anomalous")):
        of_class = np.flatnonzero(labels == value)
        worst = of_class[np.argsort(sign * scores[of_class], kind="stable")][:count]
        row[0].set_ylabel(name)
        for ax in row:
            _bare(ax)
        for ax, i in zip(row, worst, strict=False):
            _show(ax, images[int(i)])
            flagged = scores[i] >= threshold
            verdict = ("passed", "false alarm") if value == 0 else ("missed", "found")
            wrong = flagged != bool(value)
            ax.set_title(f"{verdict[int(flagged)]}\nlog odds {scores[i]:+.1f}", fontsize=8.5,
                         color=style.VERMILION if wrong else style.BLACK)  # fmt: skip
    return fig


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
    fig, axes = style.figure(1, 3, height=3.7)
    titles = ("image and ground truth", "predicted", _verdict(truth, marked))
    for ax, title in zip(axes, titles, strict=True):
        _bare(ax).set_title(title)
    for ax in axes[[0, 2]]:
        _show(ax, image)
    axes[1].imshow(probability, cmap=style.HEAT, vmin=0, vmax=1)
    if truth.any():
        for ax in axes[:2]:
            ax.contour(truth.astype(float), [0.5], colors=[style.SKY], linewidths=1.3)
    for where, colour in (
        (marked & truth, RIGHT),
        (marked & ~truth, EXTRA),
        (truth & ~marked, MISSED),
    ):
        layer = np.zeros((*truth.shape, 4))
        layer[where] = (*to_rgb(colour), 0.8)
        axes[2].imshow(layer)
    fig.legend(
        handles=[Patch(color=c, label=t) for c, t in
                 ((RIGHT, "found"), (EXTRA, "marked in error"), (MISSED, "missed"))],
        loc="outside lower right", ncols=3,
    )  # fmt: skip
    return fig


def _verdict(truth: np.ndarray, marked: np.ndarray) -> str:
    both = int((truth & marked).sum())
    if not truth.any():
        return f"nothing to find, {int(marked.sum()):,} pixels marked"
    precision = f"{both / marked.sum():.0%}" if marked.any() else "undefined"
    return f"precision {precision}, recall {both / truth.sum():.0%} of pixels"


def _bare(ax: Axes) -> Axes:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def _show(ax: Axes, image: Tensor) -> None:
    ax.imshow(image.permute(1, 2, 0).clamp(0, 1))
