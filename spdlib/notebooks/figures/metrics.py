"""Figures of the metrics: curves, ranks, the effect of imbalance, thresholds."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from spdlib import metrics
from spdlib.notebooks.figures import panels, style
from spdlib.notebooks.figures.panels import Picture

# Labels and scores of each detector, by its name.
Detectors = Mapping[str, tuple[ArrayLike, ArrayLike]]

COLOURS = {
    "model A": style.ORANGE, "model B": style.SKY,
    "images, real": style.GREEN, "images, painted": style.BLUE, "pixels, painted": style.VERMILION,
}  # fmt: skip
SHOWN = 8  # images beside a threshold


def curves(detectors: Detectors) -> Figure:
    """ROC and precision-recall curves side by side, as in Figs 9 and 10 of Zou et al.

    The dot is the operating point of the best F1; the dotted lines are detectors that guess.

    Args:
        detectors: Labels and scores by the detector's name.
    """
    lacking = [f"{name}: {panels.missing(y)}" for name, (y, _) in detectors.items()
               if panels.missing(y)]  # fmt: skip
    if lacking or not detectors:
        return panels.nothing("; ".join(lacking) or "no detector to show")
    fig, (roc, pr) = style.figure(1, 2, height=4.0 + 0.2 * len(detectors))
    panels.curve_axes(roc, pr)
    for name, (labels, scores) in detectors.items():
        found, colour = metrics.evaluate(labels, scores), COLOURS.get(name, style.BLACK)
        shown = style.words(name, 22)
        by_lines = f"{shown}: AU-PR {percent(found.aupr)}, best F1 {percent(found.max_f1)}"
        names = (f"{shown}: AU-ROC {percent(found.auroc)}", by_lines)
        panels.curves(roc, pr, labels, scores, names, color=colour, clip_on=False)
        pr.axhline(found.prevalence, color=colour, linestyle=":", linewidth=1.5)
        counts = metrics.confusion(labels, scores, found.threshold)
        panels.dot(roc, counts.false_positives / found.negatives, found.recall, colour)
        panels.dot(pr, found.recall, found.precision, colour)
    for ax in (roc, pr):
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17))
    return fig


def ranks(detectors: Detectors) -> Figure:
    """Places of the anomalies when everything is listed by falling score; ties share a place.

    Args:
        detectors: Labels and scores by the detector's name.
    """
    fig, ax = style.figure(height=0.9 + 0.6 * len(detectors))
    longest = 1
    for row, (name, (labels, scores)) in enumerate(detectors.items()):
        labels, scores = np.asarray(labels), np.asarray(scores)
        places = 1 + np.searchsorted(np.sort(-scores), -scores[labels == 1])
        colour = COLOURS.get(name, style.BLACK)
        ax.eventplot(places, lineoffsets=row, color=colour, linelengths=0.7, linewidths=1.2)
        longest = max(longest, len(labels))
    ax.set(xscale="log", xlabel="place in the list, highest score first", xlim=(0.8, longest))
    panels.name_rows(ax, list(detectors))
    return fig


def imbalance(table: pd.DataFrame) -> Figure:
    """AU-ROC and AU-PR against the imbalance, a line a detector.

    Args:
        table: Columns ``detector``, ``ratio`` (normal samples an anomaly), ``auroc``, ``aupr``.
    """
    fig, axes = style.figure(1, 2, height=3.4, sharey=True)
    ratios = np.sort(table.ratio.unique())
    guesses = {"auroc": np.full(len(ratios), 0.5), "aupr": 1 / (1 + ratios)}
    titles = {"auroc": "AU-ROC", "aupr": "AU-PR (linear)"}
    for ax, (metric, guess) in zip(axes, guesses.items(), strict=True):
        for detector, rows in table.groupby("detector"):
            colour = COLOURS.get(detector, style.BLACK)
            ax.plot(rows.ratio, rows[metric], "o-", color=colour, label=detector, linewidth=2)
        ax.plot(ratios, guess, ":", color=style.GREY, label="guessing")
        ax.set(xscale="log", title=titles[metric], xlabel="anomalies : normal samples",
               ylim=(-0.03, 1.03))  # fmt: skip
        ax.xaxis.set_major_formatter(lambda ratio, _: f"1:{ratio:,.0f}")
        ax.yaxis.set_major_formatter(panels.PERCENT)
    axes[0].legend(loc="lower left")
    return fig


def interpolation(labels: ArrayLike, levels: Mapping[int, ArrayLike]) -> Figure:
    """The same guesses at fewer and fewer distinct scores: AU-PR by lines and by steps.

    Args:
        labels: 0 and 1.
        levels: Scores, by the number of their distinct values; 1 is drawn on the left.
    """
    fig, (left, right) = style.figure(1, 2, height=3.4)
    recall, precision, _ = metrics.pr_curve(labels, levels[1])
    prevalence = float(np.mean(labels))
    left.fill_between(recall, precision, prevalence, color=style.ORANGE, alpha=0.3, linewidth=0)
    left.fill_between([0, 1], prevalence, color=style.SKY, alpha=0.5, linewidth=0)
    left.plot(recall, precision, color=style.ORANGE, linewidth=2)
    panels.dot(left, recall[-1], precision[-1], style.ORANGE)
    panels.unit_axes(left, "recall", "precision")
    left.set_title("one score for all")
    kinds = (
        (metrics.aupr, "AU-PR (linear)", style.ORANGE, "line", 0.4),
        (metrics.average_precision, "average precision (steps)", style.SKY, "step", 0.08),
    )
    for function, name, colour, where, height in kinds:
        values = [function(labels, scores) for scores in levels.values()]
        right.plot(list(levels), values, "o-", color=colour, linewidth=2, label=name)
        left.text(0.08, height, f"under the {where}: {percent(function(labels, levels[1]))}")
    right.axhline(prevalence, color=style.GREY, linestyle=":", label="prevalence")
    right.set(xscale="log", ylim=(0, 0.6), xlabel="distinct scores",
              title="guesses rounded to fewer scores")  # fmt: skip
    right.yaxis.set_major_formatter(panels.PERCENT)
    right.legend()
    return fig


def confusion_matrix(ax: Axes, counts: metrics.Confusion) -> None:
    """The four counts, right verdicts green, wrong ones red, stronger for larger shares."""
    tp, fp, fn, tn = counts
    cells = np.array([[tp, fn], [fp, tn]])
    names = np.array([["found", "missed"], ["false alarms", "passed"]])
    texts = [f"{count:,}\n{name}" for count, name in zip(cells.flat, names.flat, strict=True)]
    # From 0.15 on, so that a cell without samples has a colour, too; wrong ones are negative.
    share = 0.15 + 0.85 * cells / cells.sum(1, keepdims=True)
    colours = LinearSegmentedColormap.from_list("", [style.VERMILION, "white", style.GREEN])
    sns.heatmap(
        share * [[1, -1], [-1, 1]], ax=ax, vmin=-1.6, vmax=1.6, cmap=colours, cbar=False, fmt="",
        annot=np.reshape(texts, (2, 2)), annot_kws={"color": style.BLACK}, square=True,
        xticklabels=["flagged", "passed"], yticklabels=["anomalies", "normal"],
    )  # fmt: skip
    ax.tick_params(length=0)


def operating_point(labels: ArrayLike, scores: ArrayLike, threshold: float) -> Figure:
    """Both curves with the point of a threshold, and its confusion matrix.

    Args:
        labels: 0 and 1.
        scores: One a sample.
        threshold: From here on a sample is flagged.
    """
    if lacking := panels.missing(labels):
        return panels.nothing(f"{lacking}: no curve")
    fig, (roc, pr, matrix) = style.figure(1, 3, height=3.6)
    found, counts = metrics.evaluate(labels, scores), metrics.confusion(labels, scores, threshold)
    precision, recall, f1 = _rates(counts)
    panels.curve_axes(roc, pr)
    panels.curves(roc, pr, labels, scores, ("", ""), color=style.BLACK, clip_on=False)
    pr.axhline(found.prevalence, color=style.GREY, linestyle=":")
    panels.dot(roc, counts.false_positives / found.negatives, recall, style.VERMILION)
    panels.dot(pr, recall, precision, style.VERMILION)
    roc.set(ylabel="recall", title=f"AU-ROC {percent(found.auroc)}\n")
    steps = percent(found.average_precision)
    pr.set_title(f"AU-PR {percent(found.aupr)} (steps {steps})\nbest F1 {percent(found.max_f1)}")
    matrix.set_title(f"precision {percent(precision)}\nrecall {percent(recall)}, F1 {percent(f1)}")
    confusion_matrix(matrix, counts)
    return fig


def threshold_view(
    labels: ArrayLike,
    scores: ArrayLike,
    threshold: float,
    image: Callable[[int], ArrayLike],
) -> Figure:
    """A threshold on the histogram of scores, its rates, and the images it moves.

    Args:
        labels: 0 and 1, one an image.
        scores: One an image.
        threshold: From here on an image is flagged.
        image: Returns the pixels of the image with the given number, (H, W) or (H, W, 3).
    """
    if lacking := panels.missing(labels):
        return panels.nothing(f"{lacking}: no threshold to choose")
    labels, scores = np.asarray(labels), np.asarray(scores)
    best = metrics.max_f1(labels, scores).threshold
    fig, axes = style.figure(2, 5, height=4.4, width_ratios=[4.6, 1, 1, 1, 1])
    histogram, by_threshold = axes[:, 0]
    bins = np.histogram_bin_edges(scores, 40)
    panels.histogram(histogram, panels.by_class(labels, scores), bins)
    histogram.set_ylabel("images")
    histogram.tick_params(labelbottom=False)
    histogram.legend()
    _by_threshold(by_threshold, labels, scores)
    for ax in (histogram, by_threshold):
        ax.axvline(best, color=style.GREY, linestyle="--", linewidth=1.2)
        ax.axvline(threshold, color=style.BLACK, linewidth=1.8)
        ax.set_xlim(bins[0], bins[-1])
    changed = np.flatnonzero((scores >= threshold) != (scores >= best))
    shown = changed if len(changed) else np.arange(len(scores))
    nearest = shown[np.argsort(np.abs(scores[shown] - threshold), kind="stable")][:SHOWN]
    for ax in axes[:, 1:].flat:
        panels.bare(ax)
    for ax, i in zip(axes[:, 1:].flat, nearest[np.argsort(scores[nearest])], strict=False):
        kind, flagged = int(labels[i]), int(scores[i] >= threshold)
        colour = (style.NORMAL, style.ANOMALY)[kind]
        title = f"{panels.CLASSES[kind]}\n{panels.VERDICTS[kind][flagged]}"
        panels.show(ax, Picture(image(int(i)), title=title, colour=colour, frame=colour))
        ax.set_xlabel(f"{scores[i]:.2f}")
    counts = metrics.confusion(labels, scores, threshold)
    fig.suptitle(_summary(counts, threshold, len(changed)), fontsize=10.5, linespacing=1.5)
    return fig


def _by_threshold(ax: Axes, labels: ArrayLike, scores: ArrayLike) -> None:
    recall, precision, at = metrics.pr_curve(labels, scores, tolerance=0)
    recall, precision, at = recall[2::2], precision[2::2], at[2::2]  # with a score's positives
    f1 = 2 * recall * precision / (recall + precision)
    ax.plot(at, precision, color=style.PURPLE, linestyle="--", label="precision")
    ax.plot(at, recall, color=style.GREEN, linestyle="-.", label="recall")
    ax.plot(at, f1, color=style.BLACK, linewidth=2, label="F1")
    ax.set(xlabel="image score", ylim=(0, 1.03))
    ax.yaxis.set_major_formatter(panels.PERCENT)
    ax.legend(loc="lower left")


def _rates(counts: metrics.Confusion) -> tuple[float, float, float]:
    """Precision (1 if nothing is flagged), recall and F1."""
    tp, fp, fn, _ = counts
    return tp / (tp + fp) if tp + fp else 1.0, tp / (tp + fn), 2 * tp / (2 * tp + fp + fn)


def _summary(counts: metrics.Confusion, threshold: float, changed: int) -> str:
    tp, fp, fn, _ = counts
    precision, recall, f1 = map(percent, _rates(counts))
    text = f"threshold {threshold:.2f}:  precision {precision if tp + fp else 'undefined'},  "
    text += f"recall {recall},  F1 {f1},  {fp:,} false alarms,  {fn:,} missed\n"
    if not changed:
        return text + f"the verdicts of the best threshold; the {SHOWN} images nearest to it:"
    shown = f"; the {SHOWN} nearest" if changed > SHOWN else ""
    return text + f"{changed:,} images changed sides from the best threshold (dashed){shown}:"


def percent(share: float) -> str:
    """A share as text: ``"12.34 %"``."""
    return f"{100 * share:.2f} %"
