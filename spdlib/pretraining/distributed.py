"""Batch normalisation over all processes, on CPUs too.

``torch.nn.SyncBatchNorm`` runs on GPUs only, and ``Trainer(sync_batchnorm=True)`` replaces
timm's layers that normalise *and* activate by ones that only normalise. Here both are right.
"""

import torch
import torch.distributed.nn.functional
from timm.layers import BatchNormAct2d
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


class GlobalBatchNorm(_BatchNorm):
    """Batch normalisation by the statistics of all processes' batches, of equal size.

    Takes the place of a layer that normalises its own process's batch, keeps its parameters,
    buffers and their names, and activates after it where that did.

    Args:
        local: The layer to take the place of.
    """

    def __init__(self, local: _BatchNorm):
        super().__init__(local.num_features, local.eps, local.momentum, affine=local.affine)
        _take_over(self, local)

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


class FusedGlobalBatchNorm(nn.SyncBatchNorm):
    """The same on GPUs, by torch's own kernels."""

    def __init__(self, local: _BatchNorm):
        super().__init__(local.num_features, local.eps, local.momentum, affine=local.affine)
        _take_over(self, local)

    def forward(self, input: Tensor) -> Tensor:
        return self.activation(super().forward(input))


def synchronise(module: nn.Module, device: str = "cpu") -> nn.Module:
    """Replaces, in place, every batch normalisation in a module by a global one.

    Parameters, buffers and their names stay, so weights are saved and loaded as before.

    Args:
        module: What holds the layers.
        device: The type of device it will run on.

    Returns:
        The module.
    """
    # DistributedDataParallel refuses torch's synchronised layers, and all derived from them, on
    # a CPU; there the sums are ours.
    kind = FusedGlobalBatchNorm if device == "cuda" else GlobalBatchNorm
    for name, child in module.named_children():
        if isinstance(child, GlobalBatchNorm | FusedGlobalBatchNorm):
            continue
        if isinstance(child, _BatchNorm):
            setattr(module, name, kind(child))
        else:
            synchronise(child, device)
    return module


def _take_over(layer: _BatchNorm, local: _BatchNorm) -> None:
    layer.weight, layer.bias = local.weight, local.bias
    layer.running_mean, layer.running_var = local.running_mean, local.running_var
    layer.num_batches_tracked = local.num_batches_tracked
    # timm's layer goes on to activate.
    layer.activation = local.act if isinstance(local, BatchNormAct2d) else nn.Identity()
    layer.train(local.training)
