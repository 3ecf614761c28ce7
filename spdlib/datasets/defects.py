"""Synthetic defects, painted on normal images, with exact masks.

What segmentation is tried on where no masked data is at hand: cracks and missing contacts as
electroluminescence images of solar cells show them, scratches, spots. They are drawn as lines
and shapes, not cut from images and blended. Their names begin with "painted": they are synthetic.

Half of them are darker than what they lie on, half of them brighter, of each kind alike and by
as many grey levels, so that a method that answers to one of the two alone gains nothing; the
column ``shade`` tells them apart.
"""

import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator
from PIL import Image

from spdlib import paths
from spdlib.datasets.painters import MARGIN, PAINTERS, mottle
from spdlib.datasets.reading import threads
from spdlib.datasets.samples import levels_of, make_table, read_image, sample

KINDS = tuple(PAINTERS)
SHADES = ("dark", "bright")
VERSION = 4  # of the painting; part of the digest, so that a change of it paints anew
AREA = (0.001, 0.05)  # of a mask, relative to the image
VISIBLE = 6  # grey levels by which a painted pixel differs at least
DRAWN = 1024  # pixels; on larger images a defect is drawn at this side, then enlarged
STRIP = 256  # rows of an image that are painted on at once
AT_ONCE = 1  # megapixels in memory, or else one image
MANIFEST = "painted.json"
ELPV_KEYS = {"mono": 0, "poly": 1}  # of their draws, which stay as they first were


def paint(
    table: pd.DataFrame,
    folder: str | Path | None = None,
    kinds: Sequence[str] = KINDS,
    seed: int = 0,
) -> pd.DataFrame:
    """Paints one defect on each normal sample of a table.

    Kinds and shades take turns. Place, size (0.1 % to 5 % of the image, small ones more often
    than large ones), shape and contrast depend on the seed and the row alone. A defect is drawn
    at the image's own resolution, inside the part that a crop of 224 from 256 pixels leaves. The
    mask is set exactly where the image was changed, and there by 6 grey levels or more.

    Args:
        table: A table of samples; anomalies in it are left out.
        folder: Folder of images and masks; they lie in one that is named by a digest of the images
            and the other arguments; what is there already is not painted again. By default
            ``data/painted``.
        kinds: Some of :data:`KINDS`.
        seed: Seed for the defects.

    Returns:
        A table of samples in the order of the normal ones: label 1, ``defect`` the kind,
        ``mask_path`` set, the same categories, split "test", and a column ``shade``.

    Raises:
        ValueError: A kind is unknown, there are no normal samples, or an image does not decode.

    >>> from tempfile import TemporaryDirectory
    >>> from spdlib.datasets import elpv
    >>> with TemporaryDirectory() as folder:
    ...     list(paint(elpv("poly").head(2), folder).defect)
    ['painted crack', 'painted scratch']
    """
    unknown = [kind for kind in kinds if kind not in PAINTERS]
    if unknown or not kinds:
        raise ValueError(f"kinds: {unknown or 'none'} not among {', '.join(KINDS)}")
    normal = table[table.label == 0]
    if normal.empty:
        raise ValueError("table: it holds no normal samples to paint on")
    folder = Path(folder or paths.data() / "painted") / _digest(normal, kinds, seed)
    if not folder.exists():
        _write(folder, normal, kinds, seed)
    rows = []
    for row, category in enumerate(normal.category):
        image, mask = (folder / kind / f"{row:05d}.png" for kind in ("images", "masks"))
        rows.append(sample(image, 1, category, kinds[row % len(kinds)], "test", mask))
    return make_table(rows).assign(shade=json.loads((folder / MANIFEST).read_text())["shades"])


