"""Listening to the projections of a training, step by step.

``pretrain(..., callbacks=[Embeddings()])``.
"""

from typing import Any

import torch
from torch import Tensor

from spdlib.loop import Callback
from spdlib.pretraining.monitors import spread
from spdlib.pretraining.training import Pretraining


class Embeddings(Callback[Pretraining]):
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
        self._hook: Any = None

    def on_start(self, training: Pretraining) -> None:
        """Starts to listen."""
        projection = training.objective.baseline.projection
        self._hook = projection.register_forward_hook(self._keep)

    def on_step(self, training: Pretraining) -> None:
        """Measures the step's first projections."""
        if self._seen is not None:
            self.rows.append({"step": len(self.rows) + 1, **spread(self._seen)})
            self._seen = None

    def on_end(self, training: Pretraining) -> None:
        """Stops listening."""
        self._hook.remove()

    def _keep(self, projection: Any, inputs: Any, output: Tensor) -> None:
        if self._seen is None and torch.is_grad_enabled():
            self._seen = output.detach().float()
