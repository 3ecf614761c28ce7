"""Colour jitter of a whole batch, with factors of its own for each image.

Brightness, contrast and saturation are affine in RGB: composed, they are one matrix and one
offset an image, and a batch costs one matrix product. Hue turns in HSV, exactly as in
torchvision, in one pass without leaving RGB. Two things differ from
``torchvision.transforms.v2.ColorJitter``: the order is fixed (brightness, contrast, saturation,
hue), and values are clipped to [0, 1] before the hue turns, not after every step.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

# Luma of BT.601; exactly 1 in sum, so that grey stays grey.
LUMA = (0.299, 0.587, 0.114)

Strength = tuple[float, float, float, float]  # brightness, contrast, saturation, hue


def draw_jitter(count: int, strength: Strength, generator: torch.Generator | None) -> Tensor:
    """Factors of brightness, contrast, saturation (1: no change) and hue (0: no change).

    Args:
        count: Number of images, B.
        strength: Largest change of each; factors are uniform in [1 - s, 1 + s], not below 0,
            hue in [-s, s] turns, as in torchvision.
        generator: Source of the randomness.

    Returns:
        Factors (B, 4), on the CPU.
    """
    low = torch.tensor([max(0.0, 1 - s) for s in strength[:3]] + [-strength[3]])
    high = torch.tensor([1 + s for s in strength[:3]] + [strength[3]])
    return low + (high - low) * uniform(count, 4, generator)


def no_jitter(count: int) -> Tensor:
    """The factors (B, 4) that change nothing."""
    return torch.tensor([1.0, 1.0, 1.0, 0.0]).repeat(count, 1)


def jitter(images: Tensor, factors: Tensor, mean: Tensor | None = None) -> Tensor:
    """Applies brightness, contrast, saturation and hue, in this order.

    Args:
        images: (B, 3, H, W) or grey (B, 1, H, W), floats in [0, 1].
        factors: (B, 4), as :func:`draw_jitter` gives them.
        mean: Mean of each channel (B, C) about which contrast changes; by default that of the
            image.

    Returns:
        Images like the input, clipped to [0, 1].
    """
    channels = images.shape[1]
    if channels not in (1, 3):
        raise ValueError(f"images: {channels} channels, expected 3 (RGB) or 1 (grey)")
    if mean is None:
        mean = images.mean((2, 3))
    matrix, contrast_offset = _affine(factors.to(images.device, images.dtype))
    luma = torch.tensor(LUMA, dtype=images.dtype, device=images.device)
    if channels == 1:
        # Grey stays grey: every row of the matrix has the same sum.
        scale, offset = matrix[:, 0].sum(1), contrast_offset * mean[:, 0]
        return (images * scale.view(-1, 1, 1, 1) + offset.view(-1, 1, 1, 1)).clamp_(0, 1)
    offset = (contrast_offset * (mean * luma).sum(1)).view(-1, 1, 1)
    # A contiguous (B, 3, HW) view makes this one batched matrix product, which inside a
    # mixed-precision step must not be taken for one of the network's.
    flat = images.contiguous().flatten(2)
    with torch.autocast(images.device.type, enabled=False):
        out = torch.baddbmm(offset, matrix, flat).view(images.shape).clamp_(0, 1)
    for part in few_at_a_time(factors[:, 3] != 0, images):
        out[part] = turn_hue(out[part], factors[part, 3])
    return out


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turns the hue in HSV; value and saturation stay.

    Args:
        images: RGB (B, 3, H, W), floats in [0, 1].
        turns: (B,), 1 for a full turn.

    Returns:
        Images like the input.
    """
    red, green, blue = images.unbind(1)
    high, low = images.amax(1), images.amin(1)
    chroma = high - low
    per_chroma = 1 / chroma.clamp_min(torch.finfo(images.dtype).tiny)  # grey has no hue to turn
    sixth = torch.where(
        high == red,
        (green - blue) * per_chroma,
        torch.where(high == green, (blue - red) * per_chroma + 2, (red - green) * per_chroma + 4),
    )
    sixth = (sixth + 6 * turns.to(images).view(-1, 1, 1)).remainder_(6)
    # How much of the chroma each channel has, by the sixth of the colour circle.
    share = torch.stack(
        [(sixth - 3).abs() - 1, 2 - (sixth - 2).abs(), 2 - (sixth - 4).abs()], 1
    ).clamp_(0, 1)
    return share.mul_(chroma[:, None]).add_(low[:, None])


def few_at_a_time(chosen: Tensor, images: Tensor) -> Iterator[Tensor]:
    """The numbers of the images chosen by flags (B,), a few at a time.

    On a CPU so few that the intermediate results of a step stay in its cache, which takes
    half to a third of the time of the whole batch; on an accelerator all at once.
    """
    numbers = torch.nonzero(chosen).flatten()
    pixels = images.shape[-2] * images.shape[-1]
    count = max(1, 2**18 // pixels) if images.device.type == "cpu" else len(images)
    return (part for part in numbers.split(max(1, count)) if len(part))


def uniform(rows: int, columns: int, generator: torch.Generator | None) -> Tensor:
    """Uniform numbers (rows, columns) in [0, 1), on the CPU whatever the generator's device."""
    device = generator.device if generator is not None else "cpu"
    return torch.rand(rows, columns, generator=generator, device=device).cpu()


def _affine(factors: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix (B, 3, 3), and the factor (B,) of the mean luma that contrast adds."""
    brightness, contrast, saturation = (f.view(-1, 1, 1) for f in factors[:, :3].unbind(1))
    eye = torch.eye(3, dtype=factors.dtype, device=factors.device)
    grey = torch.tensor([LUMA] * 3, dtype=factors.dtype, device=factors.device)
    matrix = brightness * contrast * (saturation * eye + (1 - saturation) * grey)
    return matrix, factors[:, 0] * (1 - factors[:, 1])
