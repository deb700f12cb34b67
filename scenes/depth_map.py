"""Sparse depth of a LiDAR sweep in every camera's canvas: the target of the depth loss.

Points go through each sensor's own pose, so the map is right on a moving car. Rounding to pixels is half-to-even;
where several points fall on one pixel the nearest one counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from configs.errors import DamagedFileError
from scenes.remote_root import sensor_bytes

_POINT_VALUES: Final = 5  # x, y, z, intensity, ring
_FIX: Final = "fetch the file again; `bevnext-sam2 data check --deep` lists every damaged file"

Float32Array = NDArray[np.float32]


def read_points(path: Path) -> Float32Array:
    """Points float32 `[M, 3]` (x, y, z in the LiDAR frame, metres) of a nuScenes `.pcd.bin` file.

    Raises:
        DamagedFileError: the file is missing, or is not a whole number of points.
    """
    try:
        data = sensor_bytes(path)
        values = np.frombuffer(data[: len(data) // 4 * 4], np.float32)
    except OSError as error:
        raise DamagedFileError(f"cannot read LiDAR sweep {path}: {error.strerror}", fix=_FIX) from error
    if values.size == 0 or values.size % _POINT_VALUES:
        raise DamagedFileError(
            f"LiDAR sweep {path}: {values.size} numbers are not whole points of {_POINT_VALUES}", fix=_FIX
        )
    return values.reshape(-1, _POINT_VALUES)[:, :3]


def depth_maps(
    points: Float32Array,
    img_from_lidar: NDArray[np.floating[Any]],
    canvas_from_img: NDArray[np.floating[Any]],
    size: tuple[int, int],
    depth_range: tuple[float, float],
    stride: int = 1,
) -> Float32Array:
    """Depth of the nearest point per pixel, or per patch of `stride` x `stride` pixels.

    Args:
        points: `[M, 3]`, LiDAR frame, metres.
        img_from_lidar: `[N, 4, 4]`, intrinsics @ cam_from_lidar: to `(u z, v z, z, 1)`.
        canvas_from_img: `[N, 4, 4]`, image augmentation, acts on `(u, v, z, 1)`.
        size: height and width of the canvas, multiples of `stride`.
        depth_range: depths `lower <= z < upper` count, metres.

    Returns:
        float32 `[N, height / stride, width / stride]`; 0 where no point falls.
    """
    height, width = size
    maps = np.full((len(img_from_lidar), height // stride, width // stride), np.inf, np.float32)
    homogeneous = np.concatenate([points, np.ones((len(points), 1), np.float32)], axis=1).T
    for projection, augmentation, depth_map in zip(
        img_from_lidar.astype(np.float32), canvas_from_img.astype(np.float32), maps, strict=True
    ):
        u, v, depth = projection[:3] @ homogeneous
        seen = (depth >= depth_range[0]) & (depth < depth_range[1])
        u, v, depth = u[seen], v[seen], depth[seen]
        u, v, depth = augmentation[:3, :3] @ np.stack([u / depth, v / depth, depth]) + augmentation[:3, 3:]
        u, v = np.rint(u), np.rint(v)
        seen = (u >= 0) & (u < width) & (v >= 0) & (v < height)
        cells = v[seen].astype(np.int64) // stride * (width // stride) + u[seen].astype(np.int64) // stride
        np.minimum.at(depth_map.reshape(-1), cells, depth[seen])
    maps[np.isinf(maps)] = 0.0
    return maps
