"""Rows of the index to samples: read, augment, and express everything in the key frame's ego frame.

What differs from the published loader, on purpose: a training sample that filtering leaves without boxes stays (the
losses handle it), where the original swaps in a random other one; evaluation does not read the LiDAR, so its depth
target is zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from configs.errors import DataError, UsageError
from configs.nuscenes import CAMERAS
from configs.schema import DataConfig
from scenes.augment import BevTransform, ImageTransform, draw_bev_transform, draw_image_transform, plain_image_transform
from scenes.boxes import inside, training_boxes, wrap_yaw
from scenes.depth_map import depth_maps, read_points
from scenes.frame import FloatArray, Frame
from scenes.loading import ImageLoader
from scenes.order import SampleKey, augmentation_stream, walk_stream
from scenes.sample import Sample

if TYPE_CHECKING:
    from scenes.index import SceneIndex


class SceneDataset(Dataset[Sample]):
    """Samples of an index, read on demand.

    `dataset[i]` is the i-th of `rows`; `dataset[SampleKey(row, epoch, position)]` any row, augmented for that place in
    training. The same key always gives the same sample.

    Args:
        index: where the samples are listed.
        rows: rows of the index, such as `index.rows_in("train")`.
        config: what to make of them.
        training: augment, drop boxes outside the range, and read the LiDAR for the depth target.
        seed: of the augmentation.
        key_images_only: leave the images of earlier frames out (`T` is 1 in `images` alone), for who remembers them.
    """

    def __init__(
        self,
        index: SceneIndex,
        rows: Sequence[int] | NDArray[np.int64],
        config: DataConfig,
        training: bool,
        seed: int = 0,
        key_images_only: bool = False,
    ) -> None:
        if any(side % config.depth_stride for side in config.image_size):
            raise UsageError(
                f"data.image_size {config.image_size} is not a multiple of data.depth_stride {config.depth_stride}",
                fix="choose an image size that is",
            )
        unknown = [camera for camera in config.cameras if camera not in CAMERAS]
        if unknown:
            raise UsageError(f"data.cameras: unknown {', '.join(unknown)}", fix=f"known are {', '.join(CAMERAS)}")
        self.index = index
        self.rows = np.asarray(rows, np.int64)
        self.config = config
        self.training = training
        self.seed = seed
        self.key_images_only = key_images_only
        self._cameras = [CAMERAS.index(camera) for camera in config.cameras]
        self._loader = ImageLoader()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int | SampleKey) -> Sample:
        key = item if isinstance(item, SampleKey) else SampleKey(int(self.rows[item]), 0, int(item))
        frames = self._frames(key.row)
        image_transforms, bev_transform = self._transforms(key)
        boxes, labels = self._boxes(frames[0], bev_transform)
        canvas_from_img = np.stack([transform.canvas_from_img() for transform in image_transforms])
        images, whole = self._images(frames[:1] if self.key_images_only else frames, image_transforms)
        return Sample(
            images=images,
            img_from_cam=_float32([_homogeneous(frame.intrinsics[self._cameras]) for frame in frames]),
            ego_from_cam=_float32([key_ego_from_cam(frames[0], frame)[self._cameras] for frame in frames]),
            canvas_from_img=_float32([canvas_from_img] * len(frames)),
            bev_from_ego=_float32(bev_transform.bev_from_ego()),
            global_from_ego=torch.from_numpy(frames[0].global_from_ego.copy()),
            depth=self._depth(frames[0], canvas_from_img),
            boxes=_float32(boxes),
            labels=torch.from_numpy(labels),
            row=key.row,
            token=frames[0].token,
            walk=key.walk and (key.walk.slot, key.walk.age),
            whole=whole,
        )

    def row_after(self, row: int) -> int:
        """The row that stands in for one that cannot be read: the next one of the data set, round about."""
        rows = np.sort(self.rows)
        return int(rows[np.searchsorted(rows, row, side="right") % len(rows)])

    def frame_rows(self, row: int) -> list[int]:
        """Rows of a sample's frames, the key frame first; where the scene begins, it stands in (as published)."""
        earliest = self.index.scene_of(row).first_row
        return [row - age if row - age >= earliest else row for age in range(self.config.frames)]

    def _frames(self, row: int) -> list[Frame]:
        key = self.index.frame(row)
        frames = [key if other == row else self.index.frame(other) for other in self.frame_rows(row)]
        for one in frames:
            if one.image_size != self.config.source_size:
                raise DataError(
                    f"images of sample {one.token} are {one.image_size} (height, width), "
                    f"the recipe's data.source_size is {self.config.source_size}",
                    fix=f"choose another recipe or data set, or --set data.source_size={list(one.image_size)}",
                )
        return frames

    def _transforms(self, key: SampleKey) -> tuple[list[ImageTransform], BevTransform]:
        if not self.training:
            return [plain_image_transform(self.config)] * len(self._cameras), BevTransform()
        rng = augmentation_stream(self.seed, key.epoch, key.position)
        images = [draw_image_transform(self.config, rng) for _ in self._cameras]
        if key.walk:  # the raster that BEV maps are carried on in moves with the car alone
            rng = walk_stream(self.seed, key.epoch, key.walk.begun)
        return images, draw_bev_transform(self.config.bev_augmentation, rng)

    def _images(self, frames: list[Frame], transforms: list[ImageTransform]) -> tuple[Tensor, Tensor | None]:
        """uint8 `[T, N, 3, H, W]`: augmented, and whole if asked for; in memory the colours of a pixel lie together."""
        count = (len(frames), len(self._cameras))
        images = torch.empty(*count, *self.config.image_size, 3, dtype=torch.uint8)
        size = self.config.whole_size
        whole = None if size is None else torch.empty(*count, *size, 3, dtype=torch.uint8)
        for t, frame in enumerate(frames):
            if t > 0 and frame is frames[0]:
                images[t].copy_(images[0])
                if whole is not None:
                    whole[t].copy_(whole[0])
                continue
            for n, (camera, transform) in enumerate(zip(self._cameras, transforms, strict=True)):
                image = self._loader.read(frame.image_paths[camera], frame.image_size)
                if whole is not None:
                    self._loader.resize(image, whole[t, n])
                transform.apply(image, self._loader, images[t, n])
        return images.permute(0, 1, 4, 2, 3), None if whole is None else whole.permute(0, 1, 4, 2, 3)

    def _boxes(self, frame: Frame, transform: BevTransform) -> tuple[FloatArray, NDArray[np.int64]]:
        boxes, labels = training_boxes(frame.annotations, frame.global_from_ego)
        boxes = transform.apply(boxes)
        if self.training:
            kept = inside(boxes, self.config.box_range)
            boxes, labels = boxes[kept], labels[kept]
        return wrap_yaw(boxes), labels

    def _depth(self, frame: Frame, canvas_from_img: FloatArray) -> Tensor:
        height, width = self.config.image_size
        stride = self.config.depth_stride
        if not self.training:
            return torch.zeros(len(self._cameras), height // stride, width // stride)
        maps = depth_maps(
            read_points(frame.lidar.path),
            img_from_lidar(frame)[self._cameras],
            canvas_from_img,
            self.config.image_size,
            self.config.depth_range,
            stride,
        )
        return torch.from_numpy(maps)


def key_ego_from_cam(key: Frame, frame: Frame) -> FloatArray:
    """float64 `[6, 4, 4]`: cameras of `frame`, each at its own time, to the ego frame of the key frame."""
    ego_from_cam: FloatArray = np.linalg.inv(key.global_from_ego) @ frame.global_from_ego_cam @ frame.ego_from_cam
    return ego_from_cam


def img_from_lidar(frame: Frame) -> FloatArray:
    """float64 `[6, 4, 4]`: LiDAR points to `(u z, v z, z, 1)` in each stored image, through each sensor's own pose."""
    cam_from_global = np.linalg.inv(frame.global_from_ego_cam @ frame.ego_from_cam)
    global_from_lidar = frame.lidar.global_from_ego @ frame.lidar.ego_from_lidar
    projections: FloatArray = _homogeneous(frame.intrinsics) @ cam_from_global @ global_from_lidar
    return projections


def _homogeneous(intrinsics: FloatArray) -> FloatArray:
    matrices = np.tile(np.eye(4), (len(intrinsics), 1, 1))
    matrices[:, :3, :3] = intrinsics
    return matrices


def _float32(values: FloatArray | list[FloatArray]) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))
