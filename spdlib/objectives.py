"""The SPD loss, and the one place where it joins a baseline.

A baseline (:mod:`spdlib.methods`) knows nothing of SPD: it has a ``loss`` of its views and a
``project`` into the space where that loss compares. :class:`Objective` adds ``eta`` times the SPD
loss to it, and that is all there is to joining.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spdlib.encoders import Encoder

Triplet = tuple[Tensor, ...]  # anchor, positive, negative; for the dense term the masks, too


def spd_loss(anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """The SPot-the-Difference loss, mean of cos(a, n) - cos(a, p) (Zou et al., section 4).

    Low when a local change moves the projection away from the anchor's while a weak global one
    does not.

    Args:
        anchor: Projections (B, D) of the images.
        positive: Projections (B, D) of their weak global views.
        negative: Projections (B, D) of their locally perturbed weak global views.

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
        encoder: Encoder that is trained.
        projection: Network that projects features (B, D).

    Attributes:
        views: Number of strong views of each image that the loss takes.
    """

    views = 2
    loss: Callable[..., Tensor]

    def __init__(self, encoder: Encoder, projection: nn.Module):
        super().__init__()
        self.encoder, self.projection = encoder, projection

    def before_step(self) -> None:
        """Called once before each step, however many parts its batch is taken in."""

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
        anchor, positive, negative = _passed(baseline.project, triplet[:3], self.joint)
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
        _, positive, negative = triplet[:3]
        logits = self.head(torch.cat(_passed(baseline.encoder, (positive, negative), self.joint)))
        labels = torch.arange(2, device=logits.device).repeat_interleave(len(positive))
        return {
            "spd": full(F.cross_entropy, logits, labels),
            "spd_accuracy": (logits.argmax(1) == labels).float().mean(),
        }


class SpdPlacebo(SpdCosine):
    """A control: the passes of the SPD loss, without its gradient.

    What it changes is what passing the triplet changes by itself: running statistics.
    """

    @torch.no_grad()
    def forward(self, baseline: Baseline, triplet: Triplet) -> dict[str, Tensor]:
        """The terms of :class:`SpdCosine`, without a gradient."""
        return super().forward(baseline, triplet)


class SpdDense(nn.Module):
    """Spot the difference cell by cell, on the feature maps that a detector reads. Ours.

    Positive and negative share their crop and flip, so their cells lie on the same places of the
    image. Cells that the blend reaches are pushed apart, the others pulled together.

    Args:
        encoder: Encoder whose stages are compared.
        stages: Numbers of the stages, 1 to 4; their terms are averaged.
        projection: Channels of a linear projection of each stage's cells; 0 compares the
            features themselves.
    """

    def __init__(self, encoder: Encoder, stages: Sequence[int], projection: int = 0):
        super().__init__()
        self.stages = tuple(stages)
        widths = [encoder.stage_channels[stage - 1] for stage in self.stages]
        self.projections = nn.ModuleList(
            nn.Conv2d(width, projection, 1) if projection else nn.Identity() for width in widths
        )

    def forward(self, baseline: Baseline, triplet: Triplet) -> dict[str, Tensor]:
        """``spd``, and mean cosines of the cells left alone and of those the blend reaches.

        Args:
            baseline: Holds the encoder.
            triplet: Anchor, which plays no part, positive, negative and the blend's mask.
        """
        _, positive, negative, alpha = triplet
        maps = baseline.encoder.stages(torch.cat([positive, negative]), max(self.stages))
        found = []
        for stage, project in zip(self.stages, self.projections, strict=True):
            cosines = full(F.cosine_similarity, *project(maps[stage - 1]).chunk(2))
            size = cosines.shape[1], cosines.shape[2]
            reached = F.adaptive_avg_pool2d(alpha, size)[:, 0].to(cosines)
            found.append(torch.stack([_mean(cosines, 1 - reached), _mean(cosines, reached)]))
        together, apart = torch.stack(found).mean(0)
        terms = {"cos_positive": together.detach(), "cos_negative": apart.detach()}
        return {"spd": apart - together, **terms}


class Guard(nn.Module):
    """Pull of an encoder's stages towards what they were: the mean relative squared change.

    Args:
        encoder: The encoder as it starts; a copy is kept.
        stages: Numbers of the stages, 1 to 4.
    """

    def __init__(self, encoder: Encoder, stages: Sequence[int]):
        super().__init__()
        self.start, self.stages = copy.deepcopy(encoder).requires_grad_(False).eval(), tuple(stages)

    def train(self, mode: bool = True) -> "Guard":
        """The copy stays in evaluation mode."""
        return self

    def forward(self, encoder: Encoder, images: Tensor) -> Tensor:
        """A scalar, 0 for the encoder as it started; both normalise by running statistics."""
        with torch.no_grad():
            before = self.start.stages(images, max(self.stages))
        with running_statistics(encoder):
            now = encoder.stages(images, max(self.stages))
        pairs = [(before[stage - 1], now[stage - 1]) for stage in self.stages]
        return torch.stack([full(F.mse_loss, b, a) / full(_power, a) for a, b in pairs]).mean()


class Objective(nn.Module):
    """A baseline's loss plus ``eta`` times the SPD loss (Zou et al., section 4).

    Args:
        baseline: The baseline of one of :data:`spdlib.methods.METHODS`.
        spd: :class:`SpdCosine`, :class:`SpdCrossEntropy`, :class:`SpdDense` or
            :class:`SpdPlacebo`; may be None if ``eta`` is 0.
        eta: Weight of the SPD loss; 0 is the baseline alone, for which no triplet is needed.
        frozen_statistics: Whether the passes of the triplet leave running statistics alone, so
            that these follow the baseline's views only.
        guard: Weight of a :class:`Guard`; 0 for none.
        stages: The guard's stages.

    Raises:
        ValueError: ``eta`` is negative.
    """

    def __init__(
        self,
        baseline: Baseline,
        spd: nn.Module | None = None,
        eta: float = 0.0,
        frozen_statistics: bool = True,
        guard: float = 0.0,
        stages: Sequence[int] = (2, 3),
    ):
        super().__init__()
        if not eta >= 0:
            raise ValueError(f"eta: {eta} is negative")
        self.baseline, self.spd, self.eta = baseline, spd if eta else None, eta
        self.pass_triplet = kept_statistics if frozen_statistics else nullcontext
        self.weight, self.guard = guard, Guard(baseline.encoder, stages) if guard else None

    def forward(
        self, strong: tuple[Tensor, ...], triplet: Triplet | None = None
    ) -> dict[str, Tensor]:
        """The loss and its terms.

        Args:
            strong: Input of the baseline's loss: two batches of strong views (B, 3, H, W), or
                one and its labels.
            triplet: Anchor, positive and negative (B, 3, H, W), as ``spd`` takes them; needed if
                ``eta`` is not 0.

        Returns:
            ``baseline``; with SPD ``spd`` and what else its term tells; ``guard``, if there is
            one; and ``loss``.
        """
        terms = {"baseline": self.baseline.loss(*strong)}
        terms["loss"] = terms["baseline"]
        if self.spd is not None:
            if triplet is None:
                raise ValueError(f"triplet: none, and eta is {self.eta}")
            with self.pass_triplet(self.baseline):
                terms |= self.spd(self.baseline, triplet)
            terms["loss"] = terms["baseline"] + self.eta * terms["spd"]
        if self.guard is not None:
            terms["guard"] = self.guard(self.baseline.encoder, strong[0])
            terms["loss"] = terms["loss"] + self.weight * terms["guard"]
        return terms


@contextmanager
def kept_statistics(module: nn.Module) -> Iterator[None]:
    """Batch normalisation inside the block normalises by the batch, and does not remember it."""
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


@contextmanager
def running_statistics(module: nn.Module) -> Iterator[None]:
    """Batch normalisation inside the block normalises by its running statistics."""
    layers = [x for x in module.modules() if isinstance(x, _BatchNorm) and x.training]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()


def full(criterion: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """A loss in single precision at least, also where the network ran in less.

    Under autocast the logits of a contrastive loss, divided by a small temperature, would lose
    the digits that tell negatives apart.
    """
    single = (x.to(torch.promote_types(x.dtype, torch.float32)) if x.is_floating_point() else x
              for x in tensors)  # fmt: skip
    with torch.autocast(tensors[0].device.type, enabled=False):
        return criterion(*single)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp_min(1e-12)


def _power(values: Tensor) -> Tensor:
    return values.square().mean().clamp_min(1e-12)


def _passed(
    network: Callable[[Tensor], Tensor], views: tuple[Tensor, ...], joint: bool
) -> tuple[Tensor, ...]:
    if joint:
        return network(torch.cat(views)).chunk(len(views))
    return tuple(network(view) for view in views)
