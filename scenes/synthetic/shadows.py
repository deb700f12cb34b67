"""Shadows on level ground: hulls of what stands between the sun and the ground."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.solids import Model
from scenes.synthetic.world import Block, Crown, World

Floats = NDArray[np.float64]

LONGEST = 25.0
"""Shadows reach at most this many times the height of what casts them."""


CONTACT_BELOW = 0.45
"""What of an object is lower than this (metres) keeps the sky's light from the ground."""
CONTACT_LIGHT = 0.45
"""Share of light left under an object."""


@dataclass(frozen=True)
class Shade:
    """Dark ground: where the sun does not reach, and where objects stand close above; polygons `[k, 2]`."""

    sun: list[Floats]
    contact: list[Floats]


def fall(points: Floats, sun: Floats) -> Floats:
    """Where the shadow of global points `[n, 3]` falls on the ground, `[n, 2]`."""
    slope = min(1 / max(float(sun[2]), 1 / LONGEST), LONGEST)
    shadow: Floats = points[:, :2] - points[:, 2:] * slope * sun[:2]
    return shadow


def of_model(model: Model, pose: Floats, sun: Floats) -> list[Floats]:
    """One hull per solid of a model at `pose` (x, y, yaw)."""
    c, s = np.cos(pose[2]), np.sin(pose[2])
    rotation = np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    shadow = fall(model.points @ rotation + [pose[0], pose[1], 0.0], sun)
    solid_of_point = np.repeat(model.solid_of, np.diff(model.starts))
    return [hull(shadow[solid_of_point == solid]) for solid in range(len(model.planes))]


def of_block(block: Block, sun: Floats) -> Floats:
    """Hull of a building or hedge."""
    return hull(fall(block_corners(block), sun))


def of_crown(crown: Crown, sun: Floats) -> list[Floats]:
    """Patches of a leafy crown."""
    rng = np.random.default_rng(np.abs(np.rint(crown.centre * 100)).astype(np.int64))
    patches = []
    for _ in range(14):
        offset = rng.normal(0, 0.42, 3) * crown.radius
        angles = np.linspace(0, 2 * np.pi, 9)[:-1]
        radius = crown.radius * rng.uniform(0.2, 0.5) * rng.uniform(0.8, 1.2, 8)
        rim = np.stack([np.cos(angles) * radius, np.sin(angles) * radius, np.zeros(8)], axis=1)
        patches.append(fall(crown.centre + offset + rim, sun))
    return patches


def under_model(model: Model, pose: Floats) -> Floats:
    """Outline of what of a model is close to the ground."""
    c, s = np.cos(pose[2]), np.sin(pose[2])
    low = model.points[model.points[:, 2] < CONTACT_BELOW, :2]
    return hull(low @ np.array([[c, s], [-s, c]]) + pose[:2])


def at_rest(world: World) -> Shade:
    """Shade of everything that stands still during the scene."""
    sun = world.weather.sun
    shadows = [of_block(block, sun) for block in world.blocks]
    for crown in world.crowns:
        shadows += of_crown(crown, sun)
    for prop in world.props:
        shadows += of_model(prop.model, prop.pose, sun)
    contact = []
    for actor in world.actors:
        if actor.trajectory.is_still:
            pose = actor.trajectory.pose(0.0)
            shadows += of_model(actor.models[0], pose, sun)
            contact.append(under_model(actor.models[0], pose))
    return Shade(shadows, contact)


def block_corners(block: Block) -> Floats:
    """Global corners `[8, 3]`: bottom four counter-clockwise from rear right, then the top four."""
    length, width, height = block.size_lwh / 2 * [1, 1, 2]
    x, y, yaw = block.pose
    c, s = np.cos(yaw), np.sin(yaw)
    flat = np.array([[-length, -width], [length, -width], [length, width], [-length, width]])
    flat = flat @ np.array([[c, s], [-s, c]]) + [x, y]
    return np.concatenate([np.column_stack([flat, np.zeros(4)]), np.column_stack([flat, np.full(4, height)])])


def hull(points: Floats) -> Floats:
    """Convex hull of `[n, 2]`."""
    around: Floats = cv2.convexHull(points.astype(np.float32))[:, 0].astype(np.float64)
    return around
