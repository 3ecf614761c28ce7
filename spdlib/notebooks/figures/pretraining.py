"""Figures of pretraining: views, the SPD loss, what is watched, what the features became."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from torch import Tensor

from spdlib.notebooks.figures import style
from spdlib.objectives import spd_loss
from spdlib.pretraining.monitors import COLLAPSED_RANK, COLLAPSED_STD

PERCENT = PercentFormatter(1, decimals=0, symbol=" %")
SMOOTH = 8  # steps of the running mean over noisy losses
SEEN = 0.1  # of the largest alpha: where a blended patch is outlined
LEAST = 1e-3  # of the unit: a view that hardly differs from its anchor
KINDS = ("weak", "blended")
WEAK, BLENDED = style.NORMAL, style.ANOMALY
COLUMNS = ("strong view", "strong view", "anchor", "positive", "negative", "the answer")


def views(strong: tuple[Tensor, Tensor], triplet: tuple[Tensor, ...], alpha: Tensor) -> Figure:
    """What a training step looks at, a row an image; the last column outlines the blended patch.

    Args:
        strong: Two batches of strong views (B, 3, H, W) in [0, 1].
        triplet: Anchor, positive and negative, likewise.
        alpha: SmoothBlend's masks (B, 1, H, W).
    """
    count, side = len(alpha), (style.WIDTH - 0.2) / len(COLUMNS)
    fig, axes = style.figure(count, len(COLUMNS), height=count * side + 0.3, squeeze=False)
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    for ax, title in zip(axes[0], COLUMNS, strict=True):
        ax.set_title(title)
    for row, batch in enumerate(zip(*strong, *triplet, triplet[2], strict=True)):
        for ax, image in zip(axes[row], batch, strict=True):
            _show(ax, image)
        _outline(axes[row, -1], alpha[row, 0])
    return fig


def losses(cases: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> Figure:
    """The SPD loss of unit vectors in the plane, and where its gradient would move them.

    Args:
        cases: Anchor, positive and negative, each (2,), by what they show.
    """
    fig, axes = style.figure(1, len(cases), height=2.9, squeeze=False)
    names, colours = ("anchor", "positive", "negative"), (style.BLACK, WEAK, BLENDED)
    for ax, (title, vectors) in zip(axes[0], cases.items(), strict=True):
        # Leaves of their own, so that one vector may stand for two.
        leaves = [vector.detach().clone()[None].requires_grad_() for vector in vectors]
        loss = spd_loss(*leaves)
        moves = torch.autograd.grad(loss, leaves)
        ax.add_patch(Circle((0, 0), 1, fill=False, edgecolor=style.GREY, alpha=0.5))
        for name, colour, leaf, move in zip(names, colours, leaves, moves, strict=True):
            tip, step = leaf[0].detach().numpy(), -0.5 * move[0].numpy()
            _arrow(ax, np.zeros(2), tip, colour, 2.2)
            if np.linalg.norm(step) > 0.02:
                _arrow(ax, tip, tip + step, colour, 1.2, linestyle=(0, (2, 1.5)))
            ax.plot([], [], color=colour, linewidth=2.2, label=name)
        ax.set(xlim=(-1.35, 1.35), ylim=(-0.35, 1.3), aspect="equal", xticks=[], yticks=[])
        ax.set_title(f"{title}\nSPD loss {loss.item():+.2f}")
        ax.spines[:].set_visible(False)
    axes[0, 0].plot([], [], ":", color=style.GREY, label="where a step moves it")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig


def training(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss terms, cosines, spot-the-difference score and signs of collapse, against the step.

    Args:
        histories: What :func:`spdlib.pretraining.pretrain` returns, by method.
    """
    fig, axes = style.figure(2, 3, height=5.2)
    (baseline, spd, cosines), (spot, std, rank) = axes
    for method, history in histories.items():
        _noisy(baseline, history, "baseline", method)
        _noisy(spd, history, "spd", method)
        _noisy(cosines, history, "spd_accuracy", method)
        _cosines(cosines, history)
        for ax, column in ((spot, "spot_auroc"), (std, "std"), (rank, "effective_rank")):
            _watched(ax, history, column, method)
        if _projects(history):
            _watched(spot, history, "spot_projected", method, linestyle=":", label=None)
    baseline.set_title("baseline's loss")
    spd.set_title("SPD loss")
    supervised = any(_has(h, "spd_accuracy") for h in histories.values())
    cosines.set_title("accuracy: blended or not" if supervised else "cosine to the anchor")
    spot.set_title("spot-the-difference score (AU-ROC)")
    std.set_title("spread of features (1: the sphere)")
    rank.set_title("effective rank of features")
    _limit(std, COLLAPSED_STD)
    _limit(rank, COLLAPSED_RANK)
    spot.axhline(0.5, color=style.GREY, linewidth=1)
    if any(_projects(history) for history in histories.values()):
        kinds = (("-", "of features"), (":", "of projections"))
        spot.legend(
            handles=[
                Line2D([], [], color=style.BLACK, linestyle=line, linewidth=2, label=name)
                for line, name in kinds
            ]
        )
    spot.yaxis.set_major_formatter(PERCENT)
    for ax in axes.flat:
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        if not ax.lines:
            ax.text(0.5, 0.5, "no SPD term", transform=ax.transAxes, ha="center",
                    color=style.GREY)  # fmt: skip
            ax.set(xticks=[], yticks=[])
    _legend(fig, spot)
    fig.supxlabel("step", fontsize=10)
    return fig


