"""Pretraining an encoder, with and without SPD: from a notebook, or from the command line.

    python -m spdlib.pretraining --dataset elpv --method simsiam --eta 0.1

A LightningModule, so devices, nodes, precision and accumulation are Lightning's. Views are made
on the training device, a batch at a time. All randomness follows from the seed, the step and an
image's place in the batch: a resumed run ends in the weights of an uninterrupted one, and two
processes see the views that one would.
"""

import signal
import warnings
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from lightly.utils.lars import LARS
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from spdlib.encoders import Encoder, load_encoder, save_encoder
from spdlib.methods import METHODS, StrongView
from spdlib.objectives import Objective, SpdCosine, SpdCrossEntropy
from spdlib.paths import dataset_name, replacing, show
from spdlib.pretraining import checkpoints
from spdlib.pretraining.batches import Images, Order, decode, generator, seed_of
from spdlib.pretraining.distributed import synchronise
from spdlib.pretraining.monitors import collapse, spot_the_difference, spread
from spdlib.pretraining.presets import Settings
from spdlib.progress import Bar, quiet_lightning
from spdlib.smoothblend import CutPaste, SmoothBlend
from spdlib.views import WHOLE, Share, WeakView, spd_triplet

__all__ = ["Pretraining", "Views", "decode", "export", "objective", "pretrain", "starting_encoder"]

TERMS = ("loss", "baseline", "spd", "cos_positive", "cos_negative", "spd_accuracy")
WATCHED = (
    "std", "effective_rank", "std_projected", "effective_rank_projected",
    "spot_auroc", "spot_aupr", "spot_projected",
)  # fmt: skip
COLUMNS = ("step", "epoch", "lr", *TERMS, *WATCHED)
LOG = "log.csv"
CHECKPOINT_EVERY = 200  # steps
FEWEST = 16  # images to watch before collapse is spoken of


