"""Figures of the attention maps: the steps to one, encoders side by side, numbers."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike
from torch import Tensor

from spdlib.attention import METHODS
from spdlib.notebooks.figures import style

PERCENT = PercentFormatter(1, decimals=0, symbol=" %")
STRENGTH = 0.75  # of an overlay
MASK = style.SKY
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
        groups.plot([np.median(values)] * 2, [height - 0.36, height + 0.36], color=style.BLACK)
    groups.set_yticks(range(len(distances)), list(distances))
    groups.invert_yaxis()
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
    fig, (axes, below) = style.figure(2, 4, height=3.2, height_ratios=[1, 0.06])
    titles = ("image", "nearest normal image", "energy of the cells", "map: cut off, enlarged")
    for ax, title in zip(axes, titles, strict=True):
        _bare(ax).set_title(title)
    for ax in below[[0, 1, 3]]:
        ax.set_axis_off()
    _show(axes[0], image)
    _show(axes[1], normal)
    bound = cells.abs().max().item()
    drawn = axes[2].imshow(cells, cmap="PuOr_r", vmin=-bound, vmax=bound)
    bar = fig.colorbar(drawn, cax=below[2], orientation="horizontal")
    bar.set_ticks([-bound, 0, bound], labels=["lowers", "0", "raises"])
    bar.set_label("the distance", fontsize=9)
    for label, side in zip(bar.ax.get_xticklabels(), ("left", "center", "right"), strict=True):
        label.set_horizontalalignment(side)
    _show(axes[3], image)
    _overlay(axes[3], energy / max(energy.max().item(), 1e-30), STRENGTH)
    if mask is not None:
        for ax in (axes[0], axes[3]):
            _outline(ax, mask)
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
        titles: Of the columns.
        strength: Of the overlay, in [0, 1].
    """
    rows, columns = 2 + len(maps), len(images)
    width = min(style.WIDTH, 1.0 + 1.3 * columns)
    side = (width - 0.9) / columns
    fig, axes = style.figure(rows, columns, height=rows * side + 0.75, width=width, squeeze=False)
    names = ["normal", "anomalous", *map(style.method_name, maps)]
    for row, name in zip(axes, names, strict=True):
        row[0].set_ylabel(name)
        for ax in row:
            _bare(ax)
    for column in range(columns):
        _show(axes[0, column], normals[column])
        for ax in axes[1:, column]:
            _show(ax, images[column])
            if masks is not None:
                _outline(ax, masks[column])
        for ax, energy in zip(axes[2:, column], maps.values(), strict=True):
            _overlay(ax, energy[column], strength)
        if titles is not None:
            axes[0, column].set_title(titles[column], fontsize=9)
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    bar = fig.colorbar(
        ScalarMappable(cmap=style.HEAT), ax=axes, location="bottom", aspect=40, shrink=0.6, pad=0.01
    )
    bar.set_label("energy (1: the largest shown)")
    return fig


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
        titles: Of the three pictures.
        strength: Of the overlay, in [0, 1].
    """
    fig, axes = style.figure(1, 3, height=3.4)
    for ax, pixels, title in zip(axes, (image, normal, image), titles, strict=True):
        _show(_bare(ax), pixels)
        ax.set_title(title)
    _overlay(axes[2], energy, strength)
    if mask is not None:
        _outline(axes[0], mask)
        _outline(axes[2], mask)
    return fig


def scores(summary: pd.DataFrame, measures: Sequence[str] = tuple(MEASURES)[:3]) -> Figure:
    """Means and their intervals, a panel a measure, a row an encoder or baseline.

    Args:
        summary: As :func:`spdlib.attention.summarise` makes, by the column ``encoder``.
        measures: Which measures to show.
    """
    names = list(summary.encoder.unique())
    fig, axes = style.figure(1, len(measures), height=1.1 + 0.36 * len(names), sharey=True)
    for ax, measure in zip(axes, measures, strict=True):
        rows = summary[summary.measure == measure].set_index("encoder").loc[names]
        for height, (name, row) in enumerate(rows.iterrows()):
            _interval(ax, row, height, name)
        ax.set(title=MEASURES.get(measure, measure), xlim=(0, None))
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.xaxis.set_major_formatter(PERCENT)
        ax.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(names)), [style.method_name(name) for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    fig.supxlabel("mean over images, 95 % bootstrap interval", fontsize=9.5)
    return fig


def falls(summary: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """The perturbation check: how far the distance falls when a region is blurred.

    Args:
        summary: As :func:`spdlib.attention.summarise` makes of perturbations, by the columns
            ``setting`` and ``encoder``.
        titles: Panels, by setting.
    """
    names = list(summary.encoder.unique())
    fig, axes = style.figure(
        1, len(titles), height=1.2 + 0.45 * len(names), sharex=True, sharey=True, squeeze=False
    )
    for ax, (setting, title) in zip(axes[0], titles.items(), strict=True):
        rows = summary[summary.setting == setting].set_index(["encoder", "measure"])
        for height, name in enumerate(names):
            _interval(ax, rows.loc[(name, "hottest")], height - 0.13, name)
            _interval(ax, rows.loc[(name, "random")], height + 0.13)
        ax.axvline(0, color=style.GREY, linewidth=1)
        ax.set_title(title)
        ax.xaxis.set_major_formatter(PERCENT)
    axes[0, 0].set_yticks(range(len(names)), [style.method_name(name) for name in names])
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    fig.supxlabel(
        "fall of the distance (colour: hottest region blurred; grey: the same region elsewhere)",
        fontsize=9.5,
    )
    return fig


def choices(table: pd.DataFrame, measure: str = "average_precision") -> Figure:
    """One measure for every method and stage, a panel an encoder.

    Args:
        table: Columns ``encoder``, ``method``, ``stage`` and the measure, one row an image.
        measure: A key of ``MEASURES``.
    """
    means = table.groupby(["encoder", "method", "stage"], sort=False)[measure].mean()
    names = list(table.encoder.unique())
    fig, axes = style.figure(1, len(names), height=2.9, squeeze=False, sharey=True)
    for ax, name in zip(axes[0], names, strict=True):
        cells = means[name].unstack()
        drawn = ax.imshow(cells, cmap="cividis", vmin=0, vmax=means.max(), aspect="auto")
        for (y, x), value in np.ndenumerate(cells.to_numpy()):
            dark = value < 0.55 * means.max()
            ax.text(x, y, f"{100 * value:.0f}", ha="center", va="center",
                    color="white" if dark else "black")  # fmt: skip
        ax.set_xticks(range(cells.shape[1]), cells.columns)
        ax.set_yticks(range(cells.shape[0]), [METHODS[method].__name__ for method in cells.index])
        ax.tick_params(length=0)
        ax.set(title=style.method_name(name), xlabel="stage")
        ax.spines[:].set_visible(False)
    fig.colorbar(drawn, ax=axes, format=PERCENT, label=MEASURES[measure])
    return fig


def _interval(ax: Axes, row: pd.Series, height: float, method: str | None = None) -> None:
    drawn = {"color": style.GREY, "marker": "|"} if method is None else style.method_style(method)
    drawn = {key: value for key, value in drawn.items() if key not in ("label", "linestyle")}
    reach = [[row["mean"] - row.low], [row.high - row["mean"]]]
    ax.errorbar(row["mean"], height, xerr=reach, linewidth=2, markersize=7, **drawn)


def _bare(ax: Axes) -> Axes:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def _show(ax: Axes, image: Tensor) -> None:
    # Averaged where it is drawn smaller than it is: no false grain, and smaller files.
    ax.imshow(image.permute(1, 2, 0).clamp(0, 1), interpolation="antialiased")


def _overlay(ax: Axes, energy: Tensor, strength: float) -> None:
    # Where there is no energy the image stays as it is.
    alpha = strength * energy.clamp(0, 1) ** 0.7
    ax.imshow(
        energy, cmap=style.HEAT, vmin=0, vmax=1, alpha=alpha.numpy(), interpolation="antialiased"
    )


def _outline(ax: Axes, mask: Tensor) -> None:
    if mask.any():
        ax.contour(mask.float(), [0.5], colors=[MASK], linewidths=1.3)
