"""Training images with their masks: augmented together, in an order fixed beforehand.

What a training sees at a place depends on its seed and the place alone: not on how many
workers read, how many devices train, or where a training was interrupted.
"""

import math
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import Dataset, default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2

from spdlib.datasets.samples import item
from spdlib.images import Images

# Images as they are; mirrored left to right and top to bottom, each with probability 1/2; flips,
# shifted by up to 1/16 of the side, brightness and contrast changed within 10 %.
Augment = Literal["none", "flips", "shifts"]
# Images as often as they are there; as many normal as anomalous ones in every batch; each class
# weighs the same in the loss (images; in segmentation, pixels).
Balance = Literal["none", "sampling", "weights"]


def augmentation(name: Augment, size: int) -> v2.Transform:
    """A random change of an image and its mask that resamples nothing.

    Whole pixels move, so a mask stays exact to the pixel. What a shift uncovers is filled by
    reflection, in image and mask alike.

    Args:
        name: Name of the change, see ``Augment``.
        size: Side of the images, pixels.

    Returns:
        A transform of torchvision's ``Image`` and ``Mask``.
    """
    if name == "none":
        return v2.Identity()
    flips = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    shift = v2.RandomCrop(size, padding=size // 16, padding_mode="reflect")
    light = v2.ColorJitter(brightness=0.1, contrast=0.1)
    return v2.Compose(flips if name == "flips" else [*flips, shift, light])


def batch_order(
    labels: ArrayLike, steps: int, batch_size: int, balance: Balance, seed: int
) -> NDArray[np.int64]:
    """Numbers of the images at each place of a training.

    All images pass before one comes again, in an order drawn anew each time. With
    ``"sampling"`` this holds for each class by itself, and half of every batch is anomalous.

    Args:
        labels: 0 and 1, one an image.
        steps: Batches.
        batch_size: Images a batch.
        balance: Balance of the classes, see ``Balance``.
        seed: Seed of the order.

    Returns:
        Numbers of images, ``steps * batch_size`` of them.

    >>> batch_order([0, 0, 0, 1], steps=1, batch_size=4, balance="none", seed=0)
    array([2, 0, 1, 3])
    """
    labels = np.asarray(labels)
    rng = np.random.default_rng(seed)
    if balance != "sampling":
        return _passes(np.arange(len(labels)), steps * batch_size, rng)
    anomalous = batch_size // 2
    halves = [
        _passes(np.flatnonzero(labels == label), steps * count, rng).reshape(steps, count)
        for label, count in ((0, batch_size - anomalous), (1, anomalous))
    ]
    # Mixed, so that devices that share a batch each get both classes.
    return rng.permuted(np.concatenate(halves, axis=1), axis=1).ravel()


def _passes(numbers: NDArray[np.int64], length: int, rng: np.random.Generator) -> NDArray[np.int64]:
    passes = [rng.permutation(numbers) for _ in range(math.ceil(length / len(numbers)))]
    return np.concatenate(passes)[:length]


class TrainingImages(Dataset):
    """The images of a training by place, augmented.

    Args:
        images: The images.
        order: Number of the image at each place, as :func:`batch_order` gives.
        augment: Augmentation, see ``Augment``.
        seed: Seed of the augmentations.

    Items are those of :class:`~spdlib.images.Images`; a list of places gives a batch of them.
    """

    def __init__(
        self, images: Images, order: NDArray[np.int64], augment: Augment = "none", seed: int = 0
    ):
        self.images, self.order, self.seed = images, order, seed
        self.augment = augmentation(augment, images.size)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int | list[int]) -> dict[str, Any]:
        if isinstance(place, list):
            return default_collate([self[one] for one in place])
        number = int(self.order[place])
        pixels, truth = self.images.read(number)
        pair = tv_tensors.Image(pixels), tv_tensors.Mask(truth[None])
        # torchvision's transforms draw from the global generator, which is put back afterwards.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.default_rng([self.seed, place]).integers(2**63)))
            pair = self.augment(*pair)
        image, mask = (part.as_subclass(torch.Tensor) for part in pair)
        return item(image, mask[0], self.images.table.label.iloc[number], number)
