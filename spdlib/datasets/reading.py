"""Decoding image and mask files as viewers show them, whatever they are made of.

Images are turned as their EXIF orientation says, masks alike. Transparent parts lie on black.
Of several frames the first is read.

Deeper pixels than 8 bits, whole numbers or floats, become bytes by one linear rule: black is 0
(or the lowest value, if that is negative), white the largest value of the smallest usual depth
that holds the highest value. Where fewer than 32 grey levels would be left, black and white are
the lowest and the highest value. A table of samples carries the levels of each category, so
that all its images are mapped alike; a file that is read alone has its own.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from spdlib.datasets.files import DOUBT

# Larger images are refused, so that a damaged header does not ask for all memory.
MOST_MEGAPIXELS = int(os.environ.get("SPDLIB_MEGAPIXELS", 500))
Image.MAX_IMAGE_PIXELS = MOST_MEGAPIXELS * 1_000_000  # Pillow's own limit is 89 to 179 megapixels
WHITES = (1, *(2**bits - 1 for bits in (8, 10, 12, 14, 16)))  # 1: floats in [0, 1]
FEWEST = 1 / 8  # share of black to white that a category's values must span
LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")  # formats that do not keep a mask's zeros
SHALLOW = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".gif", ".webp", ".avif")
LOOKED_AT = 200  # images of a category from which the depth is taken
SWAPPED = {"B": "L", "L": "B", "N": "B"}  # byte orders of 16 bits; N is this machine's, little

Levels = tuple[float, float]


@contextmanager
def opened(path: str | Path, what: str = "image") -> Iterator[ImageFile.ImageFile]:
    """An image file; whatever its decoder raises becomes a ValueError that names the file."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MOST_MEGAPIXELS * 1_000_000:
                raise ValueError(
                    f"{image.width} x {image.height} pixels; the limit is {MOST_MEGAPIXELS} "
                    "megapixels, the variable SPDLIB_MEGAPIXELS sets another"
                )
            yield image
    except Exception as error:  # damaged bytes lead decoders anywhere
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path}: the {what} does not decode ({reason})") from None


def read_image(
    path: str | Path, levels: Levels | None = None, size: int | None = None
) -> torch.Tensor:
    """An image file as uint8 RGB (3, H, W).

    Args:
        path: The file.
        levels: Values that become black and white where it has more than 8 bits; by default
            those that fit this image.
        size: Side that the image will be resized to, pixels. A JPEG may then be decoded at a
            half to an eighth of its sides, but at twice this size or more.

    Raises:
        ValueError: It is missing or does not decode; the message names the file.
    """
    with opened(path) as image:
        if size:
            image.draft(None, (2 * size, 2 * size))
        pixels = decode(image)
        if pixels.dtype != np.uint8:
            pixels = to_bytes(pixels, levels or fitting_levels(value_range(pixels)))
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_mask(path: str | Path) -> torch.Tensor:
    """A mask file as bool (H, W): True where it is not zero, whatever the class or colour.

    Transparent pixels are not marked. Palettes that show black and something else are read as
    they look, others by their entries. Formats that do not keep zeros are marked in their upper
    half.

    Raises:
        ValueError: It is missing or does not decode; the message names the file.
    """
    return torch.from_numpy(mask_values(path)[1])


def mask_values(path: str | Path) -> tuple[NDArray[Any], NDArray[np.bool_], bool]:
    """A mask's values (H, W), where they count as marked, and whether its format is lossy.

    Of several channels the largest value counts.
    """
    with opened(path, "mask") as image:
        lossy, shown = image.format in LOSSY, decode(image).max(2)
        if image.mode == "P" and not (shown.any() and (shown == 0).any()):
            shown = np.array(image)
    return shown, shown > (127 if lossy else 0), lossy


