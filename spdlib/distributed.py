"""Batch normalisation over all processes, on CPUs too.

``torch.nn.SyncBatchNorm`` runs on GPUs only, and ``Trainer(sync_batchnorm=True)`` replaces
timm's layers that normalise *and* activate by ones that only normalise. Here both are right.
"""

import torch
import torch.distributed.nn.functional
from timm.layers import BatchNormAct2d
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


class GlobalBatchNorm(nn.SyncBatchNorm):
    """Batch normalisation by the statistics of all processes' batches, of equal size.

    On GPUs torch's own; on CPUs the same with differentiable sums over the processes.
    """

    def __init__(self, local: _BatchNorm):
        super().__init__(local.num_features, local.eps, local.momentum, affine=local.affine)
        self.weight, self.bias = local.weight, local.bias
        self.running_mean, self.running_var = local.running_mean, local.running_var
        self.num_batches_tracked = local.num_batches_tracked
        # timm's layer goes on to activate.
        self.activation = local.act if isinstance(local, BatchNormAct2d) else nn.Identity()

    def forward(self, input: Tensor) -> Tensor:
        synchronise = self.training and distributed.is_initialized()
        if not synchronise or input.device.type != "cpu":
            return self.activation(super().forward(input))
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
        return self.activation(out)


def synchronise(module: nn.Module) -> nn.Module:
    """Replaces, in place, every batch normalisation in a module by a global one.

    Parameters, buffers and their names stay, so weights are saved and loaded as before.
    """
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and not isinstance(child, GlobalBatchNorm):
            setattr(module, name, GlobalBatchNorm(child))
        else:
            synchronise(child)
    return module
