"""Clipping against the view frustum, and projection."""

from __future__ import annotations

import numpy as np
import pytest
from nuscenes.utils.geometry_utils import view_points

from evaluation.figures.projection import NEAR, clip_polygon, clip_segments, frustum_planes, project

INTRINSICS = np.array([[1266.0, 0, 816], [0, 1266.0, 491], [0, 0, 1]])
SIZE = (900, 1600)
PLANES = frustum_planes(INTRINSICS, SIZE)


def is_inside(points: np.ndarray) -> np.ndarray:
    """By projection: in front of the near plane, and in the image or its margin of 5 %."""
    u, v = np.moveaxis(project(points, INTRINSICS), -1, 0)
    height, width = SIZE
    within = (u >= -0.05 * width) & (u <= 1.05 * width) & (v >= -0.05 * height) & (v <= 1.05 * height)
    return (points[..., 2] >= NEAR) & within


def test_projection_is_the_devkits() -> None:
    points = np.random.default_rng(0).uniform([-10, -3, 1], [10, 3, 60], (50, 3))
    expected = view_points(points.T, INTRINSICS, normalize=True)[:2].T
    np.testing.assert_allclose(project(points, INTRINSICS), expected)


def test_segments_keep_exactly_what_is_in_view() -> None:
    segments = np.random.default_rng(1).uniform([-20, -6, -10], [20, 6, 20], (300, 2, 3))
    steps = np.linspace(0, 1, 2001)[:, None, None]
    dense = segments[:, 0] + steps * (segments[:, 1] - segments[:, 0])
    seen = is_inside(dense)
    clipped = clip_segments(segments, PLANES)
    lengths = np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1)
    visible = seen.any(axis=0)
    assert 20 < visible.sum() < 280
    expected = (seen.mean(axis=0) * lengths)[visible]
    # a segment that is in view for less than the sampling step may be missed by the samples
    assert 0 <= len(clipped) - visible.sum() <= 2
    if len(clipped) == visible.sum():
        np.testing.assert_allclose(np.linalg.norm(clipped[:, 1] - clipped[:, 0], axis=1), expected, atol=0.05)
    assert is_inside(clipped * (1 - 1e-9) + clipped.mean(axis=1, keepdims=True) * 1e-9).all()


def test_a_segment_through_the_camera_plane_ends_at_the_near_plane() -> None:
    clipped = clip_segments(np.array([[[0.0, 0, 10], [0, 0, -10]]]), PLANES)
    np.testing.assert_allclose(clipped, [[[0, 0, 10], [0, 0, NEAR]]])


@pytest.mark.parametrize("z", [-5.0, 0.0, 0.2])
def test_what_lies_behind_is_gone(z: float) -> None:
    square = np.array([[-1.0, -1, z], [1, -1, z], [1, 1, z], [-1, 1, z]])
    assert len(clip_polygon(square, PLANES)) == 0
    assert len(clip_segments(np.stack([square[:2], square[2:]]), PLANES)) == 0


def test_a_polygon_in_view_is_left_alone_and_one_across_is_cut() -> None:
    square = np.array([[-1.0, -1, 10], [1, -1, 10], [1, 1, 10], [-1, 1, 10]])
    assert sorted(clip_polygon(square, PLANES).tolist()) == sorted(square.tolist())
    floor = np.array([[-1.0, 1.5, -5], [1, 1.5, -5], [1, 1.5, 20], [-1, 1.5, 20]])
    cut = clip_polygon(floor, PLANES)
    assert len(cut) == 4
    assert is_inside(cut + np.array([0, -1e-9, 1e-9])).all()
