"""Pretraining an encoder, with and without SPD: from a notebook, or from the command line.

    python -m spdlib.pretraining --dataset elpv --method simsiam --eta 0.1

``presets`` holds the settings, ``training`` the Lightning module, ``monitors`` what is watched
and ``live`` how it is shown, ``batches`` what is read, ``checkpoints`` what is kept,
``distributed`` batch norm over processes, ``cli`` the command line.
"""

from spdlib.pretraining.batches import decode
from spdlib.pretraining.training import (
    CHECKPOINT_EVERY,
    COLUMNS,
    Pretraining,
    Views,
    export,
    objective,
    pretrain,
    starting_encoder,
)

__all__ = [
    "CHECKPOINT_EVERY",
    "COLUMNS",
    "Pretraining",
    "Views",
    "decode",
    "export",
    "objective",
    "pretrain",
    "starting_encoder",
]
