"""The pretraining methods: a record each, the baselines that they name, and how they are written.

A new method is a class derived from :class:`~spdlib.objectives.Baseline` and a record in
:data:`METHODS`, both here. Heads and losses are lightly's.
"""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
from spdlib.objectives import Baseline, full
from spdlib.views import Recipe, View

# What can join a baseline: SPD, SPD cell by cell, SPD's passes without its gradient.
TERMS = {"spd": "SPD", "dense": "dense SPD", "placebo": "placebo"}
UNTRAINED = {"random": "random weights", "imagenet": "ImageNet"}  # other origins of weights


class SimSiam(Baseline):
    """SimSiam (Chen & He, CVPR 2021): two views predict each other, gradients stop on one side.

    Projection 2048-2048-2048 and prediction 2048-512-2048, as published.

    Args:
        encoder: Encoder that is trained.
        stop_gradient: Whether the gradient is stopped; if not, SimSiam collapses (their Fig. 2).
    """

    def __init__(self, encoder: Encoder, stop_gradient: bool = True):
        super().__init__(encoder, SimSiamProjectionHead(encoder.feature_dim, 2048, 2048))
        self.prediction = SimSiamPredictionHead(2048, 512, 2048)
        self.criterion = NegativeCosineSimilarity()
        self.stop_gradient = stop_gradient

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """The loss of two batches of strong views, a scalar in [-1, 1]."""
        z1, z2 = self.project(first), self.project(second)
        p1, p2 = self.prediction(z1), self.prediction(z2)
        if self.stop_gradient:
            z1, z2 = z1.detach(), z2.detach()
        return 0.5 * (full(self.criterion, p1, z2) + full(self.criterion, p2, z1))


class MoCo(Baseline):
    """MoCo v2 (He et al., CVPR 2020; Chen et al., 2020): queries against a queue of keys.

    Keys come from an encoder that follows the trained one slowly, once a step. The queue holds
    the keys of all processes. The published guard against reading batch statistics, a shuffle
    among GPUs each of which normalises its own share, is ``key_splits`` here: keys are shuffled
    and normalised in so many groups. One group is a departure: query and key of an image then
    are normalised with the same images, and those of the queue with others.

    Args:
        encoder: Encoder that is trained.
        queue: Keys kept as negatives; a multiple of the batch, so that the oldest leave first.
        key_momentum: Share of itself that the key encoder keeps each step.
        temperature: Temperature of the contrastive loss.
        key_splits: Groups that the keys of a batch are normalised in.
    """

    def __init__(
        self,
        encoder: Encoder,
        queue: int = 65536,
        key_momentum: float = 0.999,
        temperature: float = 0.2,
        key_splits: int = 1,
    ):
        super().__init__(encoder, MoCoProjectionHead(encoder.feature_dim, 2048, 128))
        self.key_encoder = copy.deepcopy(encoder)
        self.key_projection = copy.deepcopy(self.projection)
        deactivate_requires_grad(self.key_encoder)
        deactivate_requires_grad(self.key_projection)
        self.criterion = NTXentLoss(temperature, (queue, 128), gather_distributed=True)
        self.key_momentum, self.key_splits = key_momentum, key_splits

    def before_step(self) -> None:
        """Moves the key encoder."""
        update_momentum(self.encoder, self.key_encoder, self.key_momentum)
        update_momentum(self.projection, self.key_projection, self.key_momentum)

    def loss(self, query: Tensor, key: Tensor) -> Tensor:
        """The loss of two batches of strong views; keys enter the queue once they are compared."""
        batch = len(query) * dist.world_size()
        if len(self.queue) % batch:
            raise ValueError(f"queue: {len(self.queue)} is no multiple of the batch of {batch}")
        return full(self.criterion, self.project(query), self._keys(key))

    @torch.no_grad()
    def _keys(self, images: Tensor) -> Tensor:
        shuffled = torch.randperm(len(images)) if self.key_splits > 1 else torch.arange(len(images))
        groups = images[shuffled].chunk(self.key_splits)
        keys = torch.cat([self.key_projection(self.key_encoder(group)) for group in groups])
        return keys[shuffled.argsort()]

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
        encoder: Encoder that is trained.
        temperature: Temperature of NT-Xent.
    """

    def __init__(self, encoder: Encoder, temperature: float = 0.1):
        super().__init__(encoder, SimCLRProjectionHead(encoder.feature_dim, 2048, 128))
        self.criterion = NTXentLoss(temperature, gather_distributed=True)

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """The loss of two batches of strong views, a scalar."""
        return full(self.criterion, self.project(first), self.project(second))


class Supervised(Baseline):
    """Classification by one linear layer, with cross-entropy; it compares features as they are.

    Args:
        encoder: Encoder that is trained.
        classes: Number of classes.
    """

    views = 1

    def __init__(self, encoder: Encoder, classes: int):
        super().__init__(encoder, nn.Identity())
        if classes < 2:
            raise ValueError(f"classes: {classes}; supervised pretraining needs at least 2")
        self.classifier = nn.Linear(encoder.feature_dim, classes)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of one batch of strong views and its labels (B,), a scalar."""
        return full(F.cross_entropy, self.classifier(self.encoder(images)), labels)


