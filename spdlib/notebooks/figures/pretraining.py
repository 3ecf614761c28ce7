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
from spdlib.objectives import spd_loss
from spdlib.pretraining.monitors import COLLAPSED_RANK, COLLAPSED_STD

SMOOTH = 8  # steps of the running mean over noisy values
MANY = 12  # values of a line, from which on they are noisy ones
SEEN = 0.1  # of the largest alpha: where a blended patch is outlined
LEAST = 1e-3  # of the unit: a view that hardly differs from its anchor
KINDS = ("weak", "blended")
Histories = Mapping[str, pd.DataFrame]
WEAK, BLENDED = style.NORMAL, style.ANOMALY
COLUMNS = ("strong view", "strong view", "anchor", "positive", "negative", "the answer")
LIMITS = {"std": COLLAPSED_STD, "effective_rank": COLLAPSED_RANK}
WATCHED = {
    "baseline": "baseline's loss",
    "spd": "SPD loss",
    "spd_accuracy": "cosine to the anchor",
    "spot_auroc": "spot-the-difference score (AU-ROC)",
    "std": "spread of features (1: the sphere)",
    "effective_rank": "effective rank of features",
}
COLLAPSING = {"baseline": "loss (-1: the best there is)", "std": "spread (1: the sphere)",
              "effective_rank": "effective rank"}  # fmt: skip


@style.shows("no images to show")
def views(strong: tuple[Tensor, Tensor], triplet: tuple[Tensor, ...], alpha: Tensor) -> Figure:
    """The views of a training step, a row an image; the last column outlines the blended patch.

    Args:
        strong: Two batches of strong views (B, 3, H, W) in [0, 1].
        triplet: Anchor, positive and negative, likewise.
        alpha: SmoothBlend's masks (B, 1, H, W).
    """
    rows = [
        ("", [*images, panels.Picture(images[-1], mask=_patch(mask))])
        for *images, mask in zip(*strong, *triplet, alpha, strict=True)
    ]
    return panels.grid(rows, COLUMNS, side=1.5)


def _patch(alpha: Tensor) -> Tensor:
    """A mask (1, H, W) scaled so that it passes 0.5 where the patch can be seen."""
    return alpha[0] / (2 * SEEN * alpha.max())


