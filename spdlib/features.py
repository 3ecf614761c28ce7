"""Batches of images through an encoder: checked, in evaluation mode, a few at a time."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor

from spdlib.encoders import Encoder

# Pixels that pass the encoder at once on a CPU. With more, activations outgrow what malloc keeps
# for the next one (32 MiB), and the system maps and clears new pages for each of them, which takes
# as long as the arithmetic.
FORWARD_PIXELS = 4 * 224**2

Batch: TypeAlias = Tensor | dict[str, Any]


def checked(batch: Batch, size: tuple[int, int] = (0, 0)) -> Tensor:
    """The images (B, 3, H, W) of a batch.

    Args:
        batch: A tensor, or a dict with such an ``"image"``.
        size: The only size (H, W) that they may have; (0, 0) for any.

    Raises:
        ValueError: They are not RGB floats in [0, 1], or of another size.
    """
    images = batch["image"] if isinstance(batch, dict) else batch
    if not (isinstance(images, Tensor) and images.ndim == 4 and images.shape[1] == 3):
        got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"batches: each is (B, 3, H, W) or a dict with 'image', not {got}")
    low, high = (float(end) for end in images.aminmax()) if images.numel() else (0.0, 1.0)
    # Not(inside) rather than outside, so that NaN is caught; rounding may overshoot a little.
    if not (images.is_floating_point() and low >= -1e-3 and high <= 1 + 1e-3):
        kind = str(images.dtype).removeprefix("torch.")
        raise ValueError(
            f"batches: RGB floats in [0, 1] are needed, not {kind} from {low:g} to {high:g}; "
            "the encoder normalises them itself"
        )
    if size not in ((0, 0), (found := tuple(images.shape[-2:]))):
        raise ValueError(f"batches: images of {found}, fitted {size}")
    return images


@contextmanager
def evaluating(encoder: Encoder) -> Iterator[None]:
    """Evaluation mode inside; outside, every module's mode as it was."""
    modes = [(module, module.training) for module in encoder.modules()]
    encoder.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def passable(images: Tensor) -> tuple[Tensor, ...]:
    """Parts of images (B, 3, H, W) that pass an encoder best."""
    at_once = len(images)
    if images.device.type == "cpu":
        at_once = FORWARD_PIXELS // images[0, 0].numel() if at_once else 1
    return images.split(max(1, at_once))


def stage_maps(encoder: Encoder, images: Tensor, count: int) -> Iterator[list[Tensor]]:
    """Feature maps of an encoder's first stages, a few images at a time, without a graph."""
    for part in passable(images.to(encoder.mean.device, encoder.mean.dtype)):
        with torch.no_grad():
            maps = encoder.stages(part, count)
            if encoder.gathered is not None:
                encoder.gathered.append(encoder.pooled(maps[-1], count).cpu().float())
        yield maps


@contextmanager
def gathering(encoder: Encoder, wanted: bool = True) -> Iterator[list[Tensor]]:
    """Inside, pooled features (B, D) of all that pass :func:`stage_maps`, in order, on the CPU.

    Args:
        encoder: The encoder; what it gathered before is gathered again outside.
        wanted: False gathers nothing, and costs nothing.
    """
    outside = encoder.gathered
    found: list[Tensor] = []
    encoder.gathered = found if wanted else outside
    try:
        yield found
    finally:
        encoder.gathered = outside


def pooled(encoder: Encoder, batches: Iterable[Batch]) -> Tensor:
    """Pooled features (N, D) of all images, in single precision, on the CPU.

    Raises:
        ValueError: There are none, they differ in size, or as for :func:`checked`.
    """
    size, last = (0, 0), len(encoder.architecture.segments)
    with evaluating(encoder), gathering(encoder) as found:
        for batch in batches:
            images = checked(batch, size)
            size = images.shape[-2], images.shape[-1]
            for _ in stage_maps(encoder, images, last):
                pass
    if not found:
        raise ValueError("batches: there are none")
    return torch.cat(found)