@dataclass(frozen=True)
class Method:
    """All that tells one pretraining method from another.

    Attributes:
        title: Name in text and figures.
        baseline: Class of its heads and its loss.
        recipe: Ranges of its strong views.
        published: Settings as published.
        laptop: Settings in which a run of minutes departs from them.
        needs: Settings that the baseline takes by name; ``classes``, the number of labels.
        whole_batch: Whether images of a batch are compared with each other, so that it cannot be
            taken in parts.
    """

    title: str
    baseline: type[Baseline]
    recipe: Recipe
    published: Mapping[str, Any]
    laptop: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    whole_batch: bool = False


# Chen et al., "Improved baselines with momentum contrastive learning", 2020.
MOCO_V2 = Recipe(area=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=0.8, grey_p=0.2, blur_p=0.5)
# A short run ends before a long queue has filled, a slow key encoder has moved or a long
# warm-up is over. SimSiam at 0.1 teaches SPD to the projections and hardly to the features:
# spot-the-difference AU-ROC 85 % and 70 %, against 97 % and 78 % at 0.3 (ELPV, 22 steps of 32).
METHODS = {
    "simsiam": Method(
        "SimSiam", SimSiam,
        recipe=MOCO_V2,  # Chen & He, CVPR 2021, appendix A: that of MoCo v2
        published={  # section 3
            "epochs": 100, "batch_size": 512, "optimizer": "sgd", "base_lr": 0.05,
            "weight_decay": 1e-4, "schedule": "cosine", "warmup_epochs": 0,
        },
        laptop={"base_lr": 0.3},
        needs=("stop_gradient",),
    ),
    "moco": Method(
        "MoCo", MoCo,
        recipe=MOCO_V2,
        published={  # and its code
            "epochs": 200, "batch_size": 256, "optimizer": "sgd", "base_lr": 0.03,
            "weight_decay": 1e-4, "schedule": "cosine", "warmup_epochs": 0,
            "temperature": 0.2, "queue": 65536, "key_momentum": 0.999, "key_splits": 8,
        },
        laptop={"queue": 256, "key_momentum": 0.99, "key_splits": 1},
        needs=("queue", "key_momentum", "temperature", "key_splits"),
    ),
    "simclr": Method(
        "SimCLR", SimCLR,
        # Chen et al., ICML 2020, appendix A, colour strength 1.
        recipe=Recipe(
            area=(0.08, 1.0), jitter=(0.8, 0.8, 0.8, 0.2), jitter_p=0.8, grey_p=0.2, blur_p=0.5
        ),
        published={  # sections 2 and 5, appendix B
            "epochs": 100, "batch_size": 4096, "optimizer": "lars", "base_lr": 0.3,
            "weight_decay": 1e-6, "schedule": "cosine", "warmup_epochs": 10, "temperature": 0.1,
        },
        laptop={"warmup_epochs": 0},
        needs=("temperature",),
        whole_batch=True,
    ),
    "supervised": Method(
        "Supervised", Supervised,
        recipe=Recipe(area=(0.08, 1.0)),  # the usual training on ImageNet: crop and flip
        published={  # PyTorch's ImageNet example, whose ResNets the field compares with
            "epochs": 90, "batch_size": 256, "optimizer": "sgd", "base_lr": 0.1,
            "weight_decay": 1e-4, "schedule": "steps", "warmup_epochs": 0, "spd": "cross_entropy",
        },
        needs=("classes",),
    ),
}  # fmt: skip


