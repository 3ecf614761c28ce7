"""Two-class training: what labels buy once some defects have been collected (Zou et al., 2022).

A classifier of images and a U-Net for pixels (:mod:`spdlib.twoclass.models`), all weights
trained. Training is Lightning's, so devices, precision, checkpoints and resume are, too.
"""

import contextlib
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from spdlib import paths
from spdlib.pretraining.distributed import synchronise
from spdlib.progress import Bar, quiet_lightning
from spdlib.twoclass.augmentation import Decoded, TrainingImages, batch_order
from spdlib.twoclass.models import Classifier, Segmenter, pooled_features, probe
from spdlib.twoclass.presets import TwoClass, settings

__all__ = [
    "Classifier", "Decoded", "Predictions", "Segmenter", "TwoClass", "check_images",
    "pooled_features", "predict", "probe", "settings", "train",
]  # fmt: skip

EVERY = 50  # iterations from one checkpoint to the next


class Training(pl.LightningModule):
    """One training, for Lightning. What it calls an epoch is ``EVERY`` iterations here.

    Args:
        model: What is trained.
        images: The training images.
        settings: How.
        workers: Processes that augment, a device.
    """

    def __init__(
        self, model: Classifier | Segmenter, images: Decoded, settings: TwoClass, workers: int = 0
    ):
        super().__init__()
        self.model, self.settings, self.workers = model, settings, workers
        labels = images.table.label.to_numpy()
        self.share = float(images.masks.float().mean() if model.task == "segmentation"
                           else labels.mean())  # fmt: skip
        self.steps = settings.steps(len(images))
        order = batch_order(
            labels, self.steps, settings.batch_size, settings.balance, settings.seed
        )
        self.images = TrainingImages(images, order, settings.augment, settings.seed)
        paths_read = "\n".join(images.table.path)
        self.made_of = {"settings": settings.model_dump(),
                        "images": hashlib.sha256(paths_read.encode()).hexdigest()}  # fmt: skip
        self.history: list[dict[str, float]] = []

    def setup(self, stage: str) -> None:
        """Checks that the batch can be shared; then its statistics are those of all devices."""
        world = self.trainer.world_size
        if self.settings.batch_size % world:
            raise ValueError(
                f"batch_size: {self.settings.batch_size} cannot be shared by {world} devices"
            )
        if world > 1:
            synchronise(self.model)

    def train_dataloader(self) -> DataLoader:
        """The batches from this epoch's place on: a resumed training goes on where it was."""
        batch = self.settings.batch_size
        first = self.current_epoch * EVERY * batch
        places = range(first, min(first + EVERY * batch, self.steps * batch))
        size = batch // self.trainer.world_size
        return DataLoader(Subset(self.images, places), size, num_workers=self.workers)

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        """One iteration.

        Raises:
            FloatingPointError: The loss is not finite.
        """
        loss = self.model.loss(batch, self.settings, self.share)
        value = loss.item()
        if not np.isfinite(value):
            raise FloatingPointError(
                f"iteration {self.global_step}: the loss is {value}; try a smaller learning rate"
            )
        self.history.append({"iteration": self.global_step, "loss": value})
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """At a fixed learning rate."""
        s = self.settings
        given = {"lr": s.learning_rate, "weight_decay": s.weight_decay}
        if s.optimizer == "adam":
            return torch.optim.Adam(self.model.parameters(), **given)
        return torch.optim.SGD(self.model.parameters(), momentum=0.9, **given)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what the training is made of, and the losses so far."""
        checkpoint["spdlib"] = self.made_of | {"history": self.history}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to go on with another training."""
        saved = checkpoint.get("spdlib", {})
        for name, value in self.made_of.items():
            if saved.get(name) != value:
                raise ValueError(
                    f"folder: it holds a training with other {name}; take another folder"
                )
        self.history = saved["history"]


class _Progress(pl.Callback):
    def __init__(self, bar: Bar):
        self.bar = bar

    def on_train_batch_end(self, trainer, module, outputs, batch, index) -> None:
        if trainer.is_global_zero:
            self.bar.update(module.settings.batch_size, f"loss {module.history[-1]['loss']:.3f}")


