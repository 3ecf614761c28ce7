"""What all figures share: fonts, widths, one colour a method, and how names are written on them."""

import io
import textwrap
import zlib
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
VARIANTS = "sD^vPX"  # markers of methods with another eta, of controls and the like
HEAT = "inferno"  # anomaly maps and attention: perceptually even, safe for all colour vision


def use() -> None:
    """Sets the figures' style; called once at the top of each notebook."""
    plain = {"legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False}
    sns.set_theme(context="notebook", style="ticks", font_scale=0.83, rc=plain)
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
        height: Height of the whole figure, inches.
        width: Width of the whole figure, inches.
        **subplots: Passed to ``Figure.subplots``, e.g. ``squeeze=False``, ``width_ratios``.

    Returns:
        The figure and what ``Figure.subplots`` returns.
    """
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(rows, columns, **subplots)


def method_marker(method: str) -> dict[str, object]:
    """Keyword arguments of a method's dot: open for a baseline, filled with SPD."""
    base = max((m for m in METHOD_COLOURS if f"{method}_".startswith(f"{m}_")), default="", key=len)
    colour = METHOD_COLOURS.get(base, BLACK)
    variant = method.removeprefix(base).removeprefix(SPD_SUFFIX) if base else ""
    return {
        "color": colour,
        "marker": VARIANTS[zlib.crc32(variant.encode()) % len(VARIANTS)] if variant else "o",
        "markerfacecolor": colour if SPD_SUFFIX in method else "white",
    }


def method_style(method: str) -> dict[str, object]:
    """Keyword arguments of a method's line: dashed and open for a baseline, solid with SPD."""
    line = "-" if SPD_SUFFIX in method else "--"
    return {**method_marker(method), "linestyle": line, "label": words(method_name(method))}


def readable(text: object) -> str:
    """A text from elsewhere with what cannot be shown replaced: stray bytes, control characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def words(text: object, width: int = 40, lines: int = 1) -> str:
    r"""A text from elsewhere as figures show it: short enough, and never read as a formula.

    Args:
        text: Any text; its own line ends are kept.
        width: Longest line, characters; longer ones are broken between words.
        lines: Most lines to break one into; an ellipsis stands for the rest.

    >>> words("costs $5"), words("a rather long name of a defect", 16)
    ('costs \\$5', 'a rather long…')
    """
    shown = []
    for line in str(text).split("\n"):
        spaced = readable(line).replace("_", "_ ")  # names are broken at underscores, too
        pieces = [piece.replace("_ ", "_") for piece in textwrap.wrap(spaced, max(width, 2))]
        pieces = pieces or [""]
        if len(pieces) > lines:
            pieces[lines - 1] = pieces[lines - 1][: max(width, 2) - 1] + "…"
        shown += pieces[:lines]
    joined = "\n".join(shown).replace("$", r"\$")
    return f"\u200b{joined}" if joined.startswith("_") else joined  # else a legend leaves it out


def png(drawn: Figure) -> bytes:
    """A figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    FigureCanvasAgg(drawn).print_png(buffer)
    return buffer.getvalue()
