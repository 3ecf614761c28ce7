"""The SPD loss, and the one place where it joins a baseline.

A baseline (:mod:`spdlib.methods`) knows nothing of SPD: it has a ``loss`` of its views and a
``project`` into the space where that loss compares. :class:`Objective` adds ``eta`` times the SPD
loss to it, and that is all there is to joining.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spdlib.encoders import Encoder

Triplet = tuple[Tensor, Tensor, Tensor]


def spd_loss(anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """The SPot-the-Difference loss, mean of cos(a, n) - cos(a, p) (Zou et al., section 4).

    Low when a local change moves the projection away from the anchor's while a weak global one
    does not.

    Args:
        anchor: Projections (B, D) of the images.
        positive: Of their weak global views.
        negative: Of their locally perturbed weak global views.

    Returns:
        A scalar in [-2, 2].

    Raises:
        ValueError: The three differ in shape, or are not (B, D).

    >>> a, n = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> spd_loss(anchor=a, positive=a, negative=n).item()
    -1.0
    """
    shapes = [tuple(z.shape) for z in (anchor, positive, negative)]
    if len(set(shapes)) > 1 or anchor.ndim != 2:
        raise ValueError(f"anchor, positive, negative: expected one shape (B, D), not {shapes}")
    return (F.cosine_similarity(anchor, negative) - F.cosine_similarity(anchor, positive)).mean()


class Baseline(nn.Module):
    """An encoder, and the projection in which a baseline's loss compares.

    A method derives from it and adds ``loss``, from its views to a scalar.

    Args:
        encoder: What is trained.
        projection: From features (B, D) to projections.

    Attributes:
        views: How many strong views of each image the loss takes.
    """

    views = 2

    def __init__(self, encoder: Encoder, projection: nn.Module):
        super().__init__()
        self.encoder, self.projection = encoder, projection

    def project(self, images: Tensor) -> Tensor:
        """Projections of images (B, 3, H, W), by the encoder that is trained."""
        return self.projection(self.encoder(images))


class SpdCosine(nn.Module):
    """The SPD loss of a baseline's projections: what joins self-supervised baselines.

    Args:
        fixed_anchor: Stop the gradient at the anchor, so that only the views move.
        joint: Pass the three views as one batch. Were each normalised by its own statistics,
            batch normalisation would take away part of the very shift that tells them apart.
    """

    def __init__(self, fixed_anchor: bool = False, joint: bool = True):
        super().__init__()
        self.fixed_anchor, self.joint = fixed_anchor, joint

    def forward(self, baseline: Baseline, triplet: Triplet) -> dict[str, Tensor]:
        """``spd``, and the mean cosines ``cos_positive`` and ``cos_negative``."""
        anchor, positive, negative = _passed(baseline.project, triplet, self.joint)
        if self.fixed_anchor:
            anchor = anchor.detach()
        return {
            "spd": full(spd_loss, anchor, positive, negative),
            "cos_positive": full(F.cosine_similarity, anchor, positive).mean().detach(),
            "cos_negative": full(F.cosine_similarity, anchor, negative).mean().detach(),
        }


class SpdCrossEntropy(nn.Module):
    """An auxiliary head tells blended views (1) from weak ones (0): what joins supervision.

    Args:
        feature_dim: Length of the encoder's feature.
        joint: Pass both as one batch, as in :class:`SpdCosine`.
    """

    def __init__(self, feature_dim: int, joint: bool = True):
        super().__init__()
        self.head = nn.Linear(feature_dim, 2)
        self.joint = joint

    def forward(self, baseline: Baseline, triplet: Triplet) -> dict[str, Tensor]:
        """``spd``, the cross-entropy, and ``spd_accuracy``; the anchor plays no part."""
        _, positive, negative = triplet
        logits = self.head(torch.cat(_passed(baseline.encoder, (positive, negative), self.joint)))
        labels = torch.arange(2, device=logits.device).repeat_interleave(len(positive))
        return {
            "spd": full(F.cross_entropy, logits, labels),
            "spd_accuracy": (logits.argmax(1) == labels).float().mean(),
        }


class Objective(nn.Module):
    """A baseline's loss plus ``eta`` times the SPD loss (Zou et al., section 4).

    Args:
        baseline: The baseline of one of :data:`spdlib.methods.METHODS`.
        spd: :class:`SpdCosine` or :class:`SpdCrossEntropy`; may be None if ``eta`` is 0.
        eta: Weight of the SPD loss; 0 is the baseline alone, for which no triplet is needed.

    Raises:
        ValueError: ``eta`` is negative.
    """

    def __init__(self, baseline: Baseline, spd: nn.Module | None = None, eta: float = 0.0):
        super().__init__()
        if not eta >= 0:
            raise ValueError(f"eta: {eta} is negative")
        self.baseline, self.spd, self.eta = baseline, spd if eta else None, eta

    def forward(
        self, strong: tuple[Tensor, ...], triplet: Triplet | None = None
    ) -> dict[str, Tensor]:
        """The loss and its terms.

        Args:
            strong: What the baseline's loss takes: two batches of strong views (B, 3, H, W), or
                one and its labels.
            triplet: Anchor, positive and negative (B, 3, H, W); needed if ``eta`` is not 0.

        Returns:
            ``baseline``; with SPD ``spd`` and what else its term tells; and ``loss``.
        """
        terms = {"baseline": self.baseline.loss(*strong)}
        terms["loss"] = terms["baseline"]
        if self.eta:
            terms |= self.spd(self.baseline, triplet)
            terms["loss"] = terms["baseline"] + self.eta * terms["spd"]
        return terms


def full(criterion: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """A loss in single precision at least, also where the network ran in less.

    Under autocast the logits of a contrastive loss, divided by a small temperature, would lose
    the digits that tell negatives apart.
    """
    single = (x.to(torch.promote_types(x.dtype, torch.float32)) if x.is_floating_point() else x
              for x in tensors)  # fmt: skip
    with torch.autocast(tensors[0].device.type, enabled=False):
        return criterion(*single)


def _passed(network, views: tuple[Tensor, ...], joint: bool) -> tuple[Tensor, ...]:
    if joint:
        return network(torch.cat(views)).chunk(len(views))
    return tuple(network(view) for view in views)
