"""Figures of the metrics: curves, ranks, the effect of imbalance, thresholds."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

from spdlib import metrics
from spdlib.notebooks.figures import style

# Labels and scores of each detector, by its name.
Detectors = Mapping[str, tuple[ArrayLike, ArrayLike]]

COLOURS = {
    "model A": style.ORANGE, "model B": style.SKY,
    "images, real": style.GREEN, "images, painted": style.BLUE, "pixels, painted": style.VERMILION,
}  # fmt: skip
PERCENT = PercentFormatter(1, symbol=" %")
SHOWN = 8  # images beside a threshold


def curves(detectors: Detectors) -> Figure:
    """ROC and precision-recall curves side by side, as in Figs 9 and 10 of Zou et al.

    The dot is the operating point of the best F1; the dotted lines are detectors that guess.
    """
    fig, (roc, pr) = style.figure(1, 2, height=4.0 + 0.2 * len(detectors))
    roc.plot([0, 1], [0, 1], ":", color=style.GREY)
    for name, (labels, scores) in detectors.items():
        found, colour = metrics.evaluate(labels, scores), COLOURS.get(name, style.BLACK)
        by_lines = f"{name}: AU-PR {_percent(found.aupr)}, best F1 {_percent(found.max_f1)}"
        for ax, curve, label in (
            (roc, metrics.roc_curve(labels, scores), f"{name}: AU-ROC {_percent(found.auroc)}"),
            (pr, metrics.pr_curve(labels, scores), by_lines),
        ):
            ax.plot(curve.x, curve.y, color=colour, linewidth=2, label=label, clip_on=False)
        pr.axhline(found.prevalence, color=colour, linestyle=":", linewidth=1.5)
        counts = metrics.confusion(labels, scores, found.threshold)
        _dot(roc, counts.false_positives / found.negatives, found.recall, colour)
        _dot(pr, found.recall, found.precision, colour)
    _unit_square(roc, "false positive rate", "recall (true positive rate)")
    _unit_square(pr, "recall", "precision")
    for ax in (roc, pr):
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17))
    return fig


def ranks(detectors: Detectors) -> Figure:
    """Where the anomalies stand when everything is listed by falling score; ties share a place."""
    fig, ax = style.figure(height=0.9 + 0.6 * len(detectors))
    places = []
    for labels, scores in detectors.values():
        labels, scores = np.asarray(labels), np.asarray(scores)
        falling = np.sort(-scores)
        places.append(1 + np.searchsorted(falling, -scores[labels == 1]))
    ax.eventplot(
        places,
        colors=[COLOURS.get(name, style.BLACK) for name in detectors],
        linelengths=0.7,
        linewidths=1.2,
    )
    ax.set(xscale="log", xlabel="place in the list, highest score first", xlim=(0.8, len(labels)))
    ax.set_yticks(range(len(detectors)), list(detectors))
    ax.invert_yaxis()
    return fig


def imbalance(table: pd.DataFrame) -> Figure:
    """AU-ROC and AU-PR against the imbalance, a line a detector.

    Args:
        table: Columns ``detector``, ``ratio`` (normal samples an anomaly), ``auroc``, ``aupr``.
    """
    fig, axes = style.figure(1, 2, height=3.4, sharey=True)
    for ax, metric, name in zip(axes, ("auroc", "aupr"), ("AU-ROC", "AU-PR (linear)"), strict=True):
        for detector, rows in table.groupby("detector"):
            colour = COLOURS.get(detector, style.BLACK)
            ax.plot(rows.ratio, rows[metric], "o-", color=colour, label=detector, linewidth=2)
        ratios = np.sort(table.ratio.unique())
        guess = np.full(len(ratios), 0.5) if metric == "auroc" else 1 / (1 + ratios)
        ax.plot(ratios, guess, ":", color=style.GREY, label="guessing")
        ax.set(xscale="log", title=name, xlabel="anomalies : normal samples", ylim=(-0.03, 1.03))
        ax.xaxis.set_major_formatter(lambda ratio, _: f"1:{ratio:,.0f}")
        ax.yaxis.set_major_formatter(PERCENT)
    axes[0].legend(loc="lower left")
    return fig


def interpolation(labels: ArrayLike, levels: Mapping[int, ArrayLike]) -> Figure:
    """The same guesses at fewer and fewer distinct scores: AU-PR by lines and by steps.

    Args:
        labels: 0 and 1.
        levels: Scores, by the number of their distinct values; 1 is drawn on the left.
    """
    fig, (left, right) = style.figure(1, 2, height=3.4)
    curve = metrics.pr_curve(labels, levels[1])
    prevalence = float(np.mean(labels))
    left.fill_between(curve.x, curve.y, prevalence, color=style.ORANGE, alpha=0.3, linewidth=0)
    left.fill_between([0, 1], prevalence, color=style.SKY, alpha=0.5, linewidth=0)
    left.plot(curve.x, curve.y, color=style.ORANGE, linewidth=2)
    line, step = (f(labels, levels[1]) for f in (metrics.aupr, metrics.average_precision))
    left.text(0.08, 0.4, f"under the line: {_percent(line)}")
    left.text(0.08, prevalence + 0.03, f"under the step: {_percent(step)}")
    _dot(left, curve.x[-1], curve.y[-1], style.ORANGE)
    _unit_square(left, "recall", "precision")
    left.set_title("one score for all")
    for function, name, colour in (
        (metrics.aupr, "AU-PR (linear)", style.ORANGE),
        (metrics.average_precision, "average precision (steps)", style.SKY),
    ):
        values = [function(labels, scores) for scores in levels.values()]
        right.plot(list(levels), values, "o-", color=colour, linewidth=2, label=name)
    right.axhline(prevalence, color=style.GREY, linestyle=":", label="prevalence")
    right.set(
        xscale="log",
        ylim=(0, 0.6),
        xlabel="distinct scores",
        title="guesses rounded to fewer scores",
    )
    right.yaxis.set_major_formatter(PERCENT)
    right.legend()
    return fig


def confusion_matrix(ax: Axes, counts: metrics.Confusion) -> None:
    """The four counts, right verdicts green, wrong ones red, stronger for larger shares."""
    tp, fp, fn, tn = counts
    cells = np.array([[tp, fn], [fp, tn]])
    share = cells / cells.sum(1, keepdims=True)
    for (row, column), count in np.ndenumerate(cells):
        colour = style.GREEN if row == column else style.VERMILION
        strength = 0.08 + 0.5 * share[row, column]
        ax.fill_between([column, column + 1], row, row + 1, color=colour, alpha=strength, lw=0)
        name = (("found", "missed"), ("false alarms", "passed"))[row][column]
        ax.text(column + 0.5, row + 0.42, f"{count:,}", ha="center", va="center", fontsize=12)
        ax.text(column + 0.5, row + 0.7, name, ha="center", va="center", fontsize=9)
    ax.set(xlim=(0, 2), ylim=(2, 0), aspect=1)
    ax.set_xticks([0.5, 1.5], ["flagged", "passed"])
    ax.set_yticks([0.5, 1.5], ["anomalies", "normal"], rotation=90, va="center")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def operating_point(labels: ArrayLike, scores: ArrayLike, threshold: float) -> Figure:
    """Both curves with the point of a threshold, and its confusion matrix."""
    fig, (roc, pr, matrix) = style.figure(1, 3, height=3.6)
    found = metrics.evaluate(labels, scores)
    counts = metrics.confusion(labels, scores, threshold)
    recall = counts.true_positives / found.positives
    flagged = counts.true_positives + counts.false_positives
    precision = counts.true_positives / flagged if flagged else 1.0
    f1 = 2 * counts.true_positives / (found.positives + flagged)
    for ax, curve in (
        (roc, metrics.roc_curve(labels, scores)),
        (pr, metrics.pr_curve(labels, scores)),
    ):
        ax.plot(curve.x, curve.y, color=style.BLACK, linewidth=2, clip_on=False)
    roc.plot([0, 1], [0, 1], ":", color=style.GREY)
    pr.axhline(found.prevalence, color=style.GREY, linestyle=":")
    _dot(roc, counts.false_positives / found.negatives, recall, style.VERMILION)
    _dot(pr, recall, precision, style.VERMILION)
    _unit_square(roc, "false positive rate", "recall")
    _unit_square(pr, "recall", "precision")
    steps = _percent(found.average_precision)
    roc.set_title(f"AU-ROC {_percent(found.auroc)}\n")
    pr.set_title(f"AU-PR {_percent(found.aupr)} (steps {steps})\nbest F1 {_percent(found.max_f1)}")
    matrix.set_title(
        f"precision {_percent(precision)}\nrecall {_percent(recall)}, F1 {_percent(f1)}"
    )
    confusion_matrix(matrix, counts)
    return fig


def threshold_view(
    labels: ArrayLike,
    scores: ArrayLike,
    threshold: float,
    image: Callable[[int], ArrayLike],
) -> Figure:
    """A threshold on the histogram of scores, what it gives, and the images it moves.

    Args:
        labels: 0 and 1, one an image.
        scores: One an image.
        threshold: From here on an image is flagged.
        image: Returns the pixels of the image with the given number, (H, W) or (H, W, 3).
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    best = metrics.max_f1(labels, scores)
    fig, axes = style.figure(2, 5, height=4.4, width_ratios=[4.6, 1, 1, 1, 1])
    _histogram(axes[0, 0], labels, scores)
    _by_threshold(axes[1, 0], labels, scores)
    for ax in axes[:, 0]:
        ax.axvline(best.threshold, color=style.GREY, linestyle="--", linewidth=1.2)
        ax.axvline(threshold, color=style.BLACK, linewidth=1.8)
        ax.set_xlim(scores.min(), scores.max())

    changed = np.flatnonzero((scores >= threshold) != (scores >= best.threshold))
    shown = changed if len(changed) else np.arange(len(scores))
    nearest = shown[np.argsort(np.abs(scores[shown] - threshold), kind="stable")][:SHOWN]
    thumbnails = axes[:, 1:].ravel()
    for ax in thumbnails:
        ax.set_axis_off()
    for ax, i in zip(thumbnails, nearest[np.argsort(scores[nearest])], strict=False):
        _thumbnail(ax, image(int(i)), labels[i] == 1, scores[i], scores[i] >= threshold)
    counts = metrics.confusion(labels, scores, threshold)
    fig.suptitle(_summary(counts, threshold, len(changed)), fontsize=10.5, linespacing=1.5)
    return fig


