"""What all figures share: fonts, widths, and one colour a method, the same everywhere."""

import io
from typing import Any

import seaborn as sns
from IPython import get_ipython
from IPython.core.pylabtools import select_figure_formats
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from spdlib.methods import SPD_SUFFIX, method_name

WIDTH = 9.0  # inches: a notebook's text width at 100 dpi

# Okabe and Ito's colours, told apart by readers with any colour vision.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY = "#7F7F7F"

NORMAL, ANOMALY = BLUE, VERMILION

# The pretraining method decides the colour; SPD decides the line and the marker.
METHOD_COLOURS = {
    "random": "#BBBBBB",
    "imagenet": GREY,
    "supervised": PURPLE,
    "simsiam": BLUE,
    "moco": ORANGE,
    "simclr": GREEN,
}
HEAT = "inferno"  # anomaly maps and attention: perceptually even, safe for all colour vision


def use() -> None:
    """Sets the figures' style; called once at the top of each notebook."""
    sns.set_theme(
        context="notebook",
        style="ticks",
        rc={
            "figure.dpi": 100,
            "savefig.dpi": 100,
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 10.5,
            "axes.labelsize": 10,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.fontsize": 9,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "image.cmap": "gray",
            "image.interpolation": "nearest",
        },
    )
    # A notebook shows a Figure that is a cell's last value as a picture, not as its name, only
    # once told so; pyplot, which would tell it, stays out of this.
    if (shell := get_ipython()) is not None:
        select_figure_formats(shell, {"png"})


def figure(
    rows: int = 1, columns: int = 1, height: float = 3.0, width: float = WIDTH, **subplots: Any
) -> tuple[Figure, Any]:
    """A figure and its axes, outside pyplot, so that nothing stays open behind a notebook.

    Args:
        rows: Rows of axes.
        columns: Columns of axes.
        height: Of the whole figure, inches.
        width: Of the whole figure, inches.
        **subplots: Passed to ``Figure.subplots``, e.g. ``squeeze=False``, ``width_ratios``.

    Returns:
        The figure and what ``Figure.subplots`` returns.
    """
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(rows, columns, **subplots)


def method_style(method: str) -> dict[str, object]:
    """Keyword arguments of a method's line: baselines dashed and open, + SPD solid and filled."""
    spd = method.endswith(SPD_SUFFIX)
    colour = METHOD_COLOURS.get(method.removesuffix(SPD_SUFFIX), BLACK)
    return {
        "color": colour,
        "linestyle": "-" if spd else "--",
        "marker": "o",
        "markerfacecolor": colour if spd else "white",
        "label": method_name(method),
    }


def png(drawn: Figure) -> bytes:
    """A figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    FigureCanvasAgg(drawn).print_png(buffer)
    return buffer.getvalue()
