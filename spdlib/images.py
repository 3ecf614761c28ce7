"""A table's images and masks as bytes, by number: read once where memory holds them."""

import copy
import hashlib
import math
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from spdlib.datasets.samples import SampleImages, item
from spdlib.progress import track

MEMORY = 2e9  # bytes of images and masks that are held, at most
DIGESTED = 10_000  # files whose bytes are read, at most, to tell one set of images from another


class Images(SampleImages):
    """Images with their masks, resized to a square; nothing is cut off unless asked for.

    Args:
        images: A table of samples; or uint8 (N, 3, H, W), which have neither table nor masks.
        size: Side of the square, pixels; that of a tensor is its own.
        crop: Cut off the border, as PaDiM's authors do.
        memory: Bytes that images and masks may take; more are read whenever asked for.
        workers: Threads that read into memory.
        skip: Leave out what does not decode, and say so, rather than stop.

    Attributes:
        table: The table, rows numbered from 0; None for a tensor.
        size: Side of the square, pixels.
        skipped: Paths that were left out.

    ``images[3]`` is an item of :class:`spdlib.datasets.SampleImages`. ``images[[3, 5]]`` is a
    dict of a batch: ``images``, uint8 (B, 3, size, size); ``numbers``, (B,); ``unreadable``, the
    numbers that did not decode and in whose place the next are.

    Raises:
        ValueError: A tensor has another form, or a file does not decode; the file is named.
    """

    table: Any

    def __init__(
        self,
        images: pd.DataFrame | Tensor,
        size: int = 256,
        crop: bool = False,
        memory: float = MEMORY,
        workers: int = 0,
        skip: bool = False,
    ):
        self.skipped: list[str] = []
        self.table: Any = None
        self._held: tuple[Tensor, Tensor] | None = None
        if isinstance(images, Tensor):
            if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
                form = f"{images.dtype} {tuple(images.shape)}"
                raise ValueError(f"images: {form}, expected uint8 (N, 3, H, W)")
            none = torch.zeros(len(images), 1, 1, dtype=torch.bool).expand_as(images[:, 0])
            self.size, self._held = images.shape[-1], (images, none)
            return
        super().__init__(images, size, None if crop else size)
        if 4 * size**2 * len(images) <= memory:
            self._hold(workers, skip)

    def _hold(self, workers: int, skip: bool) -> None:
        shape, kept = (len(self.table), self.size, self.size), list[int]()
        masks = torch.empty(shape, dtype=torch.bool)
        images = torch.empty(shape[0], 3, *shape[1:], dtype=torch.uint8)
        with ThreadPool(max(1, workers)) as pool:
            found = pool.imap(self._try, range(len(self.table)))
            for number, read in enumerate(track(found, "reading images", "images", shape[0])):
                if not isinstance(read, ValueError):
                    images[len(kept)], masks[len(kept)] = read
                    kept.append(number)
                elif skip:
                    print(f"skipped: {read}", flush=True)
                    self.skipped.append(self.path(number))
                else:
                    raise read
        if not kept:
            raise ValueError("table: none of its images decodes")
        self.table = self.table.iloc[kept].reset_index(drop=True)
        self._held = images[: len(kept)], masks[: len(kept)]

    @property
    def held(self) -> bool:
        """Whether they are in memory."""
        return self._held is not None

    @property
    def images(self) -> Tensor:
        """All images, uint8 (N, 3, size, size)."""
        return self._whole(0)

    @property
    def masks(self) -> Tensor:
        """All masks, bool (N, size, size)."""
        return self._whole(1)

    def read(self, number: int) -> tuple[Tensor, Tensor]:
        """One image, uint8 (3, size, size), and its mask, bool (size, size).

        Raises:
            ValueError: It does not decode; the message names the file and the reason.
        """
        if self._held:
            return self._held[0][number], self._held[1][number]
        read = super().__getitem__(number)
        return (read["image"] * 255).round().byte(), read["mask"]

    def path(self, number: int) -> str:
        """Path of an image; of one in a tensor, its number in words."""
        return f"image {number}" if self.table is None else str(self.table.path.iloc[number])

    def of(self, table: pd.DataFrame) -> "Images":
        """The images of another table, whose paths are among this one's.

        Raises:
            KeyError: A path is not; names it.
        """
        rows, part = self.rows(table), copy.copy(self)
        part.table = table.reset_index(drop=True)
        if self._held:
            part._held = self._held[0][rows], self._held[1][rows]
        return part

    def rows(self, table: pd.DataFrame) -> NDArray[np.int64]:
        """The numbers of another table's images among these. Errors as for :meth:`of`."""
        return numbers_of(table, self.table)

    def digest(self) -> str:
        """SHA-256 of what the images hold: their pixels, or the bytes of their files.

        Of more than ``DIGESTED`` files so many, spread evenly, are read, and the names of all.
        """
        seen = hashlib.sha256()
        if self.table is None:
            seen.update(self.images.contiguous().numpy())
            return seen.hexdigest()
        if len(self) > DIGESTED:
            seen.update("\0".join(self.table.path.str.rpartition("/")[2]).encode())
        for path in self.table.path[:: -(-len(self) // DIGESTED)]:
            with open(path, "rb") as file:
                seen.update(hashlib.file_digest(file, "sha256").digest())
        return seen.hexdigest()

    def __len__(self) -> int:
        return len(self._held[0]) if self._held else len(self.table)

    def __getitem__(self, index: int | list[int]) -> dict[str, Any]:
        if isinstance(index, list):
            return self._batch(index)
        image, mask = self.read(index)
        label = 0 if self.table is None else self.table.label.iloc[index]
        return item(image, mask, label, index)

    def _batch(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        if self._held:
            found, failed = self._held[0][numbers], list[int]()
        else:
            read = [self._next(number) for number in numbers]
            found = torch.stack([image for image, _, _ in read])
            numbers = [number for _, number, _ in read]
            failed = [number for _, _, some in read for number in some]
        unreadable = torch.tensor(failed, dtype=torch.long)
        return {"images": found, "numbers": torch.tensor(numbers), "unreadable": unreadable}

    def _next(self, number: int) -> tuple[Tensor, int, list[int]]:
        """The first image from a number on that decodes, its number, and those that did not."""
        failed: list[int] = []
        for candidate in [*range(number, len(self)), *range(number)]:
            if not isinstance(read := self._try(candidate), ValueError):
                return read[0], candidate, failed
            failed.append(candidate)
        raise ValueError("images: none of them decodes")

    def _try(self, number: int) -> tuple[Tensor, Tensor] | ValueError:
        try:
            return self.read(number)
        except ValueError as error:
            return error

    def _whole(self, part: int) -> Tensor:
        if self._held:
            return self._held[part]
        return torch.stack([self.read(number)[part] for number in range(len(self))])


def numbers_of(table: pd.DataFrame, among: pd.DataFrame) -> NDArray[np.int64]:
    """The numbers of a table's images among those of another. Errors as for :meth:`Images.of`."""
    return pd.Series(range(len(among)), among.path).loc[list(table.path)].to_numpy(copy=True)


def decode(table: pd.DataFrame, size: int, skip: bool = False) -> Tensor:
    """All images of a table as uint8 (N, 3, size, size). Arguments as for :class:`Images`."""
    return Images(table, size, memory=math.inf, skip=skip).images
