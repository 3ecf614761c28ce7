"""Figures of the metrics: curves, ranks, the effect of imbalance, thresholds."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import rankdata

from spdlib import metrics
from spdlib.notebooks.figures import panels, style
from spdlib.notebooks.figures.style import percent, shows

COLOURS = {
    "model A": style.ORANGE, "model B": style.SKY,
    "images, real": style.GREEN, "images, painted": style.BLUE, "pixels, painted": style.VERMILION,
}  # fmt: skip
SHOWN = 8  # images beside a threshold


def look(detector: str) -> dict[str, Any]:
    """Keyword arguments of a detector's line."""
    return {"color": COLOURS.get(detector, style.BLACK), "label": detector}


@shows("no detector to show")
def curves(detectors: panels.Detectors) -> Figure:
    """ROC and precision-recall curves side by side, as in Figs 9 and 10 of Zou et al.

    The dot is the operating point of the best F1; the dotted lines are detectors that guess.

    Args:
        detectors: Labels and scores by the detector's name.
    """
    return panels.curve_rows({"": detectors}, look)


@shows("no detector to show")
def ranks(detectors: panels.Detectors) -> Figure:
    """Places of the anomalies when everything is listed by falling score; ties share a place.

    Args:
        detectors: Labels and scores by the detector's name.
    """
    fig, ax = style.figure(height=0.9 + 0.6 * len(detectors))
    for row, (name, (labels, scores)) in enumerate(detectors.items()):
        places = rankdata(-np.asarray(scores), "min")[np.asarray(labels) == 1]
        colour = look(name)["color"]
        ax.eventplot(places, lineoffsets=row, color=colour, linelengths=0.7, linewidths=1.2)
    longest = max(len(np.ravel(scores)) for _, scores in detectors.values())
    ax.set(xscale="log", xlabel="place in the list, highest score first", xlim=(0.8, longest))
    panels.name_rows(ax, list(detectors))
    return fig


@shows()
def imbalance(table: pd.DataFrame) -> Figure:
    """AU-ROC and AU-PR against the imbalance, a line a detector.

    Args:
        table: Columns ``detector``, ``ratio`` (normal samples an anomaly), ``auroc``, ``aupr``.
    """
    fig, axes = panels.side_by_side(["AU-ROC", "AU-PR (linear)"], 3.4, sharey=True)
    ratios = np.sort(table.ratio.unique())
    guesses = {"auroc": np.full(len(ratios), 0.5), "aupr": 1 / (1 + ratios)}
    for ax, (metric, guess) in zip(axes, guesses.items(), strict=True):
        for detector, rows in table.groupby("detector"):
            ax.plot(rows.ratio, rows[metric], "o-", linewidth=2, **look(detector))
        ax.plot(ratios, guess, ":", color=style.GREY, label="guessing")
        ax.set(xscale="log", xlabel="anomalies : normal samples", ylim=(-0.03, 1.03))
        ax.xaxis.set_major_formatter("1:{x:,.0f}")
        ax.yaxis.set_major_formatter(panels.PERCENT)
    axes[0].legend(loc="lower left")
    return fig


@shows()
def interpolation(labels: panels.Array, levels: Mapping[int, panels.Array]) -> Figure:
    """The same guesses at fewer and fewer distinct scores: AU-PR by lines and by steps.

    Args:
        labels: 0 and 1.
        levels: Scores, by the number of their distinct values; 1 is drawn on the left.
    """
    fig, (left, right) = style.figure(1, 2, 3.4)
    recall, precision, _ = metrics.pr_curve(labels, levels[1])
    prevalence = float(np.mean(np.asarray(labels)))
    left.plot(recall, precision, color=style.ORANGE, linewidth=2)
    panels.dot(left, recall[-1], precision[-1], style.ORANGE)
    panels.unit_axes(left, "recall", "precision")
    left.set_title("one score for all")
    left.fill_between(recall, precision, prevalence, color=style.ORANGE, alpha=0.4, linewidth=0)
    left.fill_between(recall, prevalence, color=style.SKY, alpha=0.4, linewidth=0)
    for function, name, colour, where, height in (
        (metrics.aupr, "AU-PR (linear)", style.ORANGE, "line", 0.4),
        (metrics.average_precision, "average precision (steps)", style.SKY, "step", 0.08),
    ):
        values = [function(labels, scores) for scores in levels.values()]
        left.text(0.08, height, f"under the {where}: {percent(values[list(levels).index(1)])}")
        right.plot(list(levels), values, "o-", color=colour, linewidth=2, label=name)
    right.axhline(prevalence, color=style.GREY, linestyle=":", label="prevalence")
    right.set(xscale="log", ylim=(0, 0.6), xlabel="distinct scores",
              title="guesses rounded to fewer scores")  # fmt: skip
    right.yaxis.set_major_formatter(panels.PERCENT)
    right.legend()
    return fig


