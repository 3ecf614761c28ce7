"""Anomaly detectors on top of an encoder, by name: to add one, add a record here."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from spdlib.encoders import Encoder
from spdlib.padim import PaDiM
from spdlib.patchcore import PatchCore
from spdlib.pooled import Pooled, mahalanobis


class Model(Protocol):
    """A detector on one encoder. With ``extend(batches)``, if it has that, it learns further
    images as if they had been there before."""

    def fit(self, batches: Iterable[Tensor]) -> Any:
        """Learns normal images (B, 3, H, W), or their pooled features (B, D)."""

    def score(self, batches: Iterable[Tensor]) -> tuple[Tensor | None, Tensor]:
        """Anomaly maps (N, H, W), None if it has none, and image scores (N,), on the CPU."""


@dataclass(frozen=True)
class Detector:
    """A detector's name in results, and the way to make it.

    Attributes:
        name: Name, as the paper's tables and results write it.
        build: Makes it from an encoder, the number of features to keep (None: its default)
            and a seed.
        pooled: Whether it reads pooled features, which are computed once for all such
            detectors, and has no maps.
    """

    name: str
    build: Callable[[Encoder, int | None, int], Model]
    pooled: bool = False


DETECTORS = {
    "padim": Detector("PaDiM", PaDiM),
    "patchcore": Detector(
        "PatchCore", lambda encoder, n_features, seed: PatchCore(encoder, seed=seed)
    ),
    "neighbours": Detector("5 neighbours", lambda encoder, *_: Pooled(encoder), pooled=True),
    "mahalanobis": Detector(
        "Mahalanobis", lambda encoder, *_: Pooled(encoder, mahalanobis), pooled=True
    ),
}


def known(name: str) -> Detector:
    """The detector of a name.

    Raises:
        ValueError: There is none of that name; the message lists all.
    """
    if name not in DETECTORS:
        raise ValueError(f"unknown detector {name!r}; known: {', '.join(DETECTORS)}")
    return DETECTORS[name]
