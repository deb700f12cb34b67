"""What all pictures of a block of samples share, and what of it a camera sees at one moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.drawing import lit_colours
from scenes.synthetic.ground import GroundMap
from scenes.synthetic.motion import Fleet
from scenes.synthetic.paint_order import upright_order
from scenes.synthetic.solids import Model
from scenes.synthetic.view import NEAR, View
from scenes.synthetic.world import Actor, Block, Crown, Prop, World

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Thing = Block | Crown | Prop | Actor

ACTOR_RANGE = 90.0
SCENERY_RANGE = 170.0
MOST_ACTORS = 255
"""Numbers that fit into a canvas's fourth channel."""


@dataclass(frozen=True, slots=True)
class Sight:
    """Things in a picture, far ones first."""

    things: list[int]
    """Indices into `Stage.things`."""
    boxes: list[tuple[int, int, int, int]]
    """x0, y0, x1, y1 of the pixels each may cover, within the image."""


class Stage:
    """A world with its ground and sky, and arrays of the upright boxes around everything in it."""

    def __init__(self, world: World, ground: GroundMap, panorama: Bytes) -> None:
        self.world, self.ground, self.panorama = world, ground, panorama
        scenery: tuple[Thing, ...] = (*world.blocks, *world.crowns, *world.props)
        self.things: tuple[Thing, ...] = (*scenery, *world.actors)
        self.first_actor = len(scenery)
        self._canvas = np.empty((0, 0, 4), dtype=np.uint8)
        self._colours: dict[int, Floats] = {}
        self._fleet = Fleet([actor.trajectory for actor in world.actors])
        self._scenery_poses = np.array([_pose(thing) for thing in scenery])
        extents = [_extent(thing) for thing in self.things]
        self._half = np.array([half for half, *_ in extents])
        self._low, self._high = np.array([low for _, low, *_ in extents]), np.array([high for *_, high, _ in extents])
        self._outline = self._half * np.array([reach for *_, reach in extents])[:, None]

    def blank_canvas(self, height: int, width: int) -> Bytes:
        """uint8 `[height, width, 4]` of zeros; the same memory each time, which saves clearing fresh pages."""
        if self._canvas.shape[:2] != (height, width):
            self._canvas = np.empty((height, width, 4), dtype=np.uint8)
        self._canvas.fill(0)
        return self._canvas

    def poses(self, t: float) -> Floats:
        """x, y, yaw `[n, 3]` of all things at time `t`."""
        return np.concatenate([self._scenery_poses, self._fleet.poses(t)])

    def actor_poses(self, t: float) -> Floats:
        """x, y, yaw `[n, 3]` of all actors at time `t`."""
        return self._fleet.poses(t)

    def sunshine(self, poses: Floats) -> Floats:
        """How much of the sun reaches places on the ground, 0 to 1, next to (not under) what stands there."""
        ahead = poses[:, :2] + self.world.weather.sun[:2] * 2.2
        return self.ground.sunlit[self.ground.cells(ahead)] / 255.0

    def colours(self, index: int, model: Model, yaw: float, light: float) -> Floats:
        """Lit colours `[F, 3]` of a thing's model; those of what stands still are worked out once."""
        known = self._colours.get(index)
        if known is not None:
            return known
        colours = lit_colours(model, yaw, light, self.world.weather)
        thing = self.things[index]
        if isinstance(thing, Prop) or (isinstance(thing, Actor) and thing.trajectory.is_still):
            self._colours[index] = colours
        return colours

    def sight(self, view: View, poses: Floats) -> Sight:
        """What the camera may see, in the order to draw it."""
        distance = np.hypot(*(poses[:, :2] - view.centre[:2]).T)
        near = distance < SCENERY_RANGE
        actors = distance[self.first_actor :]
        cap = np.sort(actors)[MOST_ACTORS - 1] if len(actors) > MOST_ACTORS else ACTOR_RANGE
        near[self.first_actor :] = actors <= min(cap, ACTOR_RANGE)
        candidates = np.flatnonzero(near)
        boxes = self._pixel_boxes(view, poses, candidates)
        height, width = view.image_size
        boxes = np.clip(boxes, 0, [width, height, width, height])
        shown = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        candidates, boxes = candidates[shown], boxes[shown]
        if len(candidates) == 0:
            return Sight([], [])
        meet = ((boxes[:, None, :2] < boxes[None, :, 2:]) & (boxes[None, :, :2] < boxes[:, None, 2:])).all(axis=2)
        yaw = poses[candidates, 2]
        axes = np.stack([np.stack([np.cos(yaw), np.sin(yaw)], 1), np.stack([-np.sin(yaw), np.cos(yaw)], 1)], 1)
        order = upright_order(
            poses[candidates, :2], axes, self._half[candidates], self._low[candidates], self._high[candidates],
            view.centre, meet,
        )  # fmt: skip
        return Sight(candidates[order].tolist(), [tuple(box) for box in boxes[order].tolist()])

    def _pixel_boxes(self, view: View, poses: Floats, things: Ints) -> Ints:
        """Pixels `[n, 4]` spanned by the boxes of things; everything where a box reaches behind the camera."""
        signs = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
        flat = signs * self._outline[things, None, :]
        c, s = np.cos(poses[things, 2])[:, None], np.sin(poses[things, 2])[:, None]
        x = poses[things, :1] + flat[..., 0] * c - flat[..., 1] * s
        y = poses[things, 1:2] + flat[..., 0] * s + flat[..., 1] * c
        corners = np.empty((len(things), 2, 4, 3))
        corners[..., 0], corners[..., 1] = x[:, None], y[:, None]
        corners[:, 0, :, 2], corners[:, 1, :, 2] = self._low[things, None], self._high[things, None]
        homogeneous = (
            corners.reshape(len(things), 8, 3) @ view.image_from_global[:, :3].T + view.image_from_global[:, 3]
        )
        depth = homogeneous[..., 2]
        pixels = homogeneous[..., :2] / np.maximum(depth, NEAR)[..., None]
        boxes = np.concatenate([np.floor(pixels.min(axis=1)) - 2, np.ceil(pixels.max(axis=1)) + 3], axis=1)
        boxes[depth.min(axis=1) < NEAR] = [-1e6, -1e6, 1e6, 1e6]
        boxes[depth.max(axis=1) < NEAR] = 0
        return np.asarray(np.clip(boxes, -1e6, 1e6), np.int64)


def _pose(thing: Thing) -> Floats:
    if isinstance(thing, Crown):
        return np.array([thing.centre[0], thing.centre[1], 0.0])
    assert isinstance(thing, Block | Prop)
    return thing.pose


def _extent(thing: Thing) -> tuple[tuple[float, float], float, float, float]:
    """Half length and width, lowest and highest point, and how far the drawing reaches beyond the half sizes."""
    if isinstance(thing, Crown):
        half, z = 0.6 * thing.radius, float(thing.centre[2])
        return (half, half), z - 1.3 * thing.radius, z + 1.3 * thing.radius, 2.1
    if isinstance(thing, Prop):
        bounds = thing.model.bounds
        reach = float(np.abs(bounds[..., :2]).max())
        half = min(reach, 0.2)  # a lamp's arm hangs above everything: its post decides what hides what
        return (half, half), 0.0, float(bounds[..., 2].max()), reach / half
    length, width, height = thing.size_lwh.tolist()
    return (length / 2, width / 2), 0.0, height, 1.0
