"""The frame that all explorers share: controls, one picture, and a place where errors show.

ipywidgets swallows what fails inside a callback. Here the picture is drawn inside an
``Output`` widget's context, which keeps the traceback, visible to the reader and to tests;
the picture itself is an ``Image``, which changes without flicker and keeps its height.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ipywidgets as widgets
import traitlets
from matplotlib.figure import Figure

from spdlib.notebooks.figures import style

Draw = Callable[..., Figure | bytes]


class Picture(widgets.Image):
    """An image whose tooltip, its words for those who do not see it, reaches the page.

    The page shows a widget's tooltip only if its description is empty, and fails where it has
    none, as images.
    """

    description = traitlets.Unicode("").tag(sync=True)


def explorer(
    controls: Mapping[str, widgets.Widget], draw: Draw, width: int = 900, height: int = 0
) -> widgets.VBox:
    """Controls above a picture that follows them.

    Args:
        controls: Widgets by the name under which ``draw`` receives their value.
        draw: Takes the controls' values by name, returns a figure or the bytes of a PNG.
        width: Width of the picture, CSS pixels; it shrinks with the page.
        height: Height of the picture's place, CSS pixels; by default as the picture needs.

    Returns:
        A box with the attributes ``controls`` (the mapping), ``picture`` (the ``Image``),
        ``messages`` (the ``Output`` that holds errors) and ``redraw()``.
    """
    page = {"max_width": "100%", "width": f"{width}px"}
    picture, messages = Picture(format="png", layout=page), widgets.Output()
    places: dict[Any, list[Any]] = {}

    def redraw(*_: Any) -> None:
        messages.clear_output()
        with messages:
            drawn = draw(**{name: control.value for name, control in controls.items()})
            if isinstance(drawn, Figure):
                picture.tooltip, drawn = style.in_words(drawn), style.png(drawn, places)
            picture.value = drawn

    for name, control in controls.items():
        control.observe(redraw, names="value")
        control.description = control.description or name
        control.style = {"description_width": "9em"}
        control.layout.width = "98%"
    # Fewer controls side by side where the page is narrow, or enlarged.
    least = f"max(20em, {100 // min(2, len(controls)) - 2}%)"
    across = {"grid_template_columns": f"repeat(auto-fit, minmax({least}, 1fr))", **page}
    grid = widgets.GridBox(list(controls.values()), layout=across)
    # A picture smaller than its place is not to be stretched to it.
    place = {"align_items": "flex-start", "min_height": f"{height}px"}
    box = widgets.VBox([grid, widgets.Box([picture], layout=place), messages])
    box.layout.max_width = "100%"
    box.controls, box.picture, box.messages, box.redraw = controls, picture, messages, redraw
    redraw()
    return box


def menu(values: Iterable[Any], text: Callable[[Any], Any] = str, **more: Any) -> widgets.Dropdown:
    """A menu of values, each with its text."""
    return widgets.Dropdown(options=[(style.readable(text(v)), v) for v in values], **more)


def slider(
    value: float, low: float, high: float, step: float = 1, form: str = ".2f", **more: Any
) -> widgets.Widget:
    """A slider, of whole numbers if its step is one, that redraws when it is let go."""
    more |= {"value": value, "min": low, "max": high, "step": step, "continuous_update": False}
    if isinstance(step, int):
        return widgets.IntSlider(**more)
    return widgets.FloatSlider(readout_format=form, **more)


def stops(
    values: Iterable[float], text: Callable[[float], str], value: Any, **more: Any
) -> widgets.Widget:
    """A slider over given values by their text; over a range of them if ``value`` is a pair."""
    kind = widgets.SelectionRangeSlider if isinstance(value, tuple) else widgets.SelectionSlider
    options = [(text(stop), stop) for stop in values]
    return kind(options=options, value=value, continuous_update=False, **more)


def errors(box: widgets.VBox) -> list[str]:
    """Errors of the last drawing, for tests."""
    return [str(output.get("evalue")) for output in box.messages.outputs
            if output.get("output_type") == "error"]  # fmt: skip