class StrongView(View):
    """A method's published augmentation.

    Args:
        method: A key of :data:`METHODS`.
        size: Side of the square view, pixels.
    """

    def __init__(self, method: str, size: int):
        super().__init__(METHODS[known(method)].recipe, size)


def known(method: str) -> str:
    """The method, if it is a key of :data:`METHODS`.

    Raises:
        ValueError: It is not.
    """
    if method not in METHODS:
        raise ValueError(f"{method!r} is not one of {', '.join(METHODS)}")
    return method


def run_name(method: str, term: str = "", departures: Mapping[str, Any] | None = None) -> str:
    """Name of a training in files and figures.

    Args:
        method: The baseline.
        term: A key of :data:`TERMS`; empty for the baseline alone.
        departures: Settings in which it departs from the preset.

    >>> run_name("moco"), run_name("moco", "spd"), run_name("moco", "dense", {"eta": 0.5})
    ('moco', 'moco_spd', 'moco_dense_eta0.5')
    >>> run_name("moco", "spd", {"foreground": "image", "frozen_statistics": False})
    'moco_spd_image_no_frozen_statistics'
    """
    parts = [method, *([term] if term else [])]
    return "_".join(parts + [spelled(*departure) for departure in (departures or {}).items()])


def spelled(name: str, value: Any) -> str:
    """A setting that departs from its preset, as a training's name has it.

    >>> spelled("foreground", "image"), spelled("frozen_batchnorm", True), spelled("eta", 0.5)
    ('image', 'frozen_batchnorm', 'eta0.5')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return name if value else f"no_{name}"
    return f"{name}{value:g}"


def split_name(method: str) -> tuple[str, str, str]:
    """Baseline, term and departures of a training's name; the last two may be empty.

    >>> split_name("simsiam_spd_eta0.5"), split_name("imagenet")
    (('simsiam', 'spd', 'eta0.5'), ('imagenet', '', ''))
    """
    found = re.fullmatch(rf"(.+?)_({'|'.join(TERMS)})(?:_(.+))?", method)
    found = found or re.fullmatch(rf"({'|'.join(METHODS)})()_(.+)", method)
    return (found[1], found[2], found[3] or "") if found else (method, "", "")


def baseline_of(method: str) -> str | None:
    """The baseline that a training with SPD, or a control, is compared with; None for others.

    >>> baseline_of("simsiam_spd_eta0.5"), baseline_of("simsiam_placebo"), baseline_of("imagenet")
    ('simsiam', 'simsiam', None)
    """
    base, term, _ = split_name(method)
    return base if term else None


def method_name(method: str) -> str:
    """Name of a method in text and figures.

    >>> method_name("simsiam_spd"), method_name("simsiam_spd_eta0.5"), method_name("imagenet")
    ('SimSiam + SPD', 'SimSiam + SPD, η 0.5', 'ImageNet')
    """
    base, term, departures = split_name(method)
    name = METHODS[base].title if base in METHODS else UNTRAINED.get(base, base)
    name += f" + {TERMS[term]}" if term else ""
    return name + (", " + departures.replace("eta", "η ").replace("_", " ") if departures else "")
