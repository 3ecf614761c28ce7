"""Random views of images, the weak global view and the SPD triplet.

Made on the images' own device, a batch at a time, every image with parameters of its own. All
randomness comes from one ``torch.Generator``, so that a run can be resumed exactly; kornia's and
torchvision's transforms draw from the global state. On two cores these are also two times as
fast as torchvision's image by image, and four times as fast as kornia 0.9 on the batch
(``benchmarks/smoothblend.py``). An SPD triplet costs 2.5 % of a SimSiam step of ResNet-18.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spdlib.colour import Strength, draw_jitter, few_at_a_time, jitter, no_jitter, uniform
from spdlib.smoothblend import Draw, SmoothBlend

D = TypeVar("D", "ViewDraw", Draw)


@dataclass(frozen=True)
class Recipe:
    """Ranges and probabilities of a random view.

    Attributes:
        area: Range of the crop's area relative to the image, uniform.
        aspect: Range of the crop's aspect relative to the image's, log-uniform.
        jitter: Strengths of brightness, contrast, saturation and hue.
        jitter_p: Probability of colour jitter.
        grey_p: Probability that the image is made grey.
        blur: Range of the Gaussian's standard deviation, pixels of a 224-pixel view.
        blur_p: Probability of blur.
        flip_p: Probability of a horizontal flip.
    """

    area: tuple[float, float]
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    jitter: Strength = (0.0, 0.0, 0.0, 0.0)
    jitter_p: float = 0.0
    grey_p: float = 0.0
    blur: tuple[float, float] = (0.1, 2.0)
    blur_p: float = 0.0
    flip_p: float = 0.5


# Zou et al., appendix C. "Random cropping with a ratio [0.9, 1.0]" is read as a range of areas
# at the image's own aspect.
WEAK = Recipe(
    area=(0.9, 1.0), aspect=(1.0, 1.0), jitter=(0.1, 0.1, 0.1, 0.05), jitter_p=0.8,
    blur=(0.1, 0.3), blur_p=0.5,
)  # fmt: skip


@dataclass(frozen=True)
class ViewDraw:
    """Parameters of each image's view; all tensors on the CPU.

    Attributes:
        crop: Boxes (B, 4): top, left, height, width, pixels.
        flip: Whether flipped (B,).
        jitter: Factors (B, 4) of brightness, contrast, saturation, hue. An image that is made
            grey has saturation 0.
        blur: Standard deviation of the blur (B,), pixels; 0 for none.
    """

    crop: Tensor
    flip: Tensor
    jitter: Tensor
    blur: Tensor


class Share(NamedTuple):
    """One of the equal parts of a batch that processes and gradient accumulation cut.

    What happens to an image is drawn for the whole batch, so it does not depend on the cut: all
    parts are made with generators in the same state.

    Attributes:
        number: Number of the part, from 0.
        of: Number of parts.
    """

    number: int = 0
    of: int = 1

    def cut(self, draw: D) -> D:
        """This part's rows of a draw for the whole batch."""
        tensors: dict[str, Any] = {n: x for n, x in vars(draw).items() if torch.is_tensor(x)}
        return replace(draw, **{n: x.chunk(self.of)[self.number] for n, x in tensors.items()})


WHOLE = Share()


class View(nn.Module):
    """A random view of each image of a batch, after a recipe.

    Args:
        recipe: Ranges and probabilities.
        size: Side of the square view, pixels.

    Images are floats (B, 3, H, W) in [0, 1]; the result is (B, 3, size, size).
    """

    def __init__(self, recipe: Recipe, size: int):
        super().__init__()
        self.recipe, self.size = recipe, size

    def forward(
        self, images: Tensor, generator: torch.Generator | None = None, share: Share = WHOLE
    ) -> Tensor:
        draw = self.draw(len(images) * share.of, images.shape[-2:], generator)
        return self.apply_draw(images, share.cut(draw))

    def draw(
        self, count: int, size: Sequence[int], generator: torch.Generator | None = None
    ) -> ViewDraw:
        """Draws for ``count`` images of ``size`` (height, width)."""
        recipe, (height, width) = self.recipe, size
        u = uniform(count, 9, generator).double()
        area = height * width * _between(recipe.area, u[:, 0])
        low, high = (math.log(a) for a in recipe.aspect)
        aspect = width / height * torch.exp(low + (high - low) * u[:, 1])
        # torchvision draws again when a crop does not fit; here the side that sticks out is cut.
        crop_h = (area / aspect).sqrt().round().clamp(1, height).long()
        crop_w = (area * aspect).sqrt().round().clamp(1, width).long()
        top = (u[:, 2] * (height - crop_h + 1)).long()
        left = (u[:, 3] * (width - crop_w + 1)).long()
        jittered = (u[:, 4] < recipe.jitter_p)[:, None]
        factors = draw_jitter(count, recipe.jitter, generator)
        factors = torch.where(jittered, factors, no_jitter(count))
        factors[u[:, 7] < recipe.grey_p, 2] = 0
        sigma = _between(recipe.blur, u[:, 5]) * self.size / 224
        return ViewDraw(
            crop=torch.stack([top, left, crop_h, crop_w], 1),
            flip=u[:, 6] < recipe.flip_p,
            jitter=factors,
            blur=torch.where(u[:, 8] < recipe.blur_p, sigma, 0.0),
        )

    def apply_draw(self, images: Tensor, draw: ViewDraw) -> Tensor:
        """Applies a draw: crop and flip, colour, blur."""
        views = crop_and_flip(images, draw.crop, draw.flip, self.size)
        if self.recipe.jitter_p or self.recipe.grey_p:
            views = jitter(views, draw.jitter)
        # One reach for all: a view does not depend on its neighbours in the batch.
        reach = math.ceil(3 * self.recipe.blur[1] * self.size / 224)
        for part in few_at_a_time(draw.blur > 0, views):
            views[part] = gaussian_blur(views[part], draw.blur[part], reach)
        return views


