"""Figures of the paper's tables: contradictions, scatter, gains, disagreements; one's own gains."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

from spdlib import paper
from spdlib.notebooks.figures import style
from spdlib.notebooks.figures.tables import spaced

METRIC_COLOURS = {"AU-PR": style.ORANGE, "AU-ROC": style.SKY}
FEW = 3  # categories that are shown one by one
VERDICT_COLOURS = {"agree": style.SKY, "tie": "#BBBBBB", "disagree": style.VERMILION}


def contradictions(means: pd.DataFrame) -> Figure:
    """How far each column's mean is from the printed one, and what rounding explains.

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
    means = paper.tidy(means=True).query("subset == 'Mean'")
    protocols = means.protocol.unique()
    fig, axes = style.figure(2, len(protocols), height=5.0)
    for row, metric in zip(axes, paper.METRICS, strict=True):
        for ax, protocol in zip(row, protocols, strict=True):
            chosen = means[(means.protocol == protocol) & (means.metric == metric)]
            points = chosen.pivot(index="pretraining", columns="task", values="value")
            off = paper.column_means().merge(chosen, on=["table", "pretraining", "metric"])
            doubtful = set(off[off.suspect_x].pretraining)
            _arrows(ax, points, doubtful)
            ax.set_title(f"{protocol}\n{metric}" if metric == "AU-PR" else metric)
            ax.margins(0.2)
        row[0].set_ylabel("segmentation, %")
    for ax in axes[1]:
        ax.set_xlabel("detection, %")
    handles = [
        Line2D([], [], color=style.METHOD_COLOURS[m], linestyle="", marker=marker, markersize=7,
               label=style.method_name(name))
        for m in ("simsiam", "supervised")
        for marker, name in (("o", m), ("D", f"{m}_spd"))
    ]  # fmt: skip
    open_mark = Line2D([], [], color=style.GREY, marker="o", markerfacecolor="none", linestyle="",
                       label="a column that does not add up")  # fmt: skip
    fig.legend(handles=[*handles, open_mark], loc="outside lower center", ncols=5)
    return fig


