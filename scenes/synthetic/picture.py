"""One camera picture of the world at one moment, with the object number of every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from scenes.synthetic import shadows
from scenes.synthetic.backdrop import draw_ground, draw_sky
from scenes.synthetic.develop import develop
from scenes.synthetic.drawing import draw_block, draw_crown, draw_model
from scenes.synthetic.stage import Sight, Stage
from scenes.synthetic.view import View
from scenes.synthetic.world import Actor, Block, Crown

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

SHADE_RANGE = 60.0
"""Metres from the camera within which moving actors cast shadows."""
SHADE_LEAST = 0.3
"""An actor with less sunshine than this casts none."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A rendered image."""

    image: Bytes
    """uint8 RGB `[H, W, 3]`."""
    numbers: Bytes
    """uint8 `[H, W]`: 0, or 1 + position in `actors` of the object the pixel shows."""
    actors: list[int]
    """Indices into `World.actors`."""
    drawn: Ints
    """Pixels each of `actors` would cover if nothing stood before it."""
    seen: Ints
    """Pixels each of `actors` does cover."""


def take_picture(stage: Stage, view: View, t: float, rng: np.random.Generator) -> Picture:
    """Render what the camera sees at time `t` (seconds); `rng` makes the sensor noise."""
    height, width = view.image_size
    canvas = stage.blank_canvas(height, width)
    poses = stage.poses(t)
    sunshine = stage.sunshine(poses)
    sight = stage.sight(view, poses)
    draw_sky(canvas, view, stage.panorama)
    draw_ground(canvas, view, stage.ground, stage.world.weather, _moving_shade(stage, view, sight, poses, sunshine))
    actors: list[int] = []
    drawn: list[int] = []
    weather = stage.world.weather
    for index, (x0, y0, x1, y1) in zip(sight.things, sight.boxes, strict=True):
        thing, pose, light = stage.things[index], poses[index], float(sunshine[index])
        if isinstance(thing, Block):
            draw_block(canvas, view, thing, weather)
        elif isinstance(thing, Crown):
            draw_crown(canvas, view, thing, weather)
        elif isinstance(thing, Actor):
            actors.append(index - stage.first_actor)
            model = thing.model(t)
            draw_model(canvas, view, model, pose, stage.colours(index, model, pose[2], light), weather, len(actors))
            drawn.append(int(np.count_nonzero(canvas[y0:y1, x0:x1, 3] == len(actors))))
        else:
            colours = stage.colours(index, thing.model, pose[2], light)
            draw_model(canvas, view, thing.model, pose, colours, weather, 0)
    numbers = np.asarray(cv2.extractChannel(canvas, 3), np.uint8)
    seen = cv2.calcHist([numbers], [0], None, [256], [0, 256])[1 : len(actors) + 1, 0]
    image = develop(np.asarray(cv2.cvtColor(canvas, cv2.COLOR_RGBA2RGB), np.uint8), rng)
    return Picture(image, numbers, actors, np.array(drawn, dtype=np.int64), seen.astype(np.int64))


def _moving_shade(stage: Stage, view: View, sight: Sight, poses: Floats, sunshine: Floats) -> shadows.Shade:
    """Shade, in pixels, of the actors that move."""
    shade = shadows.Shade([], [])
    for index in sight.things:
        thing = stage.things[index]
        if not isinstance(thing, Actor) or thing.trajectory.is_still:
            continue
        if np.hypot(*(poses[index, :2] - view.centre[:2])) > SHADE_RANGE:
            continue
        shade.contact.extend(_on_image([shadows.under_model(thing.models[0], poses[index])], view))
        if sunshine[index] > SHADE_LEAST:
            hulls = shadows.of_model(thing.models[0], poses[index], stage.world.weather.sun)
            shade.sun.extend(_on_image(hulls, view))
    return shade


def _on_image(polygons: list[Floats], view: View) -> list[Floats]:
    """Polygons on the ground as the camera sees them, in pixels; those out of sight are left out."""
    linear = view.image_from_global
    homogeneous = np.concatenate(polygons) @ linear[:, :2].T + linear[:, 3]
    shown = []
    for part in np.split(homogeneous, np.cumsum([len(polygon) for polygon in polygons])[:-1]):
        pixels = part[:, :2] / part[:, 2:] if part[:, 2].min() > 1.0 else view.clipped(part)
        if len(pixels):
            shown.append(pixels)
    return shown
