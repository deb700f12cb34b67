"""Random augmentation of camera images and of the BEV frame, as BEVDet and BEVNeXt draw and apply it.

Numbers are drawn in the published order, so that the same random stream gives the same augmentation. Matrices act on
homogeneous columns: `canvas_from_img` on `(u, v, depth, 1)` in pixels and metres, `bev_from_ego` on `(x, y, z, 1)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, radians, sin
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from configs.schema import BevAugmentation, DataConfig
from scenes.loading import Crop, ImageLoader

FloatArray = NDArray[np.float64]


class RandomStream(Protocol):
    """What is asked of `numpy.random.Generator` or `numpy.random.RandomState`."""

    def uniform(self, low: float = ..., high: float = ...) -> Any: ...
    def choice(self, a: Sequence[int]) -> Any: ...


# --- camera images -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImageTransform:
    """How a source image becomes the network's canvas: resize, crop, flip, rotate, in this order."""

    factor: float
    """Resize factor that enters the matrix (not the ratio of the rounded sizes, as published)."""
    resized: tuple[int, int]
    """Height and width of the resized image."""
    crop: Crop
    """Left, top, right, bottom within the resized image; may leave it."""
    flip: bool = False
    rotate_degrees: float = 0.0
    """Counter-clockwise on the screen, about the centre of the canvas."""

    def canvas_from_img(self) -> FloatArray:
        """float64 `[4, 4]`: pixels of the source image to pixels of the canvas; depth is left alone."""
        left, top, right, bottom = self.crop
        width, height = right - left, bottom - top
        matrix = np.diag([self.factor, self.factor, 1.0, 1.0])
        matrix[:2, 3] = -left, -top
        if self.flip:
            matrix = _plane(np.diag([-1.0, 1.0]), np.array([width, 0.0])) @ matrix
        angle = radians(self.rotate_degrees)
        rotation = np.array([[cos(angle), sin(angle)], [-sin(angle), cos(angle)]])
        centre = np.array([width, height]) / 2
        canvas_from_img: FloatArray = _plane(rotation, centre - rotation @ centre) @ matrix
        return canvas_from_img

    def apply(self, image: Tensor, loader: ImageLoader, out: Tensor) -> None:
        """Write the canvas of `image` (uint8 `[H, W, 3]`) to `out` (uint8 `[height, width, 3]`)."""
        loader.resize_crop(image, self.resized, self.crop, out)
        if self.flip or self.rotate_degrees:
            canvas = Image.fromarray(out.numpy())
            if self.flip:
                canvas = canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            # Nearest pixel, black corners: Pillow's defaults, kept by the published loader.
            out.copy_(torch.from_numpy(np.array(canvas.rotate(self.rotate_degrees))))


def draw_image_transform(config: DataConfig, rng: RandomStream) -> ImageTransform:
    """Random resize, bottom crop, flip and rotation of one camera's images."""
    height, width = config.image_size
    augmentation = config.image_augmentation
    if augmentation is None:
        return plain_image_transform(config)
    factor = width / config.source_size[1] + float(rng.uniform(*augmentation.resize))
    resized = _resized(config.source_size, factor)
    rng.uniform(0.0, 0.0)  # the published recipes draw the height of the crop from an empty interval
    left = int(rng.uniform(0.0, max(0, resized[1] - width)))
    flip = augmentation.flip and bool(rng.choice((0, 1)))
    angle = float(rng.uniform(*augmentation.rotate_degrees))
    top = resized[0] - height
    return ImageTransform(factor, resized, (left, top, left + width, top + height), flip, angle)


def plain_image_transform(config: DataConfig) -> ImageTransform:
    """Resize to the width of the canvas and keep the bottom rows: what evaluation uses."""
    height, width = config.image_size
    factor = width / config.source_size[1]
    resized = _resized(config.source_size, factor)
    left, top = max(0, resized[1] - width) // 2, resized[0] - height
    return ImageTransform(factor, resized, (left, top, left + width, top + height))


def _resized(source: tuple[int, int], factor: float) -> tuple[int, int]:
    # Published: int(size * factor). The margin keeps a product that is whole but for float rounding.
    return int(source[0] * factor + 1e-6), int(source[1] * factor + 1e-6)


def _plane(linear: FloatArray, offset: FloatArray) -> FloatArray:
    matrix = np.eye(4)
    matrix[:2, :2] = linear
    matrix[:2, 3] = offset
    return matrix


# --- BEV frame -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BevTransform:
    """Rotation about z, scaling, then mirroring of the ego frame and of everything in it."""

    rotate_degrees: float = 0.0
    scale: float = 1.0
    flip_x: bool = False
    """x -> -x"""
    flip_y: bool = False
    """y -> -y"""

    def bev_from_ego(self) -> FloatArray:
        """float64 `[4, 4]`: flips @ scale @ rotation."""
        angle = radians(self.rotate_degrees)
        matrix = np.eye(4)
        matrix[:2, :2] = [[cos(angle), -sin(angle)], [sin(angle), cos(angle)]]
        matrix[:3, :3] *= self.scale
        signs = [-1.0 if self.flip_x else 1.0, -1.0 if self.flip_y else 1.0, 1.0, 1.0]
        bev_from_ego: FloatArray = np.diag(signs) @ matrix
        return bev_from_ego

    def apply(self, boxes: FloatArray) -> FloatArray:
        """Boxes `[n, 9]` (x, y, z, l, w, h, yaw, vx, vy) of the ego frame, in the BEV frame."""
        linear = self.bev_from_ego()[:3, :3]
        yaw = boxes[:, 6] + radians(self.rotate_degrees)
        if self.flip_x:
            yaw = np.pi - yaw
        if self.flip_y:
            yaw = -yaw
        return np.concatenate(
            [boxes[:, :3] @ linear.T, boxes[:, 3:6] * self.scale, yaw[:, None], boxes[:, 7:9] @ linear[:2, :2].T],
            axis=1,
        )


def draw_bev_transform(config: BevAugmentation | None, rng: RandomStream) -> BevTransform:
    """Random rotation, scaling and flips; the identity when `config` is `None`."""
    if config is None:
        return BevTransform()
    angle, scale = float(rng.uniform(*config.rotate_degrees)), float(rng.uniform(*config.scale))
    flip_x, flip_y = float(rng.uniform(0.0, 1.0)) < 0.5, float(rng.uniform(0.0, 1.0)) < 0.5
    return BevTransform(angle, scale, flip_x and config.flip_x, flip_y and config.flip_y)