def _histogram(ax: Axes, labels: ArrayLike, scores: ArrayLike) -> None:
    bins = np.histogram_bin_edges(scores, 40)
    for value, name, colour in ((0, "normal", style.NORMAL), (1, "anomaly", style.ANOMALY)):
        chosen = scores[labels == value]
        ax.hist(chosen, bins, color=colour, alpha=0.35)
        ax.hist(chosen, bins, color=colour, histtype="step", linewidth=1.5, label=name)
    ax.set(ylabel="images")
    ax.tick_params(labelbottom=False)
    ax.legend()


def _by_threshold(ax: Axes, labels: ArrayLike, scores: ArrayLike) -> None:
    recall, precision, at = metrics.pr_curve(labels, scores, tolerance=0)
    recall, precision, at = recall[2::2], precision[2::2], at[2::2]  # with a score's positives
    f1 = 2 * recall * precision / (recall + precision)
    ax.plot(at, precision, color=style.PURPLE, linestyle="--", label="precision")
    ax.plot(at, recall, color=style.GREEN, linestyle="-.", label="recall")
    ax.plot(at, f1, color=style.BLACK, linewidth=2, label="F1")
    ax.set(xlabel="image score", ylim=(0, 1.03))
    ax.yaxis.set_major_formatter(PERCENT)
    ax.legend(loc="lower left")


