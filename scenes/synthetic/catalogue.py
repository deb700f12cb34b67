"""The fixed vocabulary of nuScenes v1.0: categories, attributes and visibility levels, and typical object sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CATEGORIES: Final[dict[str, str]] = {
    "human.pedestrian.adult": "A person, grown up.",
    "human.pedestrian.child": "A person, child.",
    "human.pedestrian.wheelchair": "A wheelchair, with its occupant.",
    "human.pedestrian.stroller": "A pushchair, with the child in it.",
    "human.pedestrian.personal_mobility": "A small device that carries a person: skateboard, scooter, Segway.",
    "human.pedestrian.police_officer": "A police officer.",
    "human.pedestrian.construction_worker": "A worker at a building or road site.",
    "animal": "Any animal.",
    "vehicle.car": "A car made for personal use: saloon, hatchback, estate, van, jeep.",
    "vehicle.motorcycle": "A motorcycle or motor scooter, with its rider if there is one.",
    "vehicle.bicycle": "A bicycle, with its rider if there is one.",
    "vehicle.bus.bendy": "A bus with a joint between its sections.",
    "vehicle.bus.rigid": "A bus without a joint.",
    "vehicle.truck": "A vehicle made to carry goods: lorry, pick-up, towing truck.",
    "vehicle.construction": "A vehicle made for construction work: excavator, wheel loader.",
    "vehicle.emergency.ambulance": "An ambulance.",
    "vehicle.emergency.police": "A police car or motorcycle.",
    "vehicle.trailer": "A trailer, drawn by a truck, car or bicycle.",
    "movable_object.barrier": "A temporary barrier that redirects traffic.",
    "movable_object.trafficcone": "A traffic cone.",
    "movable_object.pushable_pullable": "An object that can be pushed or pulled: waste bin, trolley.",
    "movable_object.debris": "Debris on the road, too large to drive over.",
    "static_object.bicycle_rack": "A place to lock bicycles to.",
}
"""Category names, in the order of nuScenes, with descriptions."""

ATTRIBUTES: Final[dict[str, str]] = {
    "vehicle.moving": "Vehicle is moving.",
    "vehicle.stopped": "Vehicle stands, its driver is about to go on.",
    "vehicle.parked": "Vehicle stands and is meant to stay.",
    "cycle.with_rider": "There is a rider on the bicycle or motorcycle.",
    "cycle.without_rider": "There is no rider on the bicycle or motorcycle.",
    "pedestrian.sitting_lying_down": "The person sits or lies.",
    "pedestrian.standing": "The person stands.",
    "pedestrian.moving": "The person is moving.",
}

VISIBILITY: Final[dict[str, tuple[str, str]]] = {
    "1": ("v0-40", "0 to 40 % of the object's pixels are visible over all cameras"),
    "2": ("v40-60", "40 to 60 % of the object's pixels are visible over all cameras"),
    "3": ("v60-80", "60 to 80 % of the object's pixels are visible over all cameras"),
    "4": ("v80-100", "80 to 100 % of the object's pixels are visible over all cameras"),
}

SEMANTICS: Final[dict[str, int]] = {
    "noise": 0,
    "animal": 1,
    "human.pedestrian.adult": 2,
    "human.pedestrian.child": 3,
    "human.pedestrian.construction_worker": 4,
    "human.pedestrian.personal_mobility": 5,
    "human.pedestrian.police_officer": 6,
    "human.pedestrian.stroller": 7,
    "human.pedestrian.wheelchair": 8,
    "movable_object.barrier": 9,
    "movable_object.debris": 10,
    "movable_object.pushable_pullable": 11,
    "movable_object.trafficcone": 12,
    "static_object.bicycle_rack": 13,
    "vehicle.bicycle": 14,
    "vehicle.bus.bendy": 15,
    "vehicle.bus.rigid": 16,
    "vehicle.car": 17,
    "vehicle.construction": 18,
    "vehicle.emergency.ambulance": 19,
    "vehicle.emergency.police": 20,
    "vehicle.motorcycle": 21,
    "vehicle.trailer": 22,
    "vehicle.truck": 23,
    "flat.driveable_surface": 24,
    "flat.other": 25,
    "flat.sidewalk": 26,
    "flat.terrain": 27,
    "static.manmade": 28,
    "static.other": 29,
    "static.vegetation": 30,
    "vehicle.ego": 31,
}
"""Semantic number of a LiDAR point, as in nuScenes-lidarseg."""


@dataclass(frozen=True, slots=True)
class Size:
    """Mean length, width, height in metres, and the relative spread of each object around it."""

    length: float
    width: float
    height: float
    spread: float = 0.06


SIZES: Final[dict[str, Size]] = {
    "car": Size(4.62, 1.90, 1.62, 0.05),
    "truck": Size(7.2, 2.45, 2.95, 0.09),
    "bus": Size(10.8, 2.75, 3.3, 0.06),
    "trailer": Size(10.5, 2.55, 3.6, 0.08),
    "construction_vehicle": Size(6.2, 2.6, 3.1, 0.08),
    "motorcycle": Size(2.1, 0.78, 1.2, 0.05),
    "bicycle": Size(1.75, 0.6, 1.12, 0.04),
    "pedestrian": Size(0.72, 0.68, 1.75, 0.06),
    "traffic_cone": Size(0.41, 0.41, 0.95, 0.10),
    "barrier": Size(0.52, 2.3, 1.0, 0.06),
    "bin": Size(0.7, 0.62, 1.1, 0.05),
}
"""By kind of object; the means follow those of nuScenes. A barrier's heading is across its long side."""
