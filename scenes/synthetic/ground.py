"""The ground of a stretch of road as a metric picture: surfaces, markings, wear, and the shadows of what stands still.

A `GroundMap` covers the ego positions of one block of samples with a margin around. Row 0 is its north edge: pixel
`(col, row)` is global `x = x0 + col * step`, `y = y1 - row * step`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.catalogue import SEMANTICS
from scenes.synthetic.shadows import CONTACT_LIGHT, Shade
from scenes.synthetic.surfaces import GRASS, NEUTRAL, MetricCanvas, draw_surfaces, wear_down
from scenes.synthetic.textures import NOISE_SIZE, noise_bytes
from scenes.synthetic.world import World

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

MARGIN = 64.0
"""Metres of ground around the ego positions."""
SEMANTIC_OF_SURFACE = np.array(
    [SEMANTICS[name] for name in ("flat.terrain", "flat.sidewalk", "flat.driveable_surface", "flat.other")]
    + [SEMANTICS["flat.sidewalk"]]
    + [SEMANTICS["flat.driveable_surface"]] * 2,
    dtype=np.uint8,
)


@dataclass(frozen=True)
class GroundMap:
    """Lit picture of the ground as a pyramid, and the kind of surface per cell."""

    x0: float
    y1: float
    step: float
    pictures: tuple[Bytes, ...]
    """uint8 RGB `[rows, cols, 3]`, each half the size of the one before."""
    surface: Bytes
    """Index of the surface (GRASS, ...) at the resolution of the first picture."""
    sunlit: Bytes
    """255 in the sun, 0 in the shade of what stands still."""

    def map_from_global(self) -> Floats:
        """3x3: (x, y, 1) -> (column, row, 1) of the first picture."""
        scale = 1 / self.step
        return np.array([[scale, 0.0, -self.x0 * scale], [0.0, -scale, self.y1 * scale], [0.0, 0.0, 1.0]])

    def cells(self, xy: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column (clipped to the map) of global points `[..., 2]`."""
        rows, cols = self.surface.shape
        col = np.rint((xy[..., 0] - self.x0) / self.step).astype(np.int64)
        row = np.rint((self.y1 - xy[..., 1]) / self.step).astype(np.int64)
        return np.clip(row, 0, rows - 1), np.clip(col, 0, cols - 1)

    def semantics(self, xy: Floats) -> Bytes:
        """nuScenes-lidarseg number of the ground at global points `[..., 2]`."""
        return np.asarray(SEMANTIC_OF_SURFACE[self.surface[self.cells(xy)]], np.uint8)


def paint_ground(world: World, positions: Floats, step: float, shade: Shade) -> GroundMap:
    """The ground around ego `positions` `[n, 2]` at `step` metres a pixel, with the `shade` of what stands still."""
    low = np.floor((positions.min(axis=0) - MARGIN) / 8) * 8
    high = np.ceil((positions.max(axis=0) + MARGIN) / 8) * 8
    cols, rows = np.rint((high - low) / step).astype(int).tolist()
    x0, y1 = float(low[0]), float(high[1])

    def canvas(value: int) -> MetricCanvas:
        return MetricCanvas(x0, y1, step, np.full((rows, cols), value, dtype=np.uint8))

    surface = draw_surfaces(world.road, (x0, y1), step, (rows, cols))
    sun, contact, repairs = canvas(255), canvas(NEUTRAL), canvas(NEUTRAL)
    for polygon in shade.sun:
        sun.fill(polygon, 0)
    for polygon in shade.contact:
        contact.fill(polygon, round(NEUTRAL * CONTACT_LIGHT))
    wear_down(repairs, world)
    sunlit = np.asarray(cv2.GaussianBlur(sun.image, (0, 0), max(0.6, 0.1 / step)), np.uint8)
    cv2.multiply(
        repairs.image, cv2.GaussianBlur(contact.image, (0, 0), max(0.6, 0.16 / step)), repairs.image, 1 / NEUTRAL
    )
    pictures = [_picture(world, surface, sunlit, repairs.image, (x0, y1), step)]
    for _ in range(3):
        half = cv2.resize(pictures[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        pictures.append(np.asarray(half, np.uint8))
    return GroundMap(x0, y1, step, tuple(pictures), surface, sunlit)


def _picture(
    world: World, surface: Bytes, sunlit: Bytes, repairs: Bytes, origin: tuple[float, float], step: float
) -> Bytes:
    """Lit colours: surface colour x wear x light, channel by channel."""
    wear = _tiled(noise_bytes(0, 1.1, 9.0), surface.shape, origin, step, 0.05)
    stains = _tiled(noise_bytes(1, 2.2, 11.0), surface.shape, origin, step, 0.2)
    tufts = _tiled(noise_bytes(2, 1.3, 30.0), surface.shape, origin, step, 0.05)
    cv2.multiply(wear, stains, wear, 1 / 128)
    cv2.multiply(wear, repairs, wear, 1 / 128)
    cv2.copyTo(tufts, (surface == GRASS).view(np.uint8), wear)
    sun, shade = world.weather.ground_light, world.weather.sky_light
    planes = []
    for channel, colours in enumerate(_palette(world).T):
        table = np.zeros(256)
        table[: len(colours)] = colours * sun[channel]
        plane = cv2.LUT(surface, np.clip(table, 0, 255).astype(np.uint8))
        dark = float(np.clip(shade[channel] / sun[channel], 0, 1))
        light = cv2.LUT(sunlit, np.rint(np.linspace(dark, 1, 256) * 255).astype(np.uint8))
        cv2.multiply(light, wear, light, 1 / 255)
        planes.append(cv2.multiply(plane, light, scale=1 / 128))
    return np.asarray(cv2.blur(cv2.merge(planes), (3, 3)), np.uint8)


def _palette(world: World) -> Floats:
    """Reflectance RGB of each surface in this scene."""
    rng = np.random.default_rng(world.ground_style)
    grey, paving = rng.uniform(78, 116), rng.uniform(126, 160)
    yards = [(118, 108, 92), (112, 112, 112), (132, 122, 108), (96, 98, 80)]
    return np.array(
        [
            np.array([82, 90, 56]) * rng.uniform(0.8, 1.1),
            paving * np.array([1.02, 1.0, 0.96]),
            grey * np.array([1.0, 1.0, 1.02]),
            np.array(yards[int(rng.integers(len(yards)))]) * rng.uniform(0.85, 1.1),
            np.array([164, 162, 157]),
            np.array([216, 216, 212]) * rng.uniform(0.85, 1.0),
            np.array([200, 160, 64]) * rng.uniform(0.8, 1.0),
        ]
    )


def _tiled(tile: Bytes, shape: tuple[int, ...], origin: tuple[float, float], step: float, texel: float) -> Bytes:
    """A noise tile laid over the map, fixed to global coordinates; a texel is `texel` metres."""
    if step > texel:
        coarse = cv2.resize(tile, None, fx=texel / step, fy=texel / step, interpolation=cv2.INTER_AREA)
        tile = np.asarray(coarse, np.uint8)
        texel *= NOISE_SIZE / tile.shape[0]
    cols = ((origin[0] + np.arange(shape[1]) * step) / texel).astype(np.int64) % tile.shape[1]
    rows = ((origin[1] - np.arange(shape[0]) * step) / texel).astype(np.int64) % tile.shape[0]
    return np.asarray(tile[:, cols][rows], np.uint8)
