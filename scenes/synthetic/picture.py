"""One camera picture of the world at one moment, with the object number of every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from scenes.synthetic import shadows
from scenes.synthetic.backdrop import draw_ground, draw_sky
from scenes.synthetic.drawing import draw_block, draw_crown, draw_model
from scenes.synthetic.ground import GroundMap
from scenes.synthetic.paint_order import upright_order
from scenes.synthetic.textures import noise
from scenes.synthetic.view import NEAR, View
from scenes.synthetic.world import Actor, Block, Crown, Prop, World

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

ACTOR_RANGE = 90.0
SCENERY_RANGE = 170.0
MOST_NUMBERS = 255


@dataclass(frozen=True, slots=True)
class Picture:
    """A rendered image."""

    image: Bytes
    """uint8 RGB `[H, W, 3]`."""
    numbers: Bytes
    """uint8 `[H, W]`: 0, or 1 + position in `actors` of the object the pixel shows."""
    actors: tuple[int, ...]
    """Indices into `World.actors`."""
    drawn: NDArray[np.int64]
    """Pixels each of `actors` would cover if nothing stood before it."""
    seen: NDArray[np.int64]
    """Pixels each of `actors` does cover."""


@dataclass(frozen=True, slots=True)
class _Item:
    """Something to draw, with the upright box around it."""

    thing: Actor | Block | Crown | Prop
    actor: int
    pose: Floats
    half: tuple[float, float]
    low: float
    high: float


class Stage:
    """A world with its ground, sky and scenery prepared: what all pictures of a block of samples share."""

    def __init__(self, world: World, ground: GroundMap, panorama: Bytes) -> None:
        self.world, self.ground, self.panorama = world, ground, panorama
        self._scenery = [_scenery_item(thing) for thing in (*world.blocks, *world.crowns, *world.props)]

    def items(self, t: float, centre: Floats) -> list[_Item]:
        """Everything near enough to `centre` at time `t`."""
        found = [i for i in self._scenery if np.hypot(*(i.pose[:2] - centre[:2])) < SCENERY_RANGE]
        actors = []
        for index, actor in enumerate(self.world.actors):
            pose = actor.trajectory.pose(t)
            distance = float(np.hypot(*(pose[:2] - centre[:2])))
            if distance < ACTOR_RANGE:
                length, width, height = actor.size_lwh
                actors.append((distance, _Item(actor, index, pose, (length / 2, width / 2), 0.0, float(height))))
        actors.sort(key=lambda entry: entry[0])
        return found + [item for _, item in actors]

    def sunshine(self, x: float, y: float) -> float:
        """How much of the sun reaches a place on the ground, 0 to 1, next to (not under) what stands there."""
        towards = self.world.weather.sun[:2] * 2.2
        row, col = self.ground.cells(np.array([x + towards[0], y + towards[1]]))
        return float(self.ground.sunlit[row, col]) / 255


def take_picture(stage: Stage, view: View, t: float, rng: np.random.Generator) -> Picture:
    """Render what the camera sees at time `t` (seconds); `rng` makes the sensor noise."""
    height, width = view.image_size
    canvas = np.zeros((height, width, 4), dtype=np.uint8)
    items = [item for item in stage.items(t, view.centre) if _in_sight(item, view)]
    draw_sky(canvas, view, stage.panorama)
    draw_ground(canvas, view, stage.ground, stage.world.weather, _moving_shadows(stage, view, items))
    ordered = _ordered(items, view)
    numbers: dict[int, int] = {}
    drawn: list[int] = []
    for item in ordered:
        if item.actor < 0:
            _draw_scenery(canvas, view, stage, item)
        elif len(numbers) < MOST_NUMBERS:
            number = len(numbers) + 1
            numbers[item.actor] = number
            drawn.append(_draw_actor(canvas, view, stage, item, t, number))
    labels = np.ascontiguousarray(canvas[..., 3])
    seen = np.bincount(labels.ravel(), minlength=len(numbers) + 1)[1 : len(numbers) + 1]
    image = develop(cv2.cvtColor(canvas, cv2.COLOR_RGBA2RGB), rng)
    return Picture(image, labels, tuple(numbers), np.array(drawn, dtype=np.int64), seen)


def develop(image: Bytes, rng: np.random.Generator) -> Bytes:
    """Lens and sensor: slight blur, vignetting, noise."""
    height, width = image.shape[:2]
    scale = width / 1600
    if scale > 0.4:
        image = cv2.GaussianBlur(image, (3, 3), 0.55 * scale + 0.1)
    shade = _vignette(height, width)
    cv2.multiply(image, shade, image, 1 / 255)
    pattern = _sensor_noise()
    row, col = rng.integers(0, pattern.shape[0] - height % 1 - 1), rng.integers(0, 512)
    row = int(rng.integers(0, 124))
    tile = pattern[row : row + 900, col : col + 1600]
    tile = (
        cv2.resize(tile, (width, height), interpolation=cv2.INTER_NEAREST)
        if tile.shape[:2] != image.shape[:2]
        else tile
    )
    return cv2.subtract(cv2.add(image, tile), np.full((1, 1, 3), 0, np.uint8)) if False else _add_noise(image, tile)


def _add_noise(image: Bytes, tile: Bytes) -> Bytes:
    return cv2.addWeighted(image, 1.0, tile, 1.0, -16.0)


_CACHE: dict[tuple[int, int], Bytes] = {}


def _vignette(height: int, width: int) -> Bytes:
    if (height, width) not in _CACHE:
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        shade = 255 * (1 - 0.16 * (x**2 + 0.6 * y**2) ** 1.5 / 1.6**1.5)
        _CACHE[height, width] = np.repeat(shade.astype(np.uint8)[..., None], 3, axis=2)
    return _CACHE[height, width]


_NOISE: list[Bytes] = []


def _sensor_noise() -> Bytes:
    """Offset-16 noise, mostly in brightness."""
    if not _NOISE:
        rng = np.random.default_rng(17)
        grey = rng.normal(0, 2.0, (1024, 2112, 1))
        field = grey + rng.normal(0, 1.0, (1024, 2112, 3))
        _NOISE.append(np.clip(np.rint(field + 16), 0, 32).astype(np.uint8))
    return _NOISE[0]


def _draw_actor(canvas: Bytes, view: View, stage: Stage, item: _Item, t: float, number: int) -> int:
    """Draw an actor; returns how many pixels it covers before anything nearer is drawn."""
    assert isinstance(item.thing, Actor)
    light = stage.sunshine(item.pose[0], item.pose[1])
    draw_model(canvas, view, item.thing.model(t), item.pose, light, stage.world.weather, number)
    x0, y0, x1, y1 = _screen_box(item, view)
    height, width = view.image_size
    window = canvas[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width), 3]
    return int(np.count_nonzero(window == number))


def _draw_scenery(canvas: Bytes, view: View, stage: Stage, item: _Item) -> None:
    weather = stage.world.weather
    if isinstance(item.thing, Block):
        draw_block(canvas, view, item.thing, weather)
    elif isinstance(item.thing, Crown):
        draw_crown(canvas, view, item.thing, 1.0, weather)
    elif isinstance(item.thing, Prop):
        light = stage.sunshine(item.pose[0], item.pose[1])
        draw_model(canvas, view, item.thing.model, item.pose, light, weather, 0)


def _scenery_item(thing: Block | Crown | Prop) -> _Item:
    if isinstance(thing, Block):
        length, width, height = thing.size_lwh
        return _Item(thing, -1, thing.pose, (length / 2, width / 2), 0.0, float(height))
    if isinstance(thing, Crown):
        x, y, z = thing.centre
        r = thing.radius
        return _Item(thing, -1, np.array([x, y, 0.0]), (r * 0.6, r * 0.6), float(z - r), float(z + r))
    low, high = thing.model.bounds[:, 0].min(axis=0), thing.model.bounds[:, 1].max(axis=0)
    half = float(np.abs(np.stack([low, high]))[:, :2].max())
    return _Item(thing, -1, thing.pose, (min(half, 0.2), min(half, 0.2)), 0.0, float(high[2]))


def _corners(item: _Item) -> Floats:
    c, s = np.cos(item.pose[2]), np.sin(item.pose[2])
    flat = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]) * item.half
    if isinstance(item.thing, Crown):
        flat = flat * 2.2
    flat = flat @ np.array([[c, s], [-s, c]]) + item.pose[:2]
    return np.concatenate([np.column_stack([flat, np.full(4, z)]) for z in (item.low, item.high)])


def _in_sight(item: _Item, view: View) -> bool:
    x0, y0, x1, y1 = _screen_box(item, view)
    height, width = view.image_size
    return x1 > 0 and y1 > 0 and x0 < width and y0 < height


def _screen_box(item: _Item, view: View) -> tuple[int, int, int, int]:
    """Pixels spanned by the item's box (x0, y0, x1, y1), generously where it reaches behind the camera."""
    homogeneous = _corners(item) @ view.image_from_global[:, :3].T + view.image_from_global[:, 3]
    depth = homogeneous[:, 2]
    height, width = view.image_size
    if depth.max() < NEAR:
        return (0, 0, 0, 0)
    if depth.min() < NEAR:
        return (0, 0, width, height)
    pixels = homogeneous[:, :2] / depth[:, None]
    (x0, y0), (x1, y1) = np.floor(pixels.min(axis=0)) - 2, np.ceil(pixels.max(axis=0)) + 3
    return int(max(x0, -1e6)), int(max(y0, -1e6)), int(min(x1, 1e6)), int(min(y1, 1e6))


