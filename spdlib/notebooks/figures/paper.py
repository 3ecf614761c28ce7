"""Figures of the paper's tables: contradictions, scatter, gains, disagreements; one's own gains."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spdlib import paper
from spdlib.intervals import half_width
from spdlib.notebooks.figures import panels, style
from spdlib.notebooks.figures.tables import spaced

METRIC_COLOURS = {"AU-PR": style.ORANGE, "AU-ROC": style.SKY}
SHIFTS = {"AU-PR": -0.17, "AU-ROC": 0.17}  # of a metric's dots in their row
FEW = 3  # categories that are shown one by one
FITS = {"fits": style.BLUE, "fits: digits were inferred from it": style.SKY,
        "does not fit": style.VERMILION}  # fmt: skip
VERDICT_COLOURS = {"agree": style.SKY, "tie": "#BBBBBB", "disagree": style.VERMILION}


@style.shows()
def contradictions(means: pd.DataFrame) -> Figure:
    """The distance of each column's mean from the printed one, and what rounding explains.

    Args:
        means: Table of :func:`spdlib.paper.column_means`.
    """
    fig, ax = style.figure(height=3.4)
    order = [f"{name}{metric}" for name in paper.PRETRAININGS for metric in paper.METRICS]
    place = (means.pretraining + means.metric).map(order.index)
    shown = means.assign(x=means.table + 0.1 * (place - 3.5), y=means.difference.abs().clip(0.011))
    ax.fill_between([6.5, 14.5], 0.01, means.bound.max(), color="#DDDDDD", linewidth=0)
    kinds = np.select([means.suspect, means.inferred > 0], [2, 1], 0)
    for kind, (label, colour) in enumerate(FITS.items()):
        rows = shown[kinds == kind]
        ax.plot(rows.x, rows.y, "o", color=colour, markersize=5, label=f"{label} ({len(rows)})")
    for row in shown[means.suspect].itertuples():
        at, text = (row.x, row.y), spaced(row.pretraining)
        panels.note(ax, text, at, (-6, 3), fontsize=8, ha="right")
    ax.text(14.45, 0.0135, "rounding explains this", ha="right", fontsize=8.5, color="#555555")
    ax.set(yscale="log", ylim=(0.01, 25), xlim=(6.5, 14.5), xlabel="table", xticks=paper.TABLES,
           ylabel="|mean of twelve − printed|,\npercentage points")  # fmt: skip
    ax.set_yticks([0.01, 0.1, 1, 10], ["≤ 0.01", "0.1", "1", "10"])
    panels.legend(fig, ax)
    return fig


@style.shows()
def scatter() -> Figure:
    """Detection against segmentation for each protocol, a dot a pretraining; cf. Figs 7 and 8.

    The dots are the printed means over VisA's twelve subsets; an arrow leads from each baseline
    to its + SPD. A question mark stands at a mean whose column does not add up.
    """
    columns = paper.column_means()[["table", "pretraining", "metric", "suspect"]]
    means = paper.tidy(means=True).query("subset == 'Mean'").drop(columns="suspect")
    means = means.merge(columns, on=["table", "pretraining", "metric"])
    protocols = list(means.protocol.unique())
    fig, axes = style.figure(2, len(protocols), 5.0)
    for (protocol, metric), rows in means.groupby(["protocol", "metric"]):
        row, column = paper.METRICS.index(metric), protocols.index(protocol)
        wide, ax = rows.pivot(index="method", columns="task"), axes[row, column]
        points = wide.value.rename(columns={"detection": "x", "segmentation": "y"})
        panels.gains(ax, points)
        for place in points[wide.suspect.any(axis=1)].itertuples():
            panels.note(ax, "?", (place.x, place.y), (5, 4), fontsize=9)
        ax.set(title=metric if row else f"{protocol}\n{metric}", xmargin=0.2, ymargin=0.2)
    fig.supxlabel("detection, % (?: a column that does not add up)", fontsize=10)
    fig.supylabel("segmentation, %", fontsize=10)
    panels.legend(fig, axes[0, 0].lines)
    return fig


@style.shows()
def gains(table: pd.DataFrame, seed: int = 0) -> Figure:
    """Every gain of + SPD, a dot a subset, and their mean; a row a table of the paper.

    Args:
        table: Table of :func:`spdlib.paper.gains`.
        seed: Seed of the dots' vertical places, which mean nothing.
    """
    tables, rng = _tables(table, ["table"]), np.random.default_rng(seed)
    fig, axes = style.figure(1, 2, 1.2 + 0.62 * len(tables), sharey=True, sharex=True)
    for ax, (baseline, own) in zip(axes, table.groupby("baseline"), strict=True):
        for (number, metric), rows in own.groupby(["table", "metric"]):
            centre, colour = list(tables).index(number) + SHIFTS[metric], METRIC_COLOURS[metric]
            _dots(ax, rows.gain, centre + rng.uniform(-0.1, 0.1, len(rows)), colour, rows.suspect)
            ax.vlines(rows.gain.mean(), centre - 0.17, centre + 0.17, color="black", linewidth=2)
            text = f"{(rows.gain > 0).sum()} ▲ {(rows.gain < 0).sum()} ▼"
            edge = ax.get_yaxis_transform()
            ax.text(1.01, centre, text, fontsize=7.5, va="center", color="#333333", transform=edge)
        ax.axvline(0, color=style.GREY, linewidth=1, zorder=0)
        _signed_axis(ax, "x", [-30, -10, -2, 0, 2, 10, 30], linthresh=5, linscale=1.2)
        ax.set(title=f"{baseline} + SPD minus {baseline}", xlabel="gain, percentage points")
    panels.name_rows(axes[0], list(tables.values()))
    mean = panels.key("mean", "-", color=style.BLACK, linewidth=2)
    panels.legend(fig, [*_gain_keys(), mean], "outside lower center")
    return fig


def _tables(rows: pd.DataFrame, order: Sequence[str]) -> dict[int, str]:
    """The tables that rows are of, in an order, with their names."""
    first = rows.drop_duplicates("table").sort_values(list(order))
    return {row.table: f"{row.protocol}\n{row.task} ({row.table})" for row in first.itertuples()}


def _dots(ax: Axes, x: pd.Series, y: Any, colour: Any, suspect: pd.Series) -> None:
    """Small dots, open where they rest on a suspect value."""
    ax.scatter(x, y, 14, edgecolors=colour, facecolors=np.where(suspect, "white", colour))


def _signed_axis(ax: Axes, axis: str, ticks: Sequence[int], **scale: float) -> None:
    """An axis that is linear about 0 and logarithmic further out."""
    getattr(ax, f"set_{axis}scale")("symlog", **scale)
    getattr(ax, f"set_{axis}ticks")(ticks, [f"{t:+d}" if t else "0" for t in ticks])


def _gain_keys() -> list[Line2D]:
    dots = [panels.key(m, color=colour, marker="o") for m, colour in METRIC_COLOURS.items()]
    look = {"color": style.GREY, "marker": "o", "markerfacecolor": "white"}
    return [*dots, panels.key("rests on a suspect value", **look)]


@style.shows()
def disagreements(pairs: pd.DataFrame) -> Figure:
    """Pairs of encoders that AU-PR and AU-ROC rank differently: how often, and by how much.

    Args:
        pairs: Table of :func:`spdlib.paper.disagreements`.
    """
    fig, (bars, dots) = style.figure(1, 2, 4.2, width_ratios=[1.15, 1])
    tables = _tables(pairs, ["task", "table"])
    counts = pd.crosstab(pairs.table, pairs.verdict).loc[list(tables), list(VERDICT_COLOURS)]
    counts.plot.barh(stacked=True, ax=bars, color=VERDICT_COLOURS, width=0.8, legend=False)
    for drawn in bars.containers:
        texts = [f"{count:.0f}" if count > 2 else "" for count in drawn.datavalues]
        bars.bar_label(drawn, texts, label_type="center", fontsize=8.5)
    panels.name_rows(bars, list(tables.values()))
    bars.set(xlabel="two encoders on one subset", ylabel="", xlim=(0, counts.sum(axis=1).max()))
    panels.legend(fig, bars)
    _dots(dots, pairs.auroc, pairs.aupr, pairs.verdict.map(VERDICT_COLOURS), pairs.suspect)
    dots.set(xlabel="difference in AU-ROC, percentage points", ylabel="difference in AU-PR",
             title="open: rests on a suspect value")  # fmt: skip
    for axis, line in (("x", dots.axvline), ("y", dots.axhline)):
        line(0, color=style.GREY, linewidth=0.8, zorder=0)
        _signed_axis(dots, axis, [-20, -5, -1, 0, 1, 5, 20], linthresh=2, linscale=1)
    return fig


@style.shows()
def beside(own: pd.DataFrame, theirs: pd.DataFrame) -> Figure:
    """One's own gains below the paper's, a block a protocol and task, with intervals: over pairs,
    or over categories where there are more than a few.

    Args:
        own: Table of :func:`spdlib.comparison.gains`. Protocols that ``theirs`` does not
            have are left out.
        theirs: Table of :func:`spdlib.paper.gains`. Shown where there are own gains, or
            whole if there are none to put below them.
    """
    known, measured = (set(zip(t.protocol, t.task, strict=True)) for t in (theirs, own))
    fig, ax = style.figure()
    names: list[str] = []
    for (number, protocol, task), block in theirs.groupby(["table", "protocol", "task"]):
        if (protocol, task) not in (known & measured or known):
            continue
        ax.axhline(len(names) - 0.5, color=style.GREY, linewidth=0.6, alpha=0.6)
        names.append(f"{protocol} {task} (Table {number})")
        mine = own[(own.protocol == protocol) & (own.task == task)]
        rows: dict[str, int] = {}
        for label, metric, gain, half, suspect in [*_paper_gains(block), *_own_gains(mine)]:
            y = rows.setdefault(label, len(names) + len(rows)) + SHIFTS[metric]
            colour = METRIC_COLOURS[metric]
            look = {"color": colour, "markerfacecolor": "white" if suspect else colour}
            panels.interval(ax, y, gain, gain - half, gain + half, marker="o", markersize=5, **look)
        names += rows
    ax.axvline(0, color=style.GREY, linewidth=1, zorder=0)
    panels.name_rows(ax, names, 90, fontsize=8.5)
    fig.set_figheight(1.0 + 0.27 * len(names))
    for name, label in zip(names, ax.get_yticklabels(), strict=True):
        label.set_fontweight("bold" if "(Table" in name else "normal")
    fig.supxlabel("gain of + SPD, percentage points (bar: 95 % interval)", fontsize=9.5)
    panels.legend(fig, _gain_keys())
    return fig


Dot = tuple[str, str, float, float, bool]  # label, metric, gain, half an interval, suspect


def _paper_gains(block: pd.DataFrame) -> Iterator[Dot]:
    for (baseline, metric), rows in block.groupby(["baseline", "metric"], sort=False):
        label = f"paper: {baseline} + SPD, VisA, {len(rows)} objects"
        half = float(half_width(rows.gain.std(), len(rows)))
        yield label, metric, rows.gain.mean(), half, bool(rows.suspect.any())


def _own_gains(own: pd.DataFrame) -> Iterator[Dot]:
    keys = ["dataset", "downstream_model", "encoder", "setting", "baseline", "method", "metric"]
    own = own[own.metric.isin(paper.METRICS)]
    count = own.groupby(keys).gain.transform("size")
    one = own.category + own.n.map(lambda n: f", {n} pair{'s' if n > 1 else ''}")
    where = one.where(count <= FEW, count.map("{} categories".format))
    for key, rows in own.groupby([*keys, where.rename("where")], sort=False):
        dataset, model, encoder, setting, baseline, method, metric, place = key
        against = "" if method == f"{baseline}_spd" else f" − {style.method_name(baseline)}"
        several = encoder if own.encoder.nunique() > 1 else ""
        what = ", ".join(filter(None, (model, several, setting)))
        label = f"yours: {style.method_name(method)}{against}, {what}, {dataset} {place}"
        single = len(rows) == 1
        half = (rows.high - rows.gain).mean() if single else half_width(rows.gain.std(), len(rows))
        yield label, metric, rows.gain.mean(), float(half), False


@style.shows("nothing to compare")
def dumbbells(rows: pd.DataFrame, pairs: Sequence[tuple[str, str]], label: str) -> Figure:
    """A line from each baseline to its + SPD, a row a subset.

    Args:
        rows: Columns ``row``, ``method``, ``value`` and ``mark`` (``"?"`` if suspect), in the
            order in which they are shown.
        pairs: Baseline and method with SPD.
        label: Name of the values.
    """
    rows = rows.drop_duplicates(["row", "method"])
    rows = rows.assign(panel="", shift=0.0, note=rows.mark.where(rows.mark == "?", ""))
    rows["low"] = rows["high"] = rows.value
    for place, (baseline, method) in enumerate(pairs):
        shift = 0.3 * (place - len(pairs) / 2 + 0.5)
        rows.loc[rows.method.isin((baseline, method)), "shift"] = shift
        start = rows.row.map(rows[rows.method == baseline].set_index("row").value)
        rows.loc[rows.method == method, "low"] = start.fillna(rows.value)
    fig = panels.intervals(rows, label, form=panels.PLAIN)
    panels.legend(fig, [panels.key(**style.method_style(m)) for m in rows.method.unique()])
    return fig