def train(
    model: Classifier | Segmenter,
    images: Decoded,
    settings: TwoClass,
    bar: Bar | str = "training",
    folder: str | Path | None = None,
    workers: int = 0,
    **trainer: Any,
) -> pd.DataFrame:
    """Trains a model in place; it stays on the training device, in evaluation mode.

    Args:
        model: A :class:`Classifier` or :class:`Segmenter`.
        images: The training images, of both classes.
        settings: How to train, for the model's task.
        bar: A progress bar that counts images, or what one of its own should say.
        folder: Where a checkpoint is kept, every ``EVERY`` iterations; a training that was
            interrupted goes on from it, and ends as if it had not been.
        workers: Processes that augment, a device.
        **trainer: Passed to Lightning's ``Trainer``: ``accelerator``, ``devices``,
            ``precision`` ...

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
    module = Training(model.train(), images, settings, workers)
    own = Bar(module.steps * settings.batch_size, bar, "images") if isinstance(bar, str) else None
    callbacks: list[pl.Callback] = [_Progress(own or bar)]
    last = None
    if folder is not None:
        callbacks.append(
            pl.callbacks.ModelCheckpoint(
                folder, "training", every_n_epochs=1, save_on_train_epoch_end=True,
                enable_version_counter=False,
            )
        )  # fmt: skip
        last = Path(folder) / "training.ckpt"
    with quiet_lightning(), own or contextlib.nullcontext():
        runner = pl.Trainer(
            max_epochs=-(-module.steps // EVERY),
            reload_dataloaders_every_n_epochs=1,
            logger=False,
            enable_checkpointing=folder is not None,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=callbacks,
            **trainer,
        )
        resume = str(last) if last and last.is_file() else None
        runner.fit(module, ckpt_path=resume, weights_only=True)
    model.to(runner.strategy.root_device).eval()
    return pd.DataFrame(module.history)


def check_images(images: Decoded, task: str) -> None:
    """Refuses images that a task cannot learn from, or be measured on.

    Raises:
        ValueError: A class is missing; or, for segmentation, a mask is absent or all are
            empty. The message says which.
    """
    labels = images.table.label
    for value, name in ((0, "normal"), (1, "anomalous")):
        if not (labels == value).any():
            raise ValueError(
                f"images: none of the {len(labels)} is {name}; two-class training needs both"
            )
    if task == "segmentation":
        absent = images.table[(labels == 1) & images.table.mask_path.isna()]
        if len(absent):
            raise ValueError(
                f"images: {len(absent)} of {labels.sum()} anomalous images have no mask, the first "
                f"{paths.show(absent.path.iloc[0])}; segmentation needs them"
            )
        if not images.masks.any():
            raise ValueError(
                f"images: the masks are empty at {images.size} pixels, there is no anomaly to learn"
            )


class Predictions(NamedTuple):
    """What a model says of images, beside the truth, as NumPy arrays.

    Attributes:
        labels: Truth (N,), 0 or 1.
        scores: Log odds (N,) of an anomaly; a segmenter's is its map's maximum.
        masks: Truth (N, H, W), bool; None from a classifier.
        maps: Log odds (N, H, W) of each pixel; None from a classifier.
    """

    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    masks: NDArray[np.bool_] | None = None
    maps: NDArray[np.float32] | None = None

    def of(self, rows: ArrayLike) -> "Predictions":
        """Of some of the images, by number."""
        return Predictions(*(None if values is None else values[rows] for values in self))


@torch.inference_mode()
def predict(
    model: Classifier | Segmenter, images: Dataset, batch_size: int = 64, workers: int = 0
) -> Predictions:
    """Scores, or maps, of images, in their order.

    Args:
        model: Evaluated as it is, on its device.
        images: :class:`~spdlib.twoclass.augmentation.Decoded`, or ``SampleImages`` for sets
            that memory does not hold.
        batch_size: Images at a time.
        workers: Processes that read.
    """
    model.eval()
    device = next(model.parameters()).device
    found, masks, labels = [], [], []
    for batch in DataLoader(images, batch_size, num_workers=workers):
        found.append(model.score(batch["image"].to(device)).float().cpu())
        labels.append(batch["label"])
        masks.append(batch["mask"])
    truth, scores = torch.cat(labels).numpy(), torch.cat(found)
    if model.task == "detection":
        return Predictions(truth, scores.numpy())
    maps = scores.numpy()
    return Predictions(truth, maps.max((1, 2)), torch.cat(masks).numpy(), maps)
