"""Curves of a training while it runs, redrawn in place.

``pretrain(..., callbacks=[LiveCurves()])``.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from IPython import get_ipython
from IPython.display import Image, display
from matplotlib.figure import Figure

from spdlib.notebooks.figures import pretraining as plots
from spdlib.notebooks.figures import style
from spdlib.training import Callback


class LiveCurves(Callback):
    """Redraws one figure in place; in an executed notebook it stays as it was drawn last.

    Use one for several trainings to see them grow into the same axes. Outside a notebook it
    only gathers the histories.

    Args:
        draw: Makes the figure from histories by method.
        share: Share of the time that may go into drawing.

    Attributes:
        histories: One row a step, by method, as :func:`spdlib.pretraining.pretrain` returns it.
    """

    def __init__(
        self,
        draw: Callable[[Mapping[str, pd.DataFrame]], Figure] = plots.training,
        share: float = 0.03,
    ):
        self.draw, self.share = draw, share
        self.histories: dict[str, pd.DataFrame] = {}
        self._display, self._due = None, 0.0

    def on_step(self, training: Any) -> None:
        """Redraws, if it is time to."""
        if time.monotonic() >= self._due and len(training.rows) > 1:
            self._redraw(training)

    def on_end(self, training: Any) -> None:
        """Draws the training whole."""
        self._redraw(training)

    def _redraw(self, training: Any) -> None:
        self.histories[training.settings.name] = pd.DataFrame(training.rows)
        if not hasattr(get_ipython(), "kernel"):  # not in a notebook
            return
        began = time.monotonic()
        picture = Image(data=style.png(self.draw(self.histories)), format="png")
        if self._display is None:
            self._display = display(picture, display_id=True)
        else:
            self._display.update(picture)
        now = time.monotonic()
        self._due = now + (now - began) / self.share
