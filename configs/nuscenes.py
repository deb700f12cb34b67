"""The nuScenes vocabulary: cameras, classes, attributes and the detection task's class mapping.

Orders are those of the published models: the class order of BEVDet and BEVNeXt heads (label ids 0 to 9), the camera
order of their loaders. Category and attribute names are those of the nuScenes tables.
"""

from __future__ import annotations

from typing import Final

CAMERAS: Final = (
    "CAM_FRONT_LEFT",
    "CAM_FRONT",
    "CAM_FRONT_RIGHT",
    "CAM_BACK_LEFT",
    "CAM_BACK",
    "CAM_BACK_RIGHT",
)
REFERENCE_CAMERA: Final = "CAM_FRONT"
LIDAR: Final = "LIDAR_TOP"

CLASSES: Final = (
    "car",
    "truck",
    "construction_vehicle",
    "bus",
    "trailer",
    "barrier",
    "motorcycle",
    "bicycle",
    "pedestrian",
    "traffic_cone",
)

CLASS_OF_CATEGORY: Final[dict[str, str]] = {
    "movable_object.barrier": "barrier",
    "vehicle.bicycle": "bicycle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.car": "car",
    "vehicle.construction": "construction_vehicle",
    "vehicle.motorcycle": "motorcycle",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
    "movable_object.trafficcone": "traffic_cone",
    "vehicle.trailer": "trailer",
    "vehicle.truck": "truck",
}
"""Categories that are not listed here are not part of the detection task."""

TABLES: Final = (
    "attribute",
    "calibrated_sensor",
    "category",
    "ego_pose",
    "instance",
    "log",
    "map",
    "sample",
    "sample_annotation",
    "sample_data",
    "scene",
    "sensor",
    "visibility",
)
