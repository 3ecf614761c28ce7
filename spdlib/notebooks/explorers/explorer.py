"""The frame that all explorers share: controls, one picture, and a place where errors show.

ipywidgets swallows what fails inside a callback. Here the picture is drawn inside an
``Output`` widget's context, which keeps the traceback, visible to the reader and to tests;
the picture itself is an ``Image``, which changes without flicker and keeps its height.
"""

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure

from spdlib.notebooks.figures import style

CONTROL = {"description_width": "9em"}


def explorer(
    controls: Mapping[str, widgets.Widget],
    draw: Callable[..., Figure | bytes],
    width: int = 900,
    height: int | None = None,
    columns: int = 2,
) -> widgets.VBox:
    """Controls above a picture that follows them.

    Args:
        controls: Widgets by the name under which ``draw`` receives their value.
        draw: Takes the controls' values by name, returns a figure or the bytes of a PNG.
        width: Of the picture, CSS pixels; it shrinks with the page.
        height: Of the picture's place, CSS pixels; by default as the first picture needs.
        columns: How many controls stand side by side.

    Returns:
        A box with the attributes ``controls`` (the mapping), ``picture`` (the ``Image``),
        ``messages`` (the ``Output`` that holds errors) and ``redraw()``.
    """
    picture = widgets.Image(
        format="png", layout=widgets.Layout(max_width="100%", width=f"{width}px")
    )
    messages = widgets.Output()

    def redraw(*_: Any) -> None:
        messages.clear_output()
        with messages:
            drawn = draw(**{name: control.value for name, control in controls.items()})
            picture.value = drawn if isinstance(drawn, bytes) else style.png(drawn)

    for control in controls.values():
        if hasattr(control, "value"):
            control.observe(redraw, names="value")
        control.style = CONTROL
        control.layout.width = "98%"
    grid = widgets.GridBox(
        list(controls.values()),
        layout=widgets.Layout(
            grid_template_columns=f"repeat({columns}, minmax(0, 1fr))",
            width=f"{width}px",
            max_width="100%",
        ),
    )
    # A picture smaller than its place is not to be stretched to it.
    stage = widgets.Box([picture], layout=widgets.Layout(align_items="flex-start"))
    if height:
        stage.layout.min_height = f"{height}px"
    box = widgets.VBox([grid, stage, messages], layout=widgets.Layout(max_width="100%"))
    box.controls, box.picture, box.messages, box.redraw = controls, picture, messages, redraw
    redraw()
    return box


def errors(box: widgets.VBox) -> list[str]:
    """What failed the last time the explorer drew, for tests."""
    return [str(output.get("evalue")) for output in box.messages.outputs
            if output.get("output_type") == "error"]  # fmt: skip