def _thumbnail(ax: Axes, pixels: ArrayLike, anomalous: bool, score: float, flagged: bool) -> None:
    verdict = {
        (True, True): "anomaly\nfound", (True, False): "anomaly\nmissed",
        (False, True): "normal\nfalse alarm", (False, False): "normal\npassed",
    }[anomalous, flagged]  # fmt: skip
    ax.imshow(pixels)
    ax.set_axis_on()
    ax.set(xticks=[], yticks=[], xlabel=f"{score:.2f}")
    colour = style.ANOMALY if anomalous else style.NORMAL
    ax.set_title(verdict, fontsize=8.5, color=colour)
    ax.spines[:].set(visible=True, color=colour, linewidth=2)


def _summary(counts: metrics.Confusion, threshold: float, changed: int) -> str:
    tp, fp, fn, _ = counts
    precision = _percent(tp / (tp + fp)) if tp + fp else "undefined"
    text = f"threshold {threshold:.2f}:  precision {precision},  recall {_percent(tp / (tp + fn))}"
    text += f",  F1 {_percent(2 * tp / (2 * tp + fp + fn))},  {fp:,} false alarms,  {fn:,} missed\n"
    if not changed:
        return text + f"the verdicts of the best threshold; the {SHOWN} images nearest to it:"
    shown = f"; the {SHOWN} nearest" if changed > SHOWN else ""
    return text + f"{changed:,} images changed sides from the best threshold (dashed){shown}:"


def _dot(ax: Axes, x: float, y: float, colour: str, label: str | None = None) -> None:
    ax.plot(
        [x], [y], "o", markersize=9, color=colour, markeredgecolor="white", label=label,
        clip_on=False, zorder=5,
    )  # fmt: skip


def _unit_square(ax: Axes, x: str, y: str) -> None:
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PERCENT)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
