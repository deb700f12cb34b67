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
from scenes.synthetic.road import STEP, Road
from scenes.synthetic.textures import NOISE_SIZE, noise
from scenes.synthetic.world import World

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

MARGIN = 75.0
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
    picture = _colour(world, surface, origin, step)
    picture = _light(world, picture, sunlit)
    pictures = [picture]
    for _ in range(3):
        pictures.append(cv2.resize(pictures[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return GroundMap(origin[0], origin[1], step, tuple(pictures), surface, sunlit)


def _colour(world: World, surface: Bytes, origin: tuple[float, float], step: float) -> Bytes:
    """Reflectance: the colour of each surface, worn and stained."""
    rng = np.random.default_rng(world.ground_style)
    grey, paving = rng.uniform(72, 112), rng.uniform(128, 164)
    yards = [(118, 108, 92), (112, 112, 112), (132, 122, 108), (92, 100, 74)]
    palette = np.array(
        [
            np.array([84, 98, 52]) * rng.uniform(0.8, 1.15),
            paving * np.array([1.02, 1.0, 0.96]),
            grey * np.array([1.0, 1.0, 1.02]),
            np.array(yards[int(rng.integers(len(yards)))]) * rng.uniform(0.85, 1.1),
            np.array([168, 166, 160]),
            np.array([222, 222, 218]) * rng.uniform(0.85, 1.0),
            np.array([206, 166, 62]) * rng.uniform(0.8, 1.0),
        ]
    )
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(palette)] = np.clip(palette, 0, 255)
    picture = np.ascontiguousarray(table[surface])
    grain = np.clip(128 + 16 * _tiled(noise(0, 0.7), surface.shape, origin, step, 1.0), 0, 255).astype(np.uint8)
    stains = np.clip(128 + 13 * _tiled(noise(1, 2.2), surface.shape, origin, step, 4.0), 0, 255).astype(np.uint8)
    for wear in (grain, stains):
        cv2.multiply(picture, cv2.merge([wear, wear, wear]), picture, 1 / 128)
    tufts = np.clip(128 + 34 * _tiled(noise(2, 1.2), surface.shape, origin, step, 1.0), 0, 255).astype(np.uint8)
    grass = cv2.multiply(picture, cv2.merge([tufts, tufts, tufts]), scale=1 / 128)
    cv2.copyTo(grass, (surface == GRASS).astype(np.uint8), picture)
    return picture


def _tiled(
    field: NDArray[np.float32], shape: tuple[int, int], origin: tuple[float, float], step: float, stretch: float
) -> NDArray[np.float32]:
    """The noise tile laid over the map, fixed to global coordinates; a texel is `0.05 * stretch` metres."""
    texel = 0.05 * stretch
    cols = (origin[0] + np.arange(shape[1]) * step) / texel % NOISE_SIZE
    rows = (origin[1] - np.arange(shape[0]) * step) / texel % NOISE_SIZE
    if step <= texel:
        wide = np.ascontiguousarray(field[:, cols.astype(np.int64)])
        return np.ascontiguousarray(wide[rows.astype(np.int64)])
    coarse = cv2.resize(field, None, fx=texel / step, fy=texel / step, interpolation=cv2.INTER_AREA)
    size = coarse.shape[0]
    scale = size / NOISE_SIZE
    wide = np.ascontiguousarray(coarse[:, (cols * scale).astype(np.int64) % size])
    return np.ascontiguousarray(wide[(rows * scale).astype(np.int64) % size])


def _light(world: World, picture: Bytes, sunlit: Bytes) -> Bytes:
    """Sun and sky on the ground: one table per channel for the sun, one for the shade, blended by `sunlit`."""
    weather = world.weather
    sun, shade = weather.ground_light, weather.sky_light
    levels = np.arange(256)[:, None]
    bright = np.clip(levels * sun, 0, 255).astype(np.uint8)[None]
    dark = np.clip(levels * shade, 0, 255).astype(np.uint8)[None]
    lit, unlit = cv2.LUT(picture, bright), cv2.LUT(picture, dark)
    weight = cv2.merge([sunlit, sunlit, sunlit])
    return cv2.add(cv2.multiply(lit, weight, scale=1 / 255), cv2.multiply(unlit, 255 - weight, scale=1 / 255))


def map_mask(road: Road) -> Bytes:
    """The scene's map as nuScenes stores it: 255 on road and pavement, 0 elsewhere, 0.1 m a pixel."""
    width, height = road.extent()
    step = 0.1
    shape = (round(height / step), round(width / step))
    surface = draw_surfaces(road, (0.0, height), step, shape)
    prior = (surface != GRASS) & (surface != YARD)
    return prior.astype(np.uint8) * 255
