"""The table of samples, and the one ``Dataset`` that reads any of them.

Columns: ``path`` of the image; ``mask_path`` of its pixel ground truth or ``None``; ``label``
(0 normal, 1 anomaly); ``category`` (the object); ``defect`` (its type, ``"good"`` for normal
samples); ``split`` (``"train"``, ``"test"``, or ``"aside"`` for neither). Where images have more
than 8 bits there is a column ``levels``: the values that become black and white, see
:mod:`spdlib.datasets.reading`. Painted defects have a column ``shade``, ``"dark"`` or
``"bright"``.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as F

from spdlib.datasets.reading import Levels, read_image, read_mask, with_levels

COVERED = 0.3  # with 0.5 many slanting lines break up; with 0 patches grow by 4 %
COLUMNS = ("path", "mask_path", "label", "category", "defect", "split")


class SampleImages(Dataset):
    """Reads the images and masks of a table of samples.

    Images and masks are resized to a square and centre-cropped together, as PaDiM does
    (Defard et al., 2021: 256, then 224). Masks stay sharp and keep their thin parts, see
    :func:`resize_mask`.

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
            mask = resize_mask(read_mask(row.mask_path), self.resize)
            mask = F.center_crop(mask, [self.size, self.size])
        image = read_image(row.path, levels_of(row), self.resize)
        image = F.resize(image, [self.resize, self.resize], antialias=True)
        return item(F.center_crop(image, [self.size, self.size]), mask, row.label, index)


def item(image: torch.Tensor, mask: torch.Tensor, label: int, index: int) -> dict[str, Any]:
    """What a data set of images gives for one, from its bytes; see :class:`SampleImages`."""
    return {"image": image.float() / 255, "mask": mask, "label": int(label), "index": index}


def loader(
    table: pd.DataFrame, size: int = 224, batch_size: int = 32, workers: int = 0
) -> DataLoader:
    """Batches of a table's samples, in the table's order; see :class:`SampleImages`."""
    return DataLoader(SampleImages(table, size), batch_size=batch_size, num_workers=workers)


def levels_of(row: Any) -> Levels | None:
    """A row's levels, to hand to ``read_image``; None where its table or image has none."""
    levels = getattr(row, "levels", None)
    return levels if isinstance(levels, tuple) else None


def resize_mask(mask: torch.Tensor, size: int) -> torch.Tensor:
    """A bool mask (H, W) resized to a square; thin parts stay, and nothing is smeared.

    A pixel is set by the share of it that is covered, by area: it must be 30 % of that of the
    pixel around it that is covered most. At the edge of a patch 30 % of the pixel must be
    covered, which lets patches grow by less than a quarter of a pixel; a crack that is finer
    than the new pixels keeps its length, one to two pixels wide, where nearest-neighbour
    sampling leaves dots or nothing.

    >>> line = torch.zeros(1000, 1000, dtype=torch.bool)
    >>> line[:, 501] = True
    >>> resize_mask(line, 100).sum().item()
    100
    """
    exact = Image.fromarray(mask.numpy().astype(np.float32))
    covered = torch.from_numpy(np.array(exact.resize((size, size), Image.Resampling.BOX)))
    around = torch.nn.functional.max_pool2d(covered[None], 3, stride=1, padding=1)[0]
    return (covered > 0) & (covered >= COVERED * around)


def sample(
    path: Any, label: int, category: str, defect: str, split: str, mask: Any = None
) -> dict[str, Any]:
    """One row for :func:`make_table`."""
    values = (str(path), str(mask) if mask else None, label, category, defect, split)
    return dict(zip(COLUMNS, values, strict=True))


def make_table(rows: Sequence[dict[str, Any]], notes: Iterable[str] = ()) -> pd.DataFrame:
    """A table of samples from one dict a sample, in the order given.

    Args:
        rows: Values of the columns, as :func:`sample` gives them.
        notes: Lines that ``check`` is to say of the files behind them.
    """
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    # As objects: a column of text would turn None into NaN.
    table["mask_path"] = pd.Series([row["mask_path"] for row in rows], dtype=object)
    table.attrs = {"notes": list(notes)}
    return with_levels(table)
