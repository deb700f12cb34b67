"""BEVNeXt (CVPR 2024), both stages: the network from top to bottom.

Shape legend: B batch, T frames, N cameras, h w image features (stride 8), D depth bins, C BEV channels, Y X BEV cells.
Images of several frames stand frame by frame, `[T*B*N, ...]`. Module names are the published ones, so that published
weights load.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from configs.errors import UsageError
from configs.schema import BEVNeXtConfig, DataConfig
from detectors.bevnext.bev_encoder import BevBackbone, BevNeck
from detectors.bevnext.carrying import SlotMemory, into_rasters_of_key_frames, maps_of
from detectors.bevnext.decode import decode_maps
from detectors.bevnext.frames import EarlierFrames
from detectors.bevnext.grid import BevGrid, DepthBins
from detectors.bevnext.heads import box_head, proposal_head
from detectors.bevnext.image_neck import ImageNeck
from detectors.bevnext.losses import box_losses, depth_foreground, depth_loss, heatmap_loss
from detectors.bevnext.perspective import BACKGROUND, classes_in_perspective, perspective_loss
from detectors.bevnext.refinement import PerspectiveRefinement
from detectors.bevnext.streaming import FeatureStream, MapStream
from detectors.bevnext.targets import BEVNeXtTargets, ObjectTargets, assign, count_positives, draw_heatmaps
from detectors.bevnext.tasks import TASKS
from detectors.bevnext.temporal import NARROWING, FusingBevBackbone, TemporalFusion
from detectors.bevnext.view_transform import LiftedViews, ViewTransformer
from detectors.geometry import CameraGeometry, frame_by_frame
from detectors.image_hook import CameraViews
from detectors.interface import CameraBatch, Detections, Detector, Stream
from detectors.layers.batch_statistics import frames_apart
from detectors.layers.constants import constants
from detectors.layers.precision import at_least_float32
from detectors.layers.resnet import FINEST_STRIDE, ResNet

STRIDES = (FINEST_STRIDE, 2 * FINEST_STRIDE, 4 * FINEST_STRIDE)
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
        self.config, self.frames = model, data.frames
        self.grid, self.bins = BevGrid.of(model.bev), DepthBins.of(model.depth)
        channels, encoder = model.bev.channels, model.bev_encoder
        stages = encoder.stage_channels
        # The order of these lines is the order of parameters in published files.
        self.pts_bbox_head = box_head(channels, model.head)
        self.img_backbone = ResNet(
            model.backbone.kind, model.backbone.width, model.backbone.checkpointing, model.double_statistics
        )
        self.img_neck = ImageNeck(self.img_backbone.out_channels, model.neck_channels)
        self.img_view_transformer = ViewTransformer(model, data)
        self.img_bev_encoder_backbone = _bev_backbone(model, data.frames)
        self.img_bev_encoder_neck = BevNeck(stages[0] + stages[2], encoder.neck_channels, encoder.out_channels)
        self.pre_process_net = BevBackbone(channels, (channels,), (2,), stride=1)
        self.transformer_neck = PerspectiveRefinement(model, data)
        self.proposal_head = proposal_head(encoder.out_channels, model.head)
        self.depth_emb = _depth_embedding(self.bins.count, channels)
        self.image_branch_only = model.perspective is not None and model.perspective.only
        carries = data.streaming is not None and not self.image_branch_only
        self.memory: SlotMemory | None = SlotMemory(data.frames) if carries else None
        if self.image_branch_only:
            _freeze_all_but(self, ("img_backbone", "img_neck", "img_view_transformer"))

    def forward(self, batch: CameraBatch) -> BEVNeXtOutputs:
        """Normalise images on the device, make features of all frames, `detect`.

        Samples on a walk along a scene hold the key frame's images alone; maps of the frames before it are remembered.
        """
        canvas = batch.images[:, 0].flatten(0, 1)
        features = self.image_features(self.normalise(canvas), self.views(batch, slice(0, 1)))
        geometry = CameraGeometry.of_key_frame(batch)
        if self.memory is not None and batch.walk:
            lifted, bev = self.key_frame_bev(features, canvas, geometry)
            frames = self.memory.frames_of(batch.walk, maps_of(bev, batch))
            return self.find(lifted, torch.cat([bev, into_rasters_of_key_frames(frames, self.grid)], 1), geometry)
        earlier = None
        if self.frames > 1 and not self.image_branch_only:
            images = self.normalise(frame_by_frame(batch.images[:, 1:]).flatten(0, 1))
            features_then = self.earlier_features(images, self.views(batch, slice(1, None)))
            earlier = EarlierFrames(features_then, CameraGeometry.of_earlier_frames(batch))
        return self.detect(features, canvas, geometry, earlier)

    @property
    def image_channels(self) -> dict[int, int]:
        return dict(zip(STRIDES, self.img_backbone.out_channels, strict=True))

    def views(self, batch: CameraBatch, frames: slice) -> CameraViews | None:
        """What the hook `sam` is told of the images of these frames; `None` without one."""
        return None if self.sam is None else CameraViews.of_frames(batch, frames)

    def image_features(self, images: Tensor, views: CameraViews | None = None) -> Tensor:
        """`[M, C', h, w]` of normalised images `[M, 3, H, W]`; `views` of the same images where there is a `sam`."""
        levels = self.img_backbone(images)
        if self.sam is not None:
            if views is None:
                raise UsageError(
                    "image_features: `sam` needs the views of these images", fix="give `views(batch, ...)`"
                )
            changed = self.sam(dict(zip(STRIDES, levels, strict=True)), views)
            levels = tuple(changed[stride] for stride in STRIDES)
        features: Tensor = self.img_neck(levels)
        return features

    def replace_backbone(self, backbone: nn.Module, out_channels: tuple[int, ...]) -> None:
        """Take another network for the image backbone: its maps have strides 8, 16, 32 and these channels."""
        taken: Any = backbone
        self.img_backbone = taken
        self.img_neck = ImageNeck(out_channels, self.config.neck_channels)

    @torch.no_grad()
    def earlier_features(self, images: Tensor, views: CameraViews | None = None) -> Tensor:
        """As `image_features`, of all earlier frames at once `[(T-1)*B*N, 3, H, W]`, each with its own statistics."""
        with frames_apart(self.img_backbone, self.frames - 1):
            return self.image_features(images, views)

    def detect(
        self, features: Tensor, canvas: Tensor, geometry: CameraGeometry, earlier: EarlierFrames | None = None
    ) -> BEVNeXtOutputs:
        """From image features of the key frame `[B*N, C', h, w]` and of earlier ones to raw outputs.

        Args: `canvas` the key frame's images as uint8 RGB `[B*N, 3, H, W]`.
        """
        if self.image_branch_only:
            depth, context = self.img_view_transformer.in_perspective(features, canvas, geometry)
            return BEVNeXtOutputs(depth, [], [], context)
        # The key frame is first: running statistics follow the order, and autocast remembers weights with gradient.
        lifted, bev = self.key_frame_bev(features, canvas, geometry)
        if earlier is not None:
            bev = torch.cat([bev, self._earlier_bev(earlier, canvas)], 1)
        return self.find(lifted, bev, geometry)

    def key_frame_bev(self, features: Tensor, canvas: Tensor, geometry: CameraGeometry) -> tuple[LiftedViews, Tensor]:
        """The key frame lifted, and its BEV map `[B, C, Y, X]`; arguments as of `detect`."""
        lifted = self.img_view_transformer(features, canvas, geometry)
        (bev,) = self.pre_process_net(lifted.bev)
        return lifted, bev

    def find(self, lifted: LiftedViews, bev: Tensor, geometry: CameraGeometry) -> BEVNeXtOutputs:
        """Raw outputs of the key frame, from the BEV maps of all frames `[B, T*C, Y, X]`, the key frame's first."""
        finest, _, coarsest = self.img_bev_encoder_backbone(bev)
        bev = self.img_bev_encoder_neck(finest, coarsest)
        heatmaps = self.proposal_head(bev)
        values = lifted.context + self.depth_emb(lifted.depth.detach())
        refined = self.transformer_neck(bev, values, geometry)
        return BEVNeXtOutputs(lifted.depth, heatmaps, self.pts_bbox_head(refined), lifted.context)

    @torch.no_grad()
    def _earlier_bev(self, earlier: EarlierFrames, canvas: Tensor) -> Tensor:
        """`[B, (T-1)*C, Y, X]`: earlier frames lifted into the key frame's raster, all at once."""
        frames = self.frames - 1
        with frames_apart(self.img_view_transformer, frames), frames_apart(self.pre_process_net, frames):
            lifted = self.img_view_transformer(earlier.features, canvas, earlier.geometry)
            (bev,) = self.pre_process_net(lifted.bev)
        out: Tensor = bev.unflatten(0, (frames, -1)).transpose(0, 1).flatten(1, 2)
        return out

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 RGB `[M, 3, H, W]` to what the backbone was trained on, in the weights' precision and channels-last."""
        precision = self.img_backbone.conv1.weight.dtype
        # Published quirk: channels are swapped to BGR, mean and deviation are not.
        ordered = images.flip(1) if self.config.bgr_input else images
        floats = ordered.to(precision, memory_format=torch.channels_last)
        mean, deviation = (constants(v, floats)[:, None, None] for v in (IMAGE_MEAN, IMAGE_DEVIATION))
        return floats.sub_(mean).div_(deviation)

    def targets(self, batch: CameraBatch) -> BEVNeXtTargets:
        """All objects at once, once for both heads and for the counts."""
        objects = assign(batch.boxes, batch.labels, self.grid)
        known = depth_foreground(batch.depth, self.bins).sum().float()
        return BEVNeXtTargets(
            counts=torch.cat([known[None], count_positives(objects, len(batch.boxes), self.grid)]),
            objects=objects,
            depth=batch.depth.flatten(0, 1),
            classes=classes_in_perspective(batch, self.bins, self.grid) if self.config.perspective else None,
        )

    def loss(
        self, outputs: BEVNeXtOutputs, targets: BEVNeXtTargets, normaliser: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Terms under their published names: `loss_depth`, `task{t}.loss_{heatmap,xy,z,whl,yaw,vel}`.

        With perspective supervision also `loss_perspective`; the image branch alone has no `task` terms.
        """
        counts = targets.counts if normaliser is None else normaliser
        with torch.autocast(counts.device.type, enabled=False):
            terms = self._image_losses(outputs, targets, counts[0])
            return terms if self.image_branch_only else terms | self._box_losses(outputs, targets.objects, counts[1:])

    def _image_losses(self, outputs: BEVNeXtOutputs, targets: BEVNeXtTargets, known_cells: Tensor) -> dict[str, Tensor]:
        depth = depth_loss(at_least_float32(outputs.depth), targets.depth, self.bins, known_cells)
        terms = {"loss_depth": self.config.depth.loss_weight * depth}
        if self.config.perspective and targets.classes is not None:
            terms["loss_perspective"] = self.config.perspective.loss_weight * perspective_loss(
                at_least_float32(outputs.context), targets.classes, self.config.perspective.class_weights, known_cells
            )
        return terms

    def _box_losses(self, outputs: BEVNeXtOutputs, targets: ObjectTargets, counts: Tensor) -> dict[str, Tensor]:
        peaks, objects = counts.view(2, len(TASKS))
        heatmaps = draw_heatmaps(targets, len(outputs.heatmaps[0]), self.grid)
        head = self.config.head
        terms = {}
        for t, task in enumerate(TASKS):
            terms[f"task{t}.loss_heatmap"] = heatmap_loss(
                at_least_float32(outputs.heatmaps[t]), heatmaps[:, task.span], peaks[t]
            )
            in_task = (targets.label >= task.span.start) & (targets.label < task.span.stop)
            boxes = box_losses(at_least_float32(outputs.boxes[t]), targets, in_task, objects[t], head.velocity_weight)
            terms |= {f"task{t}.loss_{name}": head.regression_weight * term for name, term in boxes.items()}
        return terms

    def stream(self) -> Stream | None:
        if self.frames == 1 or self.image_branch_only:
            return None
        return MapStream(self) if self.memory is not None else FeatureStream(self)

    def decode(self, outputs: BEVNeXtOutputs) -> list[Detections]:
        if self.image_branch_only:
            raise UsageError(
                "model.perspective.only: this recipe trains the image branch alone, it finds no boxes",
                fix="start the whole network from it with --set model.weights=FILE, and evaluate that",
            )
        with torch.no_grad():
            return decode_maps(outputs.heatmaps, outputs.boxes, self.grid, self.config.head)


def _bev_backbone(model: BEVNeXtConfig, frames: int) -> BevBackbone | FusingBevBackbone:
    channels, encoder = model.bev.channels, model.bev_encoder
    if encoder.fusion is None:
        return BevBackbone(channels, encoder.stage_channels, encoder.blocks, stride=2)
    fusion = TemporalFusion(frames * channels, channels, encoder.fusion.groups, encoder.fusion.group_channels)
    return FusingBevBackbone(fusion, channels, encoder.stage_channels, encoder.blocks)


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
    _check_fusion(model, data.frames)
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


def _check_fusion(model: BEVNeXtConfig, frames: int) -> None:
    encoder = model.bev_encoder
    if encoder.fusion is None:
        if frames != 1:
            raise UsageError(
                f"data.frames = {frames}: without model.bev_encoder.fusion the key frame is used alone",
                fix="data.frames = 1, or give model.bev_encoder.fusion",
            )
        return
    if frames % encoder.fusion.groups:
        raise UsageError(
            f"data.frames = {frames} cannot be shared by model.bev_encoder.fusion.groups = {encoder.fusion.groups}",
            fix=f"use a multiple of {encoder.fusion.groups}, or model.bev_encoder.fusion=null for one frame",
        )
    for channels in encoder.stage_channels:
        if channels % NARROWING:
            raise UsageError(
                f"model.bev_encoder.stage_channels: {channels} is not a multiple of {NARROWING}",
                fix=f"use {max(1, channels // NARROWING) * NARROWING}",
            )
