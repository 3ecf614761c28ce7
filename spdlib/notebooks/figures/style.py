"""Style of all figures: fonts, widths, one colour a method, spelling of names, alt texts."""

import functools
import io
import textwrap
import zlib
from collections.abc import Callable, Sized
from typing import Any, ParamSpec

import seaborn as sns
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from spdlib.methods import method_name, split_name

WIDTH = 9.0  # inches: a notebook's text width at 100 dpi

# Okabe and Ito's colours, told apart by readers with any colour vision.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY = "#7F7F7F"

NORMAL, ANOMALY = BLUE, VERMILION

# The pretraining method decides the colour; SPD decides the line and the marker.
METHOD_COLOURS = {
    "random": "#BBBBBB", "imagenet": GREY, "supervised": PURPLE, "simsiam": BLUE, "moco": ORANGE,
    "simclr": GREEN,
}  # fmt: skip
VARIANTS = "sD^vPX"  # markers of methods with another eta, of controls and the like
HEAT = "inferno"  # anomaly maps and attention: perceptually even, safe for all colour vision

P = ParamSpec("P")


def use() -> None:
    """Sets the figures' style; called once at the top of each notebook."""
    plain = {"legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False}
    # Titles stay where they are: to look for what they might touch costs as much as to draw.
    sns.set_theme("notebook", "ticks", font_scale=0.83, rc=plain | {"axes.titley": 1.0})
    # A notebook shows a Figure that is a cell's last value as a picture with an alt text, and in
    # words where there are no pictures, only once told so; pyplot, which does, stays out of this.
    if (shell := get_ipython()) is not None:
        forms = shell.display_formatter.formatters
        forms["image/png"].for_type(
            Figure, lambda fig: (png(fig, bbox_inches="tight"), {"alt": in_words(fig)})
        )
        forms["text/plain"].for_type(Figure, lambda fig, printer, _: printer.text(in_words(fig)))


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


def shows(instead: str = "") -> Callable[[Callable[P, Figure]], Callable[P, Figure]]:
    """Gives a function's figures its docstring's first sentence as their alt text.

    Args:
        instead: Drawn in words, if given, where the function's first argument is empty.
    """

    def decorate(draw: Callable[P, Figure]) -> Callable[P, Figure]:
        caption = " ".join((draw.__doc__ or "").split("\n\n")[0].split())

        @functools.wraps(draw)
        def drawn(*args: P.args, **more: P.kwargs) -> Figure:
            empty = instead and isinstance(args[0], Sized) and not len(args[0])
            fig = nothing(instead) if empty else draw(*args, **more)
            fig.set_label(caption)
            return fig

        return drawn

    return decorate


def nothing(text: str, height: float = 1.2) -> Figure:
    """A small figure that says why there is nothing to draw."""
    fig, ax = figure(height=height)
    say(ax, text)
    return fig


def say(ax: Axes, text: str) -> None:
    """Writes into axes why nothing is drawn there."""
    bare(ax).text(0.5, 0.5, words(text, 90, 3), transform=ax.transAxes, ha="center", va="center",
                  color=GREY)  # fmt: skip


def bare(ax: Axes) -> Axes:
    """The axes without ticks and frame."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def in_words(fig: Figure) -> str:
    """A figure's alt text: what it is, then what its titles and legends say."""
    boxes = [*fig.legends, *filter(None, (ax.get_legend() for ax in fig.axes))]
    said = [fig.get_suptitle(), *(ax.get_title() for ax in fig.axes)]
    said += [text.get_text() for box in boxes for text in box.get_texts()]
    written = "; ".join(" ".join(text.split()) for text in dict.fromkeys(said) if text)
    return f"{fig.get_label()} On it: {written}." if written else str(fig.get_label())


def method_style(method: str) -> dict[str, Any]:
    """Keyword arguments of a method's line: dashed and open for a baseline, solid with SPD."""
    base = max((m for m in METHOD_COLOURS if f"{method}_".startswith(f"{m}_")), default="", key=len)
    colour, spd = METHOD_COLOURS.get(base, BLACK), split_name(method)[1] in ("spd", "dense")
    variant = method.removeprefix(base).removeprefix("_spd") if base else ""
    return {
        "color": colour,
        "marker": VARIANTS[zlib.crc32(variant.encode()) % len(VARIANTS)] if variant else "o",
        "markerfacecolor": colour if spd else "white",
        "linestyle": "-" if spd else "--",
        "label": words(method_name(method)),
    }


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
    shown, width = [], max(width, 2)
    for line in str(text).split("\n"):
        spaced = readable(line).replace("_", "_ ")  # names are broken at underscores, too
        pieces = [piece.replace("_ ", "_") for piece in textwrap.wrap(spaced, width)] or [""]
        if len(pieces) > lines:
            pieces[lines - 1] = pieces[lines - 1][: width - 1] + "…"
        shown += pieces[:lines]
    joined = "\n".join(shown).replace("$", r"\$")
    return f"\u200b{joined}" if joined.startswith("_") else joined  # else a legend leaves it out


def percent(share: float) -> str:
    """A share as text: ``"12.34 %"``."""
    return f"{100 * share:.2f} %"


def png(fig: Figure, places: dict[Any, list[Any]] | None = None, **how: Any) -> bytes:
    """A figure as the bytes of a PNG.

    Args:
        fig: The figure.
        places: Remembers where axes went, for the next figure with the same panels: to lay them
            out takes longer than to draw them.
        **how: Passed to ``Figure.savefig``, e.g. ``bbox_inches="tight"``.
    """
    look = [(ax.get_title().count("\n"), ax.get_ylabel(), ax.get_xlabel()) for ax in fig.axes]
    key = (*fig.get_size_inches(), *look)
    if places and key in places:
        fig.set_layout_engine("none")
        for ax, place in zip(fig.axes, places[key], strict=True):
            ax.set_position(place)
    buffer = io.BytesIO()
    fig.savefig(buffer, pil_kwargs={"compress_level": 1}, **how)
    if places is not None:
        places[key] = [ax.get_position(original=True) for ax in fig.axes]
        return buffer.getvalue()
    small = io.BytesIO()  # to be kept: an eighth smaller without transparency
    Image.open(buffer).convert("RGB").save(small, "PNG", optimize=True)
    return small.getvalue()
