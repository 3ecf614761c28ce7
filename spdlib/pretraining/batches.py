"""What a training reads: images from memory or from files, in an order of seed and step alone.

Nothing here has a state that a checkpoint would have to keep: the order of an epoch follows from
the seed and the epoch's number, so a resumed run goes on where it stopped, whatever the number
of processes and workers.
"""

import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from spdlib.datasets.samples import read_image
from spdlib.progress import track
from spdlib.training import generator

DIGESTED = 10_000  # files whose bytes are read, at most, to tell one set of images from another


def decode(table: pd.DataFrame, size: int, skip: bool = False) -> Tensor:
    """All images of a table as uint8 (N, 3, size, size): read once, not once an epoch.

    Args:
        table: A table of samples.
        size: Side of the square that images are resized to, pixels.
        skip: Leave out what does not decode, with a warning, rather than stop.

    Raises:
        ValueError: An image does not decode (its file is named), or none does.
    """
    images = []
    for path in track(list(table.path), "reading images", "images"):
        try:
            images.append(read_square(path, size))
        except ValueError as error:
            if not skip:
                raise
            warnings.warn(f"skipped: {error}", stacklevel=2)
    if not images:
        raise ValueError("table: none of its images decodes")
    return torch.stack(images)


def read_square(path: str | Path, size: int) -> Tensor:
    """An image file as uint8 RGB (3, size, size), resized whole as PaDiM resizes its images."""
    return F.resize(read_image(path), [size, size], InterpolationMode.BILINEAR, antialias=True)


class Images(Dataset):
    """Images by their numbers, a batch at a time.

    Args:
        images: uint8 (N, 3, H, W), or a table of samples, whose files are decoded when asked for.
        labels: Whole numbers (N,) from 0, or None; by default a table's categories.
        size: Side that files are resized to, pixels.

    ``images[numbers]`` is a dict: ``images``, uint8 (B, 3, H, W); ``labels``, (B,), -1 without
    labels; ``numbers``, (B,); ``unreadable``, the numbers that did not decode and in whose
    place the next are.

    Raises:
        ValueError: Images or labels have another form, or (on access) no file decodes.
    """

    def __init__(
        self,
        images: Tensor | pd.DataFrame,
        labels: Sequence[int] | Tensor | None = None,
        size: int = 256,
    ):
        self.tensor, self.paths, self.names = None, None, []
        if isinstance(images, pd.DataFrame):
            # One array of bytes: a list of a million texts would be copied into every worker.
            self.paths = np.array([os.fsencode(path) for path in images.path])
            self.names = sorted(images.category.astype(str).unique())
            if labels is None:
                labels = images.category.astype(str).map(self.names.index).to_numpy()
        else:
            if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
                raise ValueError(
                    f"images: {images.dtype} {tuple(images.shape)}, expected uint8 (N, 3, H, W)"
                )
            self.tensor = images
        count = len(images)
        if labels is not None and len(labels) != count:
            raise ValueError(f"labels: {len(labels)} for {count} images")
        self.labels = torch.as_tensor(np.full(count, -1) if labels is None else np.array(labels))
        self.size = size

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """How many classes the labels tell apart; 0 without labels."""
        return int(self.labels.max()) + 1

    def read(self, number: int) -> Tensor:
        """One image of a table, from its file.

        Raises:
            ValueError: It does not decode; the message names the file and the reason.
        """
        return read_square(self.path(number), self.size)

    def path(self, number: int) -> str:
        """What an image is called in messages."""
        return f"image {number}" if self.paths is None else os.fsdecode(self.paths[number])

    def digest(self) -> str:
        """SHA-256 of the labels and of the images: their pixels, or the bytes of their files.

        Of more than ``DIGESTED`` files so many, spread evenly, are read, and the names of all.
        """
        seen = hashlib.sha256(self.labels.numpy().tobytes())
        if self.paths is None:
            seen.update(self.tensor.contiguous().numpy())
            return seen.hexdigest()
        if len(self) > DIGESTED:
            seen.update(b"\0".join(os.path.basename(path) for path in self.paths))
        for path in self.paths[:: -(-len(self) // DIGESTED)]:
            with open(path, "rb") as file:
                seen.update(hashlib.file_digest(file, "sha256").digest())
        return seen.hexdigest()

    def __getitem__(self, numbers: list[int]) -> dict[str, Tensor]:
        numbers, unreadable = torch.tensor(numbers), []
        if self.paths is None:
            images = self.tensor[numbers]
        else:
            images = []
            for place, number in enumerate(numbers.tolist()):
                image, used, failed = self._read(number)
                images.append(image)
                numbers[place] = used
                unreadable += failed
            images = torch.stack(images)
        return {
            "images": images,
            "labels": self.labels[numbers],
            "numbers": numbers,
            "unreadable": torch.tensor(unreadable, dtype=torch.long),
        }

    def _read(self, number: int) -> tuple[Tensor, int, list[int]]:
        failed: list[int] = []
        for candidate in [*range(number, len(self)), *range(number)]:
            try:
                image = self.read(candidate)
            except ValueError:
                failed.append(candidate)
            else:
                return image, candidate, failed
        raise ValueError("images: none of them decodes")


def order(count: int, batch_size: int, epochs: int, seed: int, start: int = 0) -> Iterator[Tensor]:
    """The numbers of the images of every step, all epochs in one go.

    Each epoch is a permutation of its own; the images that do not fill its last batch sit it
    out.

    Args:
        count: How many images there are.
        batch_size: Images a step.
        epochs: Passes over the images.
        seed: Seed of the permutations.
        start: Step to begin at.

    >>> [batch.tolist() for batch in order(4, 2, epochs=1, seed=0)]
    [[0, 3], [1, 2]]
    """
    steps_an_epoch = count // batch_size
    first, skipped = divmod(start, steps_an_epoch)
    for epoch in range(first, epochs):
        batches = torch.randperm(count, generator=generator(seed, 0, epoch)).split(batch_size)
        yield from batches[skipped:steps_an_epoch]
        skipped = 0
