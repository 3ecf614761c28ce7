"""One training loop for all: steps, processes, precision, checkpoints, exact resume.

All randomness follows from the seed, the step and an image's place in the batch: a resumed run
ends in the weights of an uninterrupted one, and two processes see the views that one would.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from spdlib import checkpoints
from spdlib.distributed import Process, processes, synchronise
from spdlib.progress import Bar
from spdlib.views import Share

PRECISIONS: dict[str, tuple[torch.dtype, torch.dtype | None]] = {  # of weights, under autocast
    "32-true": (torch.float32, None),
    "64-true": (torch.float64, None),
    "bf16-mixed": (torch.float32, torch.bfloat16),
    "16-mixed": (torch.float32, torch.float16),
}


class Training:
    """A module that is trained, its data, and how far it has come.

    A kind of training derives from it and says what a step is; :func:`fit` does the rest.

    Args:
        module: Holds all weights that are trained.
        data: The training images; ``data[[3, 5]]`` is a batch.
        steps: Number of steps.
        batch_size: Images a step, over all processes and parts.
        seed: Seed of what the module draws.

    Attributes:
        step: Steps done.
        rows: The log, one dict a step.
        folder: Folder for checkpoints, or None.
        device: Device that it trains on; ``dtype`` is that of the weights there.
    """

    def __init__(self, module: nn.Module, data: Dataset, steps: int, batch_size: int, seed: int):
        self.module, self.data, self.steps = module, data, steps
        self.batch_size, self.seed = batch_size, seed
        self.step, self.rows = 0, list[dict[str, Any]]()
        self.folder: Path | None = None
        self.device, self.dtype = torch.device("cpu"), torch.float32

    @property
    def done(self) -> bool:
        """Whether no step follows."""
        return self.step == self.steps

    def order(self, start: int) -> Iterable[Tensor]:
        """The numbers of the images of each step, from a step on."""
        raise NotImplementedError

    def terms(self, batch: dict[str, Any], share: Share) -> dict[str, Tensor]:
        """``loss``, a scalar, and what else is logged, of one share of a batch."""
        raise NotImplementedError

    def optimizer(self) -> torch.optim.Optimizer:
        """The optimiser; a group with ``scheduled`` True follows :meth:`rate`."""
        raise NotImplementedError

    def about(self) -> dict[str, Any]:
        """Description that tells one training from another: a checkpoint fits only its own."""
        raise NotImplementedError

    def before_step(self) -> None:
        """Called before each step, in every process; once, however many parts its batch has."""

    def rate(self) -> float:
        """Share of the largest learning rate at this step."""
        return 1.0

    def names(self, batch: dict[str, Any]) -> str:
        """Name of a batch's first images in messages."""
        return ""

    def advance(self, row: dict[str, float]) -> None:
        """Takes the row of a step that is done; in the first process only."""
        self.rows.append(row)

    def state(self) -> dict[str, Any]:
        """Further content of a checkpoint: tensors and plain types."""
        return {"rows": self.rows}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up what :meth:`state` gave."""
        self.rows = state["rows"]

    def begin(self) -> None:
        """Called before the first step; in the first process only."""

    def end(self, process: Process) -> None:
        """Called after the last step."""


T = TypeVar("T", bound=Training, contravariant=True)


class Callback(Generic[T]):
    """Listens to a training, in the first process."""

    def on_start(self, training: T) -> None:
        """Called before the first step."""

    def on_step(self, training: T) -> None:
        """Called after each step."""

    def on_end(self, training: T) -> None:
        """Called after the last step."""


def fit(
    training: Training,
    bar: Bar | str = "training",
    every: int = 200,
    resume: bool = True,
    workers: int = 0,
    callbacks: Sequence[Callback] = (),
    devices: int = 1,
    num_nodes: int = 1,
    accelerator: str = "auto",
    precision: str | int = "32-true",
    accumulate_grad_batches: int = 1,
) -> torch.device:
    """Trains to the end, from the last checkpoint in the training's folder if there is one.

    Args:
        training: Training to do; its module stays on the device.
        bar: Progress bar that counts images, or the text of one of its own.
        every: Steps between two checkpoints; there is always one at the end.
        resume: Whether to go on where there is a checkpoint, or to start over.
        workers: Processes that read images, for each device.
        callbacks: Listeners.
        devices: Processes a machine, one a device.
        num_nodes: Machines.
        accelerator: ``auto``, ``cpu``, ``gpu`` or ``mps``.
        precision: ``32-true``, ``64-true``, ``bf16-mixed`` or ``16-mixed``.
        accumulate_grad_batches: Parts that a batch is taken in, one after the other.

    Returns:
        The device.

    Raises:
        ValueError: An option does not fit, or the folder holds another training's checkpoint.
        FloatingPointError: A term of the loss is not finite; names it, the step and the batch.
    """
    parts, shares = accumulate_grad_batches, accumulate_grad_batches * devices * num_nodes
    if training.batch_size % shares:
        raise ValueError(
            f"batch_size: {training.batch_size} cannot be shared equally among "
            f"{devices * num_nodes} processes, {parts} parts each"
        )
    dtypes = _dtypes(precision)
    last = training.folder and training.folder / checkpoints.LAST
    checkpoint = checkpoints.load(last) if last and resume and last.is_file() else None
    with (
        processes(devices, num_nodes, accelerator) as process,
        torch.random.fork_rng(devices=[]),
        torch.enable_grad(),
        # Names that torch has given others since 2.6.
        warnings.catch_warnings(action="ignore", category=FutureWarning),
        ExitStack() as stack,
    ):
        loop = _Loop(training, process, parts, *dtypes)
        if checkpoint:
            loop.load(checkpoint)
        order = shared(training.order(training.step), parts, process.rank, process.world)
        pinned = process.device.type == "cuda"
        given: dict[str, Any] = {"sampler": order, "num_workers": workers, "pin_memory": pinned}
        batches = iter(DataLoader(training.data, batch_size=None, **given))
        first, listeners = process.rank == 0, callbacks if process.rank == 0 else ()
        if first:
            size, done = training.batch_size, training.step * training.batch_size
            if isinstance(bar, str):
                total = training.steps * size
                bar = stack.enter_context(Bar(total, bar, "images", done=done))
            training.begin()
        for callback in listeners:
            callback.on_start(training)
        while not training.done:
            row = loop.take(batches)
            training.step += 1
            if first:
                assert not isinstance(bar, str)
                training.advance(row)
                bar.update(size, f"loss {row['loss']:+.3f}")
                if last and (training.step % every == 0 or training.done):
                    checkpoints.save(loop.checkpoint(), last)
            for callback in listeners:
                callback.on_step(training)
        for callback in listeners:
            callback.on_end(training)
        training.end(process)
        return process.device


def shared(
    order: Iterable[Tensor], parts: int = 1, process: int = 0, processes: int = 1
) -> Iterator[list[int]]:
    """Cuts each batch into parts, and each part among the processes; this process's, in turn.

    >>> list(shared([torch.arange(8)], parts=2, process=1, processes=2))
    [[2, 3], [6, 7]]
    """
    for batch in order:
        for part in batch.chunk(parts):
            yield part.chunk(processes)[process].tolist()


def generator(*key: int) -> torch.Generator:
    """A generator whose numbers follow from a key of whole numbers, such as seed and step."""
    return torch.Generator().manual_seed(seed_of(*key))


def seed_of(*key: int) -> int:
    """A seed of 32 bits for a key; keys that differ anywhere give unrelated seeds."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])


