"""All convex solids of a world as arrays in the global frame: what the LiDAR can meet."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.catalogue import SEMANTICS
from scenes.synthetic.motion import Fleet
from scenes.synthetic.shadows import block_corners
from scenes.synthetic.solids import MAX_PLANES, Model
from scenes.synthetic.world import Block, Crown, World, posture_at

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ACTOR_RANGE = 80.0
"""Metres; actors farther away are not scanned."""


@dataclass(frozen=True)
class Solids:
    """S convex solids and whose they are."""

    planes: Floats
    """`[S, 10, 4]` normals and offsets, `n . x <= d` inside."""
    footprint: Floats
    """`[S, 4, 2]` corners of a rectangle around each, counter-clockwise."""
    low: Floats
    high: Floats
    actor: Ints
    """Index into `World.actors`, -1 for scenery."""
    semantic: Ints
    """nuScenes-lidarseg number."""
    reflectance: Floats
    porous: NDArray[np.bool_]
    """Leaves: some beams pass."""

    def only(self, chosen: NDArray[np.bool_] | Ints) -> Solids:
        """A subset."""
        return Solids(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})


class Obstacles:
    """The solids of a world; scenery stays, actors are put where they are at the time asked for."""

    def __init__(self, world: World) -> None:
        self._starts = np.array([actor.trajectory.s for actor in world.actors])
        self._counts = np.array([len(actor.models) for actor in world.actors])
        self._fleet = Fleet([actor.trajectory for actor in world.actors])
        self._scenery = _joined([*_blocks(world.blocks), *_crowns(world.crowns), *_props(world)])
        semantics = [SEMANTICS[actor.category] for actor in world.actors]
        postures = max((len(actor.models) for actor in world.actors), default=1)
        self._postures = [
            _joined(
                [
                    _of_model(actor.models[k % len(actor.models)], index, semantics[index], 36.0)
                    for index, actor in enumerate(world.actors)
                ]
            )
            for k in range(postures)
        ]

    def at(self, t: float, centre: Floats) -> Solids:
        """All solids near `centre` at time `t`."""
        poses = self._fleet.poses(t)
        posture = posture_at(t, self._starts, self._counts)
        near = np.hypot(*(poses[:, :2] - centre[:2]).T) < ACTOR_RANGE
        parts = [self._scenery]
        for k, solids in enumerate(self._postures):
            chosen = solids.only((near & (posture == k))[solids.actor])
            parts.append(_placed(chosen, poses[chosen.actor]))
        return _joined(parts)


def _placed(solids: Solids, poses: Floats) -> Solids:
    """Solids from object frames to the global frame; `poses` `[S, 3]`."""
    c, s = np.cos(poses[:, 2])[:, None], np.sin(poses[:, 2])[:, None]
    planes = solids.planes.copy()
    planes[..., 0] = solids.planes[..., 0] * c - solids.planes[..., 1] * s
    planes[..., 1] = solids.planes[..., 0] * s + solids.planes[..., 1] * c
    planes[..., 3] += planes[..., 0] * poses[:, :1] + planes[..., 1] * poses[:, 1:2]
    footprint = np.empty_like(solids.footprint)
    footprint[..., 0] = solids.footprint[..., 0] * c - solids.footprint[..., 1] * s + poses[:, :1]
    footprint[..., 1] = solids.footprint[..., 0] * s + solids.footprint[..., 1] * c + poses[:, 1:2]
    rest = (solids.low, solids.high, solids.actor, solids.semantic, solids.reflectance, solids.porous)
    return Solids(planes, footprint, *rest)


def _of_model(model: Model, actor: int, semantic: int, reflectance: float) -> Solids:
    """The solids of a model in its own frame."""
    low, high = model.bounds[:, 0], model.bounds[:, 1]
    right_front, left_rear = np.stack([high[:, 0], low[:, 1]], axis=1), np.stack([low[:, 0], high[:, 1]], axis=1)
    count = len(model.planes)
    return Solids(
        planes=model.planes,
        footprint=np.stack([low[:, :2], right_front, high[:, :2], left_rear], axis=1),
        low=low[:, 2],
        high=high[:, 2],
        actor=np.full(count, actor),
        semantic=np.full(count, semantic),
        reflectance=np.full(count, reflectance),
        porous=np.zeros(count, dtype=bool),
    )


def _upright(corners: Floats, semantic: str, porous: bool, reflectance: float) -> Solids:
    """A box from its eight corners (bottom four counter-clockwise, then the top four)."""
    planes = np.zeros((1, MAX_PLANES, 4))
    planes[..., 3] = 1.0
    for i in range(4):
        along = corners[(i + 1) % 4] - corners[i]
        normal = np.array([along[1], -along[0], 0.0]) / np.hypot(along[0], along[1])
        planes[0, i] = [*normal, normal @ corners[i]]
    planes[0, 4] = [0, 0, 1, corners[4, 2]]
    planes[0, 5] = [0, 0, -1, -corners[0, 2]]
    return Solids(
        planes, corners[None, :4, :2], corners[None, 0, 2], corners[None, 4, 2],
        np.array([-1]), np.array([SEMANTICS[semantic]]), np.array([reflectance]), np.array([porous]),
    )  # fmt: skip


def _blocks(blocks: tuple[Block, ...]) -> list[Solids]:
    kinds = {True: "static.vegetation", False: "static.manmade"}
    return [_upright(block_corners(block), kinds[block.is_hedge], block.is_hedge, 22.0) for block in blocks]


def _crowns(crowns: tuple[Crown, ...]) -> list[Solids]:
    """A crown as two crossed boxes, through which beams may pass."""
    parts = []
    for crown in crowns:
        for turn, share in ((0.0, 0.85), (np.pi / 4, 0.7)):
            half = crown.radius * share
            pose = np.array([*crown.centre[:2], turn])
            corners = block_corners(Block(pose, np.full(3, 2 * half), 0, is_hedge=True))
            corners[:, 2] += crown.centre[2] - half
            parts.append(_upright(corners, "static.vegetation", True, 18.0))
    return parts


def _props(world: World) -> list[Solids]:
    kinds = {True: SEMANTICS["static.vegetation"], False: SEMANTICS["static.manmade"]}
    parts = []
    for prop in world.props:
        solids = _of_model(prop.model, -1, kinds[prop.vegetation], 26.0)
        parts.append(_placed(solids, np.repeat(prop.pose[None], len(solids.low), axis=0)))
    return parts


def _joined(parts: list[Solids]) -> Solids:
    return Solids(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Solids)})
