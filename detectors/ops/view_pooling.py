"""Lift-splat pooling: camera features, spread along their rays by depth probability, summed into BEV cells.

    bev[cell] = sum over (pixel, bin) with cell(pixel, bin) == cell of depth[pixel, bin] * context[pixel]

The published kernel (`bev_pool_v2` of BEVDet) sorts the frustum points by cell, once for each direction. Here pixels
are taken in small groups, whose products live only while they are added to the raster. The backward pass reads the
gradient of the cells along each ray: a weighted sum of table rows, which `embedding_bag` computes without storing the
rows. Neither the products of all frustum points nor an order of them is ever held.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

PRODUCTS_AT_ONCE = 2**18
"""Numbers (points x channels) that a group of pixels may spread to on a CPU: 1 MiB, which its cache still holds."""
PRODUCTS_AT_ONCE_ACCELERATOR = 2**26
"""On an accelerator: few launches matter more."""


def pool_views(depth: Tensor, context: Tensor, cells: Tensor, num_cells: int) -> Tensor:
    """Sum weighted pixel features into cells.

    Args:
        depth: `[P, D]` weight of each depth bin of each pixel.
        context: `[P, C]` features.
        cells: int32 or int64 `[P, D]` cell that a bin of a pixel falls into, `num_cells` where it falls into none.
        num_cells: cells of all samples together.

    Returns:
        `[num_cells, C]`.
    """
    return _PoolViews.apply(depth, context, cells, num_cells)  # type: ignore[no-any-return]


@torch.no_grad()
def pooled_weight(depth: Tensor, cells: Tensor, num_cells: int) -> Tensor:
    """Depth weight that falls into each cell, `[num_cells, 1]`, without gradient; arguments as for `pool_views`."""
    weight = depth.new_zeros(num_cells + 1)
    weight.index_add_(0, cells.flatten(), depth.flatten())
    return weight[:num_cells, None]


class _PoolViews(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, depth: Tensor, context: Tensor, cells: Tensor, num_cells: int) -> Tensor:
        ctx.save_for_backward(depth, context, cells)
        # One row more than there are cells takes what falls outside.
        bev = context.new_zeros(num_cells + 1, context.shape[1])
        at_once = PRODUCTS_AT_ONCE if context.device.type == "cpu" else PRODUCTS_AT_ONCE_ACCELERATOR
        pixels = max(1, at_once // (depth.shape[1] * context.shape[1]))
        for start in range(0, depth.shape[0], pixels):
            group = slice(start, start + pixels)
            products = depth[group].unsqueeze(2) * context[group].unsqueeze(1)
            bev.index_add_(0, cells[group].flatten(), products.flatten(0, 1))
        return bev[:num_cells]

    @staticmethod
    def backward(ctx: Any, grad_bev: Tensor) -> tuple[Tensor, Tensor, None, None]:
        depth, context, cells = ctx.saved_tensors
        table = torch.cat([grad_bev, grad_bev.new_zeros(1, grad_bev.shape[1])])
        with torch.enable_grad():
            weights = depth.detach().requires_grad_()
            grad_context = embedding_bag(cells, table, per_sample_weights=weights, mode="sum")
        # Differentiating that sum along `context` gives context . grad_bev[cell] for every bin: depth's gradient.
        (grad_depth,) = torch.autograd.grad(grad_context, weights, context)
        return grad_depth, grad_context.detach(), None, None
