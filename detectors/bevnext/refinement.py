"""Perspective refinement: every BEV cell looks at the image features that the anchors above it project to.

One decoder layer of spatial cross attention (BEVFormer): deformable attention in the cameras that see a cell.
Shape legend: B batch, N cameras, Q = Y*X BEV cells, Z anchors, K (cell, camera) pairs, C channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from configs.schema import BEVNeXtConfig, DataConfig
from detectors.bevnext.grid import BevGrid
from detectors.bevnext.projection import ProjectedAnchors, project_anchors
from detectors.geometry import CameraGeometry
from detectors.layers.constants import constants
from detectors.layers.conv import ConvNormReLU
from detectors.layers.precision import at_least_float32


@dataclass(frozen=True, slots=True)
class SeenCells:
    """The (cell, camera) pairs with at least one visible anchor, and their place in a buffer with a row per pair."""

    cell: Tensor
    """int64 `[K]`: flat index (b, q)."""
    image: Tensor
    """int64 `[K]`: flat index (b, n)."""
    slot: Tensor
    """int64 `[K]`: rank of the pair within its image."""
    slots: int
    """Pairs of the fullest image, at least 1."""
    cameras: Tensor
    """`[B*Q, 1]`: cameras that see the cell, at least 1."""
    locations: Tensor
    """`[K, Z, 2]`: image coordinates (0..1) of the cell's anchors."""

    @classmethod
    def of(cls, anchors: ProjectedAnchors) -> SeenCells:
        seen = anchors.visible.any(-1)
        b, n, q = seen.nonzero(as_tuple=True)
        rank = seen.cumsum(-1) - 1
        return cls(
            cell=b * seen.shape[2] + q,
            image=b * seen.shape[1] + n,
            slot=rank[b, n, q],
            slots=max(1, int(rank.max()) + 1),
            cameras=seen.sum(1).clamp(min=1).flatten().unsqueeze(1),
            locations=anchors.locations[b, n, q],
        )


class DeformableAttention(nn.Module):
    """Each head samples a value at each anchor, moved by a learned offset, and weighs the anchors by softmax."""

    def __init__(self, channels: int, heads: int, anchors: int) -> None:
        super().__init__()
        self.heads, self.anchors = heads, anchors
        self.sampling_offsets = nn.Linear(channels, heads * anchors * 2)
        self.attention_weights = nn.Linear(channels, heads * anchors)
        self.value_proj = nn.Linear(channels, channels)
        self._initialise()

    def forward(self, query: Tensor, values: Tensor, seen: SeenCells) -> Tensor:
        """Args: `query` `[B*Q, C]`, `values` `[B*N, C, h, w]`. Returns `[K, C]`, one row per pair."""
        images, channels, h, w = values.shape
        offsets = self.sampling_offsets(query).view(-1, self.heads, self.anchors, 2)
        weights = self.attention_weights(query).view(-1, self.heads, self.anchors).softmax(-1)
        value = self.value_proj(values.permute(0, 2, 3, 1)).view(images, h, w, self.heads, -1)
        value = value.permute(0, 3, 4, 1, 2).flatten(0, 1)

        moved = seen.locations.unsqueeze(1) + offsets[seen.cell] / constants((w, h), offsets)
        place = (seen.image, seen.slot)
        grid = moved.new_full((images, seen.slots, self.heads, self.anchors, 2), 2.0)
        grid = grid.index_put(place, 2 * moved - 1).transpose(1, 2).flatten(0, 1)
        sampled = grid_sample(value, grid, align_corners=False)
        weight = weights.new_zeros(images, seen.slots, self.heads, self.anchors)
        weight = weight.index_put(place, weights[seen.cell]).transpose(1, 2).flatten(0, 1)
        attended: Tensor = (sampled * weight.unsqueeze(1)).sum(-1)
        return attended.view(images, channels, seen.slots).transpose(1, 2)[place]

    def _initialise(self) -> None:
        """Offsets point a head into its own direction, twice as far for every fourth anchor (published)."""
        for linear in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.value_proj.bias)
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().max(-1, keepdim=True).values
        reach = torch.arange(self.anchors) // 4 + 1
        with torch.no_grad():
            self.sampling_offsets.bias.copy_((direction[:, None] * reach[:, None]).flatten())