def spot_scores(table: pd.DataFrame) -> Figure:
    """Spot-the-difference scores with their intervals, a panel a metric, a row an encoder.

    Args:
        table: Columns ``method``, ``metric``, ``value``, ``low`` and ``high``.
    """
    names, measures = list(table.method.unique()), list(table.metric.unique())
    fig, axes = style.figure(
        1, len(measures), height=1.2 + 0.38 * len(names), sharey=True, squeeze=False
    )
    for ax, metric in zip(axes[0], measures, strict=True):
        rows = table[table.metric == metric].set_index("method").loc[names]
        for height, (method, row) in enumerate(rows.iterrows()):
            drawn = _style(method) | {"linestyle": "none"}
            reach = [[row.value - row.low], [row.high - row.value]]
            ax.errorbar(row.value, height, xerr=reach, elinewidth=2, markersize=8, **drawn)
            ax.annotate(f"{100 * row.value:.1f}", (row.value, height), (0, 7),
                        textcoords="offset points", ha="center", fontsize=9)  # fmt: skip
        ax.axvline(0.5, color=style.GREY, linestyle=":")
        ax.set(title=metric, xlim=(min(0.48, rows.low.min() - 0.02), 1))
        ax.xaxis.set_major_formatter(PERCENT)
        ax.grid(axis="x", alpha=0.3)
    axes[0, 0].set_yticks(range(len(names)), [style.method_name(name) for name in names])
    axes[0, 0].set_ylim(len(names) - 0.5, -0.7)
    fig.supxlabel("with 95 % bootstrap interval; dotted: guessing", fontsize=9.5)
    return fig


def distances(spots: Mapping[str, Mapping[str, Any]]) -> Figure:
    """How far weak and blended views lie from their anchors.

    The unit is the median distance between two images of the set, so that encoders whose
    distances differ in scale can be compared. Below a thousandth the axis ends.

    Args:
        spots: What :func:`spdlib.pretraining.monitors.spot_the_difference` returns, by method.
    """
    fig, axes = style.figure(2, len(spots), height=5.6, sharex=True, squeeze=False,
                             height_ratios=[1, 1.5])  # fmt: skip
    scaled = {
        name: tuple(np.maximum(spot[kind] / unit(spot["features"]), LEAST) for kind in KINDS)
        for name, spot in spots.items()
    }
    low = min(views.min() for pair in scaled.values() for views in pair) / 1.5
    high = max(views.max() for pair in scaled.values() for views in pair) * 1.5
    bins = np.geomspace(low, high, 36)
    for (top, bottom), (method, (weak, blended)) in zip(axes.T, scaled.items(), strict=True):
        for values, name, colour in ((weak, "weak view", WEAK), (blended, "blended", BLENDED)):
            top.hist(values, bins, color=colour, alpha=0.3)
            top.hist(values, bins, color=colour, histtype="step", linewidth=1.6, label=name)
        top.set(title=style.method_name(method), xscale="log", yticks=[])
        top.spines["left"].set_visible(False)
        bottom.plot([low, high], [low, high], color=style.GREY, linewidth=1)
        bottom.plot(weak, blended, ".", color=style.BLACK, markersize=4, alpha=0.5)
        bottom.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
        farther = np.mean(blended > weak)
        bottom.set_title(f"blended farther: {farther:.0%} of images", fontsize=9.5)
        bottom.set_xlabel("distance of the weak view")
    for ax in axes[1]:
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for ax in axes[1, 1:]:
        ax.tick_params(labelleft=False)
    axes[0, 0].set_ylabel("images")
    axes[1, 0].set_ylabel("distance of the blended view")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    fig.supxlabel("1: the median distance between two images", fontsize=9.5)
    return fig


