"""BEVNeXt (CVPR 2024), stage 1: the network from top to bottom.

Shape legend: B batch, N cameras, h w image features (stride 8), D depth bins, C BEV channels, Y X BEV cells.
Module names are the published ones, so that published weights load.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from configs.errors import UsageError
from configs.schema import BEVNeXtConfig, DataConfig
from detectors.bevnext.bev_encoder import BevBackbone, BevNeck
from detectors.bevnext.decode import decode_maps
from detectors.bevnext.grid import BevGrid, DepthBins
from detectors.bevnext.heads import box_head, proposal_head
from detectors.bevnext.image_neck import ImageNeck
from detectors.bevnext.losses import box_losses, depth_foreground, depth_loss, heatmap_loss
from detectors.bevnext.perspective import BACKGROUND, classes_in_perspective, perspective_loss
from detectors.bevnext.refinement import PerspectiveRefinement
from detectors.bevnext.targets import assign, count_positives, draw_heatmaps
from detectors.bevnext.tasks import TASKS
from detectors.bevnext.view_transform import ViewTransformer
from detectors.geometry import CameraGeometry
from detectors.interface import CameraBatch, Detections, Detector
from detectors.layers.precision import at_least_float32
from detectors.layers.resnet import FINEST_STRIDE, ResNet

IMAGE_MEAN = (123.675, 116.28, 103.53)
IMAGE_DEVIATION = (58.395, 57.12, 57.375)


@dataclass(frozen=True, slots=True)
class BEVNeXtOutputs:
    """Raw outputs of one forward pass."""

    depth: Tensor
    """float32 `[B*N, D, h, w]`: probability of each depth bin."""
    heatmaps: list[Tensor]
    """Per task: logits `[B, classes, Y, X]`."""
    boxes: list[Tensor]
    """Per task: `[B, 10, Y, X]` in the order of `tasks.REGRESSIONS`."""
    context: Tensor
    """float32 `[B*N, C, h, w]`: what was lifted."""


class BEVNeXt(Detector):
    """Cameras to boxes; every size comes from the recipe."""

    def __init__(self, model: BEVNeXtConfig, data: DataConfig) -> None:
        super().__init__()
        _check(model, data)
        self.config = model
        self.grid, self.bins = BevGrid.of(model.bev), DepthBins.of(model.depth)
        channels, encoder = model.bev.channels, model.bev_encoder
        stages = encoder.stage_channels
        # The order of these lines is the order of parameters in published files.
        self.pts_bbox_head = box_head(channels, model.head)
        self.img_backbone = ResNet(model.backbone.kind, model.backbone.width, model.backbone.checkpointing)
        self.img_neck = ImageNeck(self.img_backbone.out_channels, model.neck_channels)
        self.img_view_transformer = ViewTransformer(model, data)
        self.img_bev_encoder_backbone = BevBackbone(channels, stages, encoder.blocks, stride=2)
        self.img_bev_encoder_neck = BevNeck(stages[0] + stages[2], encoder.neck_channels, encoder.out_channels)
        self.pre_process_net = BevBackbone(channels, (channels,), (2,), stride=1)
        self.transformer_neck = PerspectiveRefinement(model, data)
        self.proposal_head = proposal_head(encoder.out_channels, model.head)
        self.depth_emb = _depth_embedding(self.bins.count, channels)
        # Published quirk: channels are swapped to BGR, mean and deviation are not.
        self.channel_order = (2, 1, 0) if model.bgr_input else (0, 1, 2)
        self.image_branch_only = model.perspective is not None and model.perspective.only
        if self.image_branch_only:
            _freeze_all_but(self, ("img_backbone", "img_neck", "img_view_transformer"))

    def forward(self, batch: CameraBatch) -> BEVNeXtOutputs:
        """Normalise the key frame's images on the device, then `forward_features`."""
        canvas = batch.images[:, 0].flatten(0, 1)
        return self.forward_features(self.normalise(canvas), canvas, CameraGeometry.of_key_frame(batch))

    def forward_features(self, images: Tensor, canvas: Tensor, geometry: CameraGeometry) -> BEVNeXtOutputs:
        """The network. `images` float32 `[B*N, 3, H, W]`, normalised; `canvas` the same images as uint8 RGB."""
        features = self.img_neck(self.img_backbone(images))
        if self.image_branch_only:
            depth, context = self.img_view_transformer.in_perspective(features, canvas, geometry)
            return BEVNeXtOutputs(depth, [], [], context)
        lifted = self.img_view_transformer(features, canvas, geometry)
        (bev,) = self.pre_process_net(lifted.bev)
        finest, _, coarsest = self.img_bev_encoder_backbone(bev)
        bev = self.img_bev_encoder_neck(finest, coarsest)
        heatmaps = self.proposal_head(bev)
        values = lifted.context + self.depth_emb(lifted.depth.detach())
        refined = self.transformer_neck(bev, values, geometry)
        return BEVNeXtOutputs(lifted.depth, heatmaps, self.pts_bbox_head(refined), lifted.context)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 RGB `[M, 3, H, W]` to what the backbone was trained on, in the weights' precision and channels-last."""
        precision = self.img_backbone.conv1.weight.dtype
        floats = images[:, self.channel_order].to(precision, memory_format=torch.channels_last)
        mean, deviation = (floats.new_tensor(v)[:, None, None] for v in (IMAGE_MEAN, IMAGE_DEVIATION))
        return floats.sub_(mean).div_(deviation)

    def normaliser(self, batch: CameraBatch) -> Tensor:
        """float32 `[13]`: image cells of known depth; per task, heat map peaks; per task, objects."""
        targets = assign(batch.boxes, batch.labels, self.grid)
        known = depth_foreground(batch.depth, self.bins).sum().float()
        return torch.cat([known[None], count_positives(targets, len(batch.boxes), self.grid)])

    def loss(self, outputs: BEVNeXtOutputs, batch: CameraBatch, normaliser: Tensor | None = None) -> dict[str, Tensor]:
        """Terms under their published names: `loss_depth`, `task{t}.loss_{heatmap,xy,z,whl,yaw,vel}`.

        With perspective supervision also `loss_perspective`; the image branch alone has no `task` terms.
        """
        counts = self.normaliser(batch) if normaliser is None else normaliser
        with torch.autocast(counts.device.type, enabled=False):
            terms = self._image_losses(outputs, batch, counts[0])
            return terms if self.image_branch_only else terms | self._box_losses(outputs, batch, counts[1:])

    def _image_losses(self, outputs: BEVNeXtOutputs, batch: CameraBatch, known_cells: Tensor) -> dict[str, Tensor]:
        depth = depth_loss(at_least_float32(outputs.depth), batch.depth.flatten(0, 1), self.bins, known_cells)
        terms = {"loss_depth": self.config.depth.loss_weight * depth}
        if self.config.perspective:
            classes = classes_in_perspective(batch, self.bins)
            terms["loss_perspective"] = self.config.perspective.loss_weight * perspective_loss(
                at_least_float32(outputs.context), classes, self.config.perspective.class_weights, known_cells
            )
        return terms

    def _box_losses(self, outputs: BEVNeXtOutputs, batch: CameraBatch, counts: Tensor) -> dict[str, Tensor]:
        peaks, objects = counts.view(2, len(TASKS))
        targets = assign(batch.boxes, batch.labels, self.grid)
        heatmaps = draw_heatmaps(targets, len(batch.boxes), self.grid)
        head = self.config.head
        terms = {}
        for t, task in enumerate(TASKS):
            classes = slice(task.classes[0], task.classes[-1] + 1)
            terms[f"task{t}.loss_heatmap"] = heatmap_loss(
                at_least_float32(outputs.heatmaps[t]), heatmaps[:, classes], peaks[t]
            )
            in_task = (targets.label >= classes.start) & (targets.label < classes.stop)
            boxes = box_losses(at_least_float32(outputs.boxes[t]), targets, in_task, objects[t], head.velocity_weight)
            terms |= {f"task{t}.loss_{name}": head.regression_weight * term for name, term in boxes.items()}
        return terms

    def decode(self, outputs: BEVNeXtOutputs) -> list[Detections]:
        if self.image_branch_only:
            raise UsageError(
                "model.perspective.only: this recipe trains the image branch alone, it finds no boxes",
                fix="start the whole network from it with --set model.weights=FILE, and evaluate that",
            )
        with torch.no_grad():
            return decode_maps(outputs.heatmaps, outputs.boxes, self.grid, self.config.head)