class _Terms(nn.Module):
    """A training's terms as a module, so that processes can share its gradients."""

    def __init__(self, training: Training):
        super().__init__()
        self.module, self.terms = training.module, training.terms

    def forward(self, batch: dict[str, Any], share: Share) -> dict[str, Tensor]:
        return self.terms(batch, share)


class _Loop:
    """Steps of a training in one process."""

    def __init__(
        self, training: Training, process: Process, parts: int,
        dtype: torch.dtype, mixed: torch.dtype | None,
    ):  # fmt: skip
        self.training, self.process, self.parts, self.mixed = training, process, parts, mixed
        device = training.device = process.device
        training.dtype = dtype
        if process.world > 1:
            synchronise(training.module, device.type)
        training.module.to(device, dtype)
        self.network: nn.Module = _Terms(training)
        if process.world > 1:
            # Buffers are equal anyway, and MoCo's queue is a large one.
            self.network = DistributedDataParallel(self.network, broadcast_buffers=False)
        self.optimizer = training.optimizer()
        for group in self.optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        self.scaler = torch.amp.GradScaler(device.type, enabled=mixed is torch.float16)

    def take(self, batches: Iterator[dict[str, Any]]) -> dict[str, float]:
        """Takes one step, and returns its row of the log."""
        for group in self.optimizer.param_groups:
            share = self.training.rate() if group.get("scheduled") else 1.0
            group["lr"] = group["initial_lr"] * share
        self.optimizer.zero_grad()
        self.training.before_step()
        found, names = [], ""
        for part in range(self.parts):
            batch = next(batches)
            names = names or self.training.names(batch)
            found.append(self._part(batch, part))
        row = self._mean(found)
        for name, value in sorted(row.items(), key=lambda item: item[0] == "loss"):
            if not abs(value) < float("inf"):
                self._refuse(name, value, names)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        lr = self.optimizer.param_groups[0]["lr"]
        return {"step": self.training.step + 1, "lr": lr, **row}

    def _part(self, batch: dict[str, Any], part: int) -> dict[str, Tensor]:
        training, (rank, world, device) = self.training, self.process
        share = Share(part * world + rank, self.parts * world)
        # For networks that draw, e.g. for dropout.
        torch.manual_seed(seed_of(training.seed, 1, training.step, share.number))
        with ExitStack() as stack:
            if isinstance(self.network, DistributedDataParallel) and part < self.parts - 1:
                stack.enter_context(self.network.no_sync())
            # Weights that are cast once for all views would gather their gradients in less.
            with torch.autocast(device.type, self.mixed, self.mixed is not None, False):
                terms = self.network(batch, share)
            self.scaler.scale(terms["loss"] / self.parts).backward()
        return {name: term.detach().float() for name, term in terms.items()}

    def _mean(self, found: list[dict[str, Tensor]]) -> dict[str, float]:
        """Terms on average over parts and processes; the one wait for the device in a step."""
        terms = torch.stack([torch.stack(list(part.values())) for part in found]).mean(0)
        if self.process.world > 1:
            distributed.all_reduce(terms)
            terms /= self.process.world
        return dict(zip(found[0], terms.tolist(), strict=True))

    def _refuse(self, name: str, value: float, names: str) -> None:
        raise FloatingPointError(
            f"step {self.training.step + 1}: {name} is {value}{names}; try a smaller learning rate"
        )

    def checkpoint(self) -> dict[str, Any]:
        """All that a resumed training needs, tensors and plain types."""
        training = self.training
        return {
            "about": training.about(),
            "step": training.step,
            "state": training.state(),
            "model": training.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Takes a training up where a checkpoint left it."""
        training = self.training
        assert training.folder  # the checkpoint's
        checkpoints.match(checkpoint["about"], training.about(), training.folder)
        training.step = checkpoint["step"]
        training.load_state(checkpoint["state"])
        training.module.load_state_dict(checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.scaler.load_state_dict(checkpoint["scaler"])


def _dtypes(precision: str | int) -> tuple[torch.dtype, torch.dtype | None]:
    short = {"32": "32-true", "64": "64-true", "bf16": "bf16-mixed", "16": "16-mixed"}
    name = short.get(str(precision), precision)
    if name not in PRECISIONS:
        raise ValueError(f"precision: {precision!r} is not one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]
