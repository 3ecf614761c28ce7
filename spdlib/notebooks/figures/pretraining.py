"""Figures of pretraining: views, the SPD loss, what is watched, what the features became."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from spdlib.notebooks.figures import panels, style
from spdlib.notebooks.figures.panels import Picture
from spdlib.objectives import spd_loss
from spdlib.pretraining.monitors import COLLAPSED_RANK, COLLAPSED_STD

SMOOTH = 8  # steps of the running mean over noisy losses
SEEN = 0.1  # of the largest alpha: where a blended patch is outlined
LEAST = 1e-3  # of the unit: a view that hardly differs from its anchor
KINDS = ("weak", "blended")
WEAK, BLENDED = style.NORMAL, style.ANOMALY
COLUMNS = ("strong view", "strong view", "anchor", "positive", "negative", "the answer")


def views(strong: tuple[Tensor, Tensor], triplet: tuple[Tensor, ...], alpha: Tensor) -> Figure:
    """The views of a training step, a row an image; the last column outlines the blended patch.

    Args:
        strong: Two batches of strong views (B, 3, H, W) in [0, 1].
        triplet: Anchor, positive and negative, likewise.
        alpha: SmoothBlend's masks (B, 1, H, W).
    """
    rows = [
        ("", [*images, Picture(images[-1], mask=_patch(mask))])
        for *images, mask in zip(*strong, *triplet, alpha, strict=True)
    ]
    return panels.grid(rows, COLUMNS, side=1.5)


def _patch(alpha: Tensor) -> Tensor:
    """A mask (1, H, W) scaled so that it passes 0.5 where the patch can be seen."""
    return alpha[0] / (2 * SEEN * alpha.max())


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
        panels.bare(ax).set(xlim=(-1.35, 1.35), ylim=(-0.35, 1.3), aspect="equal")
        ax.add_patch(Circle((0, 0), 1, fill=False, edgecolor=style.GREY, alpha=0.5))
        for colour, leaf, move in zip(colours, leaves, moves, strict=True):
            tip, step = leaf[0].detach().numpy(), -0.5 * move[0].numpy()
            exact = {"shrinkA": 0, "shrinkB": 0, "mutation_scale": 14}
            panels.arrow(ax, (0, 0), tip, colour, linewidth=2.2, **exact)
            if np.linalg.norm(step) > 0.02:
                dashed = {"linewidth": 1.2, "linestyle": (0, (2, 1.5))}
                panels.arrow(ax, tip, tip + step, colour, **dashed, **exact)
        ax.set_title(f"{title}\nSPD loss {loss.item():+.2f}")
    keys = [panels.key(name, "-", color=c) for name, c in zip(names, colours, strict=True)]
    keys.append(panels.key("where a step moves it", ":", color=style.GREY))
    panels.legend(fig, keys, "outside lower center")
    return fig


def training(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss terms, cosines, spot-the-difference score and signs of collapse, against the step.

    Args:
        histories: Tables of :func:`spdlib.pretraining.pretrain`, by method.
    """
    if not histories:
        return panels.nothing("no training to show")
    accuracy = any(len(_known(history, "spd_accuracy")) for history in histories.values())
    titles = {
        "baseline": "baseline's loss",
        "spd": "SPD loss",
        "spd_accuracy": "accuracy: blended or not" if accuracy else "cosine to the anchor",
        "spot_auroc": "spot-the-difference score (AU-ROC)",
        "std": "spread of features (1: the sphere)",
        "effective_rank": "effective rank of features",
    }
    fig, axes = style.figure(2, 3, height=5.2)
    of = dict(zip(titles, axes.flat, strict=True))
    spot, apart = of["spot_auroc"], False
    for method, history in histories.items():
        look = {**style.method_style(method), "linewidth": 2}
        for column, ax in of.items():
            draw = _noisy if ax in axes[0] else _watched
            draw(ax, _known(history, column), **look)
        _cosines(of["spd_accuracy"], history)
        # An auxiliary head compares features, too: nothing of its own to show.
        projected = _known(history, "spot_projected")
        if len(projected) and not projected.equals(_known(history, "spot_auroc")):
            _watched(spot, projected, **look | {"linestyle": ":", "label": None})
            apart = True
    panels.legend(fig, spot)
    _limit(of["std"], COLLAPSED_STD)
    _limit(of["effective_rank"], COLLAPSED_RANK)
    spot.axhline(0.5, color=style.GREY, linewidth=1)
    spot.yaxis.set_major_formatter(panels.PERCENT)
    if apart:
        kinds = {"of features": "-", "of projections": ":"}
        spot.legend(handles=[panels.key(k, line, color=style.BLACK) for k, line in kinds.items()])
    for column, ax in of.items():
        ax.set_title(titles[column])
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        if not ax.lines:
            panels.say(ax, "no SPD term")
    fig.supxlabel("step", fontsize=10)
    return fig