def gains(table: pd.DataFrame, seed: int = 0) -> Figure:
    """Every gain of + SPD, a dot a subset, and their mean; a row a table of the paper.

    Args:
        table: As :func:`spdlib.paper.gains` returns it.
        seed: Of the dots' vertical places, which mean nothing.
    """
    tables = sorted(table.table.unique())
    fig, axes = style.figure(1, 2, height=1.2 + 0.62 * len(tables), sharey=True, sharex=True)
    rng = np.random.default_rng(seed)
    for ax, baseline in zip(axes, ("SimSiam", "Supervised"), strict=True):
        for place, number in enumerate(tables):
            for metric, offset in zip(paper.METRICS, (-0.2, 0.2), strict=True):
                rows = table[
                    (table.table == number)
                    & (table.baseline == baseline)
                    & (table.metric == metric)
                ]
                jitter = place + offset + rng.uniform(-0.1, 0.1, len(rows))
                _gain_dots(ax, rows, jitter, METRIC_COLOURS[metric], place + offset)
        ax.axvline(0, color=style.GREY, linewidth=1, zorder=0)
        ax.set_xscale("symlog", linthresh=5, linscale=1.2)
        ticks = [-30, -10, -2, 0, 2, 10, 30]
        ax.set_xticks(ticks, [f"{t:+d}" if t else "0" for t in ticks])
        ax.set(title=f"{baseline} + SPD minus {baseline}", xlabel="gain, percentage points")
    names = table.drop_duplicates("table").set_index("table")
    axes[0].set_yticks(
        range(len(tables)), [f"{names.protocol[n]}\n{names.task[n]} ({n})" for n in tables]
    )
    axes[0].invert_yaxis()
    fig.legend(handles=_gain_legend(), loc="outside lower center", ncols=5)
    return fig


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
        bars.barh(range(len(counts)), width, left=left, color=colour, label=verdict)
        for y, (start, count) in enumerate(zip(left, width, strict=True)):
            if count > 2:
                bars.text(start + count / 2, y, count, ha="center", va="center", fontsize=8.5)
        left = left + width
    labels = [f"{r.protocol}\n{r.task} ({r.table})" for r in names.itertuples()]
    bars.set_yticks(range(len(counts)), labels)
    bars.invert_yaxis()
    bars.set(xlabel="two encoders on one subset", xlim=(0, left.max()))
    bars.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    for verdict, colour in VERDICT_COLOURS.items():
        chosen = pairs[pairs.verdict == verdict]
        sure, unsure = chosen[~chosen.suspect], chosen[chosen.suspect]
        dots.plot(sure.auroc, sure.aupr, ".", color=colour, markersize=5)
        dots.plot(unsure.auroc, unsure.aupr, "o", color=colour, markersize=3.5,
                  markerfacecolor="none", markeredgewidth=0.7)  # fmt: skip
    dots.axhline(0, color=style.GREY, linewidth=0.8, zorder=0)
    dots.axvline(0, color=style.GREY, linewidth=0.8, zorder=0)
    dots.set(xlabel="difference in AU-ROC, percentage points", ylabel="difference in AU-PR",
             title="open: rests on a suspect value")  # fmt: skip
    for axis in (dots.set_xscale, dots.set_yscale):
        axis("symlog", linthresh=2, linscale=1)
    ticks = [-20, -5, -1, 0, 1, 5, 20]
    for set_ticks in (dots.set_xticks, dots.set_yticks):
        set_ticks(ticks, [f"{t:+d}" if t else "0" for t in ticks])
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
    rows = []
    for (number, protocol, task), block in theirs.groupby(["table", "protocol", "task"]):
        if (protocol, task) not in shown:
            continue
        rows.append((f"{protocol} {task} (Table {number})", None, None, None, None))
        for (baseline, metric), r in block.groupby(["baseline", "metric"], sort=False):
            label = f"paper: {baseline} + SPD, VisA, {len(r)} objects"
            rows.append((label, metric, r.gain.mean(), _half(r.gain), bool(r.suspect.any())))
        mine = own[(own.protocol == protocol) & (own.task == task)]
        rows += _own_gains(mine[mine.metric.isin(paper.METRICS)])
    table = pd.DataFrame(rows, columns=["label", "metric", "gain", "half", "suspect"])
    table["block"] = table.metric.isna().cumsum()
    places = table.drop_duplicates(["block", "label"]).reset_index(drop=True)
    row = {(r.block, r.label): y for y, r in enumerate(places.itertuples())}
    fig, ax = style.figure(height=1.0 + 0.27 * len(places))
    for r in table[table.metric.notna()].itertuples():
        y = row[r.block, r.label] + (-0.16 if r.metric == "AU-PR" else 0.16)
        colour = METRIC_COLOURS[r.metric]
        face = "white" if r.suspect else colour
        half = None if np.isnan(r.half) else r.half
        ax.errorbar(r.gain, y, xerr=half, fmt="o", color=colour, markerfacecolor=face,
                    capsize=2.5, markersize=5)  # fmt: skip
    ax.axvline(0, color=style.GREY, linewidth=1, zorder=0)
    ax.set_yticks(range(len(places)), places.label, fontsize=8.5)
    for label, tick, r in zip(
        ax.get_yticklabels(), ax.yaxis.get_major_ticks(), places.itertuples(), strict=True
    ):
        if pd.isna(r.metric):  # a block's heading
            label.set_fontweight("bold")
            tick.tick1line.set_visible(False)
            ax.axhline(row[r.block, r.label] - 0.5, color=style.GREY, linewidth=0.6, alpha=0.6)
    ax.set_ylim(len(places) - 0.5, -0.5)
    text = "gain of + SPD, percentage points (bar: 95 % interval of the mean)"
    fig.supxlabel(text, fontsize=9.5)
    fig.legend(handles=_gain_legend(mean=False), loc="outside upper center", ncols=3)
    return fig