def _ordered(items: list[_Item], view: View) -> list[_Item]:
    """Far things first."""
    if not items:
        return []
    boxes = np.array([_screen_box(item, view) for item in items])
    low, high = boxes[:, :2], boxes[:, 2:]
    meet = ((low[:, None] < high[None]) & (low[None] < high[:, None])).all(axis=2)
    yaw = np.array([item.pose[2] for item in items])
    c, s = np.cos(yaw), np.sin(yaw)
    order = upright_order(
        np.array([item.pose[:2] for item in items]),
        np.stack([np.stack([c, s], 1), np.stack([-s, c], 1)], 1),
        np.array([item.half for item in items]),
        np.array([item.low for item in items]),
        np.array([item.high for item in items]),
        view.centre,
        meet,
    )
    return [items[int(i)] for i in order]


def _moving_shadows(stage: Stage, view: View, items: list[_Item]) -> list[Floats]:
    """Shadow polygons, in pixels, of the actors that move, where the sun reaches them."""
    polygons = []
    for item in items:
        if item.actor < 0 or not isinstance(item.thing, Actor) or item.thing.trajectory.is_still:
            continue
        if stage.sunshine(item.pose[0], item.pose[1]) < 0.3:
            continue
        for flat in shadows.of_model(item.thing.models[0], item.pose, stage.world.weather.sun):
            ground = np.column_stack([flat, np.zeros(len(flat)), np.ones(len(flat))])
            pixels = view.clipped(ground @ view.image_from_global.T)
            if len(pixels):
                polygons.append(pixels)
    return polygons
