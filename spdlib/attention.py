"""Attention maps: where features differ from those of the nearest normal image.

The paper (Zou et al., 2022, supplement E, Fig. 11) applies GradCAM (Selvaraju et al., 2017) to
the cosine similarity between the feature of a defective image and that of its nearest normal
one. Where it is silent, this is what is done here:

* sign: the score is the distance ``1 - cos``, so positive energy is what raises the distance;
* rectification: negative energy, which pulls towards the normal image, is cut off
  (``rectify=False`` keeps it);
* upsampling: bilinear, from the stage's grid to the image;
* normalisation: none. A map keeps its unit, that of the distance; :func:`normalise` brings maps
  to 0..1 for the eye, each by itself or several encoders' on one scale.

Weights and sums are the ``grad-cam`` package's. Left to itself it runs the backward pass through
the whole network and stretches each map to 0..1. Here the trunk runs once, without a graph, and
the package is given what its arithmetic needs: a stage's feature map and the gradient there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_grad_cam import EigenCAM, GradCAM, HiResCAM, LayerCAM
from pytorch_grad_cam.base_cam import BaseCAM
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from spdlib.encoders import Encoder
from spdlib.features import evaluating
from spdlib.intervals import of_resampled_mean
from spdlib.metrics import aupr, average_precision

# A distance below this is that of an image to itself; float32 features differ by far more.
SAME_IMAGE = 1e-9


@dataclass(frozen=True)
class Nearest:
    """The nearest normal image of each of B images.

    Attributes:
        distance: Cosine distance (B,), in [0, 2].
        index: Number of that normal image (B,): its row in the table the bank was built from.
        feature: Feature of that image (B, D), of length 1.
    """

    distance: Tensor
    index: Tensor
    feature: Tensor


class NormalBank:
    """Features of normal images, searched exactly.

    Args:
        features: Pooled features (N, D) of normal images.
        index: Number of each, as :meth:`nearest` returns it; by default 0 to N - 1.

    Raises:
        ValueError: There are none, or a feature is zero or not finite.

    >>> bank = NormalBank(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    >>> bank.nearest(torch.tensor([[3.0, 3.1]])).index.tolist()
    [1]
    """

    def __init__(self, features: Tensor, index: Tensor | None = None):
        if not len(features):
            raise ValueError("bank: there are no normal images in it; it needs one or more")
        # Float64: nearly equal distances keep their order, and an image's to itself is 0.
        self.features = _directions(features, "bank")
        self.index = torch.arange(len(features)) if index is None else index

    @classmethod
    def build(cls, encoder: Encoder, batches: Iterable[Mapping[str, Any]]) -> "NormalBank":
        """The bank of the images in ``batches``, as :func:`spdlib.datasets.samples.loader` makes.

        Raises:
            ValueError: As above, or one of the images is an anomaly.
        """
        features, index = [torch.empty(0, encoder.feature_dim)], [torch.empty(0, dtype=torch.long)]
        for batch in batches:
            if batch["label"].any():
                row = int(batch["index"][batch["label"] > 0][0])
                raise ValueError(f"bank: sample {row} is an anomaly; the bank is of normal images")
            features.append(embed(encoder, batch["image"]).cpu())
            index.append(batch["index"])
        return cls(torch.cat(features), torch.cat(index))

    def nearest(self, features: Tensor) -> Nearest:
        """The nearest normal image of each feature (B, D), by cosine distance.

        Raises:
            ValueError: A feature is zero or not finite, or of another length than the bank's.
        """
        if features.shape[1] != self.features.shape[1]:
            raise ValueError(
                f"features: of length {features.shape[1]}, those in the bank of "
                f"{self.features.shape[1]}; was the bank built with another encoder?"
            )
        directions = _directions(features, "features")
        best = (directions @ self.features.T).argmax(1)
        found = self.features[best]
        # Half the squared difference of unit vectors is 1 - cos, without its cancellation.
        distance = (directions - found).square().sum(1) / 2
        return Nearest(distance.float(), self.index[best], found.float())


class CosineDistance:
    """A target of the ``grad-cam`` package: the distance ``1 - cos`` to a reference feature."""

    def __init__(self, reference: Tensor):
        self.reference = reference

    def __call__(self, feature: Tensor) -> Tensor:
        return 1 - F.cosine_similarity(feature.float(), self.reference.to(feature.device), dim=0)


METHODS: dict[str, type[BaseCAM]] = {
    "gradcam": GradCAM,
    "hirescam": HiResCAM,
    "layercam": LayerCAM,
    "eigencam": EigenCAM,
}


@dataclass(frozen=True)
class Attention:
    """Attention maps of B images, and what they were compared with.

    Attributes:
        maps: Energy (B, H, W), float32, on the CPU, in the unit of the distance.
        nearest: The nearest normal images and their distances.
    """

    maps: Tensor
    nearest: Nearest


def attention_maps(
    encoder: Encoder,
    images: Tensor,
    bank: NormalBank,
    stage: int = 4,
    method: str = "gradcam",
    rectify: bool = True,
) -> Attention:
    """Maps of where images differ from their nearest normal image, as the encoder sees it.

    The encoder's mode, gradients and hooks are the same afterwards. Source: supplement E,
    Fig. 11.

    Args:
        encoder: The encoder that the bank was built with.
        images: RGB in [0, 1], (B, 3, H, W).
        bank: Features of normal images, the images themselves not among them.
        stage: Number of the stage whose feature map the maps are made of, 1 to 4.
        method: ``gradcam``, ``hirescam``, ``layercam``, or ``eigencam``, which looks at the
            feature map alone and knows nothing of the distance.
        rectify: Cut off negative energy.

    Returns:
        Maps of the images' size, and the nearest normal images.

    Raises:
        ValueError: The stage or the method does not exist, there are no images, one is in the
            bank, or a feature is zero.
    """
    if method not in METHODS:
        raise ValueError(f"method: {method!r} is not among {', '.join(METHODS)}")
    encoder.stage_module(stage)  # raises if there is none
    if not len(images):
        raise ValueError("images: there are none; maps need one or more")
    with evaluating(encoder):
        with torch.no_grad():
            grid = encoder.stages(_as_weights(images, encoder), stage)[-1]
            nearest = bank.nearest(encoder.pooled(grid, stage).cpu())
        for i in (nearest.distance < SAME_IMAGE).nonzero().flatten().tolist():
            raise ValueError(
                f"images: number {i} is in the bank (its distance to normal image "
                f"{int(nearest.index[i])} is 0), so there is nothing to explain; ask about "
                "images that the bank was not built from"
            )
        maps = _energy(encoder, grid, stage, nearest.feature, METHODS[method])
    if rectify:
        maps = maps.clamp_min(0)
    maps = F.interpolate(maps[:, None], images.shape[-2:], mode="bilinear")[:, 0]
    return Attention(maps, nearest)


def embed(encoder: Encoder, images: Tensor) -> Tensor:
    """Pooled features (B, D) in evaluation mode, without gradients, the encoder left as it was."""
    with evaluating(encoder), torch.no_grad():
        return encoder(_as_weights(images, encoder))


def normalise(maps: Tensor, scale: str = "image") -> Tensor:
    """Maps brought to 0..1, for the eye.

    Args:
        maps: (..., H, W), e.g. (encoders, images, H, W).
        scale: ``image`` stretches each map from its smallest to its largest value, as the
            ``grad-cam`` package does. ``shared`` is for comparing rectified maps of several
            encoders, whose distances have no common unit: each pixel's share of its map's
            energy, divided by the largest such share of all maps.

    Returns:
        The maps, of the same shape. A map of zeros stays so.

    >>> normalise(torch.tensor([[[1.0, 3.0]], [[0.0, 8.0]]]), "shared").tolist()
    [[[0.25, 0.75]], [[0.0, 1.0]]]
    """
    if scale == "shared":
        shares = _divide(maps, maps.sum((-2, -1), keepdim=True))
        return _divide(shares, shares.max())
    if scale != "image":
        raise ValueError(f"scale: {scale!r} is neither 'image' nor 'shared'")
    maps = maps - maps.amin((-2, -1), keepdim=True)
    return _divide(maps, maps.amax((-2, -1), keepdim=True))


def localisation(maps: Tensor, masks: Tensor) -> pd.DataFrame:
    """Measures of how well each map finds the defect: one row an image.

    Args:
        maps: Rectified maps (N, H, W) on any scale; the numbers do not depend on it.
        masks: Ground truth (N, H, W), bool.

    Returns:
        Columns ``area``, the mask's share of the image; ``energy_share``, the share of the
        map's energy inside the mask; ``pointing``, whether its maximum is inside (of several
        equal maxima, the share inside); ``aupr`` (linear) and ``average_precision`` (steps) of
        the map as a segmentation. A map of zeros has an energy share of 0.

    Raises:
        ValueError: A mask is empty or full, a map has negative energy, or shapes differ.

    >>> localisation(torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[True, False]]]))
       area  energy_share  pointing  aupr  average_precision
    0   0.5          0.75       1.0   1.0                1.0
    """
    if maps.shape != masks.shape:
        raise ValueError(f"maps and masks: shapes {[*maps.shape]} and {[*masks.shape]} differ")
    rows = []
    for i, (energy, mask) in enumerate(zip(maps.double(), masks.bool(), strict=True)):
        if not mask.any() or mask.all():
            raise ValueError(f"masks: number {i} is {'full' if mask.any() else 'empty'}")
        if energy.min() < 0:
            raise ValueError(f"maps: number {i} has negative energy; rectify it")
        rows.append(
            {
                "area": mask.double().mean().item(),
                "energy_share": _divide(energy[mask].sum(), energy.sum()).item(),
                "pointing": mask[energy == energy.max()].double().mean().item(),
                "aupr": aupr(mask, energy),
                "average_precision": average_precision(mask, energy),
            }
        )
    return pd.DataFrame(rows)


def baseline_maps(height: int, width: int, spread: float = 0.25) -> dict[str, Tensor]:
    """Maps that know nothing of the image: ``uniform``, and a Gaussian about the ``centre``.

    Args:
        height: Height of the maps, pixels.
        width: Width of the maps, pixels.
        spread: Standard deviation of the Gaussian, in heights and widths.
    """
    y, x = (((torch.arange(n) + 0.5) / n - 0.5) / spread for n in (height, width))
    centre = torch.exp(-(y[:, None] ** 2 + x**2) / 2)
    return {"uniform": torch.ones(height, width), "centre": centre}


def masks_on_grid(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Masks brought to a stage's grid and enlarged again, as maps are.

    The most that can be asked of a map: a thin crack fills no cell of a coarse grid, so the
    energy of even a perfect map lies around it, too.

    Args:
        masks: Ground truth (N, H, W), bool.
        grid: Cells of the stage's feature map, (rows, columns).

    >>> masks_on_grid(torch.tensor([[[True, False], [False, False]]]), (1, 1)).tolist()
    [[[0.25, 0.25], [0.25, 0.25]]]
    """
    cells = F.adaptive_avg_pool2d(masks[:, None].float(), grid)
    return F.interpolate(cells, masks.shape[-2:], mode="bilinear")[:, 0]


