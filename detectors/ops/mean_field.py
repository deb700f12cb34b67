"""Mean-field inference over depth bins, coupled between neighbouring cells of equal colour.

    q(0) = softmax(z);   q(t) = softmax(z - e(t)),   e(t) = w * |d - d'| summed against K q(t-1) over d'

K adds the 3x3 neighbours of a cell that have exactly the cell's mean colour, itself included. The published kernel
exp(-|p_i - p_j|^2 / 2 zeta^2) is exactly that in float32: colours are multiples of 1/64 and zeta is 0.001, so that any
difference gives exp(-122) = 0. The product with |d - d'| is two running sums instead of a D x D matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detectors.layers.constants import constants

NEIGHBOURS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))


@dataclass(frozen=True, slots=True)
class Coupling:
    """Which cells count which neighbours; cells without any are left out, on natural images nearly all."""

    cells: Tensor
    """int64 `[M]`: flat index (image, row, column) of the coupled cells, ascending."""
    neighbours: Tensor
    """int64 `[M, 8]`: flat index of each neighbour, the cell itself where it does not count."""
    counts: Tensor
    """bool `[M, 8]`: whether the neighbour counts."""


def couple_equal_colours(colours: Tensor) -> Coupling:
    """Couple the 3x3 neighbours of equal colour; `colours` is `[images, 3, h, w]`."""
    images, _, h, w = colours.shape
    equal = torch.zeros(images, h, w, 8, dtype=torch.bool, device=colours.device)
    for k, (dy, dx) in enumerate(NEIGHBOURS):
        rows, columns = slice(max(0, -dy), h - max(0, dy)), slice(max(0, -dx), w - max(0, dx))
        rows_there, columns_there = slice(max(0, dy), h + min(0, dy)), slice(max(0, dx), w + min(0, dx))
        there = colours[:, :, rows_there, columns_there]
        equal[:, rows, columns, k] = (colours[:, :, rows, columns] == there).all(1)
    equal = equal.flatten(0, 2)
    cells = equal.any(1).nonzero().squeeze(1)
    steps = constants([dy * w + dx for dy, dx in NEIGHBOURS], cells)
    counts = equal[cells]
    return Coupling(cells, cells[:, None] + steps * counts, counts)


def mean_field(logits: Tensor, weight: Tensor, coupling: Coupling, iterations: int) -> Tensor:
    """Depth probabilities `[cells, D]` after `iterations` of mean field, from `logits` `[cells, D]` and `weight` `[1]`.

    Only the logits are kept for the backward pass, which computes the iterations again.
    """
    return _MeanField.apply(logits, weight, coupling, iterations)  # type: ignore[no-any-return]


class _MeanField(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, weight: Tensor, coupling: Coupling, iterations: int) -> Tensor:
        ctx.save_for_backward(logits, weight)
        ctx.coupling, ctx.iterations = coupling, iterations
        q = logits.softmax(1)
        for _ in range(iterations):
            q = _step(logits, weight, coupling, q)
        return q

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        logits, weight = ctx.saved_tensors
        states = [logits.softmax(1)]
        for _ in range(ctx.iterations):
            states.append(_step(logits, weight, ctx.coupling, states[-1]))
        grad_logits, grad_weight = torch.zeros_like(logits), torch.zeros_like(weight)
        for q, q_before in zip(states[:0:-1], states[-2::-1], strict=True):
            through_softmax = _softmax_backward(q, grad)
            grad_logits += through_softmax
            # K and |d - d'| are symmetric: the message's transpose is the message.
            message = _message(through_softmax, ctx.coupling)
            grad_weight -= (message * q_before).sum()
            grad = message.mul_(-weight)
        grad_logits += _softmax_backward(states[0], grad)
        return grad_logits, grad_weight, None, None


def _step(logits: Tensor, weight: Tensor, coupling: Coupling, q: Tensor) -> Tensor:
    return torch.sub(logits, _message(q, coupling).mul_(weight)).softmax(1)


def _message(q: Tensor, coupling: Coupling) -> Tensor:
    """|d - d'| summed against K q over d'."""
    received = q[coupling.neighbours].mul_(coupling.counts.unsqueeze(2)).sum(1)
    return absolute_difference_product(q.index_add(0, coupling.cells, received))


def absolute_difference_product(m: Tensor) -> Tensor:
    """Sum of |d - d'| m(d') over d' for every d of `m` `[cells, D]`, by running sums.

    e(0) is the first moment; from d to d + 1 the sum grows by the mass up to d and falls by the mass beyond:
    e(d + 1) - e(d) = 2 A(d) - S with A the running and S the whole sum.
    """
    bins = torch.arange(m.shape[1], dtype=m.dtype, device=m.device)
    mass = m.cumsum(1)
    rise = mass.mul_(2).sub_(m.sum(1, keepdim=True))
    return torch.cat([m @ bins[:, None], rise[:, :-1]], 1).cumsum_(1)


def _softmax_backward(q: Tensor, grad: Tensor) -> Tensor:
    return (grad - (grad * q).sum(1, keepdim=True)).mul_(q)
