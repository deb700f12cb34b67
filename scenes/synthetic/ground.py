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
from scenes.synthetic.road import Road
from scenes.synthetic.textures import NOISE_SIZE, noise_bytes
from scenes.synthetic.world import World

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

MARGIN = 64.0
"""Metres of ground around the ego positions."""
GRASS, PAVING, ASPHALT, YARD, KERB, WHITE, YELLOW = range(7)
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
        return SEMANTIC_OF_SURFACE[self.surface[self.cells(xy)]]


class _Canvas:
    """Fills metric shapes into an array."""

    def __init__(self, x0: float, y1: float, step: float, image: Bytes) -> None:
        self.x0, self.y1, self.step, self.image = x0, y1, step, image

    def fill(self, xy: Floats, value: int) -> None:
        pixels = np.stack([(xy[:, 0] - self.x0) / self.step, (self.y1 - xy[:, 1]) / self.step], axis=1)
        cv2.fillPoly(self.image, [np.rint(pixels * 16).astype(np.int32)], value, cv2.LINE_8, 4)

    def strip(self, road: Road, s: tuple[float, float], d: tuple[float, float], value: int) -> None:
        """The band of the road between two positions and two offsets."""
        stations = np.append(np.arange(s[0], s[1], 2.0), s[1])
        edge = np.concatenate([road.at(stations, d[0]), road.at(stations[::-1], d[1])])
        self.fill(edge, value)


def draw_surfaces(road: Road, canvas_origin: tuple[float, float], step: float, shape: tuple[int, int]) -> Bytes:
    """Surface index of each cell of a map whose upper left corner is `canvas_origin`."""
    surface = np.full(shape, GRASS, dtype=np.uint8)
    canvas = _Canvas(*canvas_origin, step, surface)
    section, whole = road.section, (road.s_start, road.s_end)
    _side_street(canvas, road, YARD, road.crossing_half_width + 14)
    for side in (-1, 1):
        canvas.strip(road, whole, (0.0, side * (section.building_line(side) + 2)), YARD)
        canvas.strip(road, whole, (0.0, side * section.pavement_edge(side)), PAVING)
    _side_street(canvas, road, PAVING, road.crossing_half_width + 2.5)
    for side in (-1, 1):
        canvas.strip(road, whole, (0.0, side * (section.asphalt(side) + 0.18)), KERB)
    _side_street(canvas, road, KERB, road.crossing_half_width + 0.18)
    for side in (-1, 1):
        canvas.strip(road, whole, (0.0, side * section.asphalt(side)), ASPHALT)
    _side_street(canvas, road, ASPHALT, road.crossing_half_width)
    _markings(canvas, road)
    return surface