def confusion_matrix(ax: Axes, counts: metrics.Confusion) -> None:
    """The four counts, right verdicts blue, wrong ones red, stronger for larger shares."""
    tp, fp, fn, tn = counts
    cells, signs = np.array([[tp, fn], [fp, tn]]), np.array([[1, -1], [-1, 1]])
    # From 0.15 on, so that a cell without samples has a colour, too.
    share = signs * (0.15 + 0.85 * cells / cells.sum(1, keepdims=True))
    texts = [[f"{tp:,}\nfound", f"{fn:,}\nmissed"], [f"{fp:,}\nfalse alarms", f"{tn:,}\npassed"]]
    look = {"cmap": "RdBu", "vmin": -2, "vmax": 2, "cbar": False, "annot_kws": {"color": "black"}}
    sns.heatmap(share, ax=ax, annot=texts, fmt="", square=True, **look)
    ax.set(xticklabels=("flagged", "passed"), yticklabels=("anomalies", "normal"))
    ax.tick_params(length=0, rotation=0)


@shows()
def operating_point(labels: panels.Array, scores: panels.Array, threshold: float) -> Figure:
    """Both curves with the point of a threshold, and its confusion matrix.

    Args:
        labels: 0 and 1.
        scores: Scores, one a sample.
        threshold: Least score of a sample that is flagged.
    """
    if lacking := panels.missing(labels):
        return style.nothing(f"{lacking}: no curve")
    fig, (roc, pr, matrix) = style.figure(1, 3, 3.6)
    found = panels.curves(roc, pr, {"": (labels, scores)}, look, threshold)[""]
    counts = metrics.confusion(labels, scores, threshold)
    precision, recall, f1 = panels.rates(counts)
    roc.set(ylabel="recall", title=f"AU-ROC {percent(found.auroc)}\n")
    steps = f"(steps {percent(found.average_precision)})"
    pr.set_title(f"AU-PR {percent(found.aupr)} {steps}\nbest F1 {percent(found.max_f1)}")
    matrix.set_title(f"precision {percent(precision)}\nrecall {percent(recall)}, F1 {percent(f1)}")
    confusion_matrix(matrix, counts)
    return fig


@shows("no threshold to choose")
def threshold_view(
    labels: np.ndarray, scores: np.ndarray, threshold: float, image: Callable[[int], panels.Array]
) -> Figure:
    """A threshold on the histogram of scores, and the images that it moves.

    Args:
        labels: 0 and 1, one an image.
        scores: Scores, one an image.
        threshold: Least score of an image that is flagged.
        image: Returns the pixels of the image with the given number, (H, W) or (H, W, 3).
    """
    if lacking := panels.missing(labels):
        return style.nothing(f"{lacking}: no threshold to choose")
    labels, scores = np.asarray(labels), np.asarray(scores)
    best = metrics.max_f1(labels, scores).threshold
    fig = Figure(figsize=(style.WIDTH, 4.2), layout="constrained")
    axes = fig.subplot_mosaic("hhhhhhhh;01234567", height_ratios=[1.3, 1])
    histogram = axes.pop("h")
    panels.histogram(histogram, labels, scores, 40)
    histogram.axvline(best, color=style.GREY, linestyle="--", label="best F1")
    histogram.axvline(threshold, color=style.BLACK, linewidth=1.8, label="threshold")
    histogram.set(xlabel="image score", ylabel="images")
    histogram.legend(ncols=2)
    changed = np.flatnonzero((scores >= threshold) != (scores >= best))
    shown = changed if len(changed) else np.arange(len(scores))
    nearest = shown[np.argsort(np.abs(scores[shown] - threshold), kind="stable")][:SHOWN]
    for ax in axes.values():
        style.bare(ax)
    for ax, i in zip(axes.values(), nearest[np.argsort(scores[nearest])], strict=False):
        kind, flagged = int(labels[i]), int(scores[i] >= threshold)
        title, colour = f"{panels.VERDICTS[kind][flagged]}\n{scores[i]:.2f}", panels.COLOURS[kind]
        panels.show(ax, panels.Picture(image(int(i)), title=title, colour=colour, frame=colour))
    counts = metrics.confusion(labels, scores, threshold)
    fig.suptitle(_summary(counts, threshold, len(changed)), fontsize=10.5, linespacing=1.5)
    return fig


def _summary(counts: metrics.Confusion, threshold: float, changed: int) -> str:
    tp, fp, fn, _ = counts
    precision, recall, f1 = map(percent, panels.rates(counts))
    text = f"threshold {threshold:.2f}:  precision {precision if tp + fp else 'undefined'},  "
    text += f"recall {recall},  F1 {f1},  {fp:,} false alarms,  {fn:,} missed\n"
    if not changed:
        return text + f"the verdicts of the best threshold; the {SHOWN} images nearest to it:"
    shown = f"; the {SHOWN} nearest" if changed > SHOWN else ""
    return text + f"{changed:,} images changed sides from the best threshold (dashed){shown}:"