def unit(features: Tensor) -> float:
    """Median cosine distance between two different rows of features (N, D)."""
    directions = F.normalize(features.float(), dim=1)
    above = torch.triu(torch.ones(len(features), len(features), dtype=torch.bool), 1)
    return max(float((1 - directions @ directions.T)[above].median()), 1e-7)


def neighbours(
    queries: Tensor, names: Sequence[str], found: Mapping[str, tuple[Tensor, Sequence[str]]]
) -> Figure:
    """Images and their nearest neighbours, a block a query, a row an encoder.

    Args:
        queries: uint8 (Q, 3, H, W).
        names: What each query is, e.g. its category.
        found: By method, the neighbours (Q, K, 3, H, W), uint8, and what each is: Q times K
            names. Neighbours named as their query have a frame of another colour than others.
    """
    count = next(iter(found.values()))[0].shape[1]
    side = (style.WIDTH - 1.2) / (count + 1)
    fig, axes = style.figure(
        len(queries) * len(found), count + 1, height=len(queries) * len(found) * side + 0.4
    )
    fig.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    for query, name in enumerate(names):
        for place, (method, (images, kinds)) in enumerate(found.items()):
            row = axes[query * len(found) + place]
            row[0].set_ylabel(style.method_name(method), fontsize=9)
            if place == 0:
                _show(row[0], queries[query])
                row[0].set_title(name, fontsize=9)
            else:
                _bare(row[0])
            for ax, image, kind in zip(row[1:], images[query], kinds[query], strict=True):
                _show(ax, image)
                colour = style.GREEN if kind == name else style.ORANGE
                ax.spines[:].set(visible=True, color=colour, linewidth=2.5)
                if kind != name or place == 0:
                    ax.set_title(kind, fontsize=9, color=colour)
    return fig