def decode(image: ImageFile.ImageFile) -> NDArray[Any]:
    """An opened image's pixels, upright: uint8 (H, W, 3), or deep (H, W, 1 or 3)."""
    deep, raw = is_deep(image), _raw_mode(image)
    _turn(image)
    if deep:
        return _colour(image, raw) if image.mode in ("RGB", "RGBA") else np.array(image)[..., None]
    if not image.has_transparency_data:
        return np.array(image.convert("RGB"))
    black = Image.new("RGBA", image.size, "black")
    return np.array(Image.alpha_composite(black, image.convert("RGBA")).convert("RGB"))


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether an opened image has more than 8 bits a channel."""
    return image.mode[0] in "IF" or (image.mode in ("RGB", "RGBA") and ";16" in _raw_mode(image))


def to_bytes(pixels: NDArray[Any], levels: Levels) -> NDArray[np.uint8]:
    """Deep pixels as bytes: ``levels`` become 0 and 255, what lies beyond is cut off."""
    black, white = levels
    scaled = np.nan_to_num(pixels.astype(np.float32), nan=black) - np.float32(black)
    scaled *= np.float32(255 / (white - black))
    return np.rint(np.clip(scaled, 0, 255, out=scaled), out=scaled).astype(np.uint8)


def value_range(pixels: NDArray[Any]) -> Levels:
    """The lowest and the highest finite value."""
    finite = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def fitting_levels(values: Levels) -> Levels:
    """The values that become black and white, for images whose values lie in a range.

    >>> fitting_levels((12, 3800)), fitting_levels((0.1, 0.9)), fitting_levels((29000, 31000))
    ((0.0, 4095.0), (0.0, 1.0), (29000.0, 31000.0))
    """
    lowest, highest = map(float, values)
    black = min(0.0, lowest)
    white = float(next((white for white in WHITES if white >= highest), highest))
    if 0 < highest - lowest < FEWEST * (white - black):
        return lowest, highest
    return black, white


def with_levels(table: pd.DataFrame) -> pd.DataFrame:
    """Adds the column ``levels`` where a table has images of more than 8 bits, and says so.

    Only headers are read, and of deep images the pixels of up to 200 a category.
    """
    deep = table.path[[_is_deep_file(path) for path in table.path]]
    if deep.empty:
        return table
    table["levels"] = None
    for category, paths in deep.groupby(table.category, sort=False):
        low, high = _range(list(paths))
        black, white = fitting_levels((low, high))
        table.loc[paths.index, "levels"] = pd.Series([(black, white)] * len(paths), paths.index)
        text = f"{category}: {len(paths)} images of more than 8 bits, values {low:g} to {high:g}: "
        text += f"{black:g} is read as black, {white:g} as white"
        if others := int((table.category == category).sum()) - len(paths):
            text += f"; {others} others have 8 bits, are they as bright?"
        table.attrs["notes"].append(DOUBT + text)
    return table


def _is_deep_file(path: str) -> bool:
    if Path(path).suffix.lower() not in SHALLOW:
        with suppress(ValueError), opened(path) as image:
            return is_deep(image)
    return False


def _range(paths: list[str]) -> Levels:
    """The lowest and highest value of some of the images, spread evenly."""
    some = paths[:: max(1, len(paths) // LOOKED_AT)]
    with threads(some) as pool:
        ranges = [values for values in pool.map(_range_of, some) if values] or [(0.0, 0.0)]
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _range_of(path: str) -> Levels | None:
    with suppress(ValueError), opened(path) as image:  # check names what does not decode
        return value_range(decode(image))
    return None


def threads(paths: Iterable[str | Path], megapixels: float = 64) -> ThreadPoolExecutor:
    """A pool in which so many megapixels are worked on at once, or else one image."""
    largest = max((_pixels(path) for path in paths), default=1)
    count = min(os.cpu_count() or 1, int(megapixels * 1e6 / largest))
    return ThreadPoolExecutor(max(1, count))


def _pixels(path: str | Path) -> int:
    with suppress(ValueError), opened(path) as image:
        return image.width * image.height
    return 1


def _turn(image: ImageFile.ImageFile) -> None:
    """Decodes an image and turns it as its EXIF data say, if those are readable."""
    if image.format == "TIFF" and image.tile and image.tile[0][0] == "raw":
        # Pillow 13.0 garbles such files where they lie on their side.
        image._size = getattr(image, "_tile_size", image.size)
    image.load()
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """Pillow's name of how the file's bytes become pixels, e.g. ``"RGB;16B"``."""
    arguments = image.tile[0][3] if image.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _colour(image: ImageFile.ImageFile, raw: str) -> NDArray[np.uint16]:
    """48-bit colour: Pillow keeps the upper bytes; with the byte order swapped, the lower."""
    if raw.startswith(f"{image.mode};"):
        raw = raw[:-1] + SWAPPED[raw[-1]]
    with Image.open(image.filename) as again:
        again.tile = [
            tile._replace(args=(raw, *tile[3][1:]) if isinstance(tile[3], tuple) else raw)
            for tile in again.tile
        ]
        _turn(again)
        pixels = np.array(image, np.uint16) * np.uint16(256) + np.array(again, np.uint16)
    if image.mode == "RGB":
        return pixels
    return (pixels[..., :3] * pixels[..., 3:].astype(np.uint32) // 65535).astype(np.uint16)
