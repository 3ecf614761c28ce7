"""The table of samples, and the one ``Dataset`` that reads any of them.

Columns: ``path`` of the image; ``mask_path`` of its pixel ground truth or ``None``; ``label``
(0 normal, 1 anomaly); ``category`` (the object); ``defect`` (its type, ``"good"`` for normal
samples); ``split`` (``"train"`` or ``"test"``).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

COLUMNS = ("path", "mask_path", "label", "category", "defect", "split")


class SampleImages(Dataset):
    """Reads the images and masks of a table of samples.

    Images and masks are resized to a square and centre-cropped together, as PaDiM does
    (Defard et al., 2021: 256, then 224).

    Args:
        table: A table of samples.
        size: Side of the crop, pixels.
        resize: Side of the square before the crop, pixels; by default ``size * 256 / 224``.

    Each item is a dict: ``image``, RGB float32 (3, size, size) in [0, 1]; ``mask``, bool
    (size, size), all False for normal samples and for anomalies without ground truth;
    ``label``, 0 or 1; ``index``, the row.

    Raises:
        ValueError: The table is empty, or (on access) a file cannot be decoded.
    """

    def __init__(self, table: pd.DataFrame, size: int = 224, resize: int | None = None):
        missing = [column for column in COLUMNS if column not in table.columns]
        if missing:
            raise ValueError(f"table: not a table of samples, it lacks {', '.join(missing)}")
        if table.empty:
            raise ValueError("table: it holds no samples")
        self.table = table.reset_index(drop=True)
        self.size = size
        self.resize = resize or round(size * 256 / 224)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.table.iloc[index]
        mask = torch.zeros(self.size, self.size, dtype=torch.bool)
        if row.label and isinstance(row.mask_path, str | Path):
            pixels = read_image(row.mask_path, "L")
            mask = self._fit((pixels > 0).float(), InterpolationMode.NEAREST_EXACT)[0] > 0
        image = self._fit(read_image(row.path), InterpolationMode.BILINEAR)
        return {
            "image": image.float() / 255,
            "mask": mask,
            "label": int(row.label),
            "index": index,
        }

    def _fit(self, image: torch.Tensor, interpolation: InterpolationMode) -> torch.Tensor:
        image = F.resize(image, [self.resize, self.resize], interpolation, antialias=True)
        return F.center_crop(image, [self.size, self.size])


def loader(
    table: pd.DataFrame, size: int = 224, batch_size: int = 32, workers: int = 0
) -> DataLoader:
    """Batches of a table's samples, in the table's order; see :class:`SampleImages`."""
    return DataLoader(SampleImages(table, size), batch_size=batch_size, num_workers=workers)


def read_image(path: str | Path, mode: str = "RGB") -> torch.Tensor:
    """An image file as uint8 (C, H, W).

    Raises:
        ValueError: It is missing or does not decode; the message names the file.
    """
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert(mode))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path}: the image does not decode ({error})") from None
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)


def make_table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """A table of samples from one dict a sample, in the order given."""
    return pd.DataFrame(rows, columns=list(COLUMNS))
