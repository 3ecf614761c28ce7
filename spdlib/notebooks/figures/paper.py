"""Figures of the paper's tables: contradictions, scatter, gains, disagreements; one's own gains."""

from collections.abc import Sequence

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
VERDICT_COLOURS = {"agree": style.SKY, "tie": "#BBBBBB", "disagree": style.VERMILION}


def contradictions(means: pd.DataFrame) -> Figure:
    """The distance of each column's mean from the printed one, and what rounding explains.

    Args:
        means: As :func:`spdlib.paper.column_means` returns them.
    """
    fig, ax = style.figure(height=3.4)
    groups = [
        (~means.suspect & (means.inferred == 0), style.BLUE, "fits"),
        (~means.suspect & (means.inferred > 0), style.SKY, "fits: digits were inferred from it"),
        (means.suspect, style.VERMILION, "does not fit"),
    ]  # fmt: skip
    within = {name: place for place, name in enumerate(paper.PRETRAININGS)}
    x = means.table + (means.pretraining.map(within) * 2 + (means.metric == "AU-ROC") - 3.5) * 0.1
    ax.fill_between([6.5, 14.5], 0.01, means.bound.max(), color="#DDDDDD", linewidth=0)
    shown = means.difference.abs().clip(lower=0.011)
    for chosen, colour, label in groups:
        label = f"{label} ({chosen.sum()})"
        ax.plot(x[chosen], shown[chosen], "o", color=colour, markersize=5, label=label)
    left, below = (-6, 5, "right"), (6, -10, "left")
    places = {(8, "Supervised+SPD"): left, (10, "Supervised"): left, (11, "SimSiam"): below}
    for row in means[means.suspect].itertuples():
        dx, dy, side = places.get((row.table, row.pretraining), (6, 4, "left"))
        ax.annotate(
            f"{spaced(row.pretraining)} {row.metric}", (x[row.Index], abs(row.difference)),
            xytext=(dx, dy), textcoords="offset points", fontsize=8, ha=side,
        )  # fmt: skip
    ax.set(yscale="log", ylim=(0.01, 25), xlim=(6.5, 14.5), xlabel="table",
           ylabel="|mean of twelve − printed|,\npercentage points")  # fmt: skip
    ax.set_yticks([0.01, 0.1, 1, 10], ["≤ 0.01", "0.1", "1", "10"])
    ax.set_xticks(list(paper.TABLES))
    ax.text(14.45, 0.0135, "rounding explains this", ha="right", fontsize=8.5, color="#555555")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return fig


def scatter() -> Figure:
    """Detection against segmentation for each protocol, a dot a pretraining; cf. Figs 7 and 8.

    The dots are the printed means over VisA's twelve subsets; an arrow leads from each baseline
    to its + SPD. An open mark is a mean whose column does not add up.
    """
    columns = paper.column_means()[["table", "pretraining", "metric", "suspect"]]
    means = paper.tidy(means=True).query("subset == 'Mean'").drop(columns="suspect")
    means = means.merge(columns, on=["table", "pretraining", "metric"])
    protocols = means.protocol.unique()
    fig, axes = style.figure(2, len(protocols), height=5.0)
    for (row, column), ax in np.ndenumerate(axes):
        protocol, metric = protocols[column], paper.METRICS[row]
        chosen = means[(means.protocol == protocol) & (means.metric == metric)]
        wide = chosen.pivot(index="pretraining", columns="task", values=["value", "suspect"])
        _arrows(ax, wide.value, wide.suspect.any(axis=1))
        ax.set_title(f"{protocol}\n{metric}" if row == 0 else metric)
        ax.margins(0.2)
    for ax in axes[:, 0]:
        ax.set_ylabel("segmentation, %")
    for ax in axes[1]:
        ax.set_xlabel("detection, %")
    handles = [_method_key(method, marker) for method, (_, marker) in _MARKS.items()]
    open_mark = _open_key("a column that does not add up")
    panels.legend(fig, [*handles, open_mark], "outside lower center")
    return fig


