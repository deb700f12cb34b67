"""Lift-splat pooling: camera features, spread along their rays by depth probability, summed into BEV cells.

    bev[cell] = sum over (pixel, bin) with cell(pixel, bin) == cell of depth[pixel, bin] * context[pixel]

The published kernel (`bev_pool_v2` of BEVDet) sorts the frustum points by cell. Here pixels are taken in small groups,
whose products live only while they are added to the raster, and the backward pass computes them again: neither the
products of all frustum points nor an order of them is ever held.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

PRODUCTS_AT_ONCE = 2**20
"""Numbers (points x channels) that a group of pixels may spread to: 4 MiB, which a CPU's cache still holds."""


def pool_views(depth: Tensor, context: Tensor, cells: Tensor, num_cells: int) -> Tensor:
    """Sum weighted pixel features into cells.

    Args:
        depth: `[P, D]` weight of each depth bin of each pixel.
        context: `[P, C]` features.
        cells: int64 `[P, D]` cell that a bin of a pixel falls into, `num_cells` where it falls into none.
        num_cells: cells of all samples together.

    Returns:
        `[num_cells, C]`.
    """
    return _PoolViews.apply(depth, context, cells, num_cells)  # type: ignore[no-any-return]


class _PoolViews(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, depth: Tensor, context: Tensor, cells: Tensor, num_cells: int) -> Tensor:
        ctx.save_for_backward(depth, context, cells)
        # One row more than there are cells takes what falls outside.
        bev = context.new_zeros(num_cells + 1, context.shape[1])
        for group in _groups(depth, context):
            products = depth[group].unsqueeze(2) * context[group].unsqueeze(1)
            bev.index_add_(0, cells[group].flatten(), products.flatten(0, 1))
        return bev[:num_cells]

    @staticmethod
    def backward(ctx: Any, grad_bev: Tensor) -> tuple[Tensor, Tensor, None, None]:
        depth, context, cells = ctx.saved_tensors
        grad_depth, grad_context = torch.empty_like(depth), torch.empty_like(context)
        grad_cells = torch.cat([grad_bev, grad_bev.new_zeros(1, grad_bev.shape[1])])
        for group in _groups(depth, context):
            grad_points = grad_cells[cells[group]]
            grad_depth[group] = torch.bmm(grad_points, context[group].unsqueeze(2)).squeeze(2)
            grad_context[group] = torch.bmm(depth[group].unsqueeze(1), grad_points).squeeze(1)
        return grad_depth, grad_context, None, None


def _groups(depth: Tensor, context: Tensor) -> Iterator[slice]:
    pixels = max(1, PRODUCTS_AT_ONCE // (depth.shape[1] * context.shape[1]))
    return (slice(start, start + pixels) for start in range(0, depth.shape[0], pixels))
