"""Batch normalisation over the batch of all processes, on the CPU; `torch.nn.SyncBatchNorm` is for accelerators only.

Four samples a process are too few for a small network to learn well; eight in two processes should count as eight.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable


class SynchronizedBatchNorm(nn.BatchNorm2d):
    """`[B, C]` or `[B, C, H, W]`, normalised by mean and variance over the B, H and W of all processes.

    Parameters, running statistics and evaluation are those of `torch.nn.BatchNorm2d`. Every process must call it
    equally often; their sizes may differ.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and dist.is_initialized()):
            return super().forward(x)
        mean, variance, count = _statistics_of_all(x.detach(), self.weight.dtype)
        self._note(mean, variance, count)
        out: Tensor = _Normalize.apply(x, self.weight, self.bias, mean, variance, count, self.eps)
        return out

    def _check_input_dim(self, input: Tensor) -> None:
        """Vectors are welcome as well as maps."""

    @torch.no_grad()
    def _note(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Running statistics, with the unbiased variance, as in `torch.nn.BatchNorm2d`."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)


class _Normalize(Function):
    """Normalisation by given statistics, with the gradient that flows through them: Ioffe and Szegedy 2015, §3."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, count: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.eps = eps
        return nn.functional.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance, count = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.stack([grad_weight, grad_bias])
        dist.all_reduce(sums)
        per_channel = [-1, *[1] * (x.ndim - 2)]
        scale = (variance + ctx.eps).rsqrt()
        slope = weight * scale * scale * sums[0] / count
        offset = weight * scale * sums[1] / count - slope * mean
        grad_x -= torch.addcmul(offset.view(per_channel), slope.view(per_channel), x)
        return grad_x, grad_weight, grad_bias, None, None, None, None


def _statistics_of_all(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Mean `[C]`, biased variance `[C]` and number of values per channel `[1]`, over all processes."""
    unused = torch.zeros(2, x.shape[1], dtype=dtype)  # running statistics: they decide in which dtype sums are taken
    mean, variance = torch.batch_norm_update_stats(x, unused[0], unused[1], 0.0)
    count = mean.new_full((1,), x.numel() // x.shape[1])
    own = torch.cat([mean, variance, count])
    gathered = own.new_empty(dist.get_world_size(), len(own))
    dist.all_gather(list(gathered.unbind()), own)
    means, variances, counts = gathered[:, : len(mean)], gathered[:, len(mean) : -1], gathered[:, -1:]
    total = counts.sum(0)
    shares = counts / total
    mean = (shares * means).sum(0)
    return mean, (shares * (variances + (means - mean).square())).sum(0), total


def synchronize_norms(network: nn.Module) -> None:
    """Let every batch normalisation of `network` count all processes' samples; names and values stay."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(module, name, _synchronized(child))


def _synchronized(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> SynchronizedBatchNorm:
    new = SynchronizedBatchNorm(norm.num_features, norm.eps, norm.momentum)
    new.weight, new.bias = norm.weight, norm.bias
    new.running_mean, new.running_var = norm.running_mean, norm.running_var
    new.num_batches_tracked = norm.num_batches_tracked
    new.training = norm.training
    return new
