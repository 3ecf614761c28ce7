"""Pretraining an encoder, with and without SPD: from a notebook, or from the command line.

    python -m spdlib.pretraining --dataset elpv --method simsiam --eta 0.1

The loop is :mod:`spdlib.loop`'s: devices, nodes, precision, accumulation, resume. Views are
made on the training device, a batch at a time.
"""

import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
import torch
from lightly.utils.lars import LARS
from torch import Tensor, distributed, nn

from spdlib import checkpoints
from spdlib.distributed import Process
from spdlib.encoders import Encoder, load_encoder, save_encoder
from spdlib.images import Images
from spdlib.loop import Training, fit, generator, seed_of
from spdlib.methods import METHODS, StrongView
from spdlib.objectives import Objective, SpdCosine, SpdCrossEntropy, SpdDense, SpdPlacebo
from spdlib.paths import dataset_name, need_room, replacing
from spdlib.pretraining.monitors import collapse, spot_the_difference, spread
from spdlib.pretraining.presets import Settings
from spdlib.smoothblend import CutPaste, SmoothBlend
from spdlib.views import WHOLE, Share, WeakView, spd_triplet

TERMS = ("loss", "baseline", "spd", "cos_positive", "cos_negative", "spd_accuracy", "guard")
WATCHED = (
    "std", "effective_rank", "std_projected", "effective_rank_projected",
    "spot_auroc", "spot_aupr", "spot_projected",
)  # fmt: skip
COLUMNS = ("step", "epoch", "lr", *TERMS, *WATCHED)
LOG = "log.csv"
FEWEST = 16  # images to watch before collapse is spoken of


