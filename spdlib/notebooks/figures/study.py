"""The study of ``docs/study.md``: its rows, differences of arms by training seed, table and figure.

The unit is the training seed: differences are taken seed by seed, their intervals are Student's.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler
from scipy import stats

from spdlib import intervals, paths
from spdlib.notebooks.figures import panels, style, tables

# By key: test set and measure in the rows, and a title.
MEASURES = {
    "neighbours_real": ("elpv", "5 neighbours, images, AU-ROC", "neighbours\ndefective cells"),
    "neighbours_painted": ("elpv painted", "5 neighbours, images, AU-ROC", "neighbours\npainted"),
    "neighbours_screw": ("mvtec", "5 neighbours, images, AU-ROC", "neighbours\nscrews"),
    "padim_real": ("elpv", "PaDiM, images, AU-ROC", "PaDiM\ndefective cells"),
    "padim_painted": ("elpv painted", "PaDiM, pixels, AU-PR", "PaDiM, pixels\npainted (AU-PR)"),
    "padim_screw": ("mvtec", "PaDiM, pixels, AU-PR", "PaDiM, pixels\nscrews (AU-PR)"),
    "pairs": ("deeppcb", "pairs, AU-ROC", "pairs of boards\nwindows"),
    "cells": ("deeppcb", "cells of stage 3, AU-PR", "pairs of boards\ncells (AU-PR)"),
}
# Title of an arm, and the arm that it is compared with.
ARMS = {
    "simsiam": ("SimSiam", "imagenet"),
    "placebo": ("placebo", "simsiam"),
    "spd": ("SPD, η 1", "simsiam"),
    "spd_0.1": ("SPD, η 0.1", "simsiam"),
    "spd_moving": ("SPD, statistics move", "placebo"),
    "mean": ("SPD, mean colour", "simsiam"),
    "image": ("SPD, image", "simsiam"),
    "context": ("SPD, context", "simsiam"),
    "cutpaste": ("SPD by CutPaste", "simsiam"),
    "simsiam_frozen": ("SimSiam, frozen, slow", "simsiam"),
    "dense": ("dense SPD", "simsiam_frozen"),
    "dense_pull": ("dense SPD, pull", "simsiam_frozen"),
    "simsiam_long": ("SimSiam, as long as SPD", "spd"),
    "moco": ("MoCo", "imagenet"),
    "moco_spd": ("MoCo + SPD", "moco"),
    "simclr": ("SimCLR", "imagenet"),
    "simclr_spd": ("SimCLR + SPD", "simclr"),
    "supervised": ("supervised", "imagenet"),
    "supervised_ce": ("supervised + SPD", "supervised"),
    "supervised_cosine": ("supervised + SPD, cosines", "supervised"),
    "scratch": ("scratch: SimSiam", "random"),
    "scratch_spd": ("scratch: SPD", "scratch"),
    "simsiam_8": ("SimSiam, 8 steps", "imagenet"),
    "spd_8": ("SPD, 8 steps", "simsiam_8"),
    "simsiam_72": ("SimSiam, 72 steps", "imagenet"),
    "spd_72": ("SPD, 72 steps", "simsiam_72"),
}
CLAIMED = (("spd", "simsiam"), ("dense_pull", "simsiam_frozen"))  # by paired t tests
FIXED = ("imagenet",)  # the same whatever the seed


def read() -> pd.DataFrame:
    """The study's rows, one value each."""
    return pd.read_csv(paths.root() / "data" / "results" / "study.csv")


def values(rows: pd.DataFrame, measures: dict[str, tuple] = MEASURES) -> pd.DataFrame:
    """A row an arm and seed, a column a measure, percent; the mean where there are categories."""
    means = rows[rows.part != "choice"].groupby(["arm", "seed", "test", "measure"]).value.mean()
    wide = 100 * means.unstack(["test", "measure"])
    return pd.DataFrame({k: wide.get((test, name)) for k, (test, name, *_) in measures.items()})


