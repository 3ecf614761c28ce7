"""Pretraining an encoder, with and without SPD: from a notebook, or from the command line.

    python -m spdlib.pretraining --dataset elpv --method simsiam --eta 0.1

``presets`` holds the settings, ``training`` the training, ``monitors`` what is watched and
``live`` who listens, ``cli`` the command line.
"""

from spdlib.images import decode
from spdlib.pretraining.training import (
    COLUMNS,
    Pretraining,
    Views,
    export,
    objective,
    pretrain,
    starting_encoder,
)

__all__ = [
    "COLUMNS",
    "Pretraining",
    "Views",
    "decode",
    "export",
    "objective",
    "pretrain",
    "starting_encoder",
]