class Views:
    """The random views of a step: the baseline's strong ones, and SPD's triplet.

    Args:
        settings: Settings that decide the views and their size.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.strong = StrongView(settings.method, settings.size)
        self.weak = WeakView(settings.size)
        strength = (settings.patch_jitter,) * 4
        self.blend: SmoothBlend = CutPaste(jitter=strength)
        if settings.blend == "smoothblend":
            self.blend = SmoothBlend(jitter=strength, foreground=settings.foreground)

    @torch.no_grad()
    def __call__(
        self, images: Tensor, count: int, generator: torch.Generator, share: Share = WHOLE
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...] | None]:
        """``count`` strong views, and the triplet (None if eta is 0).

        Args:
            images: uint8 (B, 3, H, W), one share of a batch.
            count: Number of strong views.
            generator: Generator, in the same state for all shares of a batch.
            share: Share of the batch that the images are.
        """
        # Views are made as they are whatever the precision of the network's step.
        with torch.autocast(images.device.type, enabled=False):
            images = images.float() / 255
            strong = tuple(self.strong(images, generator, share) for _ in range(count))
            if not self.settings.eta:
                return strong, None
            dense = self.settings.spd == "dense"
            return strong, spd_triplet(
                images, self.weak, self.blend, generator, self.settings.independent_views, share,
                alpha=dense, aligned=dense,
            )  # fmt: skip


def objective(encoder: Encoder, settings: Settings, classes: int = 0) -> Objective:
    """Baseline and SPD loss as settings say; heads are initialised from torch's global state.

    Args:
        encoder: The network to train.
        settings: Method, eta, and what they need.
        classes: Number of classes that the supervised method tells apart.
    """
    s, method = settings, METHODS[settings.method]
    values = s.model_dump() | {"classes": classes}
    baseline = method.baseline(encoder, **{name: values[name] for name in method.needs})
    spd: nn.Module
    if s.spd == "dense":
        spd = SpdDense(encoder, s.stages, s.projection)
    elif s.spd == "cross_entropy":
        spd = SpdCrossEntropy(encoder.feature_dim, s.joint_triplet)
    else:
        kind = SpdCosine if s.spd == "cosine" else SpdPlacebo
        spd = kind(s.fixed_anchor, s.joint_triplet)
    return Objective(baseline, spd, s.eta, s.frozen_statistics, s.guard, s.stages)


class Pretraining(Training):
    """A training of an encoder: its objective, views, log and watch.

    Args:
        encoder: Encoder that is trained.
        settings: Settings of the training.
        images: Images that it is trained on.
        labels: Classes (N,) for the supervised method, from 0; -1 where there are none.
        held_out: uint8 images (N, 3, H, W) to watch it on, or None.
        folder: Folder for checkpoints and the log, or None.
        skip: Whether to go on where an image does not decode.

    Attributes:
        objective: Objective that is optimised.
        said: Whether the last watch found a collapse, in words; or None.
        skipped: Numbers of the images that did not decode.
    """

    data: Images

    def __init__(
        self,
        encoder: Encoder,
        settings: Settings,
        images: Images,
        labels: Tensor,
        held_out: Tensor | None = None,
        folder: Path | None = None,
        skip: bool = False,
    ):
        self.objective = objective(encoder, settings, int(labels.max()) + 1)
        self.labels = labels
        self.steps_an_epoch = len(images) // settings.batch_size
        steps = settings.epochs * self.steps_an_epoch
        super().__init__(self.objective, images, steps, settings.batch_size, settings.seed)
        self.settings, self.held_out, self.folder, self.skip = settings, held_out, folder, skip
        self.views, self.skipped = Views(settings), set[int]()
        self.said: str | None = None
        self.best: dict[str, Any] = {"score": -1.0, "step": 0, "encoder": {}}

    def order(self, start: int) -> Iterator[Tensor]:
        """A permutation of its own for each epoch."""
        s = self.settings
        return order(len(self.data), s.batch_size, s.epochs, s.seed, start)

    def optimizer(self) -> torch.optim.Optimizer:
        """SGD or LARS; the schedule leaves SimSiam's predictor alone, as its authors advise."""
        s = self.settings
        groups: dict[tuple[bool, bool], list[Tensor]] = {}
        for name, weight in self.objective.named_parameters():
            if weight.requires_grad:
                key = ".prediction." in name, s.optimizer == "lars" and weight.ndim == 1
                groups.setdefault(key, []).append(weight)
        make = {"sgd": torch.optim.SGD, "lars": LARS}[s.optimizer]
        return make(
            [
                {"params": weights, "weight_decay": 0.0 if spared else s.weight_decay,
                 "scheduled": not fixed}
                for (fixed, spared), weights in groups.items()
            ],
            lr=s.learning_rate,
            momentum=0.9,
        )  # fmt: skip

    def rate(self) -> float:
        """Share of the largest learning rate, by the schedule."""
        return self.settings.rate_at(self.step, self.steps)

    def terms(self, batch: dict[str, Tensor], share: Share) -> dict[str, Tensor]:
        """The objective's terms; views are drawn by the step, for the whole batch."""
        self._note(batch["unreadable"].tolist())
        key, count = (self.seed, 1, self.step), self.objective.baseline.views
        images = batch["images"].to(self.device, non_blocking=True)
        strong, triplet = self.views(images, count, generator(*key), share)
        if self.dtype != torch.float32:
            strong = tuple(view.to(self.dtype) for view in strong)
            triplet = triplet and tuple(view.to(self.dtype) for view in triplet)
        if count == 1:
            strong = *strong, self.labels[batch["numbers"]].to(self.device)
        return self.objective(strong, triplet)

    @property
    def done(self) -> bool:
        """Whether no step follows, be it that patience is lost."""
        waited = self.step - self.best["step"]
        return super().done or 0 < self.settings.patience * self.steps_an_epoch <= waited

    def before_step(self) -> None:
        """Calls the baseline, once a step."""
        self.objective.baseline.before_step()

    def names(self, batch: dict[str, Tensor]) -> str:
        """Epoch, batch and first images."""
        first = ", ".join(self.data.path(number) for number in batch["numbers"][:3].tolist())
        epoch, place = divmod(self.step, self.steps_an_epoch)
        return f" (epoch {epoch + 1}, batch {place + 1} of {self.steps_an_epoch}: {first} ...)"

    def begin(self) -> None:
        """Starts the log, and watches the encoder as it is."""
        if self.folder:
            with replacing(self.folder / LOG) as temporary:
                pd.DataFrame(self.rows, columns=list(COLUMNS)).to_csv(temporary, index=False)
        if self.held_out is not None and not self.step and not self.rows:
            seen = self._watch(self.held_out)
            self._compare(seen["spot_auroc"])
            self._log({"step": 0, "epoch": 0} | seen)

    def advance(self, row: dict[str, float]) -> None:
        """Logs a step, and watches after each epoch."""
        row["epoch"] = (self.step - 1) // self.steps_an_epoch + 1
        if self.held_out is not None and self.step % self.steps_an_epoch == 0:
            row |= self._watch(self.held_out)
            self._compare(row["spot_auroc"])
        self._log(row)

    def about(self) -> dict[str, Any]:
        """Settings, the encoder's origin, and the images."""
        return {
            "settings": self.settings.model_dump(),
            "encoder": self.objective.baseline.encoder.provenance,
            "images": len(self.data),
            "digest": self.digest,
            "labels": crc32(self.labels.numpy().tobytes()),
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what is trained on."""
        return self.data.digest()

    def state(self) -> dict[str, Any]:
        """The images that were skipped, and the best encoder so far; rows are in the log."""
        return {"skipped": sorted(self.skipped), "best": self.best}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up the rows of the log, up to the checkpoint's step."""
        self.skipped, self.best = set(state["skipped"]), state["best"]
        if self.folder and (log := self.folder / LOG).is_file():
            rows = pd.read_csv(log, on_bad_lines="skip")
            self.rows = rows[rows.step <= self.step].to_dict("records")

    def end(self, process: Process) -> None:
        """Gathers what all processes have skipped; takes the best encoder, where one is kept."""
        if self.best["encoder"]:
            self.objective.baseline.encoder.load_state_dict(self.best["encoder"])
        if process.world > 1:
            everyones: list[set[int]] = [set()] * process.world
            distributed.all_gather_object(everyones, self.skipped)
            self.skipped = set().union(*everyones)

    def _compare(self, score: float) -> None:
        """Keeps the encoder if its score is the best so far."""
        if not self.settings.patience:
            return
        if score > self.best["score"]:
            weights = self.objective.baseline.encoder.state_dict()
            kept = {name: x.detach().cpu().clone() for name, x in weights.items()}
            self.best = {"score": score, "step": self.step, "encoder": kept}

    def _watch(self, held_out: Tensor) -> dict[str, float]:
        """Looks at the held-out images, as the network is now."""
        baseline = self.objective.baseline.eval()
        spot = spot_the_difference(
            baseline.encoder, held_out, self.settings.size, self.settings.seed,
            projection=baseline.projection.forward,  # not for those who listen to the training
        )  # fmt: skip
        baseline.train()
        seen, projected = spread(spot["features"]), spread(spot["projections"])
        said = collapse(**seen)
        # The loss compares projections: they may be one while the features are not yet.
        if said is None and (there := collapse(**projected)):
            said = f"projections, {there}"
        if len(held_out) < FEWEST:  # the rank is small whatever the network
            said = None
        if said and not self.said:
            print(f"step {self.step}: {said}", flush=True)
        self.said = said
        seen |= {f"{name}_projected": value for name, value in projected.items()}
        names = {"spot_auroc": "auroc", "spot_aupr": "aupr", "spot_projected": "projected"}
        return seen | {column: spot[name] for column, name in names.items()}

    def _log(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        if self.folder:
            line = pd.DataFrame([row], columns=list(COLUMNS))
            line.to_csv(self.folder / LOG, mode="a", index=False, header=False)

    def _note(self, unreadable: list[int]) -> None:
        for number in set(unreadable) - self.skipped:
            try:
                self.data.read(number)
            except ValueError as error:
                if not self.skip:
                    raise
                print(f"skipped: {error}", flush=True)
            self.skipped.add(number)


def order(count: int, batch_size: int, epochs: int, seed: int, start: int = 0) -> Iterator[Tensor]:
    """The numbers of the images of every step, all epochs in one go.

    Each epoch is a permutation of its own; the images that do not fill its last batch sit it
    out.

    Args:
        count: Number of images.
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


def pretrain(
    encoder: Encoder,
    images: Images | Tensor | pd.DataFrame,
    settings: Settings,
    held_out: Tensor | None = None,
    labels: Sequence[int] | Tensor | None = None,
    folder: str | Path | None = None,
    text: str = "",
    *,
    skip: bool = False,
    **options: Any,
) -> pd.DataFrame:
    """Trains the encoder in place.

    Args:
        encoder: Encoder to train; in evaluation mode afterwards, its provenance filled in.
        images: Images, best of side ``settings.source_size``; or, to make such, a table of samples
            or uint8 (N, 3, H, W).
        settings: Settings of the training.
        held_out: uint8 normal images to watch the training on, before the first step and after
            each epoch; None: no watch. Of fewer than 16 no collapse is spoken.
        labels: Classes (N,) for the supervised method; by default a table's categories.
        folder: Folder for checkpoints and ``log.csv``, from which a training that was stopped is
            taken up again; None: nothing is written.
        text: Text of the progress bar.
        skip: Whether an image that does not decode is replaced by the next, rather than an error.
        **options: Options of the run, as :func:`spdlib.loop.fit` takes them: ``every``,
            ``resume``, ``workers``, ``callbacks``, ``devices``, ``num_nodes``, ``accelerator``,
            ``precision``, ``accumulate_grad_batches``. A batch is what all processes and parts
            hold together.

    Returns:
        One row a step: ``step`` (steps done), ``epoch``, ``lr``, the loss and its terms, and where
        it was watched ``std``, ``effective_rank``, ``spot_auroc`` and ``spot_aupr`` of the
        features, and ``spot_projected``, the AU-ROC where the SPD loss compares, beside the
        spread there; row 0 has only these. What does not apply is NaN. ``attrs["collapse"]``
        says in words whether the last watch found features or projections collapsed, or is None.

    Raises:
        ValueError: Images, labels or options do not fit the settings, or the folder holds
            a checkpoint of another training.
        OSError: The folder cannot be written, or its disk has too little room.
        FloatingPointError: A term of the loss is not finite; names it, the step and the batch.
    """
    processes = options.get("devices", 1) * options.get("num_nodes", 1)
    known = signature(fit).parameters.keys() - {"training", "bar"}
    if unknown := options.keys() - known:
        raise ValueError(f"{', '.join(sorted(unknown))}: decided by the settings, or not known")
    samples = images if isinstance(images, Images) else Images(images, settings.source_size)
    classes = _classes(samples, labels)
    if len(samples) < settings.batch_size:
        raise ValueError(
            f"batch_size: {settings.batch_size} is more than the {len(samples)} images; take a "
            "smaller one, or more images"
        )
    if held_out is not None and len(held_out) < 2:
        raise ValueError("held_out: one image; at least two are needed, or None for no watch")
    if settings.patience and (held_out is None or processes > 1):
        raise ValueError("patience: needs held-out images to watch, and one process")
    if METHODS[settings.method].whole_batch and options.get("accumulate_grad_batches", 1) > 1:
        raise ValueError(
            f"accumulate: {settings.method} compares the images of a batch with each other, a part "
            "of it would have fewer negatives; take a smaller batch_size, or more processes"
        )
    if "classes" in METHODS[settings.method].needs and classes.max() < 1:
        raise ValueError(
            f"labels: {settings.method} pretraining needs at least two classes (a table's "
            "categories, which for a folder of images are the names of its subfolders)"
        )
    if "queue" in METHODS[settings.method].needs and (settings.queue or 0) > len(samples):
        fits = len(samples) // settings.batch_size * settings.batch_size
        warnings.warn(
            f"queue: {settings.queue:,} keys of {len(samples):,} images; many are of the image "
            f"that they are compared with. A queue of {fits:,} or less avoids most of that.",
            stacklevel=2,
        )
    started_from = dict(encoder.provenance)
    encoder.frozen_batchnorm = settings.frozen_batchnorm
    encoder.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(settings.seed, 2))  # heads are drawn from the global state
        training = Pretraining(
            encoder, settings, samples, classes, held_out, Path(folder) if folder else None, skip
        )
    if folder:
        needed = _checkpoint_bytes(training.objective) * 2  # the one before stays until the next
        checkpoints.prepare(folder, needed, [checkpoints.LAST, LOG])
    try:
        fit(training, text or settings.name, **options)
    finally:
        encoder.cpu().eval()
        encoder.frozen_batchnorm = False
    history = pd.DataFrame(training.rows, columns=list(COLUMNS))
    history.attrs["collapse"] = training.said
    encoder.provenance = {
        "encoder": encoder.name,
        **settings.model_dump(),
        "dataset": dataset_name(settings.dataset),
        "categories": settings.categories or _names(samples),
        "images": len(samples),
        "digest": training.digest,
        "skipped": len(training.skipped) + len(samples.skipped),
        "steps": training.step,
        "collapse": training.said,
        "started_from": started_from,
        "versions": {name: version(name) for name in ("torch", "torchvision", "lightly", "spdlib")},
    }
    return history


def _classes(images: Images, labels: Sequence[int] | Tensor | None) -> Tensor:
    if labels is None and images.table is not None:
        labels = np.searchsorted(_names(images), images.table.category.astype(str))
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"labels: {len(labels)} for {len(images)} images")
    return torch.as_tensor(np.full(len(images), -1) if labels is None else np.array(labels))


def _names(images: Images) -> list[str]:
    return [] if images.table is None else sorted(images.table.category.astype(str).unique())


def export(encoder: Encoder, path: str | Path) -> Path:
    """Writes a pretrained encoder with its provenance; checks that there is room for it first.

    Raises:
        OSError: The folder cannot be written, or the disk is nearly full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    need_room(path.parent, 2 * _bytes(encoder.state_dict().values()))
    return save_encoder(encoder, path)


def _bytes(tensors: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _checkpoint_bytes(module: nn.Module) -> int:
    trained = [p for p in module.parameters() if p.requires_grad]
    return _bytes(module.parameters()) + _bytes(module.buffers()) + _bytes(trained)


def starting_encoder(settings: Settings) -> Encoder:
    """The encoder that a training starts from: random (by the seed), ImageNet's, or a file's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(settings.seed, 3))
        weights = None if settings.weights == "random" else settings.weights
        return load_encoder(settings.encoder, weights)