class WeakView(View):
    """The weak global view ``W`` of the paper (appendix C): no local change, little global."""

    def __init__(self, size: int):
        super().__init__(WEAK, size)


def plain_view(images: Tensor, size: int) -> Tensor:
    """The images themselves, whole, resized to (B, 3, size, size)."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


def spd_triplet(
    images: Tensor,
    weak: WeakView,
    blend: SmoothBlend,
    generator: torch.Generator | None = None,
    independent: bool = True,
    share: Share = WHOLE,
    alpha: bool = False,
    aligned: bool = False,
) -> tuple[Tensor, ...]:
    """Anchor ``x``, positive ``W(x)`` and negative ``SmoothBlend(W'(x))`` (Zou et al., section 4).

    W and W' are drawn independently: the negative gets a weak global view too, so that a global
    change gives nothing away.

    Args:
        images: (B, 3, H, W), floats in [0, 1].
        weak: Makes W and W'.
        blend: SmoothBlend, or CutPaste for the paper's ablation.
        generator: Source of the randomness.
        independent: Whether W' is drawn anew; if not, W' = W. The paper does not say.
        share: Part of a batch that the images are.
        alpha: Whether to return where the negatives were blended, too.
        aligned: Whether W' crops and flips as W does, so that the two can be compared cell by
            cell. Colours and blur stay independent.

    Returns:
        Three batches (B, 3, size, size); with ``alpha`` the masks (B, 1, size, size) as well.
    """
    count = len(images) * share.of
    first = second = share.cut(weak.draw(count, images.shape[-2:], generator))
    if independent:
        second = share.cut(weak.draw(count, images.shape[-2:], generator))
    if aligned:
        second = replace(second, crop=first.crop, flip=first.flip)
    positive, negative = (weak.apply_draw(images, draw) for draw in (first, second))
    draw = share.cut(blend.draw(count, negative.shape[-2:], generator))
    negative = blend.blend(negative, draw, inplace=True)
    triplet = plain_view(images, weak.size), positive, negative
    return (*triplet, blend.alpha(draw)) if alpha else triplet


def crop_and_flip(images: Tensor, crop: Tensor, flip: Tensor, size: int) -> Tensor:
    """Crops each image (top, left, height, width), flips some, resizes to (B, C, size, size).

    Bilinear and antialiased, as torchvision's ``resized_crop``. On a CPU image by image, on an
    accelerator as two matrix products for the batch, which give the same to rounding.
    """
    if images.device.type != "cpu":
        return _crop_and_flip_as_product(images, crop, flip, size)
    out = images.new_empty(len(images), images.shape[1], size, size)
    for i, ((top, left, height, width), flipped) in enumerate(
        zip(crop.tolist(), flip.tolist(), strict=True)
    ):
        part = images[i : i + 1, :, top : top + height, left : left + width]
        part = part.flip(-1) if flipped else part
        out[i : i + 1] = F.interpolate(part, (size, size), mode="bilinear", antialias=True)
    return out


def gaussian_blur(images: Tensor, sigma: Tensor, reach: int) -> Tensor:
    """Blurs each image by its own sigma, separably; borders are reflected.

    Args:
        images: (B, C, H, W).
        sigma: Standard deviations (B,), pixels, above 0.
        reach: The kernel has 2 * reach + 1 taps in either direction.

    Returns:
        Images like the input.
    """
    batch, channels, height, width = images.shape
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / sigma.double()[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0).to(images)
    x = images.reshape(1, batch * channels, height, width)
    for padding, shape in (((0, 0, reach, reach), (-1, 1, 2 * reach + 1, 1)),
                           ((reach, reach, 0, 0), (-1, 1, 1, 2 * reach + 1))):  # fmt: skip
        with torch.autocast(images.device.type, enabled=False):
            x = F.conv2d(F.pad(x, padding, "reflect"), kernel.view(shape), groups=batch * channels)
    return x.view(images.shape)


def _crop_and_flip_as_product(images: Tensor, crop: Tensor, flip: Tensor, size: int) -> Tensor:
    top, left, height, width = crop.float().to(images.device).unbind(1)
    rows = _resize_weights(top, height, images.shape[2], size).to(images.dtype)
    columns = _resize_weights(left, width, images.shape[3], size).to(images.dtype)
    flipped = flip.to(images.device)[:, None, None]
    columns = torch.where(flipped, columns.flip(1), columns)
    with torch.autocast(images.device.type, enabled=False):
        return rows[:, None] @ images @ columns.mT[:, None]


def _resize_weights(start: Tensor, extent: Tensor, length: int, size: int) -> Tensor:
    """Weights (B, size, length) of an antialiased linear resize of [start, start + extent)."""
    scale = (extent / size)[:, None, None]
    centre = (torch.arange(size, device=start.device)[:, None] + 0.5) * scale
    pixel = torch.arange(length, device=start.device) - start[:, None, None]
    weights = (1 - (pixel + 0.5 - centre).abs() / scale.clamp_min(1)).clamp_min(0)
    weights = weights * ((pixel >= 0) & (pixel < extent[:, None, None]))
    return weights / weights.sum(2, keepdim=True)


def _between(limits: tuple[float, float], u: Tensor) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * u