class Views:
    """The random views of a step: the baseline's strong ones, and SPD's triplet.

    Args:
        settings: Which views, of what size.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.strong = StrongView(settings.method, settings.size)
        self.weak = WeakView(settings.size)
        blend = SmoothBlend if settings.blend == "smoothblend" else CutPaste
        self.blend = blend(jitter=(settings.patch_jitter,) * 4)

    @torch.no_grad()
    def __call__(
        self, images: Tensor, count: int, generator: torch.Generator, share: Share = WHOLE
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...] | None]:
        """``count`` strong views, and the triplet (None if eta is 0).

        Args:
            images: uint8 (B, 3, H, W), one share of a batch.
            count: How many strong views.
            generator: In the same state for all shares of a batch.
            share: Which share.
        """
        # Views are made as they are whatever the precision of the network's step.
        with torch.autocast(images.device.type, enabled=False):
            images = images.float() / 255
            strong = tuple(self.strong(images, generator, share) for _ in range(count))
            if not self.settings.eta:
                return strong, None
            independent = self.settings.independent_views
            return strong, spd_triplet(images, self.weak, self.blend, generator, independent, share)


def objective(encoder: Encoder, settings: Settings, classes: int = 0) -> Objective:
    """Baseline and SPD loss as settings say; heads are initialised from torch's global state.

    Args:
        encoder: The network to train.
        settings: Method, eta, and what they need.
        classes: How many the supervised method tells apart.
    """
    method, values = METHODS[settings.method], settings.model_dump() | {"classes": classes}
    baseline = method.baseline(encoder, **{name: values[name] for name in method.needs})
    if settings.spd == "cosine":
        spd: nn.Module = SpdCosine(settings.fixed_anchor, settings.joint_triplet)
    else:
        spd = SpdCrossEntropy(encoder.feature_dim, settings.joint_triplet)
    return Objective(baseline, spd, settings.eta)


class Pretraining(pl.LightningModule):
    """One training: objective, views, order of the images, log and checkpoints.

    Args:
        encoder: What is trained.
        settings: How.
        images: What it is trained on.
        held_out: uint8 images (N, 3, H, W) to watch it on, or None.
        folder: Where checkpoints and the log go, or None.
        text: What the progress bar says.
        every: Steps between two checkpoints.
        workers: Processes that decode images.
        skip: Whether to go on where an image does not decode.

    Attributes:
        step: Steps done.
        rows: The log, one dict a step.
    """

    def __init__(
        self,
        encoder: Encoder,
        settings: Settings,
        images: Images,
        held_out: Tensor | None = None,
        folder: Path | None = None,
        text: str = "",
        every: int = CHECKPOINT_EVERY,
        workers: int = 0,
        skip: bool = False,
    ):
        super().__init__()
        self.objective = objective(encoder, settings, images.classes)
        self.settings, self.images, self.held_out = settings, images, held_out
        self.folder, self.text, self.every = folder, text, every
        self.workers, self.skip = workers, skip
        self.steps_an_epoch = len(images) // settings.batch_size
        self.steps = settings.epochs * self.steps_an_epoch
        self.step, self.rows, self.said = 0, [], None
        self.skipped: set[int] = set()
        self._terms: list[Tensor] = []
        self._row: dict[str, float] | None = None
        self._seen: list[int] = []
        self._bar = self._log = None

    @property
    def encoder(self) -> Encoder:
        """What is trained."""
        return self.objective.baseline.encoder

    def setup(self, stage: str) -> None:
        trainer, batch = self.trainer, self.settings.batch_size
        shares = trainer.world_size * trainer.accumulate_grad_batches
        if batch % shares:
            raise ValueError(
                f"batch_size: {batch} cannot be shared equally among {trainer.world_size} "
                f"processes, {trainer.accumulate_grad_batches} parts each"
            )
        if trainer.world_size > 1:
            synchronise(self, trainer.strategy.root_device.type)
        self.views, self.shares = Views(self.settings), shares

    def train_dataloader(self) -> DataLoader:
        order = Order(
            len(self.images),
            self.settings.batch_size,
            self.settings.epochs,
            self.settings.seed,
            self.step,
            self.trainer.accumulate_grad_batches,
            self.trainer.global_rank,
            self.trainer.world_size,
        )
        return DataLoader(
            self.images,
            sampler=order,
            batch_size=None,  # the order gives whole batches
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
        )

    def configure_optimizers(self) -> dict[str, Any]:
        """SGD or LARS; the schedule leaves SimSiam's predictor alone, as its authors advise."""
        s = self.settings
        groups: dict[tuple[bool, bool], list[Tensor]] = {}
        for name, weight in self.named_parameters():
            if weight.requires_grad:
                key = ".prediction." in name, s.optimizer == "lars" and weight.ndim == 1
                groups.setdefault(key, []).append(weight)
        make = {"sgd": torch.optim.SGD, "lars": LARS}[s.optimizer]
        optimizer = make(
            [
                {"params": weights, "weight_decay": 0.0 if spared else s.weight_decay}
                for (_, spared), weights in groups.items()
            ],
            lr=s.learning_rate,
            momentum=0.9,
        )
        schedules = [
            (lambda step: 1.0) if fixed else (lambda step: s.rate_at(step, self.steps))
            for fixed, _ in groups
        ]
        schedule = LambdaLR(optimizer, schedules)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        if not self.trainer.is_global_zero:
            return
        size = self.settings.batch_size
        self._bar = Bar(self.steps * size, self.text, "images", done=self.step * size)
        if self.folder:
            kept = pd.DataFrame(self.rows, columns=list(COLUMNS))
            with replacing(self.folder / LOG) as temporary:
                kept.to_csv(temporary, index=False)
            self._log = (self.folder / LOG).open("a", encoding="utf-8")
        if self.held_out is not None and not self.step and not self.rows:
            self._write({"step": 0, "epoch": 0} | self._watch())

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        """One step, or the part of one that gradients are accumulated over."""
        key = (self.settings.seed, 1, self.step)
        share = len(self._terms) * self.trainer.world_size + self.global_rank
        # For networks that draw, e.g. for dropout: as reproducible as the views.
        torch.manual_seed(seed_of(*key, share))
        count = self.objective.baseline.views
        part = Share(share, self.shares)
        strong, triplet = self.views(batch["images"], count, generator(*key), part)
        if self.dtype != torch.float32:  # "64-true" and the like
            strong = tuple(view.to(self.dtype) for view in strong)
            triplet = triplet and tuple(view.to(self.dtype) for view in triplet)
        if count == 1:
            strong = (*strong, batch["labels"])
        terms = self.objective(strong, triplet)
        self._names = list(terms)
        self._terms.append(torch.stack([term.detach().float() for term in terms.values()]))
        self._seen += batch["numbers"].tolist()
        self._note(batch["unreadable"].tolist())
        return terms["loss"]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Averages the terms over parts and processes, and stops at what is not finite."""
        terms = torch.stack(self._terms).mean(0)
        if self.trainer.world_size > 1:
            terms = self.trainer.strategy.reduce(terms, reduce_op="mean")
        row = dict(zip(self._names, terms.tolist(), strict=True))
        for name, value in sorted(row.items(), key=lambda item: item[0] == "loss"):
            if not abs(value) < float("inf"):
                names = ", ".join(self.images.path(number) for number in self._seen[:3])
                raise FloatingPointError(
                    f"step {self.step + 1}: {name} is {value} (epoch {self.epoch + 1}, batch "
                    f"{self.step % self.steps_an_epoch + 1} of {self.steps_an_epoch}: {names} "
                    "...); try a smaller base_lr"
                )
        about = {"epoch": self.epoch + 1, "lr": optimizer.param_groups[0]["lr"]}
        self._row = {"step": self.step + 1, **about, **row}
        self._terms, self._seen = [], []

    @property
    def epoch(self) -> int:
        """Passes over the images that are done."""
        return self.step // self.steps_an_epoch

    def on_train_batch_end(self, outputs: Any, batch: dict[str, Tensor], index: int) -> None:
        """After each step: log, watch, save."""
        if self._row is None:  # gradients are still being accumulated
            return
        row, self._row = self._row, None
        self.step += 1
        if self.trainer.is_global_zero:
            if self.held_out is not None and self.step % self.steps_an_epoch == 0:
                row |= self._watch()
            self._write(row)
            self._bar.update(self.settings.batch_size, f"loss {row['loss']:+.3f}")
        if self.folder and (self.step % self.every == 0 or self.step == self.steps):
            self.trainer.save_checkpoint(self.folder / checkpoints.LAST)

    @cached_property
    def about(self) -> dict[str, Any]:
        """What tells one training from another: a checkpoint fits only its own."""
        return {
            "settings": self.settings.model_dump(),
            "encoder": dict(self.encoder.provenance),
            "images": len(self.images),
            "digest": self.images.digest(),
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["spdlib"] = self.about | {"step": self.step, "skipped": sorted(self.skipped)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        theirs, ours = checkpoint.get("spdlib", {}), self.about
        differing = [
            f"{name}: {value!r} there, {now!r} here"
            for name, value, now in _flat(theirs, ours)
            if value != now
        ]
        if differing:
            raise ValueError(
                f"{show(self.folder)} holds a checkpoint of another training; take another folder, "
                "or start over with resume=False (--no-resume):\n  " + "\n  ".join(differing)
            )
        self.step, self.skipped = theirs["step"], set(theirs["skipped"])
        log = self.folder / LOG
        if log.is_file():
            rows = pd.read_csv(log, on_bad_lines="skip")
            self.rows = rows[rows.step <= self.step].to_dict("records")

    def on_train_end(self) -> None:
        if self.trainer.world_size > 1:
            everyones: list[set[int]] = [set()] * self.trainer.world_size
            torch.distributed.all_gather_object(everyones, self.skipped)
            self.skipped = set().union(*everyones)

    def close(self) -> None:
        """Ends the progress bar and the log."""
        if self._bar is not None:
            self._bar.close()
        if self._log is not None:
            self._log.close()

    def _watch(self) -> dict[str, float]:
        """Looks at the held-out images, as the network is now."""
        baseline = self.objective.baseline.eval()
        spot = spot_the_difference(
            baseline.encoder, self.held_out, self.settings.size, self.settings.seed,
            projection=baseline.projection.forward,  # not for those who listen to the training
        )  # fmt: skip
        baseline.train()
        seen, projected = spread(spot["features"]), spread(spot["projections"])
        said = collapse(**seen)
        # The loss compares projections: they may be one while the features are not yet.
        if said is None and (there := collapse(**projected)):
            said = f"projections, {there}"
        if len(self.held_out) < FEWEST:  # the rank is small whatever the network
            said = None
        if said and not self.said:
            print(f"step {self.step}: {said}", flush=True)
        self.said = said
        seen |= {f"{name}_projected": value for name, value in projected.items()}
        names = {"spot_auroc": "auroc", "spot_aupr": "aupr", "spot_projected": "projected"}
        return seen | {column: spot[name] for column, name in names.items()}

    def _write(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        if self._log is not None:
            line = pd.DataFrame([row], columns=list(COLUMNS))
            line.to_csv(self._log, index=False, header=False)
            self._log.flush()
        for logger in self.trainer.loggers:
            logger.log_metrics({k: v for k, v in row.items() if k != "step"}, int(row["step"]))

    def _note(self, unreadable: list[int]) -> None:
        for number in set(unreadable) - self.skipped:
            try:
                self.images.read(number)
            except ValueError as error:
                if not self.skip:
                    raise
                print(f"skipped: {error}", flush=True)
            self.skipped.add(number)


def pretrain(
    encoder: Encoder,
    images: Tensor | pd.DataFrame,
    settings: Settings,
    held_out: Tensor | None = None,
    labels: Sequence[int] | Tensor | None = None,
    folder: str | Path | None = None,
    text: str = "",
    *,
    every: int = CHECKPOINT_EVERY,
    resume: bool = True,
    workers: int = 0,
    skip: bool = False,
    **trainer: Any,
) -> pd.DataFrame:
    """Trains the encoder in place.

    Args:
        encoder: What to train; in evaluation mode afterwards, its provenance filled in.
        images: uint8 (N, 3, H, W) as :func:`decode` gives, best of ``settings.source_size``; or
            a table of samples, whose files are decoded while training.
        settings: How to train.
        held_out: uint8 normal images to watch the training on, before the first step and after
            each epoch; None: no watch. Of fewer than 16 no collapse is spoken.
        labels: Classes (N,) for the supervised method; by default a table's categories.
        folder: Where checkpoints and ``log.csv`` go, and where a training that was stopped is
            taken up again; None: nothing is written.
        text: What the progress bar says.
        every: Steps between two checkpoints; there is always one at the end.
        resume: False starts over where there is a checkpoint.
        workers: Processes that decode images; 0: this one does.
        skip: Where an image does not decode, take the next one, and say so, rather than stop.
        **trainer: Passed to Lightning's ``Trainer``: ``devices``, ``num_nodes``, ``precision``,
            ``accumulate_grad_batches`` ... A batch is what all processes and parts hold together.

    Returns:
        One row a step: ``step`` (steps done), ``epoch``, ``lr``, the loss and its terms, and where
        it was watched ``std``, ``effective_rank``, ``spot_auroc`` and ``spot_aupr`` of the
        features, and ``spot_projected``, the AU-ROC where the SPD loss compares, beside the
        spread there; row 0 has only these. What does not apply is NaN. ``attrs["collapse"]``
        says in words whether the last watch found features or projections collapsed, or is None.

    Raises:
        ValueError: Images, labels or trainer options do not fit the settings, or the folder holds
            a checkpoint of another training.
        OSError: The folder cannot be written, or its disk has too little room.
        FloatingPointError: A term of the loss is not finite; names it, the step and the batch.
    """
    samples = Images(images, labels, settings.source_size)
    if len(samples) < settings.batch_size:
        raise ValueError(
            f"batch_size: {settings.batch_size} is more than the {len(samples)} images; take a "
            "smaller one, or more images"
        )
    if held_out is not None and len(held_out) < 2:
        raise ValueError("held_out: one image; at least two are needed, or None for no watch")
    if "classes" in METHODS[settings.method].needs and samples.classes < 2:
        raise ValueError(
            f"labels: {settings.method} pretraining needs at least two classes (a table's "
            "categories, which for a folder of images are the names of its subfolders)"
        )
    if "queue" in METHODS[settings.method].needs and settings.queue > len(samples):
        fits = len(samples) // settings.batch_size * settings.batch_size
        warnings.warn(
            f"queue: {settings.queue:,} keys of {len(samples):,} images; many are of the image "
            f"that they are compared with. A queue of {fits:,} or less avoids most of that.",
            stacklevel=2,
        )
    started_from = dict(encoder.provenance)
    with quiet_lightning(), torch.random.fork_rng(devices=[]):
        runner = _trainer(folder, trainer)
        torch.manual_seed(seed_of(settings.seed, 2))  # heads are drawn from the global state
        module = Pretraining(
            encoder.train(), settings, samples, held_out, folder and Path(folder),
            text or settings.name, every, workers, skip,
        )  # fmt: skip
        if folder:
            needed = _checkpoint_bytes(module) * 2  # the one before stays until the next is whole
            module.folder = checkpoints.prepare(folder, needed, [checkpoints.LAST, LOG])
        last = module.folder / checkpoints.LAST if folder else None
        found = str(last) if last and resume and last.is_file() else None
        try:
            _fit(runner, module, found)
        finally:
            module.close()
            encoder.eval()
    history = pd.DataFrame(module.rows, columns=list(COLUMNS))
    history.attrs["collapse"] = module.said
    encoder.provenance = {
        "encoder": encoder.name,
        **settings.model_dump(),
        "dataset": dataset_name(settings.dataset),
        "categories": settings.categories or samples.names,
        "images": len(samples),
        "digest": module.about["digest"],
        "skipped": len(module.skipped),
        "steps": module.step,
        "collapse": module.said,
        "started_from": started_from,
        "versions": {
            name: version(name)
            for name in ("torch", "torchvision", "lightly", "pytorch-lightning", "spdlib")
        },
    }
    return history


def export(encoder: Encoder, path: str | Path) -> Path:
    """Writes a pretrained encoder with its provenance; checks that there is room for it first.

    Raises:
        OSError: The folder cannot be written, or the disk is nearly full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoints.room_for(path.parent, 2 * _bytes(encoder.state_dict().values()))
    return save_encoder(encoder, path)


