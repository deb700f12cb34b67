"""From the draft of an actor (kind, path, size) to the actor with its shape.

Placement tries many drafts; shapes are built only for those that stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scenes.synthetic.cars import car
from scenes.synthetic.catalogue import SIZES
from scenes.synthetic.heavy_vehicles import bus, construction_vehicle, trailer, truck
from scenes.synthetic.motion import Trajectory
from scenes.synthetic.small_objects import barrier, bicycle, motorcycle, pedestrian, traffic_cone, waste_bin
from scenes.synthetic.solids import Model, fitted
from scenes.synthetic.world import Actor

RIDER_ABOVE = 0.55
CHILD_BELOW = 1.42
"""Metres: what a rider adds to a two-wheeler's height; who is smaller is a child."""

BUILDERS: dict[str, tuple[str, Callable[[np.random.Generator, float, float, float], Model]]] = {
    "car": ("vehicle.car", car),
    "truck": ("vehicle.truck", truck),
    "bus": ("vehicle.bus.rigid", bus),
    "trailer": ("vehicle.trailer", trailer),
    "construction_vehicle": ("vehicle.construction", construction_vehicle),
    "traffic_cone": ("movable_object.trafficcone", traffic_cone),
    "barrier": ("movable_object.barrier", barrier),
    "bin": ("movable_object.pushable_pullable", waste_bin),
}


@dataclass(frozen=True, slots=True)
class Draft:
    """An actor before it has got its shape: `kind` is a key of `SIZES` or `worker`, `size` its largest l, w, h."""

    kind: str
    path: Trajectory
    size: tuple[float, float, float]
    rider: bool
    seed: int
    waits: bool = False


def draft(rng: np.random.Generator, kind: str, path: Trajectory, rider: bool = False) -> Draft:
    """A draft of its own size. Children are among the pedestrians."""
    mean = SIZES["pedestrian" if kind == "worker" else kind]
    scale = 0.72 if kind == "pedestrian" and rng.random() < 0.1 else 1.0
    length, width, height = (
        scale * np.clip(rng.normal(1, mean.spread, 3), 0.8, 1.25) * [mean.length, mean.width, mean.height]
    )
    return Draft(kind, path, (length, width, height + (RIDER_ABOVE if rider else 0.0)), rider, int(rng.integers(2**31)))


def dress(one: Draft) -> Actor:
    """The actor a draft stands for: its models, and the box that they fill."""
    rng = np.random.default_rng(one.seed)
    if one.kind in ("pedestrian", "worker"):
        role = "construction_worker" if one.kind == "worker" else "child" if one.size[2] < CHILD_BELOW else "adult"
        strides = pedestrian(rng, *one.size, one.kind == "worker")
        models, box = fitted(strides[:1] if one.path.is_still else strides)
        return Actor(f"human.pedestrian.{role}", models, box, one.path)
    if one.kind in ("bicycle", "motorcycle"):
        build = bicycle if one.kind == "bicycle" else motorcycle
        models, box = fitted([build(rng, *one.size, one.rider)])
        return Actor(f"vehicle.{one.kind}", models, box, one.path, one.rider)
    category, builder = BUILDERS[one.kind]
    models, box = fitted([builder(rng, *one.size)])
    return Actor(category, models, box, one.path, waits=one.waits)