def _known(history: pd.DataFrame, column: str) -> pd.Series:
    """A column's values by step, where there are any."""
    values = history.set_index("step").get(column, pd.Series(dtype=float))
    return values.dropna().astype(float)


def _noisy(ax: Axes, values: pd.Series, **look: Any) -> pd.Series:
    """Draws values pale, and their running mean, which is returned."""
    smooth = values.rolling(SMOOTH, center=True, min_periods=1).mean()
    if len(values):
        ax.plot(values.index, values, color=look["color"], linewidth=0.7, alpha=0.4)
        ax.plot(smooth.index, smooth, **look | {"marker": ""})
    return smooth


def _cosines(ax: Axes, history: pd.DataFrame) -> None:
    positive, negative = (
        _noisy(ax, _known(history, f"cos_{name}"), color=colour, linewidth=2, label=name)
        for name, colour in (("positive", WEAK), ("negative", BLENDED))
    )
    if len(positive):
        ax.fill_between(positive.index, positive, negative, color=style.GREY, alpha=0.15, lw=0)
        if ax.get_legend() is None:
            ax.legend()


def _watched(ax: Axes, values: pd.Series, **look: Any) -> None:
    if len(values):
        ax.plot(values.index, values, **{"markersize": 6, **look})


def _limit(ax: Axes, value: float) -> None:
    ax.axhline(value, color=style.GREY, linestyle=":")
    ax.annotate("collapsed below", (1, value), (0, 2), xycoords=("axes fraction", "data"),
                textcoords="offset points", ha="right", fontsize=8, color=style.GREY)  # fmt: skip
    ax.set_ylim(0, 1.15 * max(np.max(line.get_ydata()) for line in ax.lines))


def spot_scores(table: pd.DataFrame) -> Figure:
    """Spot-the-difference scores with their intervals, a panel a metric, a row an encoder.

    Args:
        table: Columns ``method``, ``metric``, ``value``, ``low`` and ``high``.
    """
    rows = table.assign(panel=table.metric, row=table.method.map(style.method_name))
    least = min(0.48, table.low.min() - 0.02)
    text = "with 95 % bootstrap interval; line: guessing"
    return panels.intervals(rows, text, mark=0.5, numbers=True, xlim=(least, 1.02))