@style.shows()
def losses(cases: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> Figure:
    """The SPD loss of unit vectors in the plane, and where its gradient would move them.

    Args:
        cases: Anchor, positive and negative, each (2,), by what they show.
    """
    fig, axes = style.figure(1, len(cases), 2.9, squeeze=False)
    colours, exact = (style.BLACK, WEAK, BLENDED), {"angles": "xy", "scale_units": "xy", "scale": 1}
    for ax, (title, vectors) in zip(axes[0], cases.items(), strict=True):
        # Leaves of their own, so that one vector may stand for two.
        leaves = [vector.detach().clone()[None].requires_grad_() for vector in vectors]
        loss = spd_loss(*leaves)
        steps = -0.5 * torch.cat(torch.autograd.grad(loss, leaves)).numpy()
        tips = torch.cat(leaves).detach().numpy()
        style.bare(ax).set(xlim=(-1.35, 1.35), ylim=(-0.35, 1.3), aspect="equal")
        ax.add_patch(Circle((0, 0), 1, fill=False, edgecolor=style.GREY, alpha=0.5))
        ax.quiver(*np.zeros((2, 3)), *tips.T, color=colours, width=0.013, **exact)
        ax.quiver(*tips.T, *steps.T, color=colours, width=0.008, alpha=0.5, **exact)
        ax.set_title(f"{title}\nSPD loss {loss.item():+.2f}")
    names = zip(COLUMNS[2:5], colours, strict=True)
    keys = [panels.key(name, "-", color=colour, linewidth=3) for name, colour in names]
    pale = panels.key("pale: where a step moves it", "-", color="#BBBBBB")
    panels.legend(fig, [*keys, pale], "outside lower center")
    return fig


@style.shows("no training to show")
def training(histories: Histories) -> Figure:
    """Loss terms, cosines, spot-the-difference score and signs of collapse, against the step.

    Args:
        histories: Tables of :func:`spdlib.pretraining.pretrain`, by method.
    """
    looks = {method: style.method_style(method) for method in histories}
    fig, axes = _against_steps(WATCHED, histories, looks, 5.2)
    cosines, spot = axes[2:4]
    signs, apart = {"positive": WEAK, "negative": BLENDED}, {"of features": "-"}
    panels.legend(fig, spot)
    for method, history in histories.items():
        for name, colour in signs.items():
            look = looks[method] | {"color": colour, "markerfacecolor": colour, "label": None}
            _line(cosines, _known(history, f"cos_{name}"), **look)
        features, projections = (_known(history, f"spot_{k}") for k in ("auroc", "projected"))
        # An auxiliary head compares features, too: nothing of its own to show.
        if len(projections) and not projections.equals(features):
            apart["of projections"] = ":"
            _line(spot, projections, **looks[method] | {"linestyle": ":", "label": None})
    columns = pd.concat([table.dropna(axis=1, how="all") for table in histories.values()]).columns
    if "cos_positive" in columns:
        cosines.legend(handles=[panels.key(k, "-", color=colour) for k, colour in signs.items()])
    if "spd_accuracy" in columns:
        cosines.set_title("accuracy: blended or not")
    if not cosines.lines:
        style.say(cosines, "no SPD term")
    if len(apart) > 1:
        spot.legend(handles=[panels.key(k, line, color="black") for k, line in apart.items()])
    spot.axhline(0.5, color=style.GREY, linewidth=1)
    spot.yaxis.set_major_formatter(panels.PERCENT)
    return fig


@style.shows("no training to show")
def collapse(histories: Histories) -> Figure:
    """A healthy and a broken training: the loss, and what only the features tell.

    Args:
        histories: Logs by name, two or more; the last is drawn as the broken one.
    """
    looks = {name: {"color": style.BLUE, "linestyle": "--"} for name in histories}
    looks[list(histories)[-1]] = {"color": style.VERMILION}
    looks = {name: look | {"label": style.words(name)} for name, look in looks.items()}
    fig, axes = _against_steps(COLLAPSING, histories, looks, 3.0)
    axes[0].legend()
    return fig


def _against_steps(
    titles: Mapping[str, str], histories: Histories, looks: Mapping[str, Any], height: float
) -> tuple[Figure, list[Axes]]:
    """A panel a column of histories, three in a row."""
    fig, axes = panels.side_by_side(list(titles.values()), height, len(titles) // 3)
    for ax, column in zip(axes, titles, strict=True):
        for name, history in histories.items():
            _line(ax, _known(history, column), **looks[name])
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        if not ax.lines and column != "spd_accuracy":
            style.say(ax, "no SPD term" if column.startswith("spd") else "not measured")
        elif column in LIMITS:
            ax.axhline(LIMITS[column], color=style.GREY, linestyle=":")
            ax.text(1, LIMITS[column], "collapsed below", transform=ax.get_yaxis_transform(),
                    ha="right", va="bottom", fontsize=8, color=style.GREY)  # fmt: skip
            ax.set_ylim(0, 1.15 * max(np.max(line.get_ydata()) for line in ax.lines))
    fig.supxlabel("step", fontsize=10)
    return fig, axes


def _known(history: pd.DataFrame, column: str) -> pd.Series:
    """A column's values by step, where there are any."""
    values = history.set_index("step").get(column, pd.Series(dtype=float))
    return values.dropna().astype(float)


def _line(ax: Axes, values: pd.Series, **look: Any) -> None:
    """Draws values, if there are any; many of them pale, and their running mean."""
    if len(values) > MANY:
        ax.plot(values.index, values, color=look["color"], linewidth=0.7, alpha=0.4)
        values = values.rolling(SMOOTH, center=True, min_periods=1).mean()
        look["markevery"] = max(1, len(values) // 5)
    if len(values):
        ax.plot(values.index, values, **{"linewidth": 2, "markersize": 6} | look)


@style.shows("no encoder to show")
def spot_scores(table: pd.DataFrame) -> Figure:
    """Spot-the-difference scores with their intervals, a panel a metric, a row an encoder.

    Args:
        table: Columns ``method``, ``metric``, ``value``, ``low`` and ``high``.
    """
    rows = table.assign(note=(100 * table.value).map("{:.1f}".format))
    least = min(0.48, table.low.min() - 0.02)
    text = "with 95 % bootstrap interval; line: guessing"
    return panels.intervals(rows, text, mark=0.5, xlim=(least, 1.02))


@style.shows("no encoder to show")
def distances(spots: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Distances of weak and blended views from their anchors, a panel an encoder, a dot an image.

    The unit is the median distance between two images of the set, so that encoders whose
    distances differ in scale can be compared. Below a thousandth the axis ends.

    Args:
        spots: Results of :func:`spdlib.pretraining.monitors.spot_the_difference`, by method.
    """
    pairs, titles = [], []
    for method, spot in spots.items():
        weak, blended = (spot[kind] / unit(spot["features"]) for kind in KINDS)
        pairs.append(np.stack([weak, blended]).clip(LEAST))
        name = style.words(style.method_name(method), 22)
        titles.append(f"{name}\nblended farther: {np.mean(blended > weak):.0%}")
    ends = np.min(pairs) / 1.5, np.max(pairs) * 1.5
    height = min(3.8, 1.5 + 7 / len(spots))  # panels are square
    fig, axes = panels.side_by_side(titles, height, sharex=True, sharey=True)
    for ax, pair in zip(axes, pairs, strict=True):
        ax.plot(ends, ends, color=style.GREY, linewidth=1)
        ax.plot(*pair, ".", color=style.BLACK, markersize=4, alpha=0.5)
        ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
        panels.both_axes(ax, panels.PLAIN)
    axes[0].set_ylabel("distance of the blended view")
    fig.supxlabel("distance of the weak view (1: the median distance of two images)", fontsize=10)
    return fig


def unit(features: Tensor) -> float:
    """Median cosine distance between two different rows of features (N, D); 1 for a single row."""
    between = F.pdist(F.normalize(features.float(), dim=1)) ** 2 / 2
    return max(float(between.median()), 1e-7) if len(between) else 1.0


@style.shows("no images to show")
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
        first = panels.Picture(queries[query], title=str(name))
        for method, (images, kinds) in found.items():
            cells = [first]
            for image, kind in zip(images[query], kinds[query], strict=True):
                colour = style.GREEN if kind == name else style.ORANGE
                title = str(kind) if kind != name or first.title else ""
                cells.append(panels.Picture(image, title=title, colour=colour, frame=colour))
            rows.append((style.method_name(method), cells))
            first = panels.Picture()
    return panels.grid(rows, side=0.8)


@style.shows()
def spot_game(
    triplet: tuple[Tensor, ...], alpha: Tensor, found: Mapping[str, panels.Point], answer: bool
) -> Figure:
    """One triplet to look at, and the distances that encoders see in it.

    Args:
        triplet: Anchor, positive and negative (3, H, W) in [0, 1].
        alpha: SmoothBlend's mask (1, H, W).
        found: Distances of positive and negative to the anchor by method, in units as in
            :func:`distances`.
        answer: Outline the blended patch.
    """
    fig, (*pictures, ax) = style.figure(1, 4, 3.0, width_ratios=[1, 1, 1, 1.25])
    masks = (None, None, _patch(alpha) if answer else None)
    for place, image, mask, title in zip(pictures, triplet, masks, COLUMNS[2:5], strict=True):
        panels.show(place, panels.Picture(image, mask=mask, title=title))
        place.set_anchor("N")
    heights, (weak, blended) = np.arange(len(found)), np.maximum(list(found.values()), LEAST).T
    ax.hlines(heights, weak, blended, color=style.GREY, linewidth=1.5, zorder=1)
    ax.plot(weak, heights, "o", color=WEAK, markersize=8, label="positive")
    ax.plot(blended, heights, "D", color=BLENDED, markersize=8, label="negative")
    for height, (near, far) in enumerate(found.values()):
        middle, seen = np.sqrt(weak * blended)[height], "spotted" if far > near else "missed"
        panels.note(ax, seen, (middle, height), (0, 8), fontsize=9, ha="center")
    ax.set(xscale="log", xlabel="distance to the anchor\n(1: another image)", xlim=(LEAST, 5))
    panels.name_rows(ax, [style.method_name(name) for name in found])
    ax.xaxis.set_major_formatter(panels.PLAIN)
    panels.legend(fig, ax, "outside lower right")
    return fig
