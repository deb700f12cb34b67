"""From rendered colours to a camera's picture: lens blur, vignetting, sensor noise."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

NOISE_OFFSET = 16


def develop(image: Bytes, rng: np.random.Generator) -> Bytes:
    """The picture a camera would store of `image` (uint8 RGB `[H, W, 3]`)."""
    height, width = image.shape[:2]
    if width >= 1000:  # smaller images are sharper than the lens blurs
        image = np.asarray(cv2.GaussianBlur(image, (3, 3), 0.6), np.uint8)
    cv2.multiply(image, _vignette(height, width), image, 1 / 255)
    row, col = (int(start) for start in rng.integers(0, 256, 2))
    pattern = _sensor_noise(height + 256, width + 256)[row : row + height, col : col + width]
    return np.asarray(cv2.addWeighted(image, 1.0, pattern, 1.0, -NOISE_OFFSET), np.uint8)


@lru_cache(maxsize=2)
def _vignette(height: int, width: int) -> Bytes:
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    shade = 255 * (1 - 0.14 * ((x**2 + 0.6 * y**2) / 1.6) ** 1.5)
    return np.repeat(shade.astype(np.uint8)[..., None], 3, axis=2)


@lru_cache(maxsize=2)
def _sensor_noise(height: int, width: int) -> Bytes:
    """Noise around `NOISE_OFFSET`, more in brightness than in colour."""
    rng = np.random.default_rng(17)
    field = rng.normal(0, 1.8, (height, width, 1)) + rng.normal(0, 0.9, (height, width, 3))
    return np.asarray(np.clip(np.rint(field + NOISE_OFFSET), 0, 2 * NOISE_OFFSET), np.uint8)
