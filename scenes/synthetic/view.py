"""A camera at one moment: projection, and clipping of polygons to what it sees. Pixel centres are at integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NEAR = 0.15
"""Nothing closer to the camera plane than this (metres) is drawn."""
SLACK = 2.0
"""Polygons are clipped to the image enlarged by this factor, so that their coordinates stay small."""
SHIFT = 4
"""Fraction bits of the coordinates handed to the rasteriser."""


@dataclass(frozen=True)
class View:
    """`image_from_global` 3x4 maps (x, y, z, 1) to (u w, v w, w) with w the depth in metres."""

    image_from_global: Floats
    centre: Floats
    """Global position of the camera."""
    image_size: tuple[int, int]
    focal: float
    """Pixels, horizontally."""
    rays: Floats
    """3x3: `rays @ (u, v, 1)` is the direction of a pixel in the global frame."""

    def project(self, points: Floats) -> tuple[Floats, Floats]:
        """Pixels `[n, 2]` and depths `[n]` of global points `[n, 3]`, all in front of the camera."""
        homogeneous = points @ self.image_from_global[:, :3].T + self.image_from_global[:, 3]
        return homogeneous[:, :2] / homogeneous[:, 2:], homogeneous[:, 2]

    def clipped(self, homogeneous: Floats) -> Floats:
        """Pixels of the visible part of a convex polygon given as (u w, v w, w) `[n, 3]`; empty if it is outside."""
        height, width = self.image_size
        sx, sy = width * SLACK, height * SLACK
        walls = (
            (0.0, 0.0, 1.0, -NEAR),
            (1.0, 0.0, sx - width, 0.0),
            (-1.0, 0.0, sx, 0.0),
            (0.0, 1.0, sy - height, 0.0),
            (0.0, -1.0, sy, 0.0),
        )
        corners = homogeneous.tolist()
        for a, b, c, d in walls:
            corners = _cut(corners, a, b, c, d)
            if len(corners) < 3:
                return np.empty((0, 2))
        kept = np.array(corners)
        pixels: Floats = kept[:, :2] / kept[:, 2:]
        return pixels


def look(intrinsic: Floats, global_from_cam: Floats, image_size: tuple[int, int]) -> View:
    """The view of a camera with that pose."""
    rotation, centre = global_from_cam[:3, :3], global_from_cam[:3, 3]
    linear = intrinsic @ rotation.T
    return View(
        image_from_global=np.concatenate([linear, -(linear @ centre)[:, None]], axis=1),
        centre=centre,
        image_size=image_size,
        focal=float(intrinsic[0, 0]),
        rays=rotation @ np.linalg.inv(intrinsic),
    )


def _cut(corners: list[list[float]], a: float, b: float, c: float, d: float) -> list[list[float]]:
    """Sutherland-Hodgman against the half-space `a x + b y + c w + d >= 0`."""
    kept: list[list[float]] = []
    sides = [a * x + b * y + c * w + d for x, y, w in corners]
    for i, corner in enumerate(corners):
        before, previous = corners[i - 1], sides[i - 1]
        if (previous >= 0) != (sides[i] >= 0):
            share = previous / (previous - sides[i])
            kept.append([p + share * (q - p) for p, q in zip(before, corner, strict=True)])
        if sides[i] >= 0:
            kept.append(corner)
    return kept
