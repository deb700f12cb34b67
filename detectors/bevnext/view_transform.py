"""From image features to BEV: depth network, CRF, frustum, pooling.

Shape legend: B samples of every frame (frame by frame), N cameras, h w feature map, D depth bins, C channels, Y X BEV
cells. A canvas is that of the key frame, whatever the number of frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from configs.errors import UsageError
from configs.schema import BEVNeXtConfig, CrfConfig, DataConfig
from detectors.bevnext.depth_net import DepthNet
from detectors.bevnext.grid import BevGrid, DepthBins
from detectors.geometry import CameraGeometry, Planes, inverse, rotate
from detectors.layers.precision import at_least_float32
from detectors.ops.mean_field import couple_equal_colours, mean_field
from detectors.ops.view_pooling import pool_views, pooled_weight

CELLS_AT_ONCE = 2**21
"""Numbers (pixels x bins) that share one run of the mean field: its backward pass holds `iterations` times as many."""
CELLS_AT_ONCE_ACCELERATOR = 2**24
"""On an accelerator: few launches, and few couplings to wait for, matter more (1.3 GB in 20 iterations)."""
HALF_A_PIXEL = 0.5
"""Weight added to the mean's denominator: what hardly any ray reaches stays near zero."""


@dataclass(frozen=True, slots=True)
class LiftedViews:
    """What the view transformer hands on."""

    bev: Tensor
    """float32 `[B, C, Y, X]`."""
    depth: Tensor
    """float32 `[B*N, D, h, w]`: probabilities."""
    context: Tensor
    """float32 `[B*N, C, h, w]`."""


