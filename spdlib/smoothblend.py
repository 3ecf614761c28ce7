"""SmoothBlend: a faint local change for the features to notice (Zou et al., ECCV 2022, app. C).

A patch is cut from the image, its colours are jittered, and it is laid at a random place into
a foreground ``u``, which is zero around the patch unless asked for otherwise. The mask ``alpha``,
1 on the patch and 0 elsewhere, is smoothed by a Gaussian, and the result is
``(1 - alpha) * x + alpha * u``. As alpha reaches beyond the patch, a foreground of zeros leaves a
dark rim around it.

What to draw and how to apply it are two steps, so that a draw can be shown, kept and repeated:

    blend = SmoothBlend()
    draw = blend.draw(len(images), images.shape[-2:], generator)
    changed = blend.blend(images, draw)          # the same as blend(images, generator=generator)
    alpha = blend.alpha(draw)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from spdlib.colour import Strength, draw_jitter, jitter, no_jitter, uniform

# Zou et al., appendix C.
AREA = (0.0056, 0.01)  # of the patch, relative to the image
ASPECT = (0.3, 3.0)  # width / height of the patch
SIGMA_AT_224 = 8.0  # of the mask's Gaussian, pixels of a 224-pixel image
# The paper jitters the patch's colours and leaves the strength open: CutPaste's is taken
# (Li et al., CVPR 2021), on whose transform SmoothBlend builds.
JITTER = (0.1, 0.1, 0.1, 0.1)

# Li et al., CVPR 2021, section 2.2.
CUTPASTE_AREA = (0.02, 0.15)
CUTPASTE_ASPECT = (0.3, 3.3)

Foreground = Literal["zero", "mean", "image", "context"]

TRUNCATE = 4.0  # the Gaussian is cut off at this many standard deviations, as in scipy


@dataclass(frozen=True)
class Draw:
    """Places that each image's patch comes from and goes to, and its change of colours.

    Plain tensors on the CPU: ``torch.save(vars(draw), path)`` keeps a draw, and
    ``Draw(**torch.load(path))`` brings it back.

    Attributes:
        size: Height and width of the images, pixels.
        height: Height of each patch (B,), whole pixels.
        width: Width of each patch (B,), whole pixels.
        source: Top left corner (B, 2) of what is cut, row and column.
        target: Top left corner (B, 2) of where it is pasted.
        jitter: Factors (B, 4) of brightness, contrast, saturation and hue.
        blended: Whether an image is changed at all (B,).
    """

    size: tuple[int, int]
    height: Tensor
    width: Tensor
    source: Tensor
    target: Tensor
    jitter: Tensor
    blended: Tensor

    def __len__(self) -> int:
        return len(self.height)

    def __getitem__(self, chosen: slice | list[int] | Tensor) -> "Draw":
        """The draws of some of the images."""
        tensors = (f.name for f in fields(self) if f.name != "size")
        return replace(self, **{name: getattr(self, name)[chosen] for name in tensors})

    def grown(self, margin: int) -> "Draw":
        """This draw with patches that are ``margin`` pixels larger on each side."""
        return replace(
            self,
            height=self.height + 2 * margin,
            width=self.width + 2 * margin,
            source=self.source - margin,
            target=self.target - margin,
        )

    def centred_on(self, other: "Draw") -> "Draw":
        """This draw with its patches cut and pasted about the centres of another's.

        Patches that would stick out of the image are moved in. With a generator of the same
        seed for both draws, this shows what a range of areas or aspects does, all else kept.
        """
        extent, others = (torch.stack([d.height, d.width], 1) for d in (self, other))
        shift, last = (others - extent) // 2, torch.tensor(self.size) - extent
        places = (corner + shift for corner in (other.source, other.target))
        source, target = (place.clamp_min(0).minimum(last) for place in places)
        return replace(self, source=source, target=target)

    @property
    def source_boxes(self) -> Tensor:
        """Boxes (B, 4) of what is cut: left, top, right, bottom; right and bottom exclusive."""
        return self._boxes(self.source)

    @property
    def target_boxes(self) -> Tensor:
        """Boxes (B, 4) of where it is pasted: left, top, right, bottom."""
        return self._boxes(self.target)

    def _boxes(self, corner: Tensor) -> Tensor:
        extent = torch.stack([self.width, self.height], 1)
        return torch.cat([corner.flip(1), corner.flip(1) + extent], 1)


class SmoothBlend(v2.Transform):
    """Blends one patch of each image smoothly into another place of it.

    Also a ``torchvision.transforms.v2`` transform: in a ``Compose`` it changes images and
    leaves masks, boxes and labels as they are.

    Args:
        area: Range of the patch's area relative to the image's, uniform.
        aspect: Range of the patch's width / height, log-uniform, so that 1/3 and 3 are equally
            likely. Both sides are rounded to whole pixels, at least 1, at most the image.
        sigma: Standard deviation of the mask's Gaussian in pixels. By default 8 pixels at 224
            x 224, in proportion to the image's side (the square root of its area). 0 pastes
            hard.
        jitter: Largest change of the patch's brightness, contrast, saturation and hue.
        p: Probability that an image is changed.
        foreground: The foreground around the patch: ``zero``, black, after our notes on the main
            paper; ``mean``, the image's mean colour, much as if images were blended after they
            are normalised; ``image``, the image itself, so that nothing changes around the patch;
            ``context``, the patch's own surroundings, jittered like it.

    Images are (C, H, W) or (B, C, H, W), RGB or grey, floating point in [0, 1] or uint8, on
    any device. The result is like the input; pixels outside alpha's support (4 sigma around
    the patch) are the input's own. Outside the image the mask counts as zero: near a border
    alpha is neither renormalised nor reflected.

    Raises:
        ValueError: A range is empty or out of bounds, or images have another form.

    >>> images = torch.rand(2, 3, 64, 64)
    >>> SmoothBlend()(images, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 64, 64])
    """

    # A plain tensor beside a tv_tensors.Image is a label: torchvision leaves it alone.
    _transformed_types = (tv_tensors.Image, lambda value: type(value) is Tensor)

    def __init__(
        self,
        area: tuple[float, float] = AREA,
        aspect: tuple[float, float] = ASPECT,
        sigma: float | None = None,
        jitter: Strength = JITTER,
        p: float = 1.0,
        foreground: Foreground = "zero",
    ):
        super().__init__()
        _check_range("area", area, 0, 1)
        _check_range("aspect", aspect, 0, math.inf)
        if sigma is not None and not 0 <= sigma < math.inf:
            raise ValueError(f"sigma: {sigma} is not a number of pixels, 0 or more")
        if len(jitter) != 4 or min(jitter) < 0 or jitter[3] > 0.5:
            raise ValueError(f"jitter: {jitter} is not four strengths from 0 (hue: to 0.5)")
        if not 0 <= p <= 1:
            raise ValueError(f"p: {p} is not a probability")
        if foreground not in get_args(Foreground):
            known = ", ".join(get_args(Foreground))
            raise ValueError(f"foreground: {foreground!r} is not one of {known}")
        self.foreground_kind = foreground
        self.area, self.aspect, self.sigma, self.jitter, self.p = area, aspect, sigma, jitter, p

    def forward(self, *inputs: Any, generator: torch.Generator | None = None) -> Any:
        """Changes the images.

        Args:
            *inputs: Images, or, as for any torchvision transform, samples that hold images.
            generator: Generator that all is drawn from; by default torch's global one.
        """
        if generator is None:
            return super().forward(*inputs)
        if len(inputs) != 1:
            raise ValueError("images: with a generator, give one tensor of images")
        return self.blend(inputs[0], self._draw_for(inputs[0], generator))

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws; torchvision's transforms call it."""
        images = [x for x in flat_inputs if isinstance(x, tv_tensors.Image)]
        images = images or [x for x in flat_inputs if type(x) is Tensor]
        if not images:
            raise ValueError("images: there is no image tensor among the inputs")
        return {"draw": self._draw_for(images[0], None)}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Applies a draw; torchvision's transforms call it."""
        return self.blend(inpt, params["draw"])

    def draw(
        self, count: int, size: Sequence[int], generator: torch.Generator | None = None
    ) -> Draw:
        """Draws for ``count`` images of ``size`` (height, width), independently for each."""
        height, width = size
        u = uniform(count, 7, generator).double()
        pixels = height * width * (self.area[0] + (self.area[1] - self.area[0]) * u[:, 0])
        low, high = (math.log(a) for a in self.aspect)
        aspect = torch.exp(low + (high - low) * u[:, 1])
        patch = torch.stack([(pixels / aspect).sqrt(), (pixels * aspect).sqrt()], 1).round().long()
        patch = patch.clamp_min(1).minimum(torch.tensor([height, width]))
        places = torch.tensor([height, width]) - patch + 1
        return Draw(
            size=(height, width),
            height=patch[:, 0],
            width=patch[:, 1],
            source=(u[:, 2:4] * places).long(),
            target=(u[:, 4:6] * places).long(),
            jitter=draw_jitter(count, self.jitter, generator),
            blended=u[:, 6] < self.p,
        )

    def blend(self, images: Tensor, draw: Draw, inplace: bool = False) -> Tensor:
        """Applies a draw.

        Args:
            images: Images, as the class takes them, as many and as large as the draw is for.
            draw: Draw to apply.
            inplace: Change ``images`` themselves: saves a copy where they are not needed.

        Returns:
            The blended images.
        """
        batch = self._as_batch(images)
        if tuple(batch.shape[-2:]) != draw.size or len(batch) != len(draw):
            raise ValueError(
                f"images: {len(batch)} of {tuple(batch.shape[-2:])} pixels; the draw is for "
                f"{len(draw)} of {draw.size}"
            )
        out = batch if inplace else batch.clone()
        if len(draw):
            on_cpu = batch.device.type == "cpu"
            (self._blend_windows if on_cpu else self._blend_whole)(out, batch, draw)
        result = out if images.ndim == 4 else out[0]
        return tv_tensors.wrap(result, like=images)

    def alpha(self, draw: Draw) -> Tensor:
        """The smoothed masks (B, 1, H, W) of a draw, in [0, 1]."""
        rows, columns = self._profiles(draw)
        shown = draw.blended.float().view(-1, 1, 1, 1)
        return shown * rows[:, None, :, None] * columns[:, None, None, :]

    def foreground(self, images: Tensor, draw: Draw) -> Tensor:
        """The foregrounds ``u`` (B, C, H, W) of a draw, floats in [0, 1].

        For showing; where alpha is 0, what stands in ``u`` plays no part.
        """
        batch = self._as_batch(images)
        scale = 255 if batch.dtype == torch.uint8 else 1
        return self._whole_foreground(batch, draw) / scale

    def sigma_for(self, size: tuple[int, int]) -> float:
        """The mask's standard deviation in pixels for images of a size (height, width)."""
        return (
            SIGMA_AT_224 * math.sqrt(size[0] * size[1]) / 224 if self.sigma is None else self.sigma
        )

    def _draw_for(self, images: Tensor, generator: torch.Generator | None) -> Draw:
        batch = self._as_batch(images)
        return self.draw(len(batch), batch.shape[-2:], generator)

    def _as_batch(self, images: Tensor) -> Tensor:
        if not isinstance(images, Tensor) or images.ndim not in (3, 4):
            raise ValueError("images: expected a tensor (C, H, W) or (B, C, H, W)")
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(f"images: {images.dtype} is neither uint8 nor floating point")
        images = images.as_subclass(Tensor)
        return images if images.ndim == 4 else images[None]

    def _blend_windows(self, out: Tensor, batch: Tensor, draw: Draw) -> None:
        # On a CPU, a few small operations an image beat one large operation: nothing outside
        # alpha's support is touched, and most of the time goes into copying the images.
        patches, pasted = self._patches(batch, draw)
        around = self._around(batch)
        rows, columns = self._profiles(draw)
        reach, (height, width) = self._reach(draw.size), draw.size
        boxes, inner = draw.target_boxes.tolist(), pasted.target_boxes.tolist()
        for i in torch.nonzero(draw.blended).flatten().tolist():
            left, top, right, bottom = boxes[i]
            y0, y1 = max(0, top - reach), min(height, bottom + reach)
            x0, x1 = max(0, left - reach), min(width, right + reach)
            alpha = torch.outer(rows[i, y0:y1], columns[i, x0:x1])
            window = out[i, :, y0:y1, x0:x1]
            image = window.to(patches.dtype)
            u = image.clone() if around is None else around[i].expand_as(image).clone()
            left, top, right, bottom = inner[i]
            a, b, c, d = max(top, y0), min(bottom, y1), max(left, x0), min(right, x1)
            patch = patches[i, :, a - top : b - top, c - left : d - left]
            u[:, a - y0 : b - y0, c - x0 : d - x0] = patch
            blended = torch.lerp(image, u, alpha.to(image))
            window.copy_(blended if out.is_floating_point() else blended.round_())

    def _blend_whole(self, out: Tensor, batch: Tensor, draw: Draw) -> None:
        # On an accelerator each operation costs its launch: a dozen of them for the batch.
        u = self._whole_foreground(batch, draw)
        blended = torch.lerp(batch.to(u.dtype), u, self.alpha(draw).to(u))
        out.copy_(blended if out.is_floating_point() else blended.round_())

    def _whole_foreground(self, batch: Tensor, draw: Draw) -> Tensor:
        """The foregrounds (B, C, H, W), in the range of the batch."""
        patches, pasted = self._patches(batch, draw)
        around = self._around(batch)
        rows, columns = (
            torch.arange(n) - pasted.target[:, k, None] for k, n in enumerate(draw.size)
        )
        inside = (
            ((rows >= 0) & (rows < pasted.height[:, None]))[:, None, :, None]
            & ((columns >= 0) & (columns < pasted.width[:, None]))[:, None, None, :]
        ).to(patches.device)
        last = (patches.shape[2] - 1, patches.shape[3] - 1)
        spread = _gather(patches, rows.clamp(0, last[0]), columns.clamp(0, last[1]))
        return torch.where(inside, spread, batch.to(spread) if around is None else around)

    def _around(self, batch: Tensor) -> Tensor | None:
        """The foreground's colour around each patch (B, C, 1, 1); None for the image itself."""
        if self.foreground_kind == "image":
            return None
        dtype = torch.promote_types(batch.dtype, torch.float32)
        if self.foreground_kind == "mean":
            return batch.mean((2, 3), dtype=dtype, keepdim=True)
        return batch.new_zeros((len(batch), batch.shape[1], 1, 1), dtype=dtype)

    def _patches(self, batch: Tensor, draw: Draw) -> tuple[Tensor, Draw]:
        """Patches to paste, jittered, padded to one size, in the batch's range; their places."""
        if self.foreground_kind == "context":
            draw = draw.grown(self._reach(draw.size))
        dtype = torch.promote_types(batch.dtype, torch.float32)  # half precision is too coarse
        rows, columns = (
            (draw.source[:, k, None] + torch.arange(int(extent.max()))).clamp(0, draw.size[k] - 1)
            for k, extent in enumerate((draw.height, draw.width))
        )
        patches = _gather(batch, rows, columns).to(dtype)
        scale = 255 if batch.dtype == torch.uint8 else 1
        inside = (
            (torch.arange(patches.shape[2]) < draw.height[:, None])[:, None, :, None]
            & (torch.arange(patches.shape[3]) < draw.width[:, None])[:, None, None, :]
        ).to(patches)
        mean = (patches * inside).sum((2, 3)) / inside.sum((2, 3)) / scale
        return jitter(patches / scale, draw.jitter, mean) * scale, draw

    def _reach(self, size: tuple[int, int]) -> int:
        return math.ceil(TRUNCATE * self.sigma_for(size))

    def _profiles(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Vertical (B, H) and horizontal (B, W) profiles, whose outer product is alpha.

        The mask of a box is separable, and a box smoothed by a kernel is a difference of two
        of the kernel's partial sums.
        """
        sigma, reach = self.sigma_for(draw.size), self._reach(draw.size)
        kernel = torch.ones(1, dtype=torch.float64)
        if reach:
            offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
            kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
        sums = torch.cat([kernel.new_zeros(1), kernel.cumsum(0) / kernel.sum()])

        def profile(length: int, start: Tensor, extent: Tensor) -> Tensor:
            position = torch.arange(length)[None] - start[:, None] + reach + 1
            last = len(sums) - 1
            upper = sums[position.clamp(0, last)]
            return (upper - sums[(position - extent[:, None]).clamp(0, last)]).float()

        return (
            profile(draw.size[0], draw.target[:, 0], draw.height),
            profile(draw.size[1], draw.target[:, 1], draw.width),
        )


class CutPaste(SmoothBlend):
    """CutPaste, the paper's ablation: a larger patch pasted hard (Li et al., CVPR 2021).

    SmoothBlend with sigma 0 and CutPaste's own range of sizes.
    """

    def __init__(
        self,
        area: tuple[float, float] = CUTPASTE_AREA,
        aspect: tuple[float, float] = CUTPASTE_ASPECT,
        jitter: Strength = JITTER,
        p: float = 1.0,
    ):
        super().__init__(area, aspect, sigma=0.0, jitter=jitter, p=p)


class RimAlone(SmoothBlend):
    """A control: SmoothBlend's dark rim around a box whose own pixels do not change.

    The patch is pasted, without jitter, where it was cut. What is left is what a foreground of
    zeros takes away around it.
    """

    def draw(
        self, count: int, size: Sequence[int], generator: torch.Generator | None = None
    ) -> Draw:
        """Draws boxes of the same size at the same places as SmoothBlend."""
        draw = super().draw(count, size, generator)
        return replace(draw, source=draw.target, jitter=no_jitter(count))


def _gather(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Rows (B, h) and columns (B, w) of each image, as (B, C, h, w)."""
    # By flat pixel numbers: several times as fast as by rows and columns.
    rows, columns = rows.to(images.device), columns.to(images.device)
    pixels = rows[:, :, None] * images.shape[3] + columns[:, None, :]
    pixels = pixels.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    shape = (*images.shape[:2], rows.shape[1], columns.shape[1])
    return images.flatten(2).gather(2, pixels).view(shape)


def _check_range(name: str, values: tuple[float, float], low: float, high: float) -> None:
    if not (len(values) == 2 and low < values[0] <= values[1] <= high):
        raise ValueError(f"{name}: {values} is not a range (low, high) above {low}, up to {high}")
