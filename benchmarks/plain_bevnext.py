"""BEVNeXt written the obvious way, as the baseline of `bench detector`: the same weights, the same outputs.

Frame by frame; frustum points through 3x3 matrix products; pooling that sorts them; the CRF with unfolded windows and a
D x D matrix, every iteration kept for the backward pass; torchvision's deformable convolution on every device.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, unfold
from torchvision.ops import deform_conv2d

from configs.schema import BEVNeXtConfig, DataConfig
from detectors.bevnext.depth_net import CONTEXT_GROUPS
from detectors.bevnext.model import BEVNeXt, BEVNeXtOutputs
from detectors.bevnext.view_transform import DepthCrf, ViewTransformer
from detectors.geometry import CameraGeometry
from detectors.interface import CameraBatch
from detectors.ops.deform_conv import DeformConv


class PlainBEVNeXt(BEVNeXt):
    """Takes the state dict of a `BEVNeXt` of the same recipe."""

    def __init__(self, model: BEVNeXtConfig, data: DataConfig) -> None:
        super().__init__(model, data)
        self.img_view_transformer = PlainViewTransformer(model, data)

    def forward(self, batch: CameraBatch) -> BEVNeXtOutputs:
        canvas = batch.images[:, 0].flatten(0, 1)
        maps = []
        for t, geometry in enumerate(_geometries(batch)):
            with torch.set_grad_enabled(torch.is_grad_enabled() and t == 0):
                features = self.image_features(self.normalise(batch.images[:, t].flatten(0, 1)))
                lifted = self.img_view_transformer(features, canvas, geometry)
                maps += self.pre_process_net(lifted.bev)
            if t == 0:
                key = lifted
        finest, _, coarsest = self.img_bev_encoder_backbone(torch.cat(maps, 1))
        bev = self.img_bev_encoder_neck(finest, coarsest)
        values = key.context + self.depth_emb(key.depth.detach())
        refined = self.transformer_neck(bev, values, CameraGeometry.of_key_frame(batch))
        return BEVNeXtOutputs(key.depth, self.proposal_head(bev), self.pts_bbox_head(refined), key.context)


class PlainViewTransformer(ViewTransformer):
    """Lifting point by point."""

    def __init__(self, model: BEVNeXtConfig, data: DataConfig) -> None:
        super().__init__(model, data)
        self.crf = PlainCrf(model.crf, data.depth_stride)
        self.depth_net.context_conv[0] = PlainDeformConv(model.depth.channels, CONTEXT_GROUPS)

    def frustum_cells(self, geometry: CameraGeometry, feature_size: tuple[int, int]) -> Tensor:
        u, v, d = self._frustum(feature_size, geometry.translation)
        shape = (*feature_size, self.bins.count)
        points = torch.stack([u.expand(shape), v.expand(shape), d.expand(shape)], -1)
        points = points - geometry.canvas_translation[:, :, None, None, None]
        points = _through(torch.inverse(geometry.canvas_rotation), points)
        points = torch.cat([points[..., :2] * points[..., 2:], points[..., 2:]], -1)
        points = _through(geometry.rotation @ torch.inverse(geometry.intrinsics), points)
        points = points + geometry.translation[:, :, None, None, None]
        points = _through(geometry.bev_rotation[:, None].expand_as(geometry.rotation), points)
        ix, iy, iz = (axis.index(points[..., i]) for i, axis in enumerate((self.grid.x, self.grid.y, self.grid.z)))
        sample = torch.arange(len(points), device=points.device).view(-1, 1, 1, 1, 1)
        cell = (sample * self.grid.y.cells + iy) * self.grid.x.cells + ix
        inside = self.grid.x.holds(ix) & self.grid.y.holds(iy) & self.grid.z.holds(iz)
        return cell.masked_fill(~inside, len(points) * self.grid.cells)

    def _splat(self, depth: Tensor, context: Tensor, cells: Tensor, batch: int) -> Tensor:
        flat = pool_by_sorting(
            depth.permute(0, 2, 3, 1).flatten(),
            context.permute(0, 2, 3, 1).flatten(0, 2),
            cells,
            batch * self.grid.cells,
        )
        return flat.view(batch, self.grid.y.cells, self.grid.x.cells, -1).permute(0, 3, 1, 2)


def pool_by_sorting(depth: Tensor, context: Tensor, cells: Tensor, num_cells: int) -> Tensor:
    """Sum of weighted pixel features per cell `[num_cells, C]`: sort the points by cell, then sum run by run.

    Args: `depth` `[P*D]`, `context` `[P, C]`, `cells` `[..., D]` with `num_cells` where a point falls into none.
    """
    cell = cells.flatten()
    kept = (cell < num_cells).nonzero().squeeze(1)
    kept = kept[cell[kept].argsort(stable=True)]
    products = depth[kept, None] * context[kept // cells.shape[-1]]
    lengths = torch.bincount(cell[kept], minlength=num_cells)
    return torch.segment_reduce(products, "sum", lengths=lengths, unsafe=True, initial=0.0)


class PlainCrf(DepthCrf):
    """Mean field as its formula reads."""

    def forward(self, logits: Tensor, canvas: Tensor) -> Tensor:
        images, bins, h, w = logits.shape
        colours = avg_pool2d(canvas.float(), self.stride)
        windows = unfold(colours, 3, padding=1).view(images, 3, 9, h * w)
        distance = (windows - colours.flatten(2).unsqueeze(2)).square().sum(1)
        kernel = torch.exp(-distance / (2 * self.zeta**2)).unsqueeze(1)
        bin_number = torch.arange(bins, dtype=logits.dtype, device=logits.device)
        cost = (bin_number[:, None] - bin_number).abs()
        q = logits.softmax(1)
        for _ in range(self.iterations):
            neighbours = unfold(q, 3, padding=1).view(images, bins, 9, h * w)
            received = (neighbours * kernel).sum(2) * self.ws[0]
            q = (logits - (cost @ received).view_as(logits)).softmax(1)
        return q


class PlainDeformConv(DeformConv):
    """torchvision's kernel, whatever the device."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = deform_conv2d(x, self.conv_offset(x), self.weight, padding=1)
        return out


def plain_twin(detector: BEVNeXt, data: DataConfig) -> PlainBEVNeXt:
    """The baseline with the detector's weights, in its mode and on its device, in PyTorch's own memory order."""
    twin = PlainBEVNeXt(detector.config, data).to(next(detector.parameters()).device)
    twin.load_state_dict(detector.state_dict())
    return twin.to(memory_format=torch.contiguous_format).train(detector.training)


def _geometries(batch: CameraBatch) -> Iterator[CameraGeometry]:
    """The cameras of one frame after the other, the key frame first."""
    yield CameraGeometry.of_key_frame(batch)
    yield from CameraGeometry.of_earlier_frames(batch).split(len(batch.images))


def _through(matrix: Tensor, points: Tensor) -> Tensor:
    return (matrix[:, :, None, None, None] @ points.unsqueeze(-1)).squeeze(-1)