def painted(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """A table's normal samples, with defects painted on half of those held out for testing.

    The other half are the normal test samples. For segmentation where there are no masks;
    anomalies in the table are left out.

    Args:
        table: A table of samples.
        seed: Seed for the halves and for the defects.

    Returns:
        A table of samples, category by category; every anomaly has a mask, a ``defect`` that
        begins with "painted", and a ``shade``, "dark" or "bright". A category with one held-out
        image has no anomalies.

    Raises:
        ValueError: An image does not decode, or is too small for a defect.
    """
    parts = []
    for category, rows in table[table.label == 0].groupby("category"):
        test = np.flatnonzero(rows.split == "test")
        # Files may lie in the order of their production: halves are drawn at random.
        key = ELPV_KEYS.get(category, zlib.crc32(str(category).encode()))
        drawn = np.random.default_rng([seed, key, 1]).permutation(test)[: len(test) // 2]
        parts.append(rows.iloc[np.delete(np.arange(len(rows)), drawn)])
        if len(drawn):
            parts.append(paint(rows.iloc[np.sort(drawn)], seed=seed))
    found = pd.concat(parts, ignore_index=True) if parts else table.head(0)
    found.attrs = table.attrs
    return found


def paint_image(
    image: np.ndarray, kind: str, rng: Generator, shade: str = "dark"
) -> tuple[np.ndarray, np.ndarray, str]:
    """One image with a defect, the defect's mask, and its shade.

    A pixel changes by a share of the room that it has to both sides, so that the same draw in
    the other shade has the same mask and the opposite change.

    Args:
        image: uint8, (H, W) or (H, W, 3); it is not changed.
        kind: One of :data:`KINDS`.
        rng: Draws place, size, shape and contrast.
        shade: One of :data:`SHADES`.

    Returns:
        The painted image, a bool mask (H, W) that is True exactly where it differs, and the
        shade: the other one where an image is too dark or too bright for the one asked for.

    Raises:
        ValueError: No defect of visible size comes about: the image is very small.

    >>> grey = np.full((64, 64), 128, np.uint8)
    >>> painted, mask, shade = paint_image(grey, "painted spot", np.random.default_rng(0))
    >>> bool(((painted < grey) == mask).all()), bool(mask.any()), shade
    (True, True, 'dark')
    """
    height, width = image.shape[:2]
    shrunk = max(1.0, max(height, width) / DRAWN)
    shape = (max(1, round(height / shrunk)), max(1, round(width / shrunk)))
    inside = np.zeros(shape, bool)
    top, left = round(MARGIN * shape[0]), round(MARGIN * shape[1])
    inside[top : shape[0] - top, left : shape[1] - left] = True
    for attempt in range(100):
        if one_sided := attempt >= 50:  # on black only bright shows, on white only dark
            shade = SHADES[int(image.mean() < 128)]
        alpha = PAINTERS[kind](rng, shape) * mottle(rng, shape) * inside
        painted, mask = _blend(image, alpha, shade, one_sided)
        if AREA[0] <= mask.mean() <= AREA[1]:
            return painted, mask, shade
    raise ValueError(f"no {kind} shows on an image of {width} x {height} pixels")


def _blend(image: np.ndarray, alpha: np.ndarray, shade: str, one_sided: bool):
    """The image, darker or brighter by ``alpha`` of the room that its values have, and where.

    The room is that to the nearer of black and white, or ``one_sided``, to the shade's own end.
    Strip by strip, so that a large image is never held as floats.
    """
    painted, mask = image.copy(), np.zeros(image.shape[:2], bool)
    for top in range(0, len(mask), STRIP):
        strip = slice(top, top + STRIP)
        share = _strip(alpha, mask.shape, top)
        if not share.any():
            continue
        light = image[strip].astype(np.float32)
        room = light if shade == "dark" else 255 - light
        room = room if one_sided else np.minimum(light, 255 - light)
        change = np.rint(room * share.reshape(*share.shape, *[1] * (image.ndim - 2)))
        # A shape fades at its border: what nobody would see is left as it was.
        seen = change.reshape(*share.shape, -1).max(2) >= VISIBLE
        changed = light - change if shade == "dark" else light + change
        painted[strip][seen], mask[strip] = changed[seen], seen
    return painted, mask


def _strip(alpha: np.ndarray, shape: tuple[int, ...], top: int) -> np.ndarray:
    """Rows of ``alpha`` at the resolution of an image of another shape."""
    bottom = min(top + STRIP, shape[0])
    first, last = (row * alpha.shape[0] / shape[0] for row in (top, bottom))
    whole = Image.fromarray(alpha.astype(np.float32))
    box = (0, first, alpha.shape[1], last)
    return np.asarray(whole.resize((shape[1], bottom - top), Image.Resampling.BILINEAR, box))


def _digest(normal: pd.DataFrame, kinds: Sequence[str], seed: int) -> str:
    """Digest of what is painted on, by content: a folder may move, and files may be replaced."""
    try:
        contents = [hashlib.sha256(Path(p).read_bytes()).hexdigest() for p in normal.path]
    except OSError as error:
        raise ValueError(f"{error.filename}: the image does not decode ({error})") from None
    levels = [levels_of(row) for row in normal.itertuples()]
    text = json.dumps([VERSION, contents, levels, list(kinds), seed])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write(folder: Path, normal: pd.DataFrame, kinds: Sequence[str], seed: int) -> None:
    """Paints all samples, or leaves nothing behind."""

    def one(number: int, row: Any) -> str:
        pixels = read_image(row.path, levels_of(row)).permute(1, 2, 0).numpy()
        # Grey images stay grey.
        pixels = pixels[..., 0] if (pixels == pixels[..., :1]).all() else pixels
        turn, kind = divmod(number, len(kinds))
        wished = SHADES[(turn + kind) % 2]  # of each kind and of any rows as many dark as bright
        rng = np.random.default_rng([seed, number])
        try:
            painted, mask, shade = paint_image(pixels, kinds[kind], rng, wished)
        except ValueError as error:
            raise ValueError(f"{row.path}: {error}; remove it") from None
        for name, image in (("images", painted), ("masks", mask.astype(np.uint8) * 255)):
            file = beside / name / f"{number:05d}.png"
            Image.fromarray(image).save(file, compress_level=1)
        return shade

    try:
        with paths.whole_folder(folder) as beside:
            (beside / "images").mkdir()
            (beside / "masks").mkdir()
            with threads(normal.path, AT_ONCE) as pool:
                shades = list(pool.map(one, range(len(normal)), normal.itertuples()))
            manifest = {"seed": seed, "shades": shades, "sources": [*map(str, normal.path)]}
            (beside / MANIFEST).write_text(json.dumps(manifest, indent=1))
    except OSError:
        if not folder.exists():  # where it does, another run has painted the same meanwhile
            raise