def _side_street(canvas: _Canvas, road: Road, value: int, half_width: float) -> None:
    heading = float(road.heading_at(road.crossing))
    along, across = np.array([np.cos(heading), np.sin(heading)]), np.array([-np.sin(heading), np.cos(heading)])
    middle = road.at(road.crossing, 0.0)
    corners = [middle + a * half_width * along + b * 120.0 * across for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    canvas.fill(np.array(corners), value)


def _markings(canvas: _Canvas, road: Road) -> None:
    section, stop = road.section, road.crossing_half_width + 7.0
    stretches = [(road.s_start, road.crossing - stop), (road.crossing + stop, road.s_end)]
    for start, end in stretches:
        for offset in (-0.14, 0.14):
            canvas.strip(road, (start, end), (offset - 0.05, offset + 0.05), YELLOW)
        for side in (-1, 1):
            lanes = section.lanes_right if side < 0 else section.lanes_left
            edge = side * section.lanes_edge(side)
            canvas.strip(road, (start, end), (edge - 0.06, edge + 0.06), WHITE)
            strip = side * (section.lanes_edge(side) + section.bike_lane)
            for s in np.arange(start, end - 3, 6.0):
                canvas.strip(road, (s, s + 0.1), (strip, side * section.asphalt(side)), WHITE)
                canvas.strip(road, (s, s + 1.2), (strip - 0.04, strip + 0.04), WHITE)
            for lane in range(1, lanes):
                for s in np.arange(start, end - 3, 8.0):
                    d = side * lane * section.lane
                    canvas.strip(road, (s, s + 3.0), (d - 0.07, d + 0.07), WHITE)
            _zebra(canvas, road, side, stop)


def _zebra(canvas: _Canvas, road: Road, side: int, stop: float) -> None:
    """Pedestrian crossings on both sides of the side street, and stop lines before them."""
    for sign in (-1, 1):
        s = road.crossing + sign * (stop - 4.2)
        for d in np.arange(0.3, road.section.asphalt(side) - 0.4, 1.0):
            canvas.strip(road, (s - 1.5, s + 1.5), (side * d, side * (d + 0.5)), WHITE)
    s = road.crossing + side * (stop - 1.0)
    canvas.strip(road, (s - 0.2, s + 0.2), (side * 0.3, side * road.section.lanes_edge(side)), WHITE)


def paint_ground(world: World, positions: Floats, step: float, shadows: list[Floats]) -> GroundMap:
    """The ground around ego `positions` `[n, 2]` at `step` metres a pixel; `shadows` are polygons `[k, 2]`."""
    low = np.floor((positions.min(axis=0) - MARGIN) / 8) * 8
    high = np.ceil((positions.max(axis=0) + MARGIN) / 8) * 8
    cols, rows = (int(round(size / step)) for size in high - low)
    origin = (float(low[0]), float(high[1]))
    surface = draw_surfaces(world.road, origin, step, (rows, cols))
    sunlit = np.full((rows, cols), 255, dtype=np.uint8)
    shade = _Canvas(*origin, step, sunlit)
    for polygon in shadows:
        shade.fill(polygon, 0)
    sunlit = cv2.GaussianBlur(sunlit, (0, 0), max(0.6, 0.12 / step))
    picture = _picture(world, surface, sunlit, origin, step)
    pictures = [picture]
    for _ in range(3):
        pictures.append(cv2.resize(pictures[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return GroundMap(origin[0], origin[1], step, tuple(pictures), surface, sunlit)


def _picture(world: World, surface: Bytes, sunlit: Bytes, origin: tuple[float, float], step: float) -> Bytes:
    """Lit colours: surface colour x wear x light, channel by channel."""
    wear = _tiled(noise_bytes(0, 1.1, 9.0), surface.shape, origin, step, 0.05)
    stains = _tiled(noise_bytes(1, 2.2, 11.0), surface.shape, origin, step, 0.2)
    tufts = _tiled(noise_bytes(2, 1.3, 30.0), surface.shape, origin, step, 0.05)
    cv2.multiply(wear, stains, wear, 1 / 128)
    cv2.copyTo(tufts, cv2.compare(surface, GRASS, cv2.CMP_EQ), wear)
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
    return cv2.blur(cv2.merge(planes), (3, 3))


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
        tile = cv2.resize(tile, None, fx=texel / step, fy=texel / step, interpolation=cv2.INTER_AREA)
        texel *= NOISE_SIZE / tile.shape[0]
    cols = ((origin[0] + np.arange(shape[1]) * step) / texel).astype(np.int64) % tile.shape[1]
    rows = ((origin[1] - np.arange(shape[0]) * step) / texel).astype(np.int64) % tile.shape[0]
    return tile[:, cols][rows]


def map_mask(road: Road) -> Bytes:
    """The scene's map as nuScenes stores it: 255 on road and pavement, 0 elsewhere, 0.1 m a pixel."""
    width, height = road.extent()
    step = 0.1
    shape = (round(height / step), round(width / step))
    surface = draw_surfaces(road, (0.0, height), step, shape)
    prior = (surface != GRASS) & (surface != YARD)
    return prior.astype(np.uint8) * 255
