"""3D shapes in a camera: clipped to the view frustum first, then projected, so that near boxes are drawn right.

A corner behind the camera has no image; dropping its box, or projecting it anyway, are the usual faults.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

NEAR: Final = 0.3
"""Depth in metres of the near plane."""

_MARGIN: Final = 0.05
"""The side planes leave this share of the image around it, so that line ends stay out of sight."""


def frustum_planes(intrinsics: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Half-spaces `[5, 4]` `(n, d)`, `n . p + d >= 0` inside: near, left, right, top, bottom of a camera's view.

    Args:
        intrinsics: `[3, 3]`, pixels.
        size: image height and width in pixels.
    """
    height, width = size
    mx, my = _MARGIN * width, _MARGIN * height
    row_u, row_v, row_w = intrinsics  # u = row_u . p / row_w . p
    sides = [row_u + mx * row_w, (width + mx) * row_w - row_u, row_v + my * row_w, (height + my) * row_w - row_v]
    return np.array([[0, 0, 1, -NEAR], *([*side, 0] for side in sides)], np.float64)


def clip_segments(segments: FloatArray, planes: FloatArray) -> FloatArray:
    """The parts of segments `[m, 2, 3]` inside all half-spaces, `[k, 2, 3]`; those fully outside are left out.

    Liang and Barsky's parametric clipping, in 3D.
    """
    start, step = segments[:, 0], segments[:, 1] - segments[:, 0]
    enter, leave = np.zeros(len(segments)), np.ones(len(segments))
    for *normal, offset in planes:
        distance, slope = start @ np.array(normal) + offset, step @ np.array(normal)
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = -distance / slope
        enter = np.where(slope > 0, np.maximum(enter, crossing), enter)
        leave = np.where(slope < 0, np.minimum(leave, crossing), leave)
        leave = np.where((slope == 0) & (distance < 0), -1.0, leave)
    inside = enter < leave
    ends = np.stack([enter, leave], axis=1)[inside]
    clipped: FloatArray = start[inside, None] + ends[..., None] * step[inside, None]
    return clipped


def clip_polygon(polygon: FloatArray, planes: FloatArray) -> FloatArray:
    """The part of a convex polygon `[m, 3]` inside all half-spaces, `[k, 3]`, k = 0 when nothing is left.

    Sutherland and Hodgman's algorithm.
    """
    for plane in planes:
        if len(polygon) == 0:
            break
        polygon = _clip_by_plane(polygon, plane)
    return polygon


def project(points: FloatArray, intrinsics: FloatArray) -> FloatArray:
    """Pixels `[..., 2]` (u right, v down) of camera points `[..., 3]` in front of the camera."""
    image = points @ intrinsics.T
    pixels: FloatArray = image[..., :2] / image[..., 2:]
    return pixels


def transform(dst_from_src: FloatArray, points: FloatArray) -> FloatArray:
    """Points `[..., 3]` moved by a 4x4."""
    moved: FloatArray = points @ dst_from_src[:3, :3].T + dst_from_src[:3, 3]
    return moved


def _clip_by_plane(polygon: FloatArray, plane: FloatArray) -> FloatArray:
    distances = polygon @ plane[:3] + plane[3]
    kept: list[FloatArray] = []
    for i, (point, distance) in enumerate(zip(polygon, distances, strict=True)):
        before, distance_before = polygon[i - 1], distances[i - 1]
        if (distance >= 0) != (distance_before >= 0):
            kept.append(before + (point - before) * (distance_before / (distance_before - distance)))
        if distance >= 0:
            kept.append(point)
    return np.array(kept).reshape(-1, 3)
