"""Visibility of a blend: by how many levels of 255 pixels change, over many draws; and where."""

from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from spdlib.smoothblend import Draw, SmoothBlend

LEVELS = 256  # of an 8-bit image
AT_ONCE = 32  # images; more only need more memory


class Changes(NamedTuple):
    """Changes by many draws, in levels of 255, counting of each pixel the largest channel.

    Attributes:
        draws: One row a draw: ``image``, its number; ``inside`` and ``around``, the largest
            change in the pasted box and outside it.
        pixels: Number of pixels an image that change by 0, 1, ... 255 levels, on average (2, 256):
            in the pasted box, and outside it.
    """

    draws: pd.DataFrame
    pixels: Tensor


def changes(images: Tensor, blend: SmoothBlend, draw: Draw) -> Changes:
    """Applies many draws to a few images and counts what changes.

    Args:
        images: (N, C, H, W), uint8 or floats in [0, 1]. Draw number i goes to image i % N.
        blend: SmoothBlend or CutPaste.
        draw: Draws, as many as are wanted, for images of this size.

    >>> white, blend = torch.ones(1, 3, 32, 32), SmoothBlend(jitter=(0, 0, 0, 0))
    >>> changes(white, blend, blend.draw(9, (32, 32))).draws.inside.tolist() # white on white
    [0, 0, 0, 0, 0, 0, 0, 0, 0]
    """
    whole = F.to_dtype(images, torch.uint8, scale=True)
    box = SmoothBlend(sigma=0)
    rows, pixels = [], torch.zeros(2, LEVELS, dtype=torch.long)
    for chosen in torch.arange(len(draw)).split(AT_ONCE):
        before, part = whole[chosen % len(whole)], draw[chosen]
        after = blend.blend(before, part)
        change = (torch.maximum(before, after) - torch.minimum(before, after)).amax(1)
        inside = box.alpha(part)[:, 0] > 0
        rows.append(torch.stack([(change * m).flatten(1).amax(1) for m in (inside, ~inside)], 1))
        counts, pasted = (
            torch.bincount(x, minlength=LEVELS) for x in (change.flatten(), change[inside])
        )
        pixels += torch.stack([pasted, counts - pasted])
    table = pd.DataFrame(torch.cat(rows).numpy(), columns=["inside", "around"])
    table.insert(0, "image", torch.arange(len(draw)).numpy() % len(whole))
    return Changes(table, pixels / len(draw))


def rim(images: Tensor, blend: SmoothBlend, draw: Draw) -> dict[str, float]:
    """Changes that a blend makes at the edge of its patch and around it.

    Args:
        images: Floats (N, C, H, W) in [0, 1]. Draw number i goes to image i % N.
        blend: Blend that is applied.
        draw: Draws, as many as are wanted, for images of this size.

    Returns:
        ``jump``, the mean step of the change across the edge of the patch, levels
        of 255; ``outside``, the share of all change that lies outside the patch; and ``darker``,
        the share of draws that make the image darker.

    >>> found = rim(torch.ones(1, 3, 64, 64), blend := SmoothBlend(), blend.draw(9, (64, 64)))
    >>> found["darker"]
    1.0
    """
    before = images[torch.arange(len(draw)) % len(images)]
    change = 255 * (blend.blend(before, draw) - before).mean(1)
    inside = SmoothBlend(sigma=0).alpha(draw)[:, 0] > 0
    steps = [change.diff(dim=axis).abs()[inside.diff(dim=axis)] for axis in (1, 2)]
    return {
        "jump": torch.cat(steps).mean().item(),
        "outside": (change[~inside].abs().sum() / change.abs().sum()).item(),
        "darker": (change.mean((1, 2)) < 0).float().mean().item(),
    }