_BASELINES = {"simsiam": "SimSiam", "supervised": "Supervised"}
_MARKS = {"simsiam": ("SimSiam", "o"), "simsiam_spd": ("SimSiam+SPD", "D"),
          "supervised": ("Supervised", "o"), "supervised_spd": ("Supervised+SPD", "D")}  # fmt: skip


def _arrows(ax: Axes, points: pd.DataFrame, doubtful: pd.Series) -> None:
    places = points[["detection", "segmentation"]]
    for method, (name, marker) in _MARKS.items():
        colour = style.method_marker(method)["color"]
        ax.plot(*places.loc[name], marker, color=colour, markersize=7,
                markerfacecolor="none" if doubtful[name] else colour)  # fmt: skip
    for method, name in _BASELINES.items():
        colour, end = style.METHOD_COLOURS[method], places.loc[f"{name}+SPD"]
        panels.arrow(ax, places.loc[name], end, colour, linewidth=1.5, shrinkA=4, shrinkB=5)


def _method_key(method: str, marker: str) -> Line2D:
    name = style.words(style.method_name(method))
    return panels.key(name, color=style.method_marker(method)["color"], marker=marker)


def _open_key(label: str) -> Line2D:
    return panels.key(label, color=style.GREY, marker="o", markerfacecolor="white")


def gains(table: pd.DataFrame, seed: int = 0) -> Figure:
    """Every gain of + SPD, a dot a subset, and their mean; a row a table of the paper.

    Args:
        table: As :func:`spdlib.paper.gains` returns it.
        seed: Seed of the dots' vertical places, which mean nothing.
    """
    names = table.sort_values("table").drop_duplicates("table")
    rng = np.random.default_rng(seed)
    fig, axes = style.figure(1, 2, height=1.2 + 0.62 * len(names), sharey=True, sharex=True)
    for ax, baseline in zip(axes, _BASELINES.values(), strict=True):
        for place, number in enumerate(names.table):
            for metric in paper.METRICS:
                centre = place + SHIFTS[metric]
                rows = table[(table.table == number) & (table.metric == metric)]
                rows = rows[rows.baseline == baseline]
                y, colour = centre + rng.uniform(-0.1, 0.1, len(rows)), METRIC_COLOURS[metric]
                for chosen, face in ((~rows.suspect, colour), (rows.suspect, "white")):
                    ax.plot(rows.gain[chosen], y[chosen], "o", color=colour, markersize=4,
                            markerfacecolor=face)  # fmt: skip
                ax.vlines(
                    rows.gain.mean(), centre - 0.17, centre + 0.17, color="black", linewidth=2
                )
                text = f"{(rows.gain > 0).sum()} ▲ {(rows.gain < 0).sum()} ▼"
                ax.text(1.01, centre, text, fontsize=7.5, va="center", color="#333333",
                        transform=ax.get_yaxis_transform())  # fmt: skip
        ax.axvline(0, color=style.GREY, linewidth=1, zorder=0)
        _signed_axis(ax, "x", [-30, -10, -2, 0, 2, 10, 30], linthresh=5, linscale=1.2)
        ax.set(title=f"{baseline} + SPD minus {baseline}", xlabel="gain, percentage points")
    _name_tables(axes[0], names)
    mean = panels.key("mean", "-", color=style.BLACK, linewidth=2)
    panels.legend(fig, [*_gain_keys(), mean], "outside lower center")
    return fig


def _name_tables(ax: Axes, tables: pd.DataFrame) -> None:
    panels.name_rows(ax, [f"{r.protocol}\n{r.task} ({r.table})" for r in tables.itertuples()])


def _signed_axis(ax: Axes, axis: str, ticks: Sequence[int], **scale: float) -> None:
    """An axis that is linear about 0 and logarithmic further out."""
    getattr(ax, f"set_{axis}scale")("symlog", **scale)
    getattr(ax, f"set_{axis}ticks")(ticks, [f"{t:+d}" if t else "0" for t in ticks])


def _gain_keys() -> list[Line2D]:
    dots = [panels.key(m, color=colour, marker="o") for m, colour in METRIC_COLOURS.items()]
    return [*dots, _open_key("rests on a suspect value")]


