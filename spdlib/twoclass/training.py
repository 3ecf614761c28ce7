"""Two-class training: the gain by labels once some defects are collected (Zou et al., 2022).

A classifier of images and a U-Net for pixels (:mod:`spdlib.twoclass.models`), trained by the
loop of :mod:`spdlib.loop`: all weights, or those that did not come from the encoder.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spdlib import paths
from spdlib.images import Images
from spdlib.loop import Training, fit
from spdlib.progress import Bar
from spdlib.twoclass.augmentation import TrainingImages, batch_order
from spdlib.twoclass.models import Model
from spdlib.twoclass.presets import TwoClass
from spdlib.views import Share

EVERY = 50  # iterations from one checkpoint to the next


class TwoClassTraining(Training):
    """A training of a classifier or a U-Net.

    Args:
        model: Model that is trained.
        images: The training images.
        settings: Settings of the training.
        folder: Folder of checkpoints, or None.
    """

    def __init__(
        self, model: Model, images: Images, settings: TwoClass, folder: Path | None = None
    ):
        s, labels = settings, images.table.label.to_numpy()
        self.model, self.settings, self.images = model, s, images
        if s.freeze:
            backbone: Any = getattr(model, "unet", model)
            backbone.encoder.requires_grad_(False).eval()
        truth = images.masks.float() if model.task == "segmentation" else labels
        self.share = float(truth.mean())
        steps = s.steps(len(images))
        self.places = batch_order(labels, steps, s.batch_size, s.balance, s.seed)
        data = TrainingImages(images, self.places, s.augment, s.seed)
        super().__init__(model, data, steps, s.batch_size, s.seed)
        self.folder = folder

    def order(self, start: int) -> Iterable[Tensor]:
        """Places of the training, one after another."""
        return torch.arange(len(self.places)).split(self.batch_size)[start:]

    def terms(self, batch: dict[str, Tensor], share: Share) -> dict[str, Tensor]:
        """The model's loss."""
        batch = {name: value.to(self.device) for name, value in batch.items()}
        batch["image"] = batch["image"].to(self.dtype)
        return {"loss": self.model.loss(batch, self.settings, self.share)}

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam or SGD at a fixed learning rate."""
        s = self.settings
        given: dict[str, Any] = {"lr": s.learning_rate, "weight_decay": s.weight_decay}
        if s.optimizer == "adam":
            return torch.optim.Adam(self.model.parameters(), **given)
        return torch.optim.SGD(self.model.parameters(), momentum=0.9, **given)

    def advance(self, row: dict[str, float]) -> None:
        """Keeps the loss."""
        self.rows.append({"iteration": self.step - 1, "loss": row["loss"]})

    def about(self) -> dict[str, Any]:
        """Settings and images."""
        return {"settings": self.settings.model_dump(), "images": self.images.digest()}


def train(
    model: Model,
    images: Images,
    settings: TwoClass,
    bar: Bar | str = "training",
    folder: str | Path | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Trains a model in place; it stays on the training device, in evaluation mode.

    Args:
        model: A :class:`Classifier` or :class:`Segmenter`.
        images: The training images, of both classes.
        settings: Settings for the model's task.
        bar: Progress bar that counts images, or the text of one of its own.
        folder: Folder of a checkpoint, kept every ``EVERY`` iterations; a training that was
            interrupted goes on from it, and ends as if it had not been.
        **options: Options of the run, as :func:`spdlib.loop.fit` takes them: ``workers``,
            ``devices``, ``accelerator``, ``precision`` ...

    Returns:
        One row an iteration: ``iteration`` and ``loss``.

    Raises:
        ValueError: A class is missing, masks are absent or all empty, the settings are those
            of the other task, or the folder holds another training.
        FloatingPointError: The loss is not finite.
    """
    if settings.task != model.task:
        raise ValueError(f"settings: for {settings.task}, the model is one for {model.task}")
    check_images(images, model.task)
    place = Path(folder) if folder else None
    training = TwoClassTraining(model.train(), images, settings, place)
    fit(training, bar, **{"every": EVERY} | options)
    model.eval()
    return pd.DataFrame(training.rows)


def check_images(images: Images, task: str) -> None:
    """Refuses images that a task cannot learn from, or be measured on.

    Raises:
        ValueError: A class is missing; or, for segmentation, a mask is absent or all are
            empty. The message says which.
    """
    labels = images.table.label
    for value, name in enumerate(("normal", "anomalous")):
        if value not in set(labels):
            raise ValueError(f"images: none of {len(labels)} is {name}; two classes are needed")
    absent = images.table.path[(labels == 1) & images.table.mask_path.isna()]
    if task == "segmentation" and len(absent):
        first = f"{len(absent)} of {labels.sum()}, the first {paths.show(absent.iloc[0])}"
        raise ValueError(f"images: anomalous ones without a mask: {first}; segmentation needs it")
    if task == "segmentation" and not images.masks.any():
        raise ValueError(f"images: the masks are empty at {images.size} pixels: nothing to learn")


class Predictions(NamedTuple):
    """A model's scores of images, beside the truth, as NumPy arrays.

    Attributes:
        labels: Truth (N,), 0 or 1.
        scores: Log odds (N,) of an anomaly; a segmenter's is its map's maximum.
        masks: Truth (N, H, W), bool; None from a classifier.
        maps: Log odds (N, H, W) of each pixel; None from a classifier.
    """

    labels: NDArray[np.int64]
    scores: NDArray[np.floating]
    masks: NDArray[np.bool_] | None = None
    maps: NDArray[np.floating] | None = None

    def of(self, rows: NDArray[np.integer]) -> "Predictions":
        """The predictions of some of the images, by number."""
        return Predictions._make(None if values is None else values[rows] for values in self)


@torch.inference_mode()
def predict(model: Model, images: Dataset, batch_size: int = 16) -> Predictions:
    """Scores, or maps, of images, in their order.

    Args:
        model: Evaluated as it is, on its device.
        images: :class:`~spdlib.images.Images`, or ``SampleImages`` for sets
            that memory does not hold.
        batch_size: Images at a time.
    """
    model.eval()
    device = next(model.parameters()).device
    found = [
        (model.score(batch["image"].to(device)).float().cpu(), batch["label"], batch["mask"])
        for batch in DataLoader(images, batch_size)
    ]
    scores, labels, masks = (torch.cat(part).numpy() for part in zip(*found, strict=True))
    if model.task == "detection":
        return Predictions(labels, scores)
    return Predictions(labels, scores.max((1, 2)), masks, scores)
