"""Measures to watch while an encoder is trained: what SPD asks for, and signs of collapse."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spdlib.metrics import aupr, auroc
from spdlib.smoothblend import RimAlone, SmoothBlend
from spdlib.views import WeakView, spd_triplet

# Below these shares of what healthy embeddings have, collapse is spoken of.
COLLAPSED_STD = 0.1
COLLAPSED_RANK = 2.0

# SmoothBlend and its parts, all with the same boxes: what of it a network has learnt to spot.
COMPONENTS = {
    "SmoothBlend": SmoothBlend(),
    "rim alone": RimAlone(),
    "filled": SmoothBlend(foreground="image"),
    "with its context": SmoothBlend(foreground="context"),
    "hard paste": SmoothBlend(sigma=0),
}


@torch.no_grad()
def spot_the_difference(
    network: nn.Module,
    images: Tensor,
    size: int,
    seed: int = 0,
    batch_size: int = 64,
    projection: Callable[[Tensor], Tensor] | None = None,
    blend: SmoothBlend = COMPONENTS["SmoothBlend"],
) -> dict[str, Any]:
    """AU-ROC and AU-PR of telling blended images from weak global views by distance to the anchor.

    This is what SPD asks of features, on images they were not trained on: each one's feature is
    compared with that of a weak view of it and of a blended weak view.

    Args:
        network: Images (B, 3, H, W) to features (B, D), e.g. an encoder; evaluated as it is.
        images: uint8 (N, 3, H, W), normal, held out.
        size: Side of the views, pixels.
        seed: Seed of views and blends: the same for every network that is compared.
        batch_size: Images at a time.
        projection: Map of features to where the SPD loss compares; evaluated as it is.
        blend: Blend that makes the negatives, e.g. one of :data:`COMPONENTS`.

    Returns:
        ``auroc`` and ``aupr`` (weak views 0, blended views 1), in [0, 1]; the cosine distances
        ``weak`` and ``blended``, (N,) each; ``features``, the anchors' (N, D); and, with a
        projection, ``projected``, the AU-ROC of the distances there, and ``projections``, the
        anchors' (N, E).
    """
    generator = torch.Generator().manual_seed(seed)
    weak_view = WeakView(size)
    weight = next(network.parameters())
    parts, projected, projections = [], [], []
    for batch in images.split(batch_size):
        batch = batch.to(weight.device).float() / 255
        triplet = spd_triplet(batch, weak_view, blend, generator)
        seen = [network(view.to(weight.dtype)) for view in triplet]
        parts.append((*_distances(seen), seen[0].float()))
        if projection is not None:
            there = [projection(x) for x in seen]
            projected.append(_distances(there))
            projections.append(there[0].float())
    weak, blended, features = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    labels = torch.cat([torch.zeros(len(weak)), torch.ones(len(blended))])
    scores = torch.cat([weak, blended])
    found = {
        "auroc": float(auroc(labels, scores)),
        "aupr": float(aupr(labels, scores)),
        "weak": weak.numpy(),
        "blended": blended.numpy(),
        "features": features,
    }
    if projection is not None:
        scores = torch.cat([torch.cat(part) for part in zip(*projected, strict=True)])
        found["projected"] = float(auroc(labels, scores.cpu()))
        found["projections"] = torch.cat(projections).cpu()
    return found


def _distances(triplet: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Cosine distances of the positives and of the negatives to their anchors."""
    anchor, positive, negative = (x.float() for x in triplet)
    return 1 - F.cosine_similarity(anchor, positive), 1 - F.cosine_similarity(anchor, negative)


def spread(features: Tensor) -> dict[str, float]:
    """Signs of collapse in features (N, D).

    Returns:
        ``std``, the mean standard deviation of the normalised features over 1 / sqrt(D): near 1
        when they fill the sphere, 0 when all are one point (Chen & He, 2021, section 4.1); and
        ``effective_rank``, the exponential of the entropy of the singular values' shares (Roy &
        Vetterli, 2007), from 1 to D, of the centred features.

    >>> spread(torch.ones(8, 4))["std"]
    0.0
    """
    unit = F.normalize(features.double(), dim=1)
    values = torch.linalg.svdvals(features.double() - features.double().mean(0))
    share = values / values.sum().clamp_min(1e-30)
    entropy = -(share * share.clamp_min(1e-30).log()).sum()
    return {
        "std": float(unit.std(0).mean() * features.shape[1] ** 0.5),
        "effective_rank": float(entropy.exp()),
    }


def collapse(std: float, effective_rank: float) -> str | None:
    """Says in words whether embeddings have collapsed; None if not.

    Args:
        std: Relative standard deviation, as :func:`spread` gives it.
        effective_rank: Effective rank, as :func:`spread` gives it.
    """
    if std < COLLAPSED_STD:
        return (
            f"collapse: all images are nearly one point (standard deviation {std:.3f} of the "
            "1 / sqrt(d) of embeddings that fill the sphere)"
        )
    if effective_rank < COLLAPSED_RANK:
        return (
            "collapse: the images differ along hardly more than one direction (effective rank "
            f"{effective_rank:.1f})"
        )
    return None
