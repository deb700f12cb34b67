"""Puts actors into a scene: traffic in lanes, parked vehicles, people, work zones; nothing touches anything else.

Each kind of object is spread evenly along the drive (one per stretch of road, at a random place in it), so that every
sample of every scene has all ten classes close by. A candidate is kept only if it stays clear of everybody for the
whole scene.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.catalogue import SIZES
from scenes.synthetic.drafts import Draft, draft, dress
from scenes.synthetic.motion import Pace, Trajectory, overlap
from scenes.synthetic.rig import EGO_CENTRE, EGO_SIZE
from scenes.synthetic.road import Road
from scenes.synthetic.world import Actor

Floats = NDArray[np.float64]
Group = list[Draft]

TRIES = 25
GAP = 0.25
"""Metres that actors keep apart."""


class Populace:
    """Actors placed so far, with their tracks on a time grid for the clearance test."""

    def __init__(self, road: Road, ego: Trajectory, duration: float, reach: float, rng: np.random.Generator) -> None:
        self.road, self.ego, self.duration, self.rng = road, ego, duration, rng
        self.first, self.last = -reach, float(ego.along.distance(duration)) + reach
        self.drafts: list[Draft] = []
        self._times = np.arange(-0.5, duration + 0.5, 0.25)
        ego_track = ego.pose(self._times)
        ego_track[:, 0] += EGO_CENTRE * np.cos(ego_track[:, 2])
        ego_track[:, 1] += EGO_CENTRE * np.sin(ego_track[:, 2])
        self._tracks = [ego_track]
        self._halves = [np.array([EGO_SIZE[0] / 2 + 3.5, EGO_SIZE[1] / 2 + 0.3])]

    def add(self, group: Group) -> bool:
        """Keep the group if each of it stays clear of all others; says whether it was kept."""
        tracks = [draft.path.pose(self._times) for draft in group]
        halves = [np.array(draft.size[:2]) / 2 for draft in group]
        placed, placed_halves = np.stack(self._tracks), np.stack(self._halves)
        for track, half in zip(tracks, halves, strict=True):
            reach = np.hypot(*placed_halves.T) + np.hypot(*half) + GAP
            distance = np.hypot(placed[..., 0] - track[:, 0], placed[..., 1] - track[:, 1])
            near, when = np.nonzero(distance < reach[:, None])
            if overlap(placed[near, when], placed_halves[near], track[when], half, GAP).any():
                return False
        self.drafts += group
        self._tracks += tracks
        self._halves += halves
        return True

    def spread(self, per_100_m: float, make: Callable[[float], Group]) -> None:
        """Place `make(s)` groups with the given density, one per stretch of road, each with a few tries."""
        count = max(1, round((self.last - self.first) / 100 * per_100_m))
        edges = np.linspace(self.first, self.last, count + 1)
        for low, high in pairwise(edges):
            for _ in range(TRIES):
                if self.add(make(float(self.rng.uniform(low, high)))):
                    break

    # --- makers of groups: position along the road -> actors ---

    def side(self) -> int:
        """-1 for the right side of the road, +1 for the left."""
        return int(self.rng.choice([-1, 1]))

    def still(self, kind: str, s: float, d: float, turn: float) -> Draft:
        """An object that stays where it is."""
        return draft(self.rng, kind, Trajectory(self.road, s, d, turn))

    def with_traffic(self, side: int) -> float:
        """Heading of traffic on that side, relative to the road."""
        return (0.0 if side < 0 else np.pi) + float(self.rng.normal(0, 0.02))

    def at_kerb(self, kind: str) -> Callable[[float], Group]:
        """Parked along the road."""

        def make(s: float) -> Group:
            side = self.side()
            d = side * (self.road.section.parking_centre(side) + self.rng.uniform(-0.1, 0.15))
            actor = self.still(kind, s, d, self.with_traffic(side))
            return self._off_crossing([actor])

        return make

    def in_yard(self, kind: str, across: bool) -> Callable[[float], Group]:
        """On the open ground between pavement and buildings, along the road or across it."""

        def make(s: float) -> Group:
            side, section = self.side(), self.road.section
            turn = float(self.rng.choice([0.0, np.pi])) + float(self.rng.normal(0, 0.06))
            turn += float(np.pi / 2) if across else 0.0
            d = side * (section.pavement_edge(side) + section.yard * self.rng.uniform(0.45, 0.6))
            return self._off_crossing([self.still(kind, s, d, turn)])

        return make

    def bystander(self, s: float) -> Group:
        """One or two people standing on the pavement or in a yard."""
        side, section = self.side(), self.road.section
        d = side * (section.asphalt(side) + self.rng.uniform(0.5, section.pavement + 0.5 * section.yard))
        turn = self.rng.uniform(-np.pi, np.pi)
        group = [self.still("pedestrian", s, d, turn)]
        if self.rng.random() < 0.4:
            group.append(
                self.still("pedestrian", s + self.rng.uniform(0.7, 1.0), d + self.rng.uniform(-0.3, 0.3), turn + 2.8)
            )
        return group

    def walker(self, s: float) -> Group:
        """Somebody walking along the pavement, sometimes two abreast."""
        side, section = self.side(), self.road.section
        pace = Pace(float(self.rng.uniform(0.8, 1.7)))
        sign, d = int(self.rng.choice([-1, 1])), section.asphalt(side) + self.rng.uniform(0.6, section.pavement - 1.0)
        count = 2 if self.rng.random() < 0.3 else 1
        paths = [Trajectory(self.road, s, side * (d + 0.95 * i), along=pace, along_sign=sign) for i in range(count)]
        return [draft(self.rng, "pedestrian", path) for path in paths]

    def crosser(self, s: float) -> Group:
        """Somebody crossing the road on foot."""
        side, section = self.side(), self.road.section
        speed, start = float(self.rng.uniform(1.0, 1.6)), float(self.rng.uniform(-0.3, 0.8)) * self.duration
        d = side * (section.asphalt(side) + 0.5 + speed * start)
        path = Trajectory(self.road, s, d, across=Pace(speed), across_sign=-side)
        return [draft(self.rng, "pedestrian", path)]

    def parked_cycles(self, kind: str) -> Callable[[float], Group]:
        """One to three two-wheelers in a row, at the kerb or on the pavement."""

        def make(s: float) -> Group:
            side, section = self.side(), self.road.section
            turn = side * np.pi / 2 + float(self.rng.normal(0, 0.15))
            edge = section.asphalt(side)
            d = side * (edge - 1.3 if kind == "motorcycle" else edge + self.rng.uniform(1.2, section.pavement + 1.5))
            count = int(self.rng.integers(1, 3))
            return self._off_crossing([self.still(kind, s + 1.15 * i, d, turn) for i in range(count)])

        return make

    def cyclist(self, s: float) -> Group:
        """Somebody on a bicycle, in the bicycle lane."""
        side = self.side()
        pace = Pace(float(self.rng.uniform(3.0, 5.5)))
        path = Trajectory(self.road, s, side * self.road.section.bike_centre(side), along=pace, along_sign=-side)
        return [draft(self.rng, "bicycle", path, True)]

    def work_zone(self, s: float) -> Group:
        """Barriers and cones around a construction vehicle on the parking strip, with a worker or two."""
        side, section, rng = self.side(), self.road.section, self.rng
        edge = section.lanes_edge(side) + section.bike_lane
        forward = -side
        group = []
        for i in range(int(rng.integers(2, 5))):
            position = s + forward * (i * 2.75 - 1.4)
            group.append(self.still("barrier", position, side * (edge + 0.15), np.pi / 2 + rng.normal(0, 0.03)))
        for i in range(int(rng.integers(2, 4))):
            taper = edge + 0.4 + 0.55 * i
            group.append(self.still("traffic_cone", s - forward * (3.6 + 1.7 * i), side * taper, rng.uniform(-3, 3)))
        machine = "construction_vehicle"
        inside = section.asphalt(side) + rng.uniform(0.6, 1.2)
        group.append(
            self.still(machine, s + forward * 3.0, side * inside, rng.choice([0, np.pi]) + rng.normal(0, 0.12))
        )
        worker = Trajectory(self.road, s - forward * 2.2, side * (inside + rng.uniform(-0.5, 0.8)), rng.uniform(-3, 3))
        group.append(draft(rng, "worker", worker))
        return self._off_crossing(group)

    def closure(self, s: float) -> Group:
        """A line of barriers, or of cones, beside the parking strip or across a yard."""
        side, section, rng = self.side(), self.road.section, self.rng
        in_yard = rng.random() < 0.4
        d = (
            section.pavement_edge(side) + rng.uniform(0.8, 3.0)
            if in_yard
            else section.asphalt(side) - rng.uniform(0.5, 2.6)
        )
        if rng.random() < 0.5:
            turn = np.pi / 2 + rng.normal(0, 0.05)
            return self._off_crossing(
                [self.still("barrier", s + 2.7 * i, side * d, turn) for i in range(int(rng.integers(2, 4)))]
            )
        gap = rng.uniform(1.6, 2.6)
        return self._off_crossing(
            [self.still("traffic_cone", s + gap * i, side * d, rng.uniform(-3, 3)) for i in range(3)]
        )

    def bin(self, s: float) -> Group:
        """A waste bin on the pavement."""
        side = self.side()
        d = side * (self.road.section.asphalt(side) + self.rng.uniform(0.6, self.road.section.pavement))
        return self._off_crossing([self.still("bin", s, d, self.rng.uniform(-3, 3))])

    def lane_traffic(self, side: int, lane: int, pace: Pace) -> None:
        """Vehicles that follow one another in a lane, all at the lane's pace so that they never meet."""
        travel = float(pace.distance(self.duration))
        sign = -side
        start, end = (self.first - travel, self.last) if sign > 0 else (self.first, self.last + travel)
        d = side * (lane + 0.5) * self.road.section.lane
        kinds = ["car", "truck", "bus", "motorcycle", "road_train"]
        s = start + self.rng.uniform(0, 25)
        while s < end:
            kind = str(self.rng.choice(kinds, p=[0.40, 0.18, 0.17, 0.18, 0.07]))
            path = Trajectory(self.road, s, d, along=pace, along_sign=sign)
            if kind == "road_train":
                tractor = draft(self.rng, "truck", path)
                behind = s - sign * (tractor.size[0] / 2 + SIZES["trailer"].length / 2 + 1.4)
                self.add([tractor, draft(self.rng, "trailer", replace(path, s=behind))])
            else:
                self.add([draft(self.rng, kind, path, kind == "motorcycle")])
            s += self.rng.uniform(18, 42)

    def side_street_queue(self, side: int) -> None:
        """One to three vehicles that wait to turn into the road."""
        road, rng = self.road, self.rng
        s = road.crossing - side * road.crossing_half_width / 2
        front = road.section.asphalt(side) + rng.uniform(0.8, 2.0)
        for _ in range(int(rng.integers(1, 4))):
            kind = str(rng.choice(["car", "truck", "bus", "motorcycle"], p=[0.5, 0.2, 0.15, 0.15]))
            one = draft(rng, kind, Trajectory(road, s, 0.0, -side * np.pi / 2), kind == "motorcycle")
            d = side * (front + one.size[0] / 2)
            self.add([replace(one, path=replace(one.path, d=d), waits=True)])
            front += one.size[0] + rng.uniform(1.2, 3.0)

    def _off_crossing(self, group: Group) -> Group:
        """Move the whole group along the road if a member stands on the side street."""
        reach = [(one.path.s, max(one.size[:2]) / 2) for one in group]
        if not any(self.road.near_crossing(s, half + 2.0) for s, half in reach):
            return group
        middle = float(np.mean([s for s, _ in reach]))
        span = max(abs(s - middle) + half for s, half in reach)
        away = 1.0 if middle > self.road.crossing else -1.0
        target = self.road.crossing + away * (self.road.crossing_half_width + span + 2.5 + self.rng.uniform(0, 8))
        shift = target - middle
        return [replace(one, path=replace(one.path, s=one.path.s + shift)) for one in group]