def collapse(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """A healthy and a broken training: the loss, and what only the features tell.

    Args:
        histories: Two or more, by name; the last is drawn as the broken one.
    """
    fig, axes = style.figure(1, 3, height=3.0)
    *_, broken = histories
    for name, history in histories.items():
        colour, line = (style.VERMILION, "-") if name == broken else (style.BLUE, "--")
        columns = ("baseline", "std", "effective_rank")
        for ax, column in zip(axes, columns, strict=True):
            known = history[history[column].notna()]
            marker = "" if len(known) > 12 else "o"
            ax.plot(known.step, known[column], color=colour, linestyle=line, linewidth=2,
                    marker=marker, label=name)  # fmt: skip
    axes[0].set_title("loss (-1: the best there is)")
    axes[1].set_title("spread (1: the sphere)")
    axes[2].set_title("effective rank")
    _limit(axes[1], COLLAPSED_STD)
    _limit(axes[2], COLLAPSED_RANK)
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes[0].legend()
    fig.supxlabel("step", fontsize=10)
    return fig


def spot_game(
    triplet: tuple[Tensor, ...],
    alpha: Tensor,
    found: Mapping[str, tuple[float, float]],
    answer: bool = False,
) -> Figure:
    """One triplet to look at, and what encoders make of it.

    Args:
        triplet: Anchor, positive and negative (3, H, W) in [0, 1].
        alpha: SmoothBlend's mask (1, H, W).
        found: By method, the distances of positive and negative to the anchor, in units as in
            :func:`distances`.
        answer: Outline the blended patch.
    """
    fig, axes = style.figure(1, 4, height=3.0, width_ratios=[1, 1, 1, 1.25])
    for ax, image, title in zip(axes, triplet, COLUMNS[2:], strict=False):
        _show(ax, image)
        ax.set_title(title)
        ax.set_anchor("N")
    if answer:
        _outline(axes[2], alpha[0])
    ax = axes[3]
    for height, (weak, blended) in enumerate(found.values()):
        seen = "spotted" if blended > weak else "missed"
        weak, blended = max(weak, LEAST), max(blended, LEAST)
        ax.plot([weak, blended], [height, height], color=style.GREY, linewidth=1.5, zorder=1)
        ax.plot(weak, height, "o", color=WEAK, markersize=8, label="positive")
        ax.plot(blended, height, "D", color=BLENDED, markersize=8, label="negative")
        ax.annotate(seen, (np.sqrt(weak * blended), height), (0, 8), fontsize=9, ha="center",
                    textcoords="offset points")  # fmt: skip
    ax.set(xscale="log", xlabel="distance to the anchor\n(1: another image)", xlim=(LEAST, 5))
    ax.set_yticks(range(len(found)), [style.method_name(name) for name in found])
    ax.set_ylim(len(found) - 0.5, -0.8)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    handles, labels = ax.get_legend_handles_labels()
    fig.legend(handles[:2], labels[:2], loc="outside lower right", ncols=2)
    return fig


def _style(method: str) -> dict[str, Any]:
    return style.method_style(method)


def _has(history: pd.DataFrame, column: str) -> bool:
    return column in history and bool(history[column].notna().any())


def _projects(history: pd.DataFrame) -> bool:
    """Whether the SPD loss compares something else than features: an auxiliary head does not."""
    column = "spot_projected"
    return _has(history, column) and not history[column].equals(history.spot_auroc)


def _noisy(ax: Axes, history: pd.DataFrame, column: str, method: str) -> None:
    if not _has(history, column):
        return
    history = history[history[column].notna()]  # not before the first step
    drawn = _style(method) | {"marker": "", "linewidth": 2}
    ax.plot(history.step, history[column], color=drawn["color"], linewidth=0.7, alpha=0.4)
    ax.plot(history.step, _smooth(history[column]), **drawn)


def _cosines(ax: Axes, history: pd.DataFrame) -> None:
    if not _has(history, "cos_positive"):
        return
    history = history[history.cos_positive.notna()]
    sides = [(history.cos_positive, WEAK, "positive"), (history.cos_negative, BLENDED, "negative")]
    lines = [_smooth(values) for values, _, _ in sides]
    for smooth, (values, colour, name) in zip(lines, sides, strict=True):
        ax.plot(history.step, values, color=colour, linewidth=0.7, alpha=0.4)
        ax.plot(history.step, smooth, color=colour, linewidth=2, label=name)
    ax.fill_between(history.step, *lines, color=style.GREY, alpha=0.15, linewidth=0)
    if ax.get_legend() is None:
        ax.legend()


def _smooth(values: pd.Series) -> pd.Series:
    return values.rolling(SMOOTH, center=True, min_periods=1).mean()


def _watched(ax: Axes, history: pd.DataFrame, column: str, method: str, **other: Any) -> None:
    if _has(history, column):
        known = history[history[column].notna()]
        ax.plot(known.step, known[column], linewidth=2, markersize=6, **_style(method) | other)


def _limit(ax: Axes, value: float) -> None:
    ax.axhline(value, color=style.GREY, linestyle=":")
    ax.annotate("collapsed below", (1, value), (0, 2), xycoords=("axes fraction", "data"),
                textcoords="offset points", ha="right", fontsize=8, color=style.GREY)  # fmt: skip
    ax.set_ylim(0, 1.15 * max(np.max(line.get_ydata()) for line in ax.lines))


def _legend(fig: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        fig.legend(handles, labels, loc="outside upper center", ncols=len(handles))


def _arrow(ax: Axes, start: NDArray, end: NDArray, colour: str, width: float, **drawn) -> None:
    ax.annotate(
        "", end, start,
        arrowprops={"arrowstyle": "->", "color": colour, "linewidth": width, "shrinkA": 0,
                    "shrinkB": 0, "mutation_scale": 14, **drawn},
    )  # fmt: skip


def _bare(ax: Axes) -> Axes:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def _show(ax: Axes, image: Tensor) -> None:
    pixels = image.float() / 255 if image.dtype == torch.uint8 else image
    _bare(ax).imshow(pixels.permute(1, 2, 0).clamp(0, 1))


def _outline(ax: Axes, alpha: Tensor) -> None:
    ax.contour(alpha, [SEEN * float(alpha.max())], colors=[style.SKY], linewidths=1.6)
