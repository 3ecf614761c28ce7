"""Synthetic defects, painted on normal images, with exact masks.

What segmentation is tried on where no masked data is at hand: cracks and missing contacts as
electroluminescence images of solar cells show them, scratches, spots. They are drawn as lines
and shapes with a shade of their own, not cut from images and blended, so that an encoder trained
with SmoothBlend has no unfair advantage. Their names begin with "painted": they are synthetic.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.random import Generator
from PIL import Image

from spdlib import paths
from spdlib.datasets.painters import MARGIN, PAINTERS, mottle
from spdlib.datasets.samples import make_table, read_image

KINDS = tuple(PAINTERS)
VERSION = 1  # of the painting; part of the digest, so that a change of it paints anew
AREA = (0.001, 0.05)  # of a mask, relative to the image
VISIBLE = 6  # grey levels by which a painted pixel differs at least
MANIFEST = "painted.json"


def paint(
    table: pd.DataFrame,
    folder: str | Path | None = None,
    kinds: Sequence[str] = KINDS,
    seed: int = 0,
) -> pd.DataFrame:
    """Paints one defect on each normal sample of a table.

    Kinds take turns. Place, size (0.1 % to 5 % of the image, small ones more often than large
    ones), shape and contrast depend on the seed and the row alone. A defect is drawn at the
    image's own resolution, inside the part that a crop of 224 from 256 pixels leaves. The mask
    is set exactly where the image was changed, and there by 6 grey levels or more.

    Args:
        table: A table of samples; anomalies in it are left out.
        folder: Where images and masks are written; by default a folder under ``data/painted``
            named by a digest of the arguments. Where it holds these samples already, they are
            not painted again.
        kinds: Some of :data:`KINDS`.
        seed: Of the defects.

    Returns:
        A table of samples in the order of the normal ones: label 1, ``defect`` the kind,
        ``mask_path`` set, the same categories, split "test".

    Raises:
        ValueError: A kind is unknown, there are no normal samples, an image does not decode, or
            the folder holds something else.

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
    sources = [str(path) for path in normal.path]
    digest = _digest(sources, kinds, seed)
    folder = Path(folder) if folder else paths.data() / "painted" / digest
    defects = [kinds[row % len(kinds)] for row in range(len(normal))]
    if not _is_there(folder, digest):
        _write(folder, digest, sources, defects, seed)
    rows = [
        {
            "path": str(folder / "images" / f"{row:05d}.png"),
            "mask_path": str(folder / "masks" / f"{row:05d}.png"),
            "label": 1,
            "category": category,
            "defect": defect,
            "split": "test",
        }
        for row, (category, defect) in enumerate(zip(normal.category, defects, strict=True))
    ]
    return make_table(rows)


def paint_image(image: np.ndarray, kind: str, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """One image with a defect, and the defect's mask.

    Args:
        image: uint8, (H, W) or (H, W, 3); it is not changed.
        kind: One of :data:`KINDS`.
        rng: Draws place, size, shape and contrast.

    Returns:
        The painted image, and a bool mask (H, W) that is True exactly where it differs.

    Raises:
        ValueError: No defect of visible size comes about: the image is very small.

    >>> grey = np.full((64, 64), 128, np.uint8)
    >>> painted, mask = paint_image(grey, "painted spot", np.random.default_rng(0))
    >>> bool(((painted != grey) == mask).all()), bool(mask.any())
    (True, True)
    """
    height, width = image.shape[:2]
    light = image.astype(np.float32)
    inside = np.zeros((height, width), bool)
    top, left = round(MARGIN * height), round(MARGIN * width)
    inside[top : height - top, left : width - left] = True
    for attempt in range(100):
        alpha, dark = PAINTERS[kind](rng, (height, width))
        alpha = alpha * mottle(rng, (height, width)) * inside
        alpha = alpha.reshape(height, width, *[1] * (image.ndim - 2))
        # Dark defects let less light through, bright ones add some. On black only bright shows.
        dark = dark and attempt < 50
        change = -light * alpha if dark else (255 - light) * alpha
        painted = np.rint(light + change).astype(np.uint8)
        # A shape fades at its border: what nobody would see is left as it was.
        difference = np.abs(painted - light).reshape(height, width, -1).max(2)
        mask = difference >= VISIBLE
        if AREA[0] <= mask.mean() <= AREA[1]:
            painted[~mask] = image[~mask]
            return painted, mask
    raise ValueError(f"no {kind} shows on an image of {width} x {height} pixels")


def _digest(sources: Sequence[str], kinds: Sequence[str], seed: int) -> str:
    files = [(path, Path(path).stat().st_size if Path(path).exists() else 0) for path in sources]
    text = json.dumps([VERSION, files, list(kinds), seed])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_there(folder: Path, digest: str) -> bool:
    if not folder.exists() or not any(folder.iterdir()):
        return False
    manifest = folder / MANIFEST
    if not manifest.exists() or json.loads(manifest.read_text())["digest"] != digest:
        raise ValueError(f"{folder} holds something else than these painted samples")
    return True


def _write(folder: Path, digest: str, sources, defects, seed: int) -> None:
    """Paints into a folder beside, which takes the place of ``folder`` when all is done."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))

    def one(row: int) -> None:
        pixels = read_image(sources[row]).permute(1, 2, 0).numpy()
        # Grey images stay grey.
        grey = (pixels == pixels[..., :1]).all()
        rng = np.random.default_rng([seed, row])
        painted, mask = paint_image(pixels[..., 0] if grey else pixels, defects[row], rng)
        Image.fromarray(painted).save(beside / "images" / f"{row:05d}.png")
        Image.fromarray((255 * mask).astype(np.uint8)).save(beside / "masks" / f"{row:05d}.png")

    try:
        (beside / "images").mkdir()
        (beside / "masks").mkdir()
        with ThreadPoolExecutor() as pool:
            list(pool.map(one, range(len(sources))))
        manifest = {"digest": digest, "seed": seed, "defects": defects, "sources": sources}
        (beside / MANIFEST).write_text(json.dumps(manifest, indent=1))
        beside.chmod(0o755)
        if folder.exists():
            folder.rmdir()  # it is empty
        beside.rename(folder)
    except OSError:
        # Another run may have finished the same folder meanwhile.
        if not _is_there(folder, digest):
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