def disagreements(pairs: pd.DataFrame) -> Figure:
    """Where AU-PR and AU-ROC prefer different encoders: how often, and by how much.

    Args:
        pairs: As :func:`spdlib.paper.disagreements` returns them.
    """
    fig, (bars, dots) = style.figure(1, 2, height=4.2, width_ratios=[1.15, 1])
    names = pairs.drop_duplicates("table").sort_values(["task", "table"])
    counts = pd.crosstab(pairs.table, pairs.verdict).reindex(names.table)
    left = np.zeros(len(counts))
    for verdict, colour in VERDICT_COLOURS.items():
        width = counts[verdict].to_numpy()
        drawn = bars.barh(range(len(counts)), width, left=left, color=colour, label=verdict)
        texts = [str(count) if count > 2 else "" for count in width]
        bars.bar_label(drawn, texts, label_type="center", fontsize=8.5)
        left = left + width
        chosen = pairs[pairs.verdict == verdict]
        sure, unsure = chosen[~chosen.suspect], chosen[chosen.suspect]
        dots.plot(sure.auroc, sure.aupr, ".", color=colour, markersize=5)
        dots.plot(unsure.auroc, unsure.aupr, "o", color=colour, markersize=3.5,
                  markerfacecolor="none", markeredgewidth=0.7)  # fmt: skip
    _name_tables(bars, names)
    bars.set(xlabel="two encoders on one subset", xlim=(0, left.max()))
    bars.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    dots.axhline(0, color=style.GREY, linewidth=0.8, zorder=0)
    dots.axvline(0, color=style.GREY, linewidth=0.8, zorder=0)
    dots.set(xlabel="difference in AU-ROC, percentage points", ylabel="difference in AU-PR",
             title="open: rests on a suspect value")  # fmt: skip
    for axis in "xy":
        _signed_axis(dots, axis, [-20, -5, -1, 0, 1, 5, 20], linthresh=2, linscale=1)
    return fig


def beside(own: pd.DataFrame, theirs: pd.DataFrame) -> Figure:
    """One's own gains below the paper's, a block a protocol and task, with intervals: over pairs,
    or over categories where there are more than a few.

    Args:
        own: As :func:`spdlib.comparison.gains` returns them. Protocols that ``theirs`` does not
            have are left out.
        theirs: As :func:`spdlib.paper.gains` returns them. Shown where there are own gains, or
            whole if there are none to put below them.
    """
    known, measured = (set(zip(t.protocol, t.task, strict=True)) for t in (theirs, own))
    shown = known & measured or known
    fig, ax = style.figure()
    names: list[str] = []
    for (number, protocol, task), block in theirs.groupby(["table", "protocol", "task"]):
        if (protocol, task) not in shown:
            continue
        ax.axhline(len(names) - 0.5, color=style.GREY, linewidth=0.6, alpha=0.6)
        names.append(f"{protocol} {task} (Table {number})")
        mine = own[(own.protocol == protocol) & (own.task == task)]
        dots = [*_paper_gains(block), *_own_gains(mine[mine.metric.isin(paper.METRICS)])]
        rows = {label: len(names) + k for k, label in enumerate(dict.fromkeys(d[0] for d in dots))}
        names += rows
        for label, metric, gain, half, suspect in dots:
            y, colour = rows[label] + SHIFTS[metric], METRIC_COLOURS[metric]
            look = {"color": colour, "markerfacecolor": "white" if suspect else colour}
            low, high = gain - half, gain + half
            panels.interval(ax, y, gain, low, high, marker="o", markersize=5, **look)
    ax.axvline(0, color=style.GREY, linewidth=1, zorder=0)
    panels.name_rows(ax, names, 90, fontsize=8.5)
    fig.set_figheight(1.0 + 0.27 * len(names))
    for name, label in zip(names, ax.get_yticklabels(), strict=True):
        if "(Table" in name:
            label.set_fontweight("bold")
    text = "gain of + SPD, percentage points (bar: 95 % interval of the mean)"
    fig.supxlabel(text, fontsize=9.5)
    panels.legend(fig, _gain_keys())
    return fig