def populate(road: Road, ego: Trajectory, duration: float, reach: float, rng: np.random.Generator) -> tuple[Actor, ...]:
    """All actors of a scene of `duration` seconds, from `reach` metres before the ego's first position on the road to
    as far behind its last one."""
    folk = Populace(road, ego, duration, reach, rng)
    for side, lane, pace in _lanes(road, ego, rng):
        folk.lane_traffic(side, lane, pace)
    for side in (-1, 1):
        folk.side_street_queue(side)
    for density, make in _static_plan(folk):
        folk.spread(density * float(rng.uniform(0.85, 1.2)), make)
    return tuple(dress(one) for one in folk.drafts)


def _lanes(road: Road, ego: Trajectory, rng: np.random.Generator) -> Iterator[tuple[int, int, Pace]]:
    for lane in range(road.section.lanes_right):
        in_ego_lane = lane == road.section.lanes_right - 1
        yield -1, lane, ego.along if in_ego_lane else Pace(float(rng.uniform(4, 11)), float(rng.uniform(0, 0.8)))
    for lane in range(road.section.lanes_left):
        yield 1, lane, Pace(float(rng.uniform(4, 10)), float(rng.uniform(0, 0.8)))


def _static_plan(folk: Populace) -> list[tuple[float, Callable[[float], Group]]]:
    """Groups per 100 m of road and their makers, the bulky ones first."""
    return [
        (1.9, folk.work_zone),
        (1.2, folk.at_kerb("trailer")),
        (1.2, folk.at_kerb("bus")),
        (1.2, folk.at_kerb("truck")),
        (1.4, folk.in_yard("trailer", across=False)),
        (1.2, folk.in_yard("truck", across=False)),
        (1.2, folk.in_yard("bus", across=False)),
        (2.0, folk.in_yard("construction_vehicle", across=False)),
        (3.4, folk.in_yard("car", across=True)),
        (3.6, folk.at_kerb("car")),
        (2.6, folk.parked_cycles("motorcycle")),
        (2.6, folk.parked_cycles("bicycle")),
        (2.4, folk.cyclist),
        (3.4, folk.closure),
        (1.0, folk.crosser),
        (6.0, folk.walker),
        (3.6, folk.bystander),
        (1.2, folk.bin),
    ]