def _own_gains(own: pd.DataFrame) -> list[tuple]:
    """Rows of :func:`beside`: label, metric, gain, half an interval, suspect."""
    rows = []
    keys = ["dataset", "downstream_model", "encoder", "setting", "baseline", "method", "metric"]
    several = own.encoder.nunique() > 1
    for key, r in own.groupby(keys, sort=False):
        dataset, model, encoder, setting, baseline, method, metric = key
        against = "" if method == f"{baseline}_spd" else f" − {style.method_name(baseline)}"
        what = ", ".join(filter(None, (model, encoder if several else "", setting)))
        label = f"yours: {style.method_name(method)}{against}, {what}, {dataset}"
        if len(r) > FEW:
            text = f"{label}, {len(r)} categories"
            rows.append((text, metric, r.gain.mean(), _half(r.gain), False))
            continue
        for one in r.itertuples():
            text = f"{label} {one.category}, {one.n} pair{'s' if one.n > 1 else ''}"
            rows.append((text, metric, one.gain, one.high - one.gain, False))
    return rows


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
    chosen = chosen.set_index(["label", "method"])
    height = 1.3 + 0.36 * len(labels)
    fig, (ax, differences) = style.figure(1, 2, height=height, sharey=True, width_ratios=[2, 1])
    for place, (baseline, method) in enumerate(pairs):
        offset = 0.18 * (2 * place - len(pairs) + 1)
        colour = style.METHOD_COLOURS.get(baseline, style.BLACK)
        for row, label in enumerate(labels):
            ends = []
            for name, marker in zip((baseline, method), "oD", strict=True):
                if (label, name) in chosen.index:
                    ends.append(end := chosen.loc[(label, name)])
                    own = style.method_style(name)["color"]
                    face = "white" if end.mark == "?" else own
                    ax.plot(end.value, row + offset, marker, color=own, markersize=6,
                            markerfacecolor=face, zorder=3)  # fmt: skip
            if len(ends) == 2:
                start, stop = (end.value for end in ends)
                ax.plot([start, stop], [row + offset] * 2, color=colour, linewidth=1.5)
                doubtful = "?" in (ends[0].mark, ends[1].mark)
                differences.barh(row + offset, stop - start, height=0.3, color=colour,
                                 alpha=0.35 if doubtful else 0.9)  # fmt: skip
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set(xlabel=f"{metric}, %", title=title)
    ax.grid(axis="x", color="#E5E5E5")
    ax.set_axisbelow(True)
    differences.axvline(0, color=style.GREY, linewidth=1)
    differences.set(xlabel="gain, percentage points", title="+ SPD minus baseline")
    shown = set(chosen.index.get_level_values("method"))
    handles = [
        Line2D([], [], color=style.method_style(name)["color"], linestyle="", marker=marker,
               label=style.method_name(name))
        for pair in pairs
        for marker, name in zip("oD", pair, strict=True)
        if name in shown
    ]  # fmt: skip
    suspect = Line2D([], [], color=style.GREY, marker="o", markerfacecolor="white", linestyle="",
                     label="suspect")  # fmt: skip
    fig.legend(handles=[*handles, suspect], loc="outside lower center", ncols=5)
    return fig


def _half(gains: pd.Series) -> float:
    """Half a 95 % interval of a mean, Student's."""
    return float(stats.t.ppf(0.975, len(gains) - 1) * gains.std() / len(gains) ** 0.5)


def _arrows(ax: Axes, points: pd.DataFrame, doubtful: set[str]) -> None:
    for baseline in ("SimSiam", "Supervised"):
        start, stop = points.loc[baseline], points.loc[f"{baseline}+SPD"]
        colour = style.METHOD_COLOURS[baseline.lower()]
        ax.annotate(
            "", (stop.detection, stop.segmentation), (start.detection, start.segmentation),
            arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.5, "shrinkA": 4,
                        "shrinkB": 5},
        )  # fmt: skip
        for name, point, marker in (
            (baseline, start, "o"),
            (f"{baseline}+SPD", stop, "D"),
        ):
            face = "none" if name in doubtful else colour
            ax.plot(point.detection, point.segmentation, marker, color=colour, markersize=7,
                    markerfacecolor=face)  # fmt: skip


def _gain_dots(ax: Axes, rows: pd.DataFrame, y: np.ndarray, colour: str, centre: float) -> None:
    suspect = rows.suspect.to_numpy()
    x = rows.gain.to_numpy()
    ax.plot(x[~suspect], y[~suspect], "o", color=colour, markersize=4, alpha=0.8)
    ax.plot(x[suspect], y[suspect], "o", color=colour, markersize=4, markerfacecolor="white")
    ax.plot([x.mean()] * 2, [centre - 0.17, centre + 0.17], color=style.BLACK, linewidth=2)
    ax.text(1.01, centre, f"{(x > 0).sum()} ▲ {(x < 0).sum()} ▼", fontsize=7.5, ha="left",
            va="center", transform=ax.get_yaxis_transform(), color="#333333")  # fmt: skip


def _gain_legend(mean: bool = True) -> list[Line2D]:
    handles = [
        Line2D([], [], color=colour, marker="o", linestyle="", label=metric)
        for metric, colour in METRIC_COLOURS.items()
    ]
    open_mark = {"color": style.GREY, "marker": "o", "markerfacecolor": "white", "linestyle": ""}
    handles.append(Line2D([], [], **open_mark, label="rests on a suspect value"))
    if mean:
        handles.append(Line2D([], [], color=style.BLACK, linewidth=2, label="mean"))
    return handles
