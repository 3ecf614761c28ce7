"""Models of two-class training: a classifier, a U-Net, and the cheap relative of the former.

All start from an :class:`~spdlib.encoders.Encoder`, whose weights they copy.
"""

import copy
from typing import TypeAlias

import numpy as np
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.ops import sigmoid_focal_loss

from spdlib import features
from spdlib.encoders import Encoder
from spdlib.twoclass.presets import TwoClass

PROBE_STRENGTH = 10.0  # inverse of the penalty; chosen on ELPV's mono cells, whatever is shown


class Classifier(nn.Module):
    """An encoder with a linear head, for two classes.

    Args:
        encoder: Gives the weights to start from; a copy is trained.
        seed: Seed of the head's weights.

    >>> from spdlib.encoders import load_encoder
    >>> Classifier(load_encoder("resnet18")).score(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2])
    """

    task = "detection"

    def __init__(self, encoder: Encoder, seed: int = 0):
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Linear(encoder.feature_dim, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 2), normal and anomalous, of RGB images (B, 3, H, W) in [0, 1]."""
        return self.head(self.encoder(images))

    def score(self, images: Tensor) -> Tensor:
        """Log odds (B,) that an image is anomalous; unlike probabilities they do not saturate."""
        logits = self(images)
        return logits[:, 1] - logits[:, 0]

    def loss(self, batch: dict[str, Tensor], settings: TwoClass, share: float) -> Tensor:
        """Cross-entropy; ``share`` is that of anomalous images, for the weights."""
        weights = None
        if settings.balance == "weights":
            weights = batch["image"].new_tensor([0.5 / (1 - share), 0.5 / share])
        return F.cross_entropy(self(batch["image"]), batch["label"], weights)


class Segmenter(nn.Module):
    """A U-Net on an encoder (Ronneberger et al., 2015).

    The network is segmentation-models-pytorch's; it receives the encoder's weights, all that
    lead to its four stages, and its normalisation.

    Args:
        encoder: Gives the weights to start from; they are copied.
        decoder_width: Channels of the deepest decoder block; each further one has half, but at
            least 16.
        seed: Seed of the decoder's weights.

    >>> from spdlib.encoders import load_encoder
    >>> Segmenter(load_encoder("resnet18"), 32)(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 64, 64])
    """

    task = "segmentation"
    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder, decoder_width: int = 256, seed: int = 0):
        super().__init__()
        name, widths = encoder.architecture.unet, [max(decoder_width >> n, 16) for n in range(5)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.unet = smp.Unet(name, encoder_weights=None, decoder_channels=widths)
        network = self.unet.encoder.model
        # The same names on both sides, but timm joins some by underscores.
        given = {n.replace(".", "_"): value for n, value in encoder.network.state_dict().items()}
        # The last layers before pooling (EfficientNet's head) have no place in a U-Net; strict
        # loading makes sure that everything else has received its weights.
        network.load_state_dict({n: given[n.replace(".", "_")] for n in network.state_dict()})
        self.register_buffer("mean", encoder.mean.clone(), persistent=False)
        self.register_buffer("std", encoder.std.clone(), persistent=False)
        self.to(encoder.mean.device).to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Log odds (B, H, W) that a pixel is anomalous, of RGB images (B, 3, H, W) in [0, 1]."""
        x = (images - self.mean) / self.std
        return self.unet(x.contiguous(memory_format=torch.channels_last))[:, 0]

    score = forward

    def loss(self, batch: dict[str, Tensor], settings: TwoClass, share: float) -> Tensor:
        """Focal loss; ``share`` is that of anomalous pixels, for the weights."""
        alpha = 1 - share if settings.balance == "weights" else settings.focal_alpha
        return focal_loss(self(batch["image"]), batch["mask"], settings.focal_gamma, alpha)


Model: TypeAlias = Classifier | Segmenter


def focal_loss(
    logits: Tensor, masks: Tensor, gamma: float = 2.0, alpha: float | None = 0.25
) -> Tensor:
    """The mean of ``-alpha_t (1 - p_t)^gamma log p_t`` over pixels (Lin et al., 2017, eq. 5).

    Args:
        logits: Log odds of an anomaly.
        masks: 0 and 1, or bool, of the same shape.
        gamma: Strength by which pixels that are right already count less; 0 for cross-entropy.
        alpha: Weight of anomalous pixels, normal ones have ``1 - alpha``; None for no weights.

    Returns:
        A scalar.

    >>> focal_loss(torch.zeros(1), torch.ones(1), gamma=0, alpha=None)
    tensor(0.6931)
    """
    alpha = -1 if alpha is None else alpha  # torchvision's word for none
    return sigmoid_focal_loss(logits, masks.to(logits.dtype), alpha, gamma, reduction="mean")


def pooled_features(encoder: Encoder, images: Dataset) -> NDArray[np.float32]:
    """The encoder's pooled features (N, D) of images, in their order."""
    return features.pooled(encoder, DataLoader(images, 8)).numpy()


def probe(features: ArrayLike, labels: ArrayLike, others: ArrayLike) -> NDArray[np.float64]:
    """A linear probe: a head trained on features of an encoder that stays as it is.

    Features are brought to length 1, so that one strength suits all encoders; classes weigh
    the same; the cross-entropy is minimised to the end, without augmentation.

    Args:
        features: Features of the training images (N, D).
        labels: 0 and 1 (N,), of both classes.
        others: Features of the images to score (M, D).

    Returns:
        Log odds (M,) of an anomaly.

    Raises:
        ValueError: A class is missing.
    """
    labels = np.asarray(labels)
    if len(np.unique(labels)) < 2:
        raise ValueError("labels: a class is missing; two-class training needs both")
    head = LogisticRegression(C=PROBE_STRENGTH, class_weight="balanced", max_iter=1000)
    head.fit(normalize(features), labels)
    return head.decision_function(normalize(others))
