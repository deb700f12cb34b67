"""The road of a scene: a smooth centre line, its cross-section, and coordinates along it.

Positions are `(s, d)`: metres along the centre line and metres to its left. Traffic keeps right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STEP = 0.5
LEAD = 150.0
"""Metres of road before the ego vehicle's start and after its end."""
MARGIN = 90.0
"""Metres between the road's bounding box and the edge of the map."""


@dataclass(frozen=True, slots=True)
class CrossSection:
    """Widths from the centre line outwards, metres; the same on both sides except for the number of lanes."""

    lane: float
    lanes_right: int
    lanes_left: int
    bike_lane: float
    parking: float
    pavement: float
    yard: float

    def asphalt(self, side: int) -> float:
        """Outer edge of the asphalt on the right (`side` -1) or the left (+1)."""
        return self.parking_centre(side) + self.parking / 2

    def parking_centre(self, side: int) -> float:
        """Middle of the parking strip."""
        return self.lanes_edge(side) + self.bike_lane + self.parking / 2

    def lanes_edge(self, side: int) -> float:
        """Outer edge of the driving lanes."""
        return self.lane * (self.lanes_right if side < 0 else self.lanes_left)

    def bike_centre(self, side: int) -> float:
        """Middle of the bicycle lane."""
        return self.lanes_edge(side) + self.bike_lane / 2

    def pavement_edge(self, side: int) -> float:
        """Outer edge of the pavement."""
        return self.asphalt(side) + self.pavement

    def building_line(self, side: int) -> float:
        """Where the yards end and the buildings begin."""
        return self.pavement_edge(side) + self.yard


@dataclass(frozen=True)
class Road:
    """Centre line sampled every `STEP` metres from `s_start`, with a cross-section and one side street."""

    s_start: float
    xy: Floats
    heading: Floats
    section: CrossSection
    crossing: float
    """Position of the middle of the side street along the road."""
    crossing_half_width: float

    @property
    def s_end(self) -> float:
        return self.s_start + STEP * (len(self.xy) - 1)

    def heading_at(self, s: Floats | float) -> Floats:
        """Direction of the centre line, radians."""
        stations = self.s_start + STEP * np.arange(len(self.heading))
        return np.asarray(np.interp(s, stations, self.heading))

    def at(self, s: Floats | float, d: Floats | float) -> Floats:
        """Global x, y `[..., 2]` of `(s, d)`."""
        stations = self.s_start + STEP * np.arange(len(self.xy))
        heading = self.heading_at(s)
        x = np.interp(s, stations, self.xy[:, 0]) - np.sin(heading) * d
        y = np.interp(s, stations, self.xy[:, 1]) + np.cos(heading) * d
        return np.stack(np.broadcast_arrays(x, y), axis=-1)

    def extent(self) -> tuple[float, float]:
        """Width and height of the map in metres; its origin is the global origin."""
        upper = self.xy.max(axis=0) + MARGIN
        return float(np.ceil(upper[0])), float(np.ceil(upper[1]))

    def near_crossing(self, s: float, clearance: float) -> bool:
        """Whether `s` is on the side street or closer than `clearance` to it."""
        return abs(s - self.crossing) < self.crossing_half_width + clearance


def lay_road(rng: np.random.Generator, length: float) -> Road:
    """A road for an ego drive of `length` metres from s = 0: straight parts and curves of at least 70 m radius."""
    s = np.arange(-LEAD, length + LEAD + STEP, STEP)
    curvature = np.zeros_like(s)
    for _ in range(max(1, round((length + 80) / 80))):
        kind = rng.choice(["straight", "bend"], p=[0.35, 0.65])
        middle, width = rng.uniform(-40, length + 60), rng.uniform(25, 50)
        strength = rng.uniform(1 / 200, 1 / 90) * rng.choice([-1.0, 1.0])
        if kind == "bend":
            curvature += strength * np.exp(-0.5 * ((s - middle) / width) ** 2)
    curvature = np.clip(curvature, -1 / 70, 1 / 70)
    heading = rng.uniform(-np.pi, np.pi) + np.cumsum(curvature) * STEP
    xy = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0) * STEP
    xy += MARGIN - xy.min(axis=0)
    section = CrossSection(
        lane=rng.uniform(3.3, 3.6),
        lanes_right=int(rng.integers(1, 3)),
        lanes_left=int(rng.integers(1, 3)),
        bike_lane=rng.uniform(1.7, 2.0),
        parking=rng.uniform(3.1, 3.3),
        pavement=rng.uniform(3.5, 5.5),
        yard=rng.uniform(7.0, 11.0),
    )
    return Road(
        s_start=float(s[0]),
        xy=xy,
        heading=heading,
        section=section,
        crossing=float(rng.uniform(-40, length + 60)),
        crossing_half_width=float(rng.uniform(4.0, 6.0)),
    )
