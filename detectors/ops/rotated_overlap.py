"""Exact overlap of rotated rectangles in the plane."""

from __future__ import annotations

import torch
from torch import Tensor


def rotated_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union `[n]` of pairs of rectangles `[n, 5]` (x, y, l, w, yaw), in float64.

    `l` lies along the heading, yaw is counter-clockwise from +x.
    """
    a, b = a.double(), b.double()
    shared = intersection_area(a, b)
    union = a[:, 2] * a[:, 3] + b[:, 2] * b[:, 3] - shared
    return shared / union.clamp(min=torch.finfo(torch.float64).tiny)


def intersection_area(a: Tensor, b: Tensor) -> Tensor:
    """Area `[n]` shared by rectangles `a` and `b` `[n, 5]`, by Green's theorem.

    In b's frame, b is |x| <= l/2, |y| <= w/2. Let the outline of `a` run counter-clockwise; then the area is minus
    the integral along it of y, clamped to b's height, over those x that b covers: at each x the clamped upper and
    lower outline differ by the length that both share. Unlike clipping by corners, nothing branches on a tie.
    """
    corners = _corners_in_frame_of(a, b)
    ends = corners.roll(-1, dims=1)
    half_length, half_width = b[:, None, 2] / 2, b[:, None, 3] / 2
    x0, y0, x1, y1 = corners[..., 0], corners[..., 1], ends[..., 0], ends[..., 1]
    run = x1 - x0
    slope = (y1 - y0) / torch.where(run == 0, 1.0, run)
    left, right = _clamp(x0, half_length), _clamp(x1, half_length)
    y_left, y_right = y0 + slope * (left - x0), y0 + slope * (right - x0)
    return -((right - left) * _mean_of_clamped(y_left, y_right, half_width)).sum(1)


def _corners_in_frame_of(a: Tensor, b: Tensor) -> Tensor:
    """Corners `[n, 4, 2]` of `a`, counter-clockwise, in the frame of `b`."""
    offset, turn = a[:, :2] - b[:, :2], a[:, 4] - b[:, 4]
    cos_b, sin_b = b[:, 4].cos(), b[:, 4].sin()
    x = cos_b * offset[:, 0] + sin_b * offset[:, 1]
    y = cos_b * offset[:, 1] - sin_b * offset[:, 0]
    along = a.new_tensor([0.5, -0.5, -0.5, 0.5]) * a[:, 2:3]
    across = a.new_tensor([0.5, 0.5, -0.5, -0.5]) * a[:, 3:4]
    cos, sin = turn.cos()[:, None], turn.sin()[:, None]
    return torch.stack([x[:, None] + cos * along - sin * across, y[:, None] + sin * along + cos * across], -1)


def _mean_of_clamped(start: Tensor, end: Tensor, bound: Tensor) -> Tensor:
    """Mean over a straight line from `start` to `end` of its value clamped to +-`bound`."""
    rise = end - start
    level = rise.abs() < 1e-9
    mean = (_integral_of_clamped(end, bound) - _integral_of_clamped(start, bound)) / torch.where(level, 1.0, rise)
    return torch.where(level, _clamp((start + end) / 2, bound), mean)


def _integral_of_clamped(y: Tensor, bound: Tensor) -> Tensor:
    inner = _clamp(y, bound)
    return inner**2 / 2 + (y - inner) * inner


def _clamp(y: Tensor, bound: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(y, -bound), bound)