class DepthCrf(nn.Module):
    """Mean-field modulation of depth logits by the colours of the key frame (`ws.0` is the coupling weight)."""

    def __init__(self, config: CrfConfig, stride: int) -> None:
        super().__init__()
        _require_binary_kernel(config.zeta, stride)
        self.iterations, self.zeta = config.iterations, config.zeta
        self.stride = stride
        weight = nn.Parameter(torch.tensor([config.weight]), requires_grad=config.trainable)
        self.ws = nn.ParameterList([weight])

    def forward(self, logits: Tensor, canvas: Tensor) -> Tensor:
        """Probabilities `[T*B*N, D, h, w]` from logits of that shape and the key frame's uint8 RGB `[B*N, 3, H, W]`.

        Earlier frames are modulated by the colours of the key frame, too (published quirk).
        """
        # Means of uint8 patches are exact in float32, so equality of colours is, too.
        colours = avg_pool2d(canvas.float(), self.stride)
        images, bins, h, w = logits.shape
        limit = CELLS_AT_ONCE if logits.device.type == "cpu" else CELLS_AT_ONCE_ACCELERATOR
        at_once = max(1, limit // (bins * h * w))
        couplings = [couple_equal_colours(part) for part in torch.split(colours, at_once)]
        probabilities = [
            mean_field(_rows(z), self.ws[0], coupling, self.iterations)
            for frame in torch.split(at_least_float32(logits), len(canvas))
            for z, coupling in zip(torch.split(frame, at_once), couplings, strict=True)
        ]
        return torch.cat(probabilities).view(images, h, w, bins).permute(0, 3, 1, 2)


class ViewTransformer(nn.Module):
    """Lift image features along their rays by depth probability and splat them into the ego frame's BEV raster."""

    def __init__(self, model: BEVNeXtConfig, data: DataConfig) -> None:
        super().__init__()
        self.grid = BevGrid.of(model.bev)
        self.pooling = model.bev.pooling
        self.bins = DepthBins.of(model.depth)
        self.image_size = data.image_size
        self.depth_net = DepthNet(model)
        self.crf = DepthCrf(model.crf, data.depth_stride)

    def forward(self, features: Tensor, canvas: Tensor, geometry: CameraGeometry) -> LiftedViews:
        """Args: `features` `[B*N, C', h, w]`; `canvas` uint8 RGB `[B*N, 3, H, W]`; the cameras."""
        depth, context = self.in_perspective(features, canvas, geometry)
        with torch.autocast(features.device.type, enabled=False):
            with torch.no_grad():
                cells = self.frustum_cells(geometry, (features.shape[2], features.shape[3]))
            bev = self._splat(depth, context, cells, geometry.rotation.shape[0])
        return LiftedViews(bev, depth, context)

    def in_perspective(self, features: Tensor, canvas: Tensor, geometry: CameraGeometry) -> tuple[Tensor, Tensor]:
        """What is known of each image cell before lifting: `depth` and `context` as in `LiftedViews`."""
        logits, context = self.depth_net(features, geometry.vector().flatten(0, 1))
        with torch.autocast(features.device.type, enabled=False):
            return self.crf(logits, canvas), at_least_float32(context)

    def frustum_points(self, geometry: CameraGeometry, feature_size: tuple[int, int]) -> Planes:
        """x, y, z in the augmented ego frame of every frustum point, each `[B, N, h, w, D]`, metres.

        Pixels are spread from corner to corner of the image and a bin stands at its lower edge, as published.
        """
        u, v, d = self._frustum(feature_size, geometry.translation)
        shift = geometry.canvas_translation[:, :, None, None, None]
        undo = inverse(geometry.canvas_rotation)[:, :, None, None, None]
        u, v = u - shift[..., 0], v - shift[..., 1]
        # The image augmentation is planar: depth does not enter here.
        u, v = undo[..., 0, 0] * u + undo[..., 0, 1] * v, undo[..., 1, 0] * u + undo[..., 1, 1] * v
        ego_from_img = geometry.rotation.matmul(inverse(geometry.intrinsics))
        x, y, z = rotate(ego_from_img[:, :, None, None, None], (u * d, v * d, d))
        move = geometry.translation[:, :, None, None, None]
        return rotate(
            geometry.bev_rotation[:, None, None, None, None], (x + move[..., 0], y + move[..., 1], z + move[..., 2])
        )

    def frustum_cells(self, geometry: CameraGeometry, feature_size: tuple[int, int]) -> Tensor:
        """int32 `[B, N, h, w, D]`: cell of each frustum point in the raster of the whole batch, row-major (b, y, x).

        Points outside carry the number of cells. Indices truncate toward zero, so the first cell of an axis also takes
        points up to one cell below the range (published quirk).
        """
        x, y, z = self.frustum_points(geometry, feature_size)
        grid = self.grid
        ix, iy, iz = grid.x.index(x), grid.y.index(y), grid.z.index(z)
        sample = torch.arange(x.shape[0], dtype=torch.int32, device=x.device)[:, None, None, None, None]
        cell = (sample * grid.y.cells + iy) * grid.x.cells + ix
        inside = grid.x.holds(ix) & grid.y.holds(iy) & grid.z.holds(iz)
        return cell.masked_fill_(~inside, x.shape[0] * grid.cells)

    def _frustum(self, feature_size: tuple[int, int], like: Tensor) -> Planes:
        (height, width), (h, w) = self.image_size, feature_size
        u = torch.linspace(0, width - 1, w, dtype=like.dtype, device=like.device)[:, None]
        v = torch.linspace(0, height - 1, h, dtype=like.dtype, device=like.device)[:, None, None]
        d = self.bins.lower + self.bins.step * torch.arange(self.bins.count, dtype=like.dtype, device=like.device)
        return u, v, d

    def _splat(self, depth: Tensor, context: Tensor, cells: Tensor, batch: int) -> Tensor:
        grid, cells = self.grid, cells.flatten(0, 3)
        flat = pool_views(_rows(depth), _rows(context), cells, batch * grid.cells)
        if self.pooling == "mean":
            flat = flat / (pooled_weight(_rows(depth), cells, batch * grid.cells) + HALF_A_PIXEL)
        return flat.view(batch, grid.y.cells, grid.x.cells, -1).permute(0, 3, 1, 2)


def _rows(maps: Tensor) -> Tensor:
    """`[M, C, h, w]` to `[M*h*w, C]`: no copy when the maps are in channels-last memory."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def _require_binary_kernel(zeta: float, stride: int) -> None:
    smallest_difference = 1.0 / stride**2
    if smallest_difference**2 / (2 * zeta**2) < 104:  # exp(-104) is zero in float32
        raise UsageError(
            f"model.crf.zeta = {zeta} at data.depth_stride = {stride}: unequal colours would couple a little",
            fix=f"use a zeta below {smallest_difference / 14.5:.2g}; only then is the kernel an equality test",
        )
