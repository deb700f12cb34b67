"""The LiDAR: every beam meets the ground or the nearest solid; points carry what they hit.

All solids are convex, so a beam enters one at the farthest of the planes it crosses inwards, if it has not left it
before. For each solid only the beams within its angles are tried.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.ground import GroundMap
from scenes.synthetic.obstacles import Obstacles, Solids
from scenes.synthetic.rig import BEAM_LOWEST, BEAM_STEP, BEAMS, LIDAR_COLUMNS, beam_directions
from scenes.synthetic.world import World

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Singles = NDArray[np.float32]

FARTHEST = 95.0
"""Metres; beams that meet nothing closer are not stored."""
RANGE_NOISE = 0.015
"""Standard deviation of the measured range, metres."""
SLACK = 1e-6
"""Share of a beam's step by which solids are taken wider than they are."""
LEAVES = 0.45
"""Chance that a beam through a crown meets a leaf."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """One turn of the LiDAR, n points, as stored by nuScenes, with what each point hit."""

    points: NDArray[np.float32]
    """`[n, 5]`: x, y, z in the LiDAR frame (metres), intensity (0 to 255), ring."""
    semantics: NDArray[np.uint8]
    """`[n]` nuScenes-lidarseg number."""
    actors: NDArray[np.int32]
    """`[n]` index into `World.actors`, -1 for scenery and ground."""


class Scanner:
    """Scans one world; scenery is prepared once."""

    def __init__(self, world: World, ground: GroundMap, ego_from_lidar: Floats) -> None:
        self.ground, self.ego_from_lidar = ground, ego_from_lidar
        self._beams = beam_directions()
        self._rings = np.tile(np.arange(BEAMS), LIDAR_COLUMNS)
        self._obstacles = Obstacles(world)

    def scan(self, t: float, global_from_ego: Floats, rng: np.random.Generator) -> Sweep:
        """One turn at time `t` (seconds), seen from one place: points are free of ego motion."""
        global_from_lidar = global_from_ego @ self.ego_from_lidar
        origin = global_from_lidar[:3, 3]
        directions = np.einsum("nk,jk->nj", self._beams, global_from_lidar[:3, :3])
        solids = self._obstacles.at(t, origin)
        reach, owner = self._ground_ranges(origin, directions), np.full(len(directions), -1)
        self._meet(solids, origin, directions, global_from_lidar, reach, owner, rng)
        hit = np.flatnonzero(reach < FARTHEST)
        noise = rng.standard_normal((2, len(hit)), dtype=np.float32)
        reach, owner = reach[hit] + RANGE_NOISE * noise[0], owner[hit]
        xyz = self._beams[hit] * reach[:, None]
        on_ground = owner < 0
        semantics = np.where(on_ground, 0, solids.semantic[owner]).astype(np.uint8)
        ground_points = origin[:2] + directions[hit[on_ground], :2] * reach[on_ground, None]
        semantics[on_ground] = self.ground.semantics(ground_points)
        reflectance = np.where(on_ground, 14.0, solids.reflectance[owner])
        intensity = np.clip(reflectance * np.exp(0.4 * noise[1] - reach / 90), 0, 255).astype(int)
        points = np.column_stack([xyz, intensity, self._rings[hit]]).astype(np.float32)
        return Sweep(points, semantics, np.where(on_ground, -1, solids.actor[owner]).astype(np.int32))

    def _ground_ranges(self, origin: Floats, directions: Floats) -> Floats:
        with np.errstate(divide="ignore"):
            reach = -origin[2] / directions[:, 2]
        return np.where(directions[:, 2] < 0, reach, np.inf)

    def _meet(
        self, solids: Solids, origin: Floats, directions: Floats, global_from_lidar: Floats, reach: Floats, owner: Ints,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        """Shorten `reach` and set `owner` where a beam meets a solid."""
        solid, beam = _candidates(solids, origin, global_from_lidar)
        enter, leave = _crossings(solids.planes, origin, solid, directions[beam].T)
        met = (enter > 0.3) & (enter <= leave)
        met &= ~solids.porous[solid] | (rng.random(len(solid)) < LEAVES)
        solid, beam, enter = solid[met], beam[met], enter[met].astype(np.float64)
        ground = reach.copy()
        np.minimum.at(reach, beam, enter)
        first = (enter == reach[beam]) & (enter < ground[beam])
        owner[beam[first]] = solid[first]


def _crossings(planes: Floats, origin: Floats, solid: Ints, rays: Floats) -> tuple[Singles, Singles]:
    """Distances at which rays `[3, P]` from `origin` enter and leave the solids `[P]` that they are tried on."""
    room = (planes[..., 3] - planes[..., :3] @ origin).T.astype(np.float32)
    normals = np.ascontiguousarray(planes[..., :3].transpose(1, 2, 0), dtype=np.float32)
    enter = np.full(len(solid), -np.inf, dtype=np.float32)
    leave = np.full(len(solid), np.inf, dtype=np.float32)
    rounded = np.flatnonzero(np.abs(planes[:, 6:, :3]).any(axis=(1, 2))[solid])
    x, y, z = rays.astype(np.float32)
    for k in range(planes.shape[1]):
        some = slice(None) if k < 6 else rounded
        which = solid[some]
        slope = normals[k, 0][which] * x[some] + normals[k, 1][which] * y[some] + normals[k, 2][which] * z[some]
        slope[slope == 0] = 1e-12  # parallel: crosses far away, on the side that `room` says
        crossing = room[k][which] / slope
        inwards = slope < 0
        enter[some] = np.maximum(enter[some], np.where(inwards, crossing, -np.inf))
        leave[some] = np.minimum(leave[some], np.where(inwards, np.inf, crossing))
    return enter, leave


def _candidates(solids: Solids, origin: Floats, global_from_lidar: Floats) -> tuple[Ints, Ints]:
    """Pairs (solid, beam) whose angles match; beams are numbered column by column."""
    heading = np.arctan2(global_from_lidar[1, 0], global_from_lidar[0, 0])
    offset = solids.footprint - origin[:2]
    azimuth = np.arctan2(offset[..., 1], offset[..., 0]) - heading
    middle = azimuth[:, :1]
    spread = (azimuth - middle + np.pi) % (2 * np.pi) - np.pi
    distance = np.hypot(offset[..., 0], offset[..., 1])
    nearest = np.maximum(_distance_to_footprint(solids.footprint, origin[:2]), 0.2)
    farthest = distance.max(axis=1)
    step = 2 * np.pi / LIDAR_COLUMNS
    # columns run clockwise from straight behind (azimuth +pi), their beams in the middle of a step
    first = np.ceil((np.pi - middle[:, 0] - spread.max(axis=1)) / step - 0.5 - SLACK).astype(np.int64)
    last = np.floor((np.pi - middle[:, 0] - spread.min(axis=1)) / step - 0.5 + SLACK).astype(np.int64)
    columns = np.clip(last - first + 1, 0, LIDAR_COLUMNS)
    below, above = solids.low - origin[2], solids.high - origin[2]
    lowest = np.degrees(np.arctan2(below, np.where(below < 0, nearest, farthest)))
    highest = np.degrees(np.arctan2(above, np.where(above > 0, nearest, farthest)))
    ring_first = np.clip(np.ceil((lowest - BEAM_LOWEST) / BEAM_STEP - SLACK).astype(np.int64), 0, BEAMS)
    ring_last = np.clip(np.floor((highest - BEAM_LOWEST) / BEAM_STEP + SLACK).astype(np.int64), -1, BEAMS - 1)
    rings = np.maximum(ring_last - ring_first + 1, 0)
    rings[nearest > FARTHEST] = 0
    count = columns * rings
    solid = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(solid)) - np.repeat(np.cumsum(count) - count, count)
    column = (first[solid] + within // np.maximum(rings[solid], 1)) % LIDAR_COLUMNS
    return solid, column * BEAMS + ring_first[solid] + within % np.maximum(rings[solid], 1)


def _distance_to_footprint(footprint: Floats, point: Floats) -> Floats:
    """Distance `[S]` of a point to rectangles `[S, 4, 2]`, 0 inside."""
    ends = np.roll(footprint, -1, axis=1)
    along, offset = ends - footprint, point - footprint
    share = np.clip((offset * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-9), 0, 1)
    gap = np.linalg.norm(offset - share[..., None] * along, axis=-1).min(axis=1)
    cross = along[..., 0] * offset[..., 1] - along[..., 1] * offset[..., 0]
    return np.where((cross >= 0).all(axis=1), 0.0, gap)