def perturbation(
    encoder: Encoder,
    images: Tensor,
    attention: Attention,
    share: float = 0.05,
    sigma: float = 8 / 224,
    draws: int = 4,
    seed: int = 0,
) -> pd.DataFrame:
    """Blurs the hottest pixels and sees how far the distance falls: one row an image.

    A map that is an explanation loses more of the distance when its hottest pixels are blurred
    than when as many are blurred elsewhere. Elsewhere means the same region moved to a random
    place (what leaves the image on one side comes back on the other): scattered pixels would
    be another kind of change. The region's border is soft, because a blurred patch with a
    sharp border is a defect of its own: with one, not even the true mask passes.

    Args:
        encoder: The encoder that made the maps.
        images: The images (B, 3, H, W) that they are of.
        attention: The maps and the nearest normal images, whose features stay the reference.
        share: Share of the image that is blurred, in (0, 1).
        sigma: Standard deviation of the blur in image heights; half of it softens the border.
        draws: Number of random places.
        seed: Seed for the random places.

    Returns:
        Columns ``hottest`` and ``random``: by how much the distance fell, as a share of it
        (``random`` is the mean over the draws; below 0 where the distance rose).
    """
    images = images.detach().cpu()  # where it is blurred
    scale = sigma * images.shape[-2]
    blurred = _blur(images, scale)
    maps = attention.maps.flatten(1)
    best = maps.topk(max(1, round(share * maps.shape[1]))).indices
    hottest = torch.zeros_like(maps).scatter(1, best, 1.0).view_as(attention.maps)
    rng = np.random.default_rng(seed)
    falls = []
    for draw in range(draws + 1):
        region = _blur(hottest if draw == 0 else _moved(hottest, rng), scale / 2)[:, None]
        features = embed(encoder, images + region * (blurred - images)).cpu().float()
        left = 1 - F.cosine_similarity(features, attention.nearest.feature)
        falls.append(1 - left / attention.nearest.distance)
    return pd.DataFrame({"hottest": falls[0], "random": torch.stack(falls[1:]).mean(0)})


