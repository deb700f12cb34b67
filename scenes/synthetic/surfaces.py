"""Which surface lies where: road, pavement, yards, markings and wear, drawn on a metric canvas."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.road import Road
from scenes.synthetic.world import World

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

GRASS, PAVING, ASPHALT, YARD, KERB, WHITE, YELLOW = range(7)
NEUTRAL = 128
"""Brightness of unworn ground."""


class MetricCanvas:
    """Fills metric shapes into an array whose upper left corner is global `(x0, y1)`, `step` metres a pixel."""

    def __init__(self, x0: float, y1: float, step: float, image: Bytes) -> None:
        self.x0, self.y1, self.step, self.image = x0, y1, step, image

    def fill(self, xy: Floats, value: int) -> None:
        pixels = np.stack([(xy[:, 0] - self.x0) / self.step, (self.y1 - xy[:, 1]) / self.step], axis=1)
        cv2.fillPoly(self.image, [np.rint(pixels * 16).astype(np.int32)], (value,), cv2.LINE_8, 4)

    def strip(self, road: Road, s: tuple[float, float], d: tuple[float, float], value: int) -> None:
        """The band of the road between two positions and two offsets."""
        stations = np.append(np.arange(s[0], s[1], 2.0), s[1])
        edge = np.concatenate([road.at(stations, d[0]), road.at(stations[::-1], d[1])])
        self.fill(edge, value)


def draw_surfaces(road: Road, canvas_origin: tuple[float, float], step: float, shape: tuple[int, int]) -> Bytes:
    """Surface index of each cell of a map whose upper left corner is `canvas_origin`."""
    surface = np.full(shape, GRASS, dtype=np.uint8)
    canvas = MetricCanvas(*canvas_origin, step, surface)
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


def _side_street(canvas: MetricCanvas, road: Road, value: int, half_width: float) -> None:
    heading = float(road.heading_at(road.crossing))
    along, across = np.array([np.cos(heading), np.sin(heading)]), np.array([-np.sin(heading), np.cos(heading)])
    middle = road.at(road.crossing, 0.0)
    corners = [middle + a * half_width * along + b * 120.0 * across for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    canvas.fill(np.array(corners), value)


def _markings(canvas: MetricCanvas, road: Road) -> None:
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


def _zebra(canvas: MetricCanvas, road: Road, side: int, stop: float) -> None:
    """Pedestrian crossings on both sides of the side street, and stop lines before them."""
    for sign in (-1, 1):
        s = road.crossing + sign * (stop - 4.2)
        for d in np.arange(0.3, road.section.asphalt(side) - 0.4, 1.0):
            canvas.strip(road, (s - 1.5, s + 1.5), (side * d, side * (d + 0.5)), WHITE)
    s = road.crossing + side * (stop - 1.0)
    canvas.strip(road, (s - 0.2, s + 0.2), (side * 0.3, side * road.section.lanes_edge(side)), WHITE)


def wear_down(canvas: MetricCanvas, world: World) -> None:
    """Wheel tracks, repaired patches, sealed cracks and manholes, as brightness around 128."""
    road, rng = world.road, np.random.default_rng([world.ground_style, 1])
    section = road.section
    for side in (-1, 1):
        for lane in range(section.lanes_right if side < 0 else section.lanes_left):
            middle = side * (lane + 0.5) * section.lane
            for track in (-0.8, 0.8):
                canvas.strip(road, (road.s_start, road.s_end), (middle + track - 0.3, middle + track + 0.3), 123)
    edges = (-section.asphalt(-1), section.asphalt(1))
    for _ in range(round((road.s_end - road.s_start) / 7)):
        s, d = float(rng.uniform(road.s_start, road.s_end)), float(rng.uniform(*edges))
        kind = rng.choice(["patch", "crack", "manhole"], p=[0.35, 0.4, 0.25])
        if kind == "patch":
            size = rng.uniform(1.0, 6.0), rng.uniform(0.8, 2.4)
            canvas.strip(road, (s, s + size[0]), (d, d + size[1]), int(rng.choice([108, 114, 138])))
        elif kind == "manhole":
            angles = np.linspace(0, 2 * np.pi, 13)[:-1]
            canvas.fill(road.at(s, d) + 0.36 * np.stack([np.cos(angles), np.sin(angles)], axis=1), 84)
        else:
            path = np.array([s, d]) + np.cumsum(rng.normal([0.9, 0.0], [0.2, 0.35], (6, 2)), axis=0)
            for (s0, d0), (s1, d1) in pairwise(path):
                canvas.fill(
                    np.array([road.at(s0, d0 - 0.04), road.at(s1, d1 - 0.04), road.at(s1, d1), road.at(s0, d0)]), 92
                )


def map_mask(road: Road) -> Bytes:
    """The scene's map as nuScenes stores it: 255 on road and pavement, 0 elsewhere, 0.1 m a pixel."""
    width, height = road.extent()
    step = 0.1
    shape = (round(height / step), round(width / step))
    surface = draw_surfaces(road, (0.0, height), step, shape)
    prior = (surface != GRASS) & (surface != YARD)
    return np.where(prior, 255, 0).astype(np.uint8)
