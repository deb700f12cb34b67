"""A sample without a data set: six grey cameras around the origin, and boxes where a test wants them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from configs.nuscenes import CAMERAS, CLASSES
from evaluation.figures.sample_view import SampleView
from evaluation.global_boxes import GlobalBoxes

SIZE = (180, 320)
GREY = 90
HEIGHT = 1.5  # metres of the cameras above ground

_CAM_FROM_EGO_AXES = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])  # of a camera that looks ahead


def made_up_view() -> SampleView:
    """Cameras look to the left front, front, right front, left back, back, right back; ego is the global frame."""
    yaws = np.radians([55, 0, -55, 110, 180, -110])
    intrinsics = np.array([[260.0, 0, 159.5], [0, 260, 89.5], [0, 0, 1]])
    return SampleView(
        title="made up",
        cameras=CAMERAS,
        images=tuple(np.full((*SIZE, 3), GREY, np.uint8) for _ in CAMERAS),
        intrinsics=np.tile(intrinsics, (6, 1, 1)),
        cam_from_global=np.stack([_cam_from_ego(yaw) for yaw in yaws]),
        ego_from_global=np.eye(4),
        points=np.random.default_rng(0).uniform([-40, -40, 0], [40, 40, 2], (500, 3)),
        delays=np.zeros(6),
    )


def boxes_at(places: Sequence[tuple[float, float]], class_name: str = "car", yaw: float = 0.0) -> GlobalBoxes:
    """Boxes of 4 x 2 x 1.6 m standing on the ground at (x, y), moving ahead at 5 m/s."""
    count = len(places)
    ground = np.array(places, np.float64).reshape(count, 2)
    return GlobalBoxes(
        centres=np.concatenate([ground, np.full((count, 1), 0.8)], axis=1),
        sizes=np.tile([2.0, 4.0, 1.6], (count, 1)),
        rotations=np.tile([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)], (count, 1)),
        velocities=np.tile([5.0 * np.cos(yaw), 5.0 * np.sin(yaw)], (count, 1)),
        labels=np.full(count, CLASSES.index(class_name)),
        scores=np.full(count, 0.9),
        attributes=("",) * count,
    )


def _cam_from_ego(yaw: float) -> np.ndarray:
    cosine, sine = np.cos(yaw), np.sin(yaw)
    turn = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
    cam_from_ego = np.eye(4)
    cam_from_ego[:3, :3] = _CAM_FROM_EGO_AXES @ turn
    cam_from_ego[:3, 3] = cam_from_ego[:3, :3] @ [0, 0, -HEIGHT]
    return cam_from_ego
