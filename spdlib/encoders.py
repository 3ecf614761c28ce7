"""Encoders behind one interface: a pooled feature, and the feature stages.

``load_encoder`` builds the networks of :mod:`spdlib.architectures`, from scratch, from ImageNet
or from a weight file. The wrapped network keeps its own architecture's names, so that weights
written by :func:`save_encoder` load into plain torchvision and timm models.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spdlib import paths
from spdlib.architectures import ARCHITECTURES, known
from spdlib.settings import EncoderName
from spdlib.weights import Kind

SUFFIX = ".safetensors"
# Painted defects lie on held-out images: their data set trains on the same images.
TRAINS_LIKE = {"elpv_painted": "elpv"}


class Provenance(BaseModel):
    """Origin of an encoder's weights: the keys that readers rely on, and any others."""

    model_config = ConfigDict(strict=True, extra="allow")

    encoder: EncoderName
    method: str | None = None
    dataset: str | None = None
    data: str | None = None  # what older files call it, a name or a folder


FORMAT = "spdlib.encoder.v1"
FILE = Kind("weight file", "spdlib.encoders.save_encoder", FORMAT, "provenance", Provenance)


class Encoder(nn.Module):
    """A network as the library sees it: images in, pooled feature or feature stages out.

    Images are RGB floats in [0, 1]; they are normalised here, so that no caller can forget to.
    Calls run in channels-last memory order, which is up to twice as fast on a CPU.

    Args:
        name: A key of ``ARCHITECTURES``.
        provenance: Origin of the weights, as saved with them.

    Attributes:
        network: The plain torchvision or timm model, its classifier removed.
        feature_dim: Length D of the pooled feature.
        stage_channels: Channels of the four stages.
        frozen_batchnorm: Whether batch normalisation keeps its running statistics, and
            normalises by them, while the encoder is trained.
        gathered: Pooled features of what passes, for :func:`spdlib.features.gathering`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, provenance: Mapping[str, Any] | None = None):
        super().__init__()
        self.name = name
        self.provenance = dict(provenance or {})
        self.architecture = ARCHITECTURES[name]
        self.network = self.architecture.build()
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in self.architecture.norm)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.frozen_batchnorm = False
        self.gathered: list[Tensor] | None = None
        self.stage_channels, self.feature_dim = _widths(self)
        self.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> "Encoder":
        """Sets the mode, but :attr:`frozen_batchnorm` keeps batch normalisation as it is."""
        super().train(mode)
        if self.frozen_batchnorm:
            for layer in self.modules():
                if isinstance(layer, _BatchNorm):
                    layer.eval()
        return self

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
        name: A key of ``ARCHITECTURES``, e.g. ``efficientnet_lite0`` or ``resnet18``.
        weights: ``None`` for random weights, ``"imagenet"``, or a file that
            :func:`save_encoder` wrote. Nothing is unpickled from a file you name.

    Returns:
        The encoder.

    Raises:
        ValueError: The architecture is unknown, or the file is damaged or holds another
            architecture or other weights than it needs.
        FileNotFoundError: The file is not there.
        ConnectionError: ImageNet weights cannot be downloaded.

    >>> encoder = load_encoder("resnet18")
    >>> encoder(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 512])
    """
    encoder = Encoder(known(name))
    if weights == "imagenet":
        encoder.network.load_state_dict(encoder.architecture.imagenet(encoder.network))
        encoder.provenance = {"weights": "imagenet", "method": "supervised"}
    elif weights is not None:
        _load(encoder, weights)
    return encoder.eval()