def summarise(table: pd.DataFrame, by: str | list[str]) -> pd.DataFrame:
    """Means over images of every numeric column, each with its 95 % bootstrap interval.

    Args:
        table: Table of one row an image, e.g. of :func:`localisation` or :func:`perturbation`.
        by: Column or columns to group by, e.g. ``"encoder"``.

    Returns:
        One row a group and column: ``measure, mean, low, high, images``.
    """
    by = [by] if isinstance(by, str) else by
    measures = [name for name in table.select_dtypes("number") if name not in by]
    rows = [
        (*key, measure, values.mean(), *of_resampled_mean(values), len(values))
        for key, group in table.groupby(by, sort=False)
        for measure, values in group[measures].items()
    ]
    return pd.DataFrame(rows, columns=[*by, "measure", "mean", "low", "high", "images"])


def _energy(
    encoder: Encoder, grid: Tensor, stage: int, references: Tensor, method: type[BaseCAM]
) -> Tensor:
    """Energy (B, h, w) at the cells of a stage's feature map (B, C, h, w)."""
    targets = [CosineDistance(reference) for reference in references]
    with torch.enable_grad():
        grid = grid.requires_grad_()
        features = encoder.pooled(grid, stage)
        distances = [target(feature) for target, feature in zip(targets, features, strict=True)]
        (gradient,) = torch.autograd.grad(torch.stack(distances).sum(), grid)
    # NumPy arrays, as the package expects them; NumPy knows no bfloat16.
    arrays = [tensor.detach().float().cpu().numpy() for tensor in (grid, gradient)]
    cam = method(encoder, target_layers=[])
    return torch.from_numpy(cam.get_cam_image(None, None, targets, *arrays, eigen_smooth=False))


def _divide(maps: Tensor, by: Tensor) -> Tensor:
    return maps / by.clamp_min(torch.finfo(maps.dtype).tiny)


def _as_weights(images: Tensor, encoder: Encoder) -> Tensor:
    return images.to(encoder.mean.device, encoder.mean.dtype)


def _directions(features: Tensor, name: str) -> Tensor:
    features = features.detach().cpu().double()
    lengths = features.norm(dim=1)
    for i in ((lengths == 0) | ~lengths.isfinite()).nonzero().flatten().tolist():
        kind = "not finite" if lengths[i] else "zero, which has no direction"
        raise ValueError(f"{name}: the feature of image {i} is {kind}")
    return F.normalize(features)


def _moved(regions: Tensor, rng: np.random.Generator) -> Tensor:
    shifts = rng.integers(regions.shape[-2:], size=(len(regions), 2)).tolist()
    moved = [region.roll(shift, (0, 1)) for region, shift in zip(regions, shifts, strict=True)]
    return torch.stack(moved)


def _blur(images: Tensor, sigma: float) -> Tensor:
    return torch.from_numpy(gaussian_filter(images.numpy(), sigma, axes=(-2, -1)))
