"""How batch normalisation counts what it sees in train mode: frame by frame, twice, or not at all.

All of it works through `momentum`, the counter and `forward` of a module, whatever its kind; evaluation is unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def frames_apart(module: nn.Module, frames: int) -> Iterator[None]:
    """Within it, a batch of `module` is `frames` equal parts, each normalised by its own statistics, in their order.

    The frames of a driving sample so give the results and running statistics of as many passes, one after the other.
    """
    norms = _norms_in_training(module) if frames > 1 else []
    for norm in norms:
        setattr(norm, "forward", _part_by_part(norm.forward, frames))  # noqa: B010 - hides the method, on this object
    try:
        yield
    finally:
        for norm in norms:
            delattr(norm, "forward")


@contextmanager
def counted_twice(module: nn.Module) -> Iterator[None]:
    """Within it, one pass moves running statistics as two passes over the same batch would."""
    norms = _norms_in_training(module)
    with _momenta(norms, [1 - (1 - _momentum(norm)) ** 2 for norm in norms]):
        yield
    for counter in _counters(norms):
        counter.add_(1)


@contextmanager
def not_counted(module: nn.Module) -> Iterator[None]:
    """Within it, a pass leaves running statistics as they are; recomputation leaves by an exception, early."""
    norms = _norms_in_training(module)
    before = [counter.clone() for counter in _counters(norms)]
    try:
        with _momenta(norms, [0.0] * len(norms)):
            yield
    finally:
        for counter, value in zip(_counters(norms), before, strict=True):
            counter.copy_(value)


def _norms_in_training(module: nn.Module) -> list[_BatchNorm]:
    return [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.training]


def _part_by_part(forward: Any, parts: int) -> Any:
    def in_parts(x: Tensor) -> Tensor:
        return torch.cat([forward(part) for part in x.chunk(parts)])

    return in_parts


@contextmanager
def _momenta(norms: list[_BatchNorm], values: list[float]) -> Iterator[None]:
    before = [norm.momentum for norm in norms]
    for norm, value in zip(norms, values, strict=True):
        norm.momentum = value
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


def _momentum(norm: _BatchNorm) -> float:
    assert norm.momentum is not None, "cumulative statistics have no momentum"
    return norm.momentum


def _counters(norms: list[_BatchNorm]) -> list[Tensor]:
    return [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]
