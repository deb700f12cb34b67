"""The content of one scene: road, ego drive, actors that are annotated, scenery that is not, weather."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.motion import Trajectory
from scenes.synthetic.road import Road
from scenes.synthetic.solids import Model

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Actor:
    """An annotated object. Its box stands on the ground, centred on the trajectory."""

    category: str
    models: tuple[Model, ...]
    """One posture, or the postures of a walk."""
    size_lwh: Floats
    trajectory: Trajectory
    with_rider: bool | None = None
    """For two-wheelers: whether somebody rides it."""
    waits: bool = False
    """Stands in traffic, about to go on."""

    def model(self, t: float) -> Model:
        """The shape at time `t`."""
        return self.models[self.posture(t)]

    def posture(self, t: float) -> int:
        """Index of the posture at time `t`."""
        return int(posture_at(t, np.array(self.trajectory.s), np.array(len(self.models))))

    def attribute(self, t: float) -> str:
        """nuScenes attribute at time `t`, empty for road furniture."""
        speed = float(np.hypot(*self.trajectory.velocity(t)))
        family = self.category.split(".")[0]
        if self.with_rider is not None:
            return "cycle.with_rider" if self.with_rider else "cycle.without_rider"
        if family == "human":
            return "pedestrian.moving" if speed > 0.2 else "pedestrian.standing"
        if family == "vehicle":
            if speed > 0.2:
                return "vehicle.moving"
            return "vehicle.stopped" if self.waits else "vehicle.parked"
        return ""


def posture_at(t: float, start: Floats, count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of `count` postures actors that began at `start` show at time `t`: a walk of four takes 0.8 s."""
    return np.asarray(np.floor(t / 0.2 + start), np.int64) % count


@dataclass(frozen=True, slots=True)
class Block:
    """A textured box of scenery: a building or a hedge. `pose` is x, y, yaw; `size_lwh` metres."""

    pose: Floats
    size_lwh: Floats
    texture: int
    is_hedge: bool


@dataclass(frozen=True, slots=True)
class Crown:
    """The leaves of a tree: a ball of `radius` around `centre`, drawn as a sprite that faces the camera."""

    centre: Floats
    radius: float
    sprite: int


@dataclass(frozen=True, slots=True)
class Prop:
    """Scenery built of painted solids: lamp posts, signs, tree trunks."""

    model: Model
    pose: Floats
    vegetation: bool


@dataclass(frozen=True)
class Weather:
    """Light of a scene. Colours are RGB factors (1 = neutral) or 0 to 255 where named so."""

    sun: Floats
    """Unit vector towards the sun, global frame."""
    sun_light: Floats
    sky_light: Floats
    zenith: Floats
    horizon: Floats
    clouds: float
    haze: float
    """Distance in metres at which haze hides 63 %."""
    name: str

    def lit(self, normals: Floats, glow: Floats | float = 0.0) -> Floats:
        """RGB factors `[..., 3]` of light on surfaces with the given unit normals."""
        facing = np.clip(normals @ self.sun, 0, None)[..., None]
        ambient = self.sky_light * (0.78 + 0.22 * normals[..., 2:3])
        light: Floats = ambient + self.sun_light * facing
        weight = np.asarray(glow)[..., None]
        return np.asarray(light * (1 - weight) + self.sky_light * weight)

    @property
    def ground_light(self) -> Floats:
        """RGB factors of light on open level ground."""
        return self.lit(np.array([0.0, 0.0, 1.0]))


@dataclass(frozen=True)
class World:
    """Everything one scene is rendered from."""

    road: Road
    ego: Trajectory
    actors: tuple[Actor, ...]
    blocks: tuple[Block, ...]
    crowns: tuple[Crown, ...]
    props: tuple[Prop, ...]
    weather: Weather
    sky_seed: tuple[int, ...]
    ground_style: int