class SpatialCrossAttention(nn.Module):
    """Mean over the cameras that see a cell of what it attends to there, projected, added to the cell's query."""

    def __init__(self, channels: int, heads: int, anchors: int) -> None:
        super().__init__()
        self.deformable_attention = DeformableAttention(channels, heads, anchors)
        self.output_proj = nn.Linear(channels, channels)
        nn.init.zeros_(self.output_proj.bias)

    def forward(self, query: Tensor, position: Tensor, values: Tensor, seen: SeenCells) -> Tensor:
        """Args: `query` `[B, Q, C]`, `position` `[Q, C]`, `values` `[B*N, C, h, w]`. Returns `[B, Q, C]`."""
        attended = self.deformable_attention((query + position).flatten(0, 1), values, seen)
        summed = attended.new_zeros(query.shape[0] * query.shape[1], attended.shape[1])
        mean = summed.index_add(0, seen.cell, attended) / seen.cameras
        out: Tensor = query + self.output_proj(mean).view_as(query)
        return out


class FeedForward(nn.Module):
    """Two linear layers with ReLU between, residual; names as in mmcv."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        first = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True))
        self.layers = nn.Sequential(first, nn.Linear(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.layers(x)
        return out


class DecoderLayer(nn.Module):
    """Cross attention, norm, feed-forward, norm."""

    def __init__(self, channels: int, heads: int, anchors: int, hidden: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([SpatialCrossAttention(channels, heads, anchors)])
        self.ffns = nn.ModuleList([FeedForward(channels, hidden)])
        self.norms = nn.ModuleList([nn.LayerNorm(channels), nn.LayerNorm(channels)])

    def forward(self, query: Tensor, position: Tensor, values: Tensor, seen: SeenCells) -> Tensor:
        query = self.norms[0](self.attentions[0](query, position, values, seen))
        out: Tensor = self.norms[1](self.ffns[0](query))
        return out


class Decoder(nn.Module):
    """The stack of decoder layers: one, as published."""

    def __init__(self, layer: DecoderLayer) -> None:
        super().__init__()
        self.layers = nn.ModuleList([layer])

    def forward(self, query: Tensor, position: Tensor, values: Tensor, seen: SeenCells) -> Tensor:
        for layer in self.layers:
            query = layer(query, position, values, seen)
        return query


class LearnedPosition(nn.Module):
    """Positional encoding `[Y*X, C]`: the column's embedding in the first half, the row's in the second."""

    def __init__(self, rows: int, columns: int, channels: int) -> None:
        super().__init__()
        self.row_embed = nn.Embedding(rows, channels // 2)
        self.col_embed = nn.Embedding(columns, channels // 2)

    def forward(self) -> Tensor:
        rows, columns = self.row_embed.weight, self.col_embed.weight
        shape = (rows.shape[0], columns.shape[0], -1)
        return torch.cat([columns[None].expand(*shape), rows[:, None].expand(*shape)], -1).flatten(0, 1)


class PerspectiveRefinement(nn.Module):
    """BEV features `[B, C', Y, X]` and image features `[B*N, C, h, w]` to refined BEV features `[B, C, Y, X]`."""

    def __init__(self, model: BEVNeXtConfig, data: DataConfig) -> None:
        super().__init__()
        self.grid, self.anchors, self.image_size = BevGrid.of(model.bev), model.refinement.anchors, data.image_size
        channels, hidden = model.bev.channels, model.bev.channels * model.refinement.feedforward_ratio
        self.decoder = Decoder(DecoderLayer(channels, model.refinement.heads, self.anchors, hidden))
        self.bev_embedding = nn.Embedding(self.grid.cells, channels)
        self.positional_encoding = LearnedPosition(self.grid.y.cells, self.grid.x.cells, channels)
        self.shared_conv = ConvNormReLU(model.bev_encoder.out_channels, channels)
        self._initialise()

    def forward(self, bev: Tensor, values: Tensor, geometry: CameraGeometry) -> Tensor:
        query_maps = self.shared_conv(bev)
        # Rows in float32: sampling positions need it, and the rest is small.
        with torch.autocast(bev.device.type, enabled=False):
            with torch.no_grad():
                seen = SeenCells.of(project_anchors(geometry, self.grid, self.anchors, self.image_size))
            query = at_least_float32(query_maps).permute(0, 2, 3, 1).flatten(1, 2) + self.bev_embedding.weight
            refined: Tensor = self.decoder(query, self.positional_encoding(), at_least_float32(values), seen)
        return refined.transpose(1, 2).reshape_as(query_maps)

    def _initialise(self) -> None:
        """Xavier for every matrix but those that deformable attention starts at zero."""
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1 and "sampling_offsets" not in name and "attention_weights" not in name:
                nn.init.xavier_uniform_(parameter)