def differences(found: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """What one arm has over another, by measure, in percentage points.

    Args:
        found: As :func:`values` gives it.
        pairs: Arm, and the one it is compared with.

    Returns:
        Columns ``arm``, ``baseline``, ``measure``, ``gains`` (a list, one a seed), ``mean``,
        ``low`` and ``high`` (Student's 95 %), ``n`` and ``p`` (of a t test; NaN for one seed).
    """
    rows = []
    for arm, baseline in pairs:
        if not {arm, baseline} <= set(found.index.unique("arm")):
            continue
        ours, theirs = found.loc[arm], found.loc[baseline]
        gains = ours - (theirs.iloc[0] if baseline in FIXED else theirs)
        for measure, one in gains.items():
            one = one.dropna()
            half = intervals.half_width(one.std(), len(one))
            p = stats.ttest_1samp(one, 0).pvalue if len(one) > 1 else np.nan
            ends = one.mean(), one.mean() - half, one.mean() + half
            rows.append((arm, baseline, measure, one.tolist(), *ends, len(one), p))
    columns = ["arm", "baseline", "measure", "gains", "mean", "low", "high", "n", "p"]
    return pd.DataFrame(rows, columns=columns)


def against_baselines(found: pd.DataFrame) -> pd.DataFrame:
    """Every arm against the one it is compared with, as :func:`differences` gives it."""
    return differences(found, [(arm, baseline) for arm, (_, baseline) in ARMS.items()])


def claims(found: pd.DataFrame, pairs: Sequence[tuple[str, str]] = CLAIMED) -> pd.DataFrame:
    """The study's claims: differences with Holm's ``adjusted`` p, and ``holds`` at 5 %."""
    table = differences(found, pairs)
    adjusted = intervals.holm(table.p.fillna(1))
    return table.assign(adjusted=adjusted, holds=adjusted < 0.05)


def table(compared: pd.DataFrame) -> Styler:
    """Differences to read: mean and interval, a row an arm."""
    wide = cells(compared).unstack("measure")
    order = [arm for arm in ARMS if arm in wide.index]
    shown = wide.loc[order, [m for m in MEASURES if m in wide]].fillna("–")
    shown.index = [f"{ARMS[arm][0]} − {title(ARMS[arm][1])}" for arm in order]
    shown.columns = [MEASURES[m][2].replace("\n", ", ") for m in shown.columns]
    caption = "Percentage points, with 95 % intervals over training seeds"
    return tables.plain(shown, caption, "study")


def title(arm: str) -> str:
    """An arm as text and figures name it."""
    return ARMS[arm][0] if arm in ARMS else style.method_name(arm)


@style.shows()
def figure(compared: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """Differences of arms, a panel a measure: dots are training seeds, lines 95 % intervals.

    In colour where the interval, taken alone, excludes zero.

    Args:
        compared: As :func:`against_baselines` gives it.
        arms: Which ones.
    """
    rows = compared[compared.arm.isin(arms)].dropna(subset="mean")
    colours = np.select([rows.low > 0, rows.high < 0], [style.BLUE, style.VERMILION], style.GREY)
    look = {"marker": "|", "markersize": 11, "markeredgewidth": 2}
    rows = rows.assign(
        method="", look=[look | {"color": colour} for colour in colours], dots=rows.gains,
        panel=[MEASURES[measure][2] for measure in rows.measure],
        row=[f"{title(arm)} − {title(ARMS[arm][1])}" for arm in rows.arm],
    )  # fmt: skip
    text = "difference, percentage points"
    fig = panels.intervals(rows, text, 0, panels.PLAIN, sharex=False, stacked=2)
    fig.set_figheight(2.0 + 0.56 * rows.arm.nunique())
    return fig


def cells(compared: pd.DataFrame) -> pd.Series:
    """Mean and interval as text, by arm and measure."""

    def cell(row) -> str:
        ends = "" if np.isnan(row.low) else f" ({row.low:+.1f} to {row.high:+.1f})"
        return f"{row['mean']:+.1f}{ends}" if row.n else "–"

    return compared.set_index(["arm", "measure"]).apply(cell, axis=1)
