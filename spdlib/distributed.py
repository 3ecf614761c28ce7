"""Several processes that train together: joining them, and batch normalisation over all.

``torch.nn.SyncBatchNorm`` runs on GPUs only; here CPUs have it, too.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed.nn.functional
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Process(NamedTuple):
    """One of the processes of a training.

    Attributes:
        rank: Number of the process, from 0.
        world: Number of processes.
        device: Device that it trains on.
    """

    rank: int
    world: int
    device: torch.device


@contextmanager
def processes(devices: int = 1, nodes: int = 1, accelerator: str = "auto") -> Iterator[Process]:
    """Joins the processes of a training, for as long as the block lasts.

    torchrun or SLURM have started them.

    Args:
        devices: Processes a machine, one a device.
        nodes: Machines.
        accelerator: ``auto``, ``cpu``, ``gpu`` or ``mps``.

    Raises:
        ValueError: There is no such accelerator, or another number of processes has been started.
    """
    kind, world = device_type(accelerator), devices * nodes
    if world == 1:
        yield Process(0, 1, torch.device(kind))
        return
    rank, local, started = place() or (0, 0, 1)
    if started != world:
        raise ValueError(
            f"devices: {devices} on each of {nodes} machines, but {started} processes have been "
            f"started; start them with torchrun --nproc-per-node {devices}, or with SLURM"
        )
    device = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if kind == "cuda" else "gloo"
    distributed.init_process_group(backend, rank=rank, world_size=world)
    try:
        yield Process(rank, world, device)
    finally:
        distributed.destroy_process_group()


def device_type(accelerator: str = "auto") -> str:
    """torch's word for an accelerator; ``auto`` is the best that is there.

    >>> device_type("cpu")
    'cpu'
    """
    best = torch.accelerator.current_accelerator(check_available=True)
    there = ["cpu", best.type] if best else ["cpu"]
    kind = {"auto": there[-1], "gpu": "cuda"}.get(accelerator, accelerator)
    if kind not in there:
        raise ValueError(f"accelerator: {accelerator!r} is not here, but {', '.join(there)}")
    return kind


def launched() -> tuple[int, int]:
    """Processes a machine, and machines, as torchrun or SLURM has started this process."""
    here, world = os.environ, (place() or (0, 0, 1))[2]
    local = here.get("LOCAL_WORLD_SIZE") or here.get("SLURM_NTASKS_PER_NODE") or world
    return int(local), world // int(local)


def is_first() -> bool:
    """Whether this is the process that writes and speaks for all."""
    return (place() or (0, 0, 1))[0] == 0


def place() -> tuple[int, int, int] | None:
    """Rank, rank on this machine and number of processes, if others have started this one."""
    here = os.environ
    if "LOCAL_RANK" in here:
        return int(here["RANK"]), int(here["LOCAL_RANK"]), int(here["WORLD_SIZE"])
    if int(here.get("SLURM_NTASKS", 1)) > 1 and "SLURM_PROCID" in here:
        # The first of "node[03-05,7],other2".
        first = re.sub(r"\[([^],-]*)[^]]*\]", r"\1", here["SLURM_JOB_NODELIST"]).split(",")[0]
        here.setdefault("MASTER_ADDR", first)
        here.setdefault("MASTER_PORT", str(15000 + int(here["SLURM_JOB_ID"]) % 10000))
        return int(here["SLURM_PROCID"]), int(here["SLURM_LOCALID"]), int(here["SLURM_NTASKS"])
    return None


class GlobalBatchNorm(_BatchNorm):
    """Batch normalisation by the statistics of all processes' batches, of equal size.

    Takes the place of a layer that normalises its own process's batch, keeps its parameters,
    buffers and their names, and activates after it where that did.

    Args:
        local: The layer to take the place of.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, local: _BatchNorm):
        super().__init__(local.num_features, local.eps, local.momentum, affine=local.affine)
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            setattr(self, name, getattr(local, name))
        # timm's layer goes on to activate.
        self.activation = local.act if isinstance(local, BatchNormAct2d) else nn.Identity()
        self.train(local.training)

    def forward(self, input: Tensor) -> Tensor:
        return self.activation(self._normalised(input))

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # the layer it takes the place of has been used

    def _normalised(self, input: Tensor) -> Tensor:
        if not (self.training and distributed.is_initialized()):
            return super().forward(input)
        dims = [0, *range(2, input.ndim)]
        shape = [1, -1] + [1] * (input.ndim - 2)
        world = distributed.get_world_size()
        total = torch.distributed.nn.functional.all_reduce
        mean = total(input.mean(dims)) / world
        centred = input - mean.view(shape)
        variance = total(centred.square().mean(dims)) / world
        with torch.no_grad():
            count = world * input.numel() / input.shape[1]
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        out = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out


def synchronise(module: nn.Module, device: str = "cpu") -> nn.Module:
    """Replaces, in place, every batch normalisation in a module by a global one.

    Parameters, buffers and their names stay, so weights are saved and loaded as before.

    Args:
        module: Module that holds the layers.
        device: The type of device it will run on.

    Returns:
        The module.
    """
    # DistributedDataParallel refuses torch's synchronised layers, and all derived from them, on
    # a CPU; there the sums are ours.
    if device == "cuda":
        return convert_sync_batchnorm(module)
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and not isinstance(child, GlobalBatchNorm):
            setattr(module, name, GlobalBatchNorm(child))
        else:
            synchronise(child)
    return module
