"""A BEVNeXt of a few thousand weights, and batches for it."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from goldens import affine

from configs.schema import (
    BackboneConfig,
    BevEncoderConfig,
    BevGridConfig,
    BEVNeXtConfig,
    CrfConfig,
    DataConfig,
    DepthConfig,
    HeadConfig,
    RefinementConfig,
    TemporalFusionConfig,
)

DATA = DataConfig(image_size=(64, 128))
MODEL = BEVNeXtConfig(
    backbone=BackboneConfig(kind="resnet18", width=8, checkpointing=False),
    neck_channels=16,
    depth=DepthConfig(bins=(1.0, 41.0, 4.0), channels=16, checkpointing=False),
    crf=CrfConfig(iterations=3),
    bev=BevGridConfig(x=(-51.2, 51.2, 6.4), y=(-51.2, 51.2, 6.4), channels=16),
    bev_encoder=BevEncoderConfig(stage_channels=(16, 16, 16), blocks=(1, 1, 1), neck_channels=16, out_channels=16),
    refinement=RefinementConfig(heads=4, anchors=4, feedforward_ratio=2),
    head=HeadConfig(channels=8, heatmap_bias=-2.19),
    double_statistics=False,
)
DATA_2 = DATA.model_copy(update={"frames": 6})
MODEL_2 = MODEL.model_copy(
    update={
        "bev_encoder": MODEL.bev_encoder.model_copy(
            update={"fusion": TemporalFusionConfig(groups=3, group_channels=4)},
        )
    }
)
"""Stage 2, six frames."""


def random_batch(samples: int, seed: int = 0, objects: int = 12, data: DataConfig = DATA) -> SimpleNamespace:
    """uint8 images from six cameras around a car that drives straight on, sparse depth, boxes of every class."""
    generator = torch.Generator().manual_seed(seed)
    height, width = data.image_size

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    yaw = torch.arange(6) * torch.pi / 3
    cos, sin, zero = yaw.cos(), yaw.sin(), torch.zeros(6)
    # Columns: the camera's x (right), y (down), z (forward) axes in the ego frame.
    rotation = torch.stack([sin, zero, cos, -cos, zero, sin, zero, zero - 1, zero], -1).view(6, 3, 3)
    driven = 3.0 * torch.arange(data.frames)
    translation = torch.stack([1 - driven, 0 * driven, 0 * driven + 1.6], -1)[:, None].expand(-1, 6, 3)
    intrinsics = torch.tensor([[0.6 * width, 0, width / 2], [0, 0.6 * width, height / 2], [0, 0, 1]])
    per_camera = (samples, data.frames, 6, 4, 4)
    depth = uniform(-60, 60, samples, 6, height // 8, width // 8)
    boxes = [
        torch.cat(
            [
                uniform(-50, 50, objects, 2),
                uniform(-1, 1, objects, 1),
                uniform(0.5, 8, objects, 3),
                uniform(-3, 3, objects, 3),
            ],
            1,
        )
        for _ in range(samples)
    ]
    return SimpleNamespace(
        images=torch.randint(
            0, 256, (samples, data.frames, 6, 3, height, width), dtype=torch.uint8, generator=generator
        ),
        img_from_cam=affine(intrinsics).expand(per_camera),
        ego_from_cam=affine(rotation.expand(data.frames, 6, 3, 3), translation).expand(per_camera),
        canvas_from_img=torch.eye(4).expand(per_camera),
        bev_from_ego=torch.eye(4).expand(samples, 4, 4),
        global_from_ego=torch.eye(4, dtype=torch.float64).expand(samples, 4, 4),
        walk=[],
        depth=depth.clamp(min=0),
        boxes=boxes,
        labels=[torch.randint(0, 10, (objects,), generator=generator) for _ in range(samples)],
    )


def sample_of(batch: SimpleNamespace, i: int) -> SimpleNamespace:
    """The batch of sample `i` alone."""
    return SimpleNamespace(**{name: value[i : i + 1] for name, value in vars(batch).items()})
