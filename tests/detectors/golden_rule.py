"""How the weights and inputs behind the golden files are drawn; every array follows from the key that names it.

`BEVNEXT_SAM2_GOLDEN_PREFIX` goes in front of every key, for golden files of the same layout with other numbers.
"""

from __future__ import annotations

import math
import os
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

PREFIX = os.environ.get("BEVNEXT_SAM2_GOLDEN_PREFIX", "")
TASK_CLASSES = (1, 2, 2, 1, 2, 2)
CAMERA_MAGNITUDE = np.array([1e3] * 4 + [1, 1, 1e2] * 2 + [1] * 17)
"""Typical size of each of the 27 camera numbers."""


def stream(key: str) -> np.random.RandomState:
    """The frozen legacy stream that belongs to a key."""
    return np.random.RandomState(zlib.crc32((PREFIX + key).encode()))


def parameter(name: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
    """Value of a state entry."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    u = stream(name).random_sample(math.prod(shape)).reshape(shape)
    s = 2 * u - 1
    if name.endswith("running_var"):
        scale = CAMERA_MAGNITUDE**2 if name.endswith("depth_net.bn.running_var") else 1.0
        value = (0.5 + u) * scale
    elif name.endswith("running_mean"):
        value = 0.1 * s
    elif name.endswith("crf.ws.0"):
        value = 0.01 + 0.01 * u
    elif name.endswith("sampling_offsets.bias"):
        value = 4 * s
    elif len(shape) == 1:
        value = 0.75 + 0.5 * u if name.endswith("weight") else 0.1 * s
    else:
        gain = 2.0 if name.endswith("context_conv.0.conv_offset.weight") else 1.0
        value = s * math.sqrt(3 / np.prod(shape[1:])) * gain
    return value.astype(np.float32)


@dataclass(frozen=True)
class Inputs:
    """Inputs of `B` samples of `T` frames."""

    images: Floats
    """`[B, T, 6, 3, H, W]`, taken as already normalised."""
    canvas: NDArray[np.uint8]
    """`[B, 6, H, W, 3]`"""
    depth: Floats
    """`[B, 6, H, W]`, 0 where unknown"""


def inputs(batch: int, tag: str, size: tuple[int, int], frames: int = 1) -> Inputs:
    """Images of coarse noise, canvases of coloured blocks (camera 5: pure noise), sparse depth."""
    height, width = size
    blocks = (height // 16, width // 16)
    palette = np.array([[10, 20, 30], [200, 180, 90], [0, 0, 0], [64, 128, 255]], np.uint8)
    images = np.zeros((batch, frames, 6, 3, height, width), np.float32)
    canvas = np.zeros((batch, 6, height, width, 3), np.uint8)
    depth = np.zeros((batch, 6, height * width), np.float32)
    for b, n in np.ndindex(batch, 6):
        for t in range(frames):
            coarse = stream(f"{tag}/img/{b}/{n}/{t}").random_sample((3, *blocks)) * 4 - 2
            fine = stream(f"{tag}/fine/{b}/{n}/{t}").random_sample((3, height, width)) - 0.5
            images[b, t, n] = coarse.repeat(16, 1).repeat(16, 2) + fine
        colours = stream(f"{tag}/canvas/{b}/{n}")
        if n == 5:
            canvas[b, n] = colours.randint(0, 256, (height, width, 3))
        else:
            canvas[b, n] = palette[colours.randint(0, 4, blocks).repeat(16, 0).repeat(16, 1)]
        draw = stream(f"{tag}/depth/{b}/{n}")
        points = height * width // 60
        where = draw.randint(0, height * width, points)
        depth[b, n, where] = draw.random_sample(points) * 65
    return Inputs(images, canvas, depth.reshape(batch, 6, height, width))


@dataclass(frozen=True)
class Cameras:
    """Matrices of a synthetic rig, float32, `[B, T, 6, ...]` (`bda` `[B, 3, 3]`)."""

    rots: Floats
    trans: Floats
    intrins: Floats
    post_rots: Floats
    post_trans: Floats
    bda: Floats


def cameras(batch: int, size: tuple[int, int], frames: int = 1) -> Cameras:
    """Sample 0 without augmentation, the others with image and BEV augmentation; the car drives a bend."""
    yaws = np.radians([55, 0, -55, 110, 180, -110])
    body_from_camera = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])
    rots = np.stack([_turn(yaw) @ body_from_camera for yaw in yaws])
    trans = np.stack([[0.8 + 0.7 * np.cos(a), 0.5 * np.sin(a), 1.51 + 0.01 * i] for i, a in enumerate(yaws)])
    intrins = np.zeros((6, 3, 3))
    for i in range(6):
        focal = 800.0 if i == 4 else 1260.0 + 2 * i
        intrins[i] = [[focal, 0, 800 + 3 * i], [0, focal, 460 - 2 * i], [0, 0, 1]]
    augmentations = [[_image_augmentation(i, b > 0, size) for i in range(6)] for b in range(batch)]
    turned = np.diag([-1.0, 1, 1]) @ (1.03 * _turn(math.radians(10)))
    driven = [[_key_from_earlier(t, right_hand=b > 0) for t in range(frames)] for b in range(batch)]
    return Cameras(
        rots=np.array([[turn @ rots for turn, _ in row] for row in driven], np.float32),
        trans=np.array([[trans @ turn.T + move for turn, move in row] for row in driven], np.float32),
        intrins=np.broadcast_to(intrins, (batch, frames, 6, 3, 3)).astype(np.float32),
        post_rots=_each_frame([[rotation for rotation, _ in row] for row in augmentations], frames),
        post_trans=_each_frame([[shift for _, shift in row] for row in augmentations], frames),
        bda=np.stack([np.eye(3) if b == 0 else turned for b in range(batch)]).astype(np.float32),
    )


def _key_from_earlier(t: int, right_hand: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn and move from the ego frame `t` frames ago to that of the key frame."""
    return _turn(math.radians(-1.5 * t if right_hand else 1.5 * t)), np.array([-4.0 * t, 0.3 * t, 0.01 * t])


def _each_frame(of_camera: list[list[NDArray[np.float64]]], frames: int) -> Floats:
    return np.repeat(np.array(of_camera, np.float32)[:, None], frames, 1)


def _turn(angle: float) -> NDArray[np.float64]:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def _image_augmentation(
    i: int, augmented: bool, size: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    height, width = size
    scale = width / 1600 * (1 + (0.02 * i - 0.03) / 0.44 if augmented else 1)
    crop_x = 3 * i if augmented and int(1600 * scale) > width + 3 * i else 0
    matrix, shift = np.eye(2) * scale, np.array([-crop_x, -(int(900 * scale) - height)], float)
    if augmented:
        if i % 2 == 1:
            flip = np.diag([-1.0, 1])
            matrix, shift = flip @ matrix, flip @ shift + [width, 0]
        angle = math.radians(-3 + 1.2 * i)
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        half = np.array([width, height]) / 2
        matrix, shift = turn @ matrix, turn @ shift + (turn @ -half + half)
    rotation, translation = np.eye(3), np.zeros(3)
    rotation[:2, :2], translation[:2] = matrix, shift
    return rotation, translation


def boxes(batch: int, tag: str) -> list[tuple[Floats, NDArray[np.int64]]]:
    """Per sample 40 boxes (x, y, z centre, l, w, h, yaw, vx, vy) and labels; some lie outside the raster."""
    samples = []
    for b in range(batch):
        draw = stream(f"{tag}/gt/{b}")
        u = draw.random_sample((40, 9))
        box = np.empty((40, 9))
        box[:, :2] = (u[:, :2] - 0.5) * 104
        box[:, 2] = -1 + 3 * u[:, 2]
        box[:, 3] = 0.4 + 11 * u[:, 3] ** 2
        box[:, 4] = 0.4 + 2.5 * u[:, 4]
        box[:, 5] = 0.8 + 2.5 * u[:, 5]
        box[:, 6] = (u[:, 6] - 0.5) * 2 * math.pi
        box[:, 7:] = (u[:, 7:] - 0.5) * 10
        label = draw.randint(0, 10, 40)
        box[1, :2], label[1] = box[0, :2] + 0.3, label[0]
        samples.append((box.astype(np.float32), label.astype(np.int64)))
    return samples


HEAD_RANGES = {"reg": (2, -0.2, 1.2), "height": (1, -6, 4), "dim": (3, -0.7, 2.0), "rot": (2, -1, 1), "vel": (2, -5, 5)}


def head_maps(batch: int, tag: str) -> list[dict[str, Floats]]:
    """Per task, maps of a head's outputs; heat map logits have clusters that suppression must thin out."""
    tasks = []
    for t, classes in enumerate(TASK_CLASSES):

        def uniform(key: str, channels: int, low: float, high: float, t: int = t) -> Floats:
            u = stream(f"{tag}/{t}/{key}").random_sample((batch, channels, 128, 128))
            return (low + (high - low) * u).astype(np.float32)

        maps = {key: uniform(key, *bounds) for key, bounds in HEAD_RANGES.items()}
        maps["heatmap"] = uniform("heatmap", classes, -9.0, -2.5)
        for b, k in np.ndindex(batch, classes):
            draw = stream(f"{tag}/{t}/peaks/{b}/{k}")
            y, x = draw.randint(0, 128, 25), draw.randint(0, 128, 25)
            dy, dx = draw.randint(-2, 3, (25, 9)), draw.randint(-2, 3, (25, 9))
            value = (draw.random_sample((25, 9)) * 5 - 2.4).astype(np.float32)
            for i, j in np.ndindex(25, 9):
                row, column = np.clip([y[i] + dy[i, j], x[i] + dx[i, j]], 0, 127)
                maps["heatmap"][b, k, row, column] = value[i, j]
        tasks.append(maps)
    return tasks
