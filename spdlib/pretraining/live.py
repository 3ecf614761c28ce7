"""Listening to a training step by step: a Lightning callback.

``pretrain(..., callbacks=[Embeddings()])``.
"""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from spdlib.pretraining.monitors import spread


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
