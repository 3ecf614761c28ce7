"""Figures of the attention maps: the steps to one, encoders side by side, numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from torch import Tensor

from spdlib.attention import METHODS
from spdlib.notebooks.figures import panels, style

MEASURES = {
    "energy_share": "energy inside the mask",
    "pointing": "maximum inside the mask",
    "average_precision": "AU-PR (steps)",
}


@style.shows()
def features(anomalous: Tensor, normal: Tensor, distances: Mapping[str, panels.Array]) -> Figure:
    """A feature beside its nearest normal one, and the distances of whole groups of images.

    Args:
        anomalous: Feature (D,) of an anomalous image.
        normal: Feature (D,) of its nearest normal image.
        distances: Cosine distances to the nearest normal image, by the name of the group.
    """
    fig, (channels, groups) = style.figure(1, 2, 3.4, width_ratios=[1, 1.3])
    x, y = (feature / feature.norm() for feature in (normal, anomalous))
    channels.axline((0, 0), slope=1, linestyle=":", color=style.GREY)
    channels.plot(x, y, ".", color=style.ANOMALY, markersize=4, alpha=0.6)
    channels.set(xlabel="nearest normal image", ylabel="anomalous image", aspect="equal",
                 title=f"each dot a channel of the feature ({len(x):,})")  # fmt: skip
    table = pd.DataFrame({name: pd.Series(np.asarray(far)) for name, far in distances.items()})
    colours = [style.NORMAL, *[style.ANOMALY] * (len(distances) - 1)]
    sns.stripplot(table, orient="h", ax=groups, palette=colours, size=4, alpha=0.5, jitter=0.25)
    heights = np.arange(len(distances))
    groups.vlines(table.median(), heights - 0.36, heights + 0.36, color=style.BLACK, zorder=3)
    groups.set_xlabel("cosine distance to the nearest normal image (bar: median)")
    groups.set_xlim(0, None)
    return fig


@style.shows()
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
    bound, top = (max(values.abs().max().item(), 1e-30) for values in (cells, energy))
    signed = panels.scale_of(-bound, bound, "PuOr_r")
    row = [
        panels.Picture(image, None, mask),
        normal,
        panels.Picture(heat=cells),
        panels.Picture(image, None, mask),
    ]
    titles = ("image", "nearest normal image", "energy of the cells", "map: cut off, enlarged")
    fig = panels.grid([("", row)], titles, 2.2, scale=signed, label="energy of the cells")
    panels.show(fig.axes[3], panels.Picture(image, energy / top, mask, titles[3]))
    fig.axes[-1].set_xticks([-bound, 0, bound], ["lowers the distance", "leaves it", "raises it"])
    return fig


@style.shows("no images to show")
def comparison(
    images: Tensor,
    normals: Tensor,
    maps: Mapping[str, Tensor],
    masks: Tensor | None = None,
    titles: Sequence[str] = (),
) -> Figure:
    """Encoders side by side, rows as in Fig. 11 of Zou et al.; all maps on one colour scale.

    Args:
        images: Anomalous images (N, 3, H, W), a column each.
        normals: A normal image for each, e.g. the nearest.
        maps: Maps (N, H, W) in [0, 1] by method, a row each.
        masks: Ground truth (N, H, W), outlined, if there is one.
        titles: Titles of the columns.
    """
    nothing: Any = [None] * len(images)
    rows = {"normal": list(normals)}
    for name, heats in {"anomalous": nothing, **maps}.items():
        cells = zip(images, heats, nothing if masks is None else masks, strict=True)
        rows[style.method_name(name)] = [panels.Picture(*cell) for cell in cells]
    return panels.grid(rows.items(), titles, label="energy (1: the largest shown)")


@style.shows("nothing to compare")
def scores(summary: pd.DataFrame) -> Figure:
    """Means and their intervals, a panel a measure, a row an encoder or baseline.

    Args:
        summary: Table of :func:`spdlib.attention.summarise`, by the column ``encoder``.
    """
    rows = summary[summary.measure.isin(MEASURES)].rename(columns={"encoder": "method"})
    rows = rows.assign(panel=rows.measure.replace(MEASURES))
    text = "mean over images, 95 % bootstrap interval"
    return panels.intervals(rows, text, sharex=False, xlim=(0, None))


@style.shows("nothing to compare")
def falls(summary: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """The perturbation check: how far the distance falls when a region is blurred.

    Args:
        summary: Table of :func:`spdlib.attention.summarise` for perturbations, by the columns
            ``setting`` and ``encoder``.
        titles: Panels, by setting.
    """
    rows = summary[summary.setting.isin(titles) & summary.measure.isin(("hottest", "random"))]
    hottest = rows.measure == "hottest"
    rows = rows.assign(panel=rows.setting.map(titles), row=rows.encoder.map(style.method_name))
    rows = rows.assign(method=rows.encoder.where(hottest, ""), shift=0.13 - 0.26 * hottest)
    text = "fall of the distance (colour: hottest region blurred; grey: the same region elsewhere)"
    return panels.intervals(rows, text, mark=0)


@style.shows("no map to measure")
def choices(table: pd.DataFrame) -> Figure:
    """AU-PR (steps), in percent, for every method and stage, a panel an encoder.

    Args:
        table: Columns ``encoder``, ``method``, ``stage`` and ``average_precision``, one row an
            image.
    """
    means = 100 * table.groupby(["encoder", "method", "stage"], sort=False).average_precision.mean()
    names = list(table.encoder.unique())
    fig, axes = panels.side_by_side([*map(style.method_name, names)], 2.9, sharey=True)
    look = {"cmap": "cividis", "vmin": 0, "vmax": means.max(), "annot": True, "fmt": ".0f"}
    for ax, name in zip(axes, names, strict=True):
        cells = means[name].unstack().rename(index=lambda method: METHODS[method].__name__)
        bar = {"cbar": name == names[-1], "cbar_kws": {"label": "AU-PR (steps), %"}}
        sns.heatmap(cells, ax=ax, **look, **bar)
        ax.set(xlabel="stage", ylabel="")
        ax.tick_params(length=0, rotation=0)
    return fig
