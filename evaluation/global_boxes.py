"""Boxes of one sample in the global frame: what results files hold, what is drawn, what the official metrics compare.

Boxes are upright in the *global* frame, as nuScenes annotates them. The ego frame is tilted by up to a few degrees, so
a box that is upright there would miss the annotated corners by up to 0.2 m; only its heading is carried over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from configs.nuscenes import CLASSES

if TYPE_CHECKING:
    from detectors.interface import Detections
    from scenes.frame import Annotations

FloatArray = npt.NDArray[np.float64]

MOVING_SPEED: Final = 0.2
"""Speed in m/s above which an object counts as moving (rule of mmdetection3d, BEVDet and BEVNeXt)."""

_VEHICLES: Final = ("car", "truck", "construction_vehicle", "bus", "trailer")
_CYCLES: Final = ("motorcycle", "bicycle")
_MOVING: Final = (
    dict.fromkeys(_VEHICLES, "vehicle.moving")
    | dict.fromkeys(_CYCLES, "cycle.with_rider")
    | {"pedestrian": "pedestrian.moving"}
)
_STANDING: Final = (
    dict.fromkeys(_VEHICLES, "vehicle.parked")
    | dict.fromkeys(_CYCLES, "cycle.without_rider")
    | {"bus": "vehicle.stopped", "pedestrian": "pedestrian.standing"}
)

# Corners in units of half the size: the four at the front (+x), then the four at the back; see `corners`.
_CORNER_SIGNS: Final = np.array(
    [[1, 1, 1], [1, -1, 1], [1, -1, -1], [1, 1, -1], [-1, 1, 1], [-1, -1, 1], [-1, -1, -1], [-1, 1, -1]], np.float64
)


@dataclass(frozen=True, slots=True)
class GlobalBoxes:
    """n boxes of one sample; global frame, metres, metres per second."""

    centres: FloatArray
    """float64 `[n, 3]`: gravity centres."""
    sizes: FloatArray
    """float64 `[n, 3]`: width, length, height (the order of the nuScenes tables)."""
    rotations: FloatArray
    """float64 `[n, 4]`: unit quaternions w, x, y, z."""
    velocities: FloatArray
    """float64 `[n, 2]`: vx, vy; NaN where an annotation has none."""
    labels: npt.NDArray[np.int64]
    """int64 `[n]`: index into `configs.nuscenes.CLASSES`."""
    scores: FloatArray
    """float64 `[n]`: 0..1; 1 for annotations."""
    attributes: tuple[str, ...]
    """n nuScenes attribute names, empty where the class has none."""

    def __len__(self) -> int:
        return len(self.centres)

    def keep(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> GlobalBoxes:
        """The boxes chosen by a mask or by positions, in that order."""
        positions = np.arange(len(self))[chosen]
        return GlobalBoxes(
            centres=self.centres[positions],
            sizes=self.sizes[positions],
            rotations=self.rotations[positions],
            velocities=self.velocities[positions],
            labels=self.labels[positions],
            scores=self.scores[positions],
            attributes=tuple(self.attributes[i] for i in positions),
        )

    def corners(self) -> FloatArray:
        """Corners `[n, 8, 3]` in the global frame: 0-3 the front face, 4-7 the back face behind each of them.

        Each face goes left top, right top, right bottom, left bottom as seen by the object itself.
        """
        half_lwh = self.sizes[:, None, [1, 0, 2]] / 2
        local = half_lwh * _CORNER_SIGNS
        return self.centres[:, None] + local @ rotation_matrices(self.rotations).transpose(0, 2, 1)


def from_detections(detections: Detections, global_from_ego: FloatArray) -> GlobalBoxes:
    """Detections of the key-frame ego frame, in the global frame.

    The heading and the velocity are rotated with the full pose; the box itself stands upright in the global frame.
    Attributes follow from class and speed over ground, that is, along the global x and y (as published).

    Args:
        detections: boxes with gravity centres; they were decoded without BEV augmentation.
        global_from_ego: float64 `[4, 4]`, pose of the key frame.
    """
    boxes = detections.boxes.detach().cpu().double().numpy()
    labels = detections.labels.detach().cpu().numpy().astype(np.int64)
    rotation, translation = global_from_ego[:3, :3], global_from_ego[:3, 3]
    yaw, velocity = boxes[:, 6], boxes[:, 7:9]
    heading = _in_ego_plane(np.stack([np.cos(yaw), np.sin(yaw)], axis=1)) @ rotation.T
    velocities = (_in_ego_plane(velocity) @ rotation.T)[:, :2]
    speeds = np.linalg.norm(velocities, axis=1)
    return GlobalBoxes(
        centres=boxes[:, :3] @ rotation.T + translation,
        sizes=boxes[:, [4, 3, 5]],
        rotations=_upright(np.arctan2(heading[:, 1], heading[:, 0])),
        velocities=velocities,
        labels=labels,
        scores=detections.scores.detach().cpu().double().numpy(),
        attributes=tuple(attribute_of(CLASSES[label], speed) for label, speed in zip(labels, speeds, strict=True)),
    )


def from_annotations(annotations: Annotations) -> GlobalBoxes:
    """The annotations that the official metrics count: of the ten classes, with at least one LiDAR or radar point."""
    points = annotations.num_lidar_pts + annotations.num_radar_pts
    chosen = np.flatnonzero((annotations.labels >= 0) & (points > 0))
    return GlobalBoxes(
        centres=annotations.translation[chosen].astype(np.float64),
        sizes=annotations.size[chosen].astype(np.float64),
        rotations=annotations.rotation[chosen].astype(np.float64),
        velocities=annotations.velocity[chosen].astype(np.float64),
        labels=annotations.labels[chosen].astype(np.int64),
        scores=np.ones(len(chosen)),
        attributes=tuple(str(annotations.attributes[i]) for i in chosen),
    )


def attribute_of(class_name: str, speed: float) -> str:
    """The attribute that a class has at a speed in m/s; empty for barriers and cones, which have none."""
    return (_MOVING if speed > MOVING_SPEED else _STANDING).get(class_name, "")


def rotation_matrices(quaternions: FloatArray) -> FloatArray:
    """Rotation matrices `[n, 3, 3]` of quaternions `[n, 4]` (w, x, y, z; of any length but zero)."""
    w, x, y, z = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def _in_ego_plane(vectors: FloatArray) -> FloatArray:
    return np.concatenate([vectors, np.zeros((len(vectors), 1))], axis=1)


def _upright(yaw: FloatArray) -> FloatArray:
    zero = np.zeros_like(yaw)
    return np.stack([np.cos(yaw / 2), zero, zero, np.sin(yaw / 2)], axis=1)
