"""What is optimised: four baselines, the SPD loss, and the one place where it joins them.

Heads and losses of the baselines are lightly's. A baseline knows nothing of SPD: it has a
``loss`` of its views and a ``project`` into the space where that loss compares.
:class:`Objective` adds ``eta`` times the SPD loss to it, and that is all there is to joining.
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from lightly.loss import NegativeCosineSimilarity, NTXentLoss
from lightly.models.modules import (
    MoCoProjectionHead,
    SimCLRProjectionHead,
    SimSiamPredictionHead,
    SimSiamProjectionHead,
)
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.utils import dist
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
    """What the baselines share: an encoder, and the projection that their losses compare in.

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


class SimSiam(Baseline):
    """SimSiam (Chen & He, CVPR 2021): two views predict each other, gradients stop on one side.

    Projection 2048-2048-2048 and prediction 2048-512-2048, as published.

    Args:
        encoder: What is trained.
        stop_gradient: False takes away what keeps SimSiam from collapsing (their Fig. 2).
    """

    def __init__(self, encoder: Encoder, stop_gradient: bool = True):
        super().__init__(encoder, SimSiamProjectionHead(encoder.feature_dim, 2048, 2048))
        self.prediction = SimSiamPredictionHead(2048, 512, 2048)
        self.criterion = NegativeCosineSimilarity()
        self.stop_gradient = stop_gradient

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Of two batches of strong views, in [-1, 1]."""
        z1, z2 = self.project(first), self.project(second)
        p1, p2 = self.prediction(z1), self.prediction(z2)
        if self.stop_gradient:
            z1, z2 = z1.detach(), z2.detach()
        return 0.5 * (full(self.criterion, p1, z2) + full(self.criterion, p2, z1))


class MoCo(Baseline):
    """MoCo v2 (He et al., CVPR 2020; Chen et al., 2020): queries against a queue of keys.

    Keys come from an encoder that follows the trained one slowly. The queue holds the keys of
    all processes. Where they share their batch statistics
    (``spdlib.pretraining.distributed``), shuffling the batch, the published guard against
    reading them, has nothing to do and is left out.

    Args:
        encoder: What is trained.
        queue: Keys kept as negatives; a multiple of the batch, so that the oldest leave first.
        key_momentum: Share of itself that the key encoder keeps each step.
        temperature: Of the contrastive loss.
    """

    def __init__(
        self,
        encoder: Encoder,
        queue: int = 65536,
        key_momentum: float = 0.999,
        temperature: float = 0.2,
    ):
        super().__init__(encoder, MoCoProjectionHead(encoder.feature_dim, 2048, 128))
        self.key_encoder = copy.deepcopy(encoder)
        self.key_projection = copy.deepcopy(self.projection)
        deactivate_requires_grad(self.key_encoder)
        deactivate_requires_grad(self.key_projection)
        self.criterion = NTXentLoss(temperature, (queue, 128), gather_distributed=True)
        self.key_momentum = key_momentum

    def loss(self, query: Tensor, key: Tensor) -> Tensor:
        """Of two batches of strong views; the keys enter the queue after they are compared."""
        batch = len(query) * dist.world_size()
        if len(self.queue) % batch:
            raise ValueError(f"queue: {len(self.queue)} is no multiple of the batch of {batch}")
        with torch.no_grad():
            if self.training:
                update_momentum(self.encoder, self.key_encoder, self.key_momentum)
                update_momentum(self.projection, self.key_projection, self.key_momentum)
            keys = self.key_projection(self.key_encoder(key))
        return full(self.criterion, self.project(query), keys)

    @property
    def queue(self) -> Tensor:
        """The keys (K, 128); the next to be replaced is at ``criterion.memory_bank.bank_ptr``."""
        return self.criterion.memory_bank.bank

    # lightly leaves its bank out of the state dict; a resumed run needs it.
    def get_extra_state(self) -> dict[str, Tensor]:
        """The queue, for checkpoints."""
        bank = self.criterion.memory_bank
        return {"bank": bank.bank, "bank_ptr": bank.bank_ptr}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Restores the queue."""
        bank = self.criterion.memory_bank
        bank.bank.copy_(state["bank"])
        bank.bank_ptr.copy_(state["bank_ptr"])


class SimCLR(Baseline):
    """SimCLR (Chen et al., ICML 2020): each view's other view among all views of the batch.

    Negatives come from all processes.

    Args:
        encoder: What is trained.
        temperature: Of NT-Xent.
    """

    def __init__(self, encoder: Encoder, temperature: float = 0.1):
        super().__init__(encoder, SimCLRProjectionHead(encoder.feature_dim, 2048, 128))
        self.criterion = NTXentLoss(temperature, gather_distributed=True)

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Of two batches of strong views."""
        return full(self.criterion, self.project(first), self.project(second))


class Supervised(Baseline):
    """Classification by one linear layer, with cross-entropy; it compares features as they are.

    Args:
        encoder: What is trained.
        classes: How many.
    """

    views = 1

    def __init__(self, encoder: Encoder, classes: int):
        super().__init__(encoder, nn.Identity())
        if classes < 2:
            raise ValueError(f"classes: {classes}; supervised pretraining needs at least 2")
        self.classifier = nn.Linear(encoder.feature_dim, classes)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Of one batch of strong views and its labels (B,)."""
        return full(F.cross_entropy, self.classifier(self.encoder(images)), labels)


METHODS = {"simsiam": SimSiam, "moco": MoCo, "simclr": SimCLR, "supervised": Supervised}


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
        baseline: One of ``METHODS``.
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
