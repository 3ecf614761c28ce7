"""Curves of a training while it runs, redrawn in place.

``pretrain(..., callbacks=[LiveCurves()])``, after ``style.use()``.
"""

import time
from typing import Any

import pandas as pd
from IPython import get_ipython
from IPython.display import DisplayHandle, display

from spdlib.loop import Callback
from spdlib.notebooks.figures import pretraining as plots


class LiveCurves(Callback):
    """Redraws one figure in place; in an executed notebook it stays as it was drawn last.

    Use one for several trainings to see them grow into the same axes. Outside a notebook it
    only gathers the histories.

    Args:
        share: Share of the time that may go into drawing.

    Attributes:
        histories: Logs by method, as :func:`spdlib.pretraining.pretrain` returns them.
    """

    def __init__(self, share: float = 0.03):
        self.share, self._due = share, 0.0
        self.histories: dict[str, pd.DataFrame] = {}
        self._display: DisplayHandle | None = None

    def on_step(self, training: Any) -> None:
        """Redraws, if it is time to."""
        if time.monotonic() >= self._due and len(training.rows) > 1:
            self.on_end(training)

    def on_end(self, training: Any) -> None:
        """Draws the training as it is."""
        self.histories[training.settings.name] = pd.DataFrame(training.rows)
        if not hasattr(get_ipython(), "kernel"):  # not in a notebook
            return
        began = time.monotonic()
        self._display = self._display or display(display_id=True)
        self._display.update(plots.training(self.histories))
        now = time.monotonic()
        self._due = now + (now - began) / self.share
