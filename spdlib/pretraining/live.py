"""Looking at a training while it runs: curves redrawn in place, and embeddings step by step.

Both are Lightning callbacks: ``pretrain(..., callbacks=[LiveCurves(), Embeddings()])``.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from spdlib.plots import pretraining as plots
from spdlib.plots import style
from spdlib.pretraining.monitors import spread


class LiveCurves(pl.Callback):
    """Redraws one figure in place; in an executed notebook it stays as it was drawn last.

    Use one for several trainings to see them grow into the same axes. Outside a notebook it
    only gathers the histories.

    Args:
        draw: Makes the figure from histories by method.
        share: Of the time that may go into drawing.

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

    def on_train_batch_end(self, trainer: Any, module: Any, *step: Any) -> None:
        """Redraws, if it is time to."""
        if trainer.is_global_zero and time.monotonic() >= self._due and len(module.rows) > 1:
            self._redraw(module)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Draws the training whole."""
        if trainer.is_global_zero:
            self._redraw(module)

    def _redraw(self, module: Any) -> None:
        self.histories[module.settings.name] = pd.DataFrame(module.rows)
        if not _in_notebook():
            return
        from IPython.display import Image, display

        began = time.monotonic()
        picture = Image(data=style.png(self.draw(self.histories)), format="png")
        if self._display is None:
            self._display = display(picture, display_id=True)
        else:
            self._display.update(picture)
        now = time.monotonic()
        self._due = now + (now - began) / self.share


class Embeddings(pl.Callback):
    """Spread of a baseline's projections in each step, as SimSiam's authors watch collapse.

    The very projections that the loss compares are looked at, of one view of the batch, so that
    nothing is computed twice.

    Attributes:
        rows: ``step`` (steps done), ``std`` and ``effective_rank``, as
            :func:`spdlib.pretraining.monitors.spread` gives them.
    """

    def __init__(self):
        self.rows: list[dict[str, float]] = []
        self._seen: Tensor | None = None
        self._hook = None

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Starts to listen."""
        self._hook = module.objective.baseline.projection.register_forward_hook(self._keep)

    def on_train_batch_end(self, trainer: Any, module: Any, *step: Any) -> None:
        """Measures the step's first projections."""
        if self._seen is not None:
            self.rows.append({"step": len(self.rows) + 1, **spread(self._seen)})
            self._seen = None

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Stops listening."""
        self._hook.remove()

    def _keep(self, projection: Any, inputs: Any, output: Tensor) -> None:
        if self._seen is None and torch.is_grad_enabled():
            self._seen = output.detach().float()


def _in_notebook() -> bool:
    from IPython import get_ipython

    shell = get_ipython()
    return shell is not None and hasattr(shell, "kernel")