def pretrained(
    method: str, architecture: str = "efficientnet_lite0", dataset: str | Path | None = None
) -> Encoder:
    """The encoder of a pretraining method, as notebooks and results name it.

    Args:
        method: ``"random"``; ``"imagenet"``; what notebook 02 trained on the data set and wrote
            to ``encoders/METHOD.safetensors`` in its runs (``"simsiam"``, ``"simsiam_spd"`` ...);
            or the path of such a file, from the current directory or the project, which is used
            whatever it was trained on.
        architecture: A key of ``ARCHITECTURES``.
        dataset: Name or folder of the data set that the encoder is for; by default ELPV.

    Raises:
        FileNotFoundError: It has not been trained yet; the message says what to run.
        ValueError: The file found by the method's name was trained on another data set, or as
            for :func:`load_encoder`.
    """
    if method in ("random", "imagenet"):
        return load_encoder(architecture, None if method == "random" else method)
    if method.endswith(SUFFIX):
        given = Path(method).expanduser()
        return load_encoder(architecture, given if given.exists() else paths.root() / given)
    dataset = TRAINS_LIKE.get(str(dataset), dataset) or paths.DEFAULT
    wanted, training = paths.dataset_name(dataset), "notebook 02_spd_pretraining"
    if dataset != paths.DEFAULT:
        command = f"python -m spdlib.notebooks run 02 --dataset {shlex.quote(str(dataset))}"
        training += f" on this data set ({command})"
    path = paths.need(paths.encoders(dataset) / f"{method}{SUFFIX}", training)
    held = read_provenance(path).get("dataset", wanted)
    if TRAINS_LIKE.get(held, held) != wanted:
        raise ValueError(
            f"{paths.show(path)} was pretrained on {held}, not on {wanted}. To pretrain on "
            f"{wanted}, run {training}; to use this file all the same, name it by its path, "
            f"{str(path)!r}"
        )
    return load_encoder(architecture, path)


def pretrained_encoders(
    methods: Sequence[str],
    architecture: str = "efficientnet_lite0",
    dataset: str | Path | None = None,
) -> dict[str, Encoder]:
    """Encoders as :func:`pretrained` finds them, by the names that results give them.

    A method is called as it is, a file by its name without folder and suffix.

    Raises:
        ValueError: Two of them would have the same name, or as for :func:`pretrained`.
        FileNotFoundError: As for :func:`pretrained`.

    >>> list(pretrained_encoders(["imagenet", "random"]))
    ['imagenet', 'random']
    """
    names = [Path(method).stem if method.endswith(SUFFIX) else method for method in methods]
    if len(set(names)) < len(names):
        raise ValueError(f"encoders: two of {', '.join(names)} have one name; rename a file")
    return {
        name: pretrained(method, architecture, dataset)
        for name, method in zip(names, methods, strict=True)
    }


def save_encoder(
    encoder: Encoder, path: str | Path, provenance: Mapping[str, Any] | None = None
) -> Path:
    """Writes the encoder's weights under its architecture's own names, as safetensors.

    Args:
        encoder: The encoder; floats are written in single precision.
        path: Path of the file; written beside and renamed, so a reader never sees half of it.
        provenance: Origin of the weights (JSON values): dataset, method, steps, seed ...; by
            default the encoder's own.

    Returns:
        The path.
    """
    about = {"encoder": encoder.name, **(provenance or encoder.provenance)}
    return FILE.write(path, about, single_precision(encoder.network))


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Provenance in a weight file, without loading the weights.

    Files from before ``dataset`` was called so get that key from their ``data``.

    Raises:
        FileNotFoundError: The file is not there.
        ValueError: It is not a weight file of spdlib.
    """
    with FILE.open(path) as file:
        about = file.about
    if about.get("data"):  # of older files
        about.setdefault("dataset", paths.dataset_name(about["data"]))
    return about


def single_precision(network: nn.Module) -> dict[str, Tensor]:
    """The network's state, floats in single precision, as networks are built."""
    state = network.state_dict()
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def _load(encoder: Encoder, path: str | Path) -> None:
    encoder.provenance = read_provenance(path)
    with FILE.open(path) as file:
        if (held := file.about["encoder"]) != encoder.name:
            raise ValueError(f"it holds a {held}, not a {encoder.name}")
        encoder.network.load_state_dict(file.tensors(encoder.network.state_dict()))


@torch.no_grad()
def _widths(encoder: Encoder) -> tuple[tuple[int, ...], int]:
    # Measured, not listed, so that a new architecture cannot be listed wrongly.
    encoder.eval()
    stages = encoder.stages(torch.zeros(1, 3, 64, 64), 4)
    feature_dim = encoder.pooled(stages[-1]).shape[1]
    encoder.train()
    return tuple(stage.shape[1] for stage in stages), feature_dim
