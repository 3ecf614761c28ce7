"""Whole images as points: the distance of a pooled feature to those of normal images.

Where SPD acts: on the feature behind the last stage, which PaDiM never reads. There are no maps.
"""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from sklearn.covariance import empirical_covariance, ledoit_wolf_shrinkage, shrunk_covariance
from torch import Tensor

from spdlib import features
from spdlib.encoders import Encoder
from spdlib.features import Batch

NEIGHBOURS = 5
# Two images give no shrinkage, images that are all alike no variance: there still is an inverse.
LEAST_SHRINKAGE, LEAST_VARIANCE = 1e-3, 1e-12

# Learns normal features (N, D) and returns the distances (M,) of others (M, D) to them.
Learner = Callable[[Tensor], Callable[[Tensor], Tensor]]


def neighbours(normal: Tensor, k: int = NEIGHBOURS) -> Callable[[Tensor], Tensor]:
    """Mean cosine distance to the k nearest normal features, or to all where there are fewer.

    >>> distance = neighbours(torch.eye(2), k=1)
    >>> distance(torch.tensor([[3.0, 0.0], [-1.0, 0.0]])).tolist()
    [0.0, 1.0]
    """
    bank = F.normalize(normal.double())

    def distances(other: Tensor) -> Tensor:
        cosines = F.normalize(other.double()) @ bank.T
        return 1 - cosines.topk(min(k, len(bank))).values.mean(1)

    return distances


def mahalanobis(normal: Tensor) -> Callable[[Tensor], Tensor]:
    """Mahalanobis distance to the mean, the covariance shrunk as Ledoit and Wolf (2004) do.

    There are fewer images than channels, so that the covariance itself has no inverse (Rippel et
    al., ICPR 2020, who use the same).
    """
    if len(normal) < 2:
        raise ValueError(f"batches: a covariance needs two images or more, not {len(normal)}")
    normal = normal.double()
    mean, values = normal.mean(0), normal.numpy()
    shrinkage = max(LEAST_SHRINKAGE, ledoit_wolf_shrinkage(values))
    covariance = torch.from_numpy(shrunk_covariance(empirical_covariance(values), shrinkage))
    covariance.diagonal().add_(LEAST_VARIANCE)
    factor = torch.linalg.cholesky(covariance)

    def distances(other: Tensor) -> Tensor:
        white = torch.linalg.solve_triangular(factor, (other - mean).T, upper=False)
        return torch.linalg.vector_norm(white, dim=0)

    return distances


class Pooled:
    """A one-class detector of images, without maps, on top of any encoder.

    Args:
        encoder: Source of pooled features; the work is done on its device.
        distance: :func:`neighbours` or :func:`mahalanobis`.

    Batches are of images, as for :class:`spdlib.padim.PaDiM`, or of pooled features (B, D).

    >>> images = torch.rand(4, 3, 32, 32)
    >>> from spdlib.encoders import load_encoder
    >>> Pooled(load_encoder("resnet18")).fit([images]).score([images])[1].shape
    torch.Size([4])
    """

    def __init__(self, encoder: Encoder, distance: Learner = neighbours):
        self.encoder, self.learn = encoder, distance
        self.distances: Callable[[Tensor], Tensor] | None = None

    def fit(self, batches: Iterable[Batch]) -> "Pooled":
        """Learns the normal images; forgets what it learned before.

        Raises:
            ValueError: There are too few images, or as for :func:`spdlib.features.checked`.
        """
        self.distances = self.learn(self._features(batches))
        return self

    def score(self, batches: Iterable[Batch]) -> tuple[None, Tensor]:
        """No maps, and image scores (N,), float32.

        Raises:
            ValueError: Nothing has been fitted, or as for :func:`spdlib.features.checked`.
        """
        if self.distances is None:
            raise ValueError("nothing has been fitted yet: call fit first")
        return None, self.distances(self._features(batches)).float()

    def _features(self, batches: Iterable[Batch]) -> Tensor:
        batches = list(batches)
        given = [batch for batch in batches if isinstance(batch, Tensor) and batch.ndim == 2]
        if given and len(given) == len(batches):
            return torch.cat(given)
        return features.pooled(self.encoder, batches)