def _trainer(folder: str | Path | None, given: dict[str, Any]) -> pl.Trainer:
    given = {"devices": 1, "num_nodes": 1, "logger": False} | given
    ours = {
        "max_epochs": 1,  # the order of the images runs through all epochs
        "use_distributed_sampler": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(folder or "."),
    }
    overlap = sorted(ours.keys() & given.keys() | {"max_steps", "sync_batchnorm"} & given.keys())
    if overlap:
        raise ValueError(f"{', '.join(overlap)}: decided by the settings, not by the trainer")
    if given["devices"] != 1 or given["num_nodes"] != 1:
        # Buffers are equal anyway, and MoCo's queue is a large one.
        given.setdefault("strategy", DDPStrategy(broadcast_buffers=False))
    plugins = [checkpoints.WholeFiles(), *given.pop("plugins", [])]
    return pl.Trainer(plugins=plugins, **ours, **given)


def _fit(trainer: pl.Trainer, module: Pretraining, checkpoint: str | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, ckpt_path=checkpoint)
    except SystemExit:
        # Lightning ignores Ctrl-C from then on and leaves; a notebook's kernel is to stay.
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None


def _bytes(tensors: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _checkpoint_bytes(module: Pretraining) -> int:
    trained = [p for p in module.parameters() if p.requires_grad]
    return _bytes(module.parameters()) + _bytes(module.buffers()) + _bytes(trained)


def _flat(theirs: dict[str, Any], ours: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    pairs = []
    for name, now in ours.items():
        value = theirs.get(name)
        if name == "settings":
            pairs += [(key, (value or {}).get(key), now[key]) for key in now]
        else:
            pairs.append((name, value, now))
    return pairs


def starting_encoder(settings: Settings) -> Encoder:
    """The encoder that a training starts from: random (by the seed), ImageNet's, or a file's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(settings.seed, 3))
        weights = None if settings.weights == "random" else settings.weights
        return load_encoder(settings.encoder, weights)