def distances(spots: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Distances of weak and blended views from their anchors, a column an encoder.

    The unit is the median distance between two images of the set, so that encoders whose
    distances differ in scale can be compared. Below a thousandth the axis ends.

    Args:
        spots: Results of :func:`spdlib.pretraining.monitors.spot_the_difference`, by method.
    """
    if not spots:
        return panels.nothing("no encoder to show")
    fig, axes = style.figure(2, len(spots), height=5.6, sharex=True, squeeze=False,
                             height_ratios=[1, 1.5])  # fmt: skip
    scaled = {
        name: [np.maximum(spot[kind] / unit(spot["features"]), LEAST) for kind in KINDS]
        for name, spot in spots.items()
    }
    everything = np.concatenate([views for pair in scaled.values() for views in pair])
    ends = everything.min() / 1.5, everything.max() * 1.5
    for (top, bottom), (method, (weak, blended)) in zip(axes.T, scaled.items(), strict=True):
        panels.histogram(top, {"weak view": weak, "blended": blended}, np.geomspace(*ends, 36))
        top.set(title=style.words(style.method_name(method), 22), xscale="log", yticks=[])
        top.spines["left"].set_visible(False)
        bottom.plot(ends, ends, color=style.GREY, linewidth=1)
        bottom.plot(weak, blended, ".", color=style.BLACK, markersize=4, alpha=0.5)
        bottom.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal",
                   xlabel="distance of the weak view")  # fmt: skip
        farther = np.mean(blended > weak)
        bottom.set_title(f"blended farther: {farther:.0%} of images", fontsize=9.5)
        bottom.tick_params(labelleft=bottom is axes[1, 0])
        for axis in (bottom.xaxis, bottom.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
    axes[0, 0].set_ylabel("images")
    axes[1, 0].set_ylabel("distance of the blended view")
    panels.legend(fig, axes[0, 0])
    fig.supxlabel("1: the median distance between two images", fontsize=9.5)
    return fig


def unit(features: Tensor) -> float:
    """Median cosine distance between two different rows of features (N, D); 1 for a single row."""
    directions = F.normalize(features.float(), dim=1)
    above = torch.triu(torch.ones(len(features), len(features), dtype=torch.bool), 1)
    between = (1 - directions @ directions.T)[above]
    return max(float(between.median()), 1e-7) if len(between) else 1.0


def neighbours(
    queries: Tensor, names: Sequence[str], found: Mapping[str, tuple[Tensor, Sequence[str]]]
) -> Figure:
    """Images and their nearest neighbours, a block a query, a row an encoder.

    Args:
        queries: uint8 (Q, 3, H, W).
        names: Name of each query, e.g. its category.
        found: Neighbours (Q, K, 3, H, W), uint8, and their Q times K names, by method. The frame
            of a neighbour named as its query has another colour than that of others.
    """
    rows = []
    for query, name in enumerate(names):
        for place, (method, (images, kinds)) in enumerate(found.items()):
            cells = [Picture(queries[query], title=str(name)) if place == 0 else Picture()]
            for image, kind in zip(images[query], kinds[query], strict=True):
                colour = style.GREEN if kind == name else style.ORANGE
                title = str(kind) if kind != name or place == 0 else ""
                cells.append(Picture(image, title=title, colour=colour, frame=colour))
            rows.append((style.method_name(method), cells))
    return panels.grid(rows)


def collapse(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """A healthy and a broken training: the loss, and what only the features tell.

    Args:
        histories: Two or more, by name; the last is drawn as the broken one.
    """
    fig, axes = style.figure(1, 3, height=3.0)
    columns = {"baseline": "loss (-1: the best there is)", "std": "spread (1: the sphere)",
               "effective_rank": "effective rank"}  # fmt: skip
    for ax, (column, title) in zip(axes, columns.items(), strict=True):
        for number, (name, history) in enumerate(histories.items(), 1):
            broken = number == len(histories)
            look = (
                {"color": style.VERMILION} if broken else {"color": style.BLUE, "linestyle": "--"}
            )
            known = _known(history, column)
            marker = "" if len(known) > 12 else "o"
            _watched(ax, known, marker=marker, linewidth=2, label=style.words(name), **look)
        ax.set_title(title)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    _limit(axes[1], COLLAPSED_STD)
    _limit(axes[2], COLLAPSED_RANK)
    axes[0].legend()
    fig.supxlabel("step", fontsize=10)
    return fig


def spot_game(
    triplet: tuple[Tensor, ...],
    alpha: Tensor,
    found: Mapping[str, tuple[float, float]],
    answer: bool = False,
) -> Figure:
    """One triplet to look at, and the distances that encoders see in it.

    Args:
        triplet: Anchor, positive and negative (3, H, W) in [0, 1].
        alpha: SmoothBlend's mask (1, H, W).
        found: Distances of positive and negative to the anchor by method, in units as in
            :func:`distances`.
        answer: Outline the blended patch.
    """
    fig, (*pictures, ax) = style.figure(1, 4, height=3.0, width_ratios=[1, 1, 1, 1.25])
    shown = [
        Picture(image, title=title) for image, title in zip(triplet, COLUMNS[2:], strict=False)
    ]
    shown[2] = shown[2]._replace(mask=_patch(alpha) if answer else None)
    for place, picture in zip(pictures, shown, strict=True):
        panels.show(place, picture)
        place.set_anchor("N")
    for height, (weak, blended) in enumerate(found.values()):
        seen = "spotted" if blended > weak else "missed"
        weak, blended = max(weak, LEAST), max(blended, LEAST)
        ax.plot([weak, blended], [height, height], color=style.GREY, linewidth=1.5, zorder=1)
        ax.plot(weak, height, "o", color=WEAK, markersize=8, label="positive")
        ax.plot(blended, height, "D", color=BLENDED, markersize=8, label="negative")
        ax.annotate(seen, (np.sqrt(weak * blended), height), (0, 8), fontsize=9, ha="center",
                    textcoords="offset points")  # fmt: skip
    ax.set(xscale="log", xlabel="distance to the anchor\n(1: another image)", xlim=(LEAST, 5))
    panels.name_rows(ax, [style.method_name(name) for name in found])
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panels.legend(fig, ax, "outside lower right")
    return fig