Dot = tuple[str, str, float, float, bool]  # label, metric, gain, half an interval, suspect


def _paper_gains(block: pd.DataFrame) -> list[Dot]:
    return [
        (f"paper: {baseline} + SPD, VisA, {len(r)} objects", metric, r.gain.mean(),
         half_width(r.gain.std(), len(r)), bool(r.suspect.any()))
        for (baseline, metric), r in block.groupby(["baseline", "metric"], sort=False)
    ]  # fmt: skip


def _own_gains(own: pd.DataFrame) -> list[Dot]:
    dots = []
    keys = ["dataset", "downstream_model", "encoder", "setting", "baseline", "method", "metric"]
    several = own.encoder.nunique() > 1
    for key, r in own.groupby(keys, sort=False):
        dataset, model, encoder, setting, baseline, method, metric = key
        against = "" if method == f"{baseline}_spd" else f" − {style.method_name(baseline)}"
        what = ", ".join(filter(None, (model, encoder if several else "", setting)))
        label = f"yours: {style.method_name(method)}{against}, {what}, {dataset}"
        if len(r) > FEW:
            text = f"{label}, {len(r)} categories"
            dots.append((text, metric, r.gain.mean(), half_width(r.gain.std(), len(r)), False))
            continue
        for one in r.itertuples():
            text = f"{label} {one.category}, {one.n} pair{'s' if one.n > 1 else ''}"
            dots.append((text, metric, one.gain, one.high - one.gain, False))
    return dots


def dumbbells(
    rows: pd.DataFrame, metric: str, pairs: Sequence[tuple[str, str]], title: str
) -> Figure:
    """From each baseline to its + SPD, a line of the table a row.

    Args:
        rows: Columns ``label``, ``method``, ``metric``, ``value`` and ``mark``, in the order
            in which they are shown.
        metric: Which to show.
        pairs: Baseline and method with SPD.
        title: Above the picture.
    """
    labels = list(dict.fromkeys(rows.label))
    chosen = rows[rows.metric == metric].drop_duplicates(["label", "method"])
    wide = chosen.set_index(["label", "method"])[["value", "mark"]].unstack().reindex(labels)
    height = 1.3 + 0.36 * len(labels)
    fig, (ax, differences) = style.figure(1, 2, height=height, sharey=True, width_ratios=[2, 1])
    keys = []
    for place, pair in enumerate(pairs):
        y = np.arange(len(labels)) + 0.18 * (2 * place - len(pairs) + 1)
        colour = style.method_marker(pair[0])["color"]
        there = [name for name in pair if name in wide.value]
        doubtful = (wide.mark[there] == "?").any(axis=1)
        for name in there:
            marker = "oD"[pair.index(name)]
            keys.append(_method_key(name, marker))
            own = keys[-1].get_color()
            for open_mark in (False, True):
                at = (wide.mark[name] == "?") == open_mark
                ax.plot(wide.value[name][at], y[at], marker, color=own, markersize=6,
                        markerfacecolor="white" if open_mark else own, zorder=3)  # fmt: skip
        if len(there) == 2:
            start, stop = (wide.value[name].to_numpy(float) for name in pair)
            ax.hlines(y, start, stop, color=colour, linewidth=1.5)
            bars = differences.barh(y, stop - start, height=0.3, color=colour)
            for bar, faint in zip(bars, doubtful, strict=True):
                bar.set_alpha(0.35 if faint else 0.9)
    panels.name_rows(ax, labels)
    ax.set(xlabel=f"{metric}, %", title=style.words(title, 60, 2))
    ax.grid(axis="x", color="#E5E5E5")
    ax.set_axisbelow(True)
    differences.axvline(0, color=style.GREY, linewidth=1)
    differences.set(xlabel="gain, percentage points", title="+ SPD minus baseline")
    panels.legend(fig, [*keys, _open_key("suspect")], "outside lower center")
    return fig