def _depth_embedding(bins: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(bins, bins, 1), nn.BatchNorm2d(bins), nn.ReLU(inplace=True), nn.Conv2d(bins, channels, 1)
    )


def _freeze_all_but(detector: nn.Module, kept: tuple[str, ...]) -> None:
    for name, child in detector.named_children():
        child.requires_grad_(name in kept)


def _check(model: BEVNeXtConfig, data: DataConfig) -> None:
    if model.perspective and model.bev.channels <= BACKGROUND:
        raise UsageError(
            f"model.bev.channels = {model.bev.channels}: model.perspective needs one for each class and the background",
            fix=f"use at least {BACKGROUND + 1}, or model.perspective=null",
        )
    if data.frames != 1:
        raise UsageError(f"data.frames = {data.frames}: this BEVNeXt uses the key frame alone", fix="data.frames = 1")
    if data.depth_stride != FINEST_STRIDE:
        raise UsageError(
            f"data.depth_stride = {data.depth_stride}: image features have stride {FINEST_STRIDE}",
            fix=f"data.depth_stride = {FINEST_STRIDE}",
        )
    for name, size in zip(("height", "width"), data.image_size, strict=True):
        if size % data.depth_stride:
            raise UsageError(
                f"data.image_size: {name} {size} is not a multiple of data.depth_stride {data.depth_stride}",
                fix=f"use {size - size % data.depth_stride}",
            )
    heads = model.refinement.heads
    if model.bev.channels % heads or model.bev.channels % 2:
        raise UsageError(
            f"model.bev.channels = {model.bev.channels} cannot be shared by model.refinement.heads = {heads}",
            fix=f"use an even multiple of {heads}",
        )
