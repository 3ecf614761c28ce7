"""Figures of the attention maps: the steps to one, encoders side by side, numbers."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor

from spdlib.attention import METHODS
from spdlib.notebooks.figures import panels, style
from spdlib.notebooks.figures.panels import Picture

STRENGTH = 0.75  # of an overlay
MEASURES = {
    "energy_share": "energy inside the mask",
    "pointing": "maximum inside the mask",
    "average_precision": "AU-PR (steps)",
    "aupr": "AU-PR (linear)",
}


def features(anomalous: Tensor, normal: Tensor, distances: Mapping[str, ArrayLike]) -> Figure:
    """A feature beside its nearest normal one, and the distances of whole groups of images.

    Args:
        anomalous: Feature (D,) of an anomalous image.
        normal: Feature (D,) of its nearest normal image.
        distances: Cosine distances to the nearest normal image, by the name of the group.
    """
    fig, (channels, groups) = style.figure(1, 2, height=3.4, width_ratios=[1, 1.3])
    x, y = (feature / feature.norm() for feature in (normal, anomalous))
    top = 1.05 * float(max(x.max(), y.max()))
    channels.plot([0, top], [0, top], ":", color=style.GREY)
    channels.plot(x, y, ".", color=style.ANOMALY, markersize=4, alpha=0.6)
    channels.set(xlabel="nearest normal image", ylabel="anomalous image", aspect="equal",
                 title=f"each dot a channel of the feature ({len(x):,})")  # fmt: skip
    rng = np.random.default_rng(0)
    for height, values in enumerate(distances.values()):
        colour = style.NORMAL if height == 0 else style.ANOMALY
        jitter = height + rng.uniform(-0.25, 0.25, len(values))
        groups.plot(values, jitter, ".", color=colour, markersize=5, alpha=0.5)
        if len(values):
            groups.vlines(np.median(values), height - 0.36, height + 0.36, color=style.BLACK)
    panels.name_rows(groups, list(distances))
    groups.set(xlabel="cosine distance to the nearest normal image (bar: median)", xlim=(0, None))
    return fig


def steps(
    image: Tensor, normal: Tensor, cells: Tensor, energy: Tensor, mask: Tensor | None = None
) -> Figure:
    """The way to one map: image, nearest normal image, signed energy of the cells, map.

    Args:
        image: The anomalous image (3, H, W).
        normal: Its nearest normal image (3, H, W).
        cells: Energy (h, w) of the stage's cells, before rectification.
        energy: The map (H, W).
        mask: Ground truth (H, W), if there is one.
    """
    titles = ("image", "nearest normal image", "energy of the cells", "map: cut off, enlarged")
    bound = max(cells.abs().max().item(), 1e-30)
    signed = ScalarMappable(Normalize(-bound, bound), "PuOr_r")
    row = [Picture(image, None, mask), normal, Picture(heat=cells), Picture(image, None, mask)]
    fig = panels.grid([("", row)], titles, side=2.2, scale=signed, label="cells: each ...")
    energy = energy / max(energy.max().item(), 1e-30)
    panels.show(fig.axes[3], Picture(image, energy, mask, titles[3], strength=STRENGTH))
    bar = fig.axes[-1]
    bar.set_xticks([-bound, 0, bound], ["lowers the distance", "leaves it", "raises it"])
    bar.set_xlabel("energy of the cells")
    return fig


def comparison(
    images: Tensor,
    normals: Tensor,
    maps: Mapping[str, Tensor],
    masks: Tensor | None = None,
    titles: Sequence[str] | None = None,
    strength: float = STRENGTH,
) -> Figure:
    """Encoders side by side, rows as in Fig. 11 of Zou et al.; all maps on one colour scale.

    Args:
        images: Anomalous images (N, 3, H, W), a column each.
        normals: A normal image for each, e.g. the nearest.
        maps: Maps (N, H, W) in [0, 1] by method, a row each.
        masks: Ground truth (N, H, W), outlined, if there is one.
        titles: Titles of the columns.
        strength: Opacity of the overlay, in [0, 1].
    """
    outlines = [None] * len(images) if masks is None else masks
    rows = {"normal": list(normals)}
    for name, heats in {"anomalous": [None] * len(images), **maps}.items():
        rows[style.method_name(name)] = [
            Picture(image, heat, mask, strength=strength)
            for image, heat, mask in zip(images, heats, outlines, strict=True)
        ]
    label = "energy (1: the largest shown)"
    return panels.grid(rows.items(), titles or (), side=1.3, label=label)


def overlay(
    image: Tensor,
    normal: Tensor,
    energy: Tensor,
    mask: Tensor | None = None,
    titles: Sequence[str] = ("image", "nearest normal image", "map"),
    strength: float = STRENGTH,
) -> Figure:
    """An image, its nearest normal image, and its map.

    Args:
        image: The image (3, H, W).
        normal: Its nearest normal image (3, H, W).
        energy: The map (H, W), in [0, 1].
        mask: Ground truth (H, W), if there is one.
        titles: Titles of the three pictures.
        strength: Opacity of the overlay, in [0, 1].
    """
    cells = [Picture(image, None, mask), normal, Picture(image, energy, mask, strength=strength)]
    return panels.grid([("", cells)], titles, side=3)


def scores(summary: pd.DataFrame, measures: Sequence[str] = tuple(MEASURES)[:3]) -> Figure:
    """Means and their intervals, a panel a measure, a row an encoder or baseline.

    Args:
        summary: As :func:`spdlib.attention.summarise` makes, by the column ``encoder``.
        measures: Which measures to show.
    """
    parts = [summary[summary.measure == measure] for measure in measures]
    rows = pd.concat(parts).rename(columns={"mean": "value", "encoder": "method"})
    rows = rows.assign(
        panel=rows.measure.map(lambda measure: MEASURES.get(measure, measure)),
        row=rows.method.map(style.method_name),
    )
    text = "mean over images, 95 % bootstrap interval"
    return panels.intervals(rows, text, sharex=False, xlim=(0, None))


def falls(summary: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """The perturbation check: how far the distance falls when a region is blurred.

    Args:
        summary: As :func:`spdlib.attention.summarise` makes of perturbations, by the columns
            ``setting`` and ``encoder``.
        titles: Panels, by setting.
    """
    parts = [summary[(summary.setting == setting) & summary.measure.isin(("hottest", "random"))]
             for setting in titles]  # fmt: skip
    rows = pd.concat(parts).rename(columns={"mean": "value"})
    hottest = rows.measure == "hottest"
    rows = rows.assign(
        panel=rows.setting.map(titles), row=rows.encoder.map(style.method_name),
        method=rows.encoder.where(hottest, ""), shift=np.where(hottest, -0.13, 0.13),
    )  # fmt: skip
    text = "fall of the distance (colour: hottest region blurred; grey: the same region elsewhere)"
    return panels.intervals(rows, text, mark=0)


def choices(table: pd.DataFrame, measure: str = "average_precision") -> Figure:
    """One measure, in percent, for every method and stage, a panel an encoder.

    Args:
        table: Columns ``encoder``, ``method``, ``stage`` and the measure, one row an image.
        measure: A key of ``MEASURES``.
    """
    means = table.groupby(["encoder", "method", "stage"], sort=False)[measure].mean()
    if means.dropna().empty:
        return panels.nothing("no map to measure")
    names = list(table.encoder.unique())
    fig, axes = style.figure(1, len(names), height=2.9, squeeze=False, sharey=True)
    for ax, name in zip(axes[0], names, strict=True):
        cells = 100 * means[name].unstack().rename(index=lambda method: METHODS[method].__name__)
        sns.heatmap(cells, ax=ax, annot=True, fmt=".0f", cmap="cividis", vmin=0,
                    vmax=100 * means.max(), cbar=name == names[-1],
                    cbar_kws={"label": f"{MEASURES[measure]}, %"})  # fmt: skip
        ax.set(title=style.words(style.method_name(name)), xlabel="stage", ylabel="")
        ax.tick_params(length=0, rotation=0)
    return fig
