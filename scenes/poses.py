"""Rigid transforms from what nuScenes stores: unit quaternions `(w, x, y, z)` and translations in metres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def rotation_matrices(quaternions: FloatArray) -> FloatArray:
    """`[..., 4]` wxyz -> `[..., 3, 3]`. Quaternions are normalised first, as pyquaternion does."""
    w, x, y, z = np.moveaxis(quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def transforms(translations: FloatArray, quaternions: FloatArray) -> FloatArray:
    """`[..., 3]` and `[..., 4]` wxyz -> `[..., 4, 4]`: `dst_from_src` of a frame `src` posed so in `dst`."""
    matrices = np.zeros((*translations.shape[:-1], 4, 4))
    matrices[..., :3, :3] = rotation_matrices(quaternions)
    matrices[..., :3, 3] = translations
    matrices[..., 3, 3] = 1.0
    return matrices


def quaternion_of(rotation: FloatArray) -> FloatArray:
    """`[3, 3]` -> `[4]` wxyz with w >= 0.

    The largest eigenvector of a symmetric 4x4 matrix (Bar-Itzhack 2000): it is stable for every angle, and gives the
    nearest rotation for a matrix that float32 storage has bent.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    symmetric = np.array(
        [
            [xx + yy + zz, zy - yz, xz - zx, yx - xy],
            [zy - yz, xx - yy - zz, xy + yx, xz + zx],
            [xz - zx, xy + yx, yy - xx - zz, yz + zy],
            [yx - xy, xz + zx, yz + zy, zz - xx - yy],
        ]
    )
    quaternion: FloatArray = np.linalg.eigh(symmetric)[1][:, -1]
    return quaternion if quaternion[0] >= 0 else -quaternion
