"""Anomaly detectors on top of an encoder, by name: to add one, add a record here.

A detector is made from an encoder, has ``fit(batches)`` for normal images and
``score(batches)``, which returns anomaly maps (N, H, W) and image scores (N,), on the CPU. With
``extend(batches)``, if it has that, it learns further images as if they had been there before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spdlib.padim import PaDiM


@dataclass(frozen=True)
class Detector:
    """How a detector is called in results, and how it is made.

    Attributes:
        name: As the paper's tables and results write it.
        build: Makes it from an encoder, the number of features to keep (None: its default)
            and a seed.
    """

    name: str
    build: Callable[..., Any]


DETECTORS = {"padim": Detector("PaDiM", PaDiM)}
