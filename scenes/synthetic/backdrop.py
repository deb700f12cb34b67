"""What lies behind all objects in a picture: the sky all around and the ground with its shadows."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.ground import GroundMap
from scenes.synthetic.shadows import CONTACT_LIGHT, Shade
from scenes.synthetic.textures import PANORAMA_HIGHEST, PANORAMA_LOWEST, noise_bytes
from scenes.synthetic.view import SHIFT, View
from scenes.synthetic.world import Weather

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

SOFT = 3
"""Pixels per computed pixel of sky, along both axes: the panorama is not finer."""
LATTICE = 8
"""Computed pixels between the directions that are calculated."""
BANDS = ((0.0, 0.5, 0), (12.0, 2.0, 0), (30.0, 4.0, 1))
"""Bands of ground: from how far ahead of the camera (metres), rows computed per pixel row, level of the pyramid.

More rows where the ground is foreshortened, averaged afterwards: no shimmer, no blur across. Along a row every second
pixel is computed, as a cell of the ground is wider than that wherever it is seen.
"""
ACROSS = 0.5
"""Pixels computed per pixel along a row."""
HAZE_STEP = 2
"""Pixel rows that share one weight of the haze."""
GRAIN_STEP = 4
"""Pixel rows that share one strength of the grain."""
DETAIL_METRES = 0.008
"""Texel of the fine asphalt grain, drawn on the nearest band."""
GRAIN_WITHIN, GRAIN_REACH, GRAIN_PERIOD = 7.0, 10.0, 4.096
"""Metres: how far ahead of the camera, how far in any direction, and how often it repeats."""


def draw_sky(canvas: Bytes, view: View, panorama: Bytes) -> None:
    """Fill the canvas with sky down to the lowest point of the horizon."""
    height, width = view.image_size
    bottom = min(height, horizon_rows(view)[1] + 2)
    if bottom <= 0:
        return
    # directions on a coarse lattice, enlarged: they bend slowly, and arctangents are dear
    rows, columns = -(-bottom // SOFT), -(-width // SOFT)
    v, u = np.mgrid[0 : rows + LATTICE : LATTICE, 0 : columns + LATTICE : LATTICE] * float(SOFT) + (SOFT - 1) / 2
    x, y, z = view.rays @ np.stack([u.ravel(), v.ravel(), np.ones(u.size)])
    middle = np.arctan2(*(view.rays @ np.array([width / 2, bottom / 2, 1.0]))[1::-1])
    turn = (np.arctan2(y, x) - middle + np.pi) % (2 * np.pi) - np.pi
    elevation = np.degrees(np.arctan2(z, np.hypot(x, y)))
    column = (turn + middle) * (panorama.shape[1] / (2 * np.pi))
    row = (PANORAMA_HIGHEST - elevation) * (panorama.shape[0] / (PANORAMA_HIGHEST - PANORAMA_LOWEST))
    maps = [_enlarged(field.reshape(u.shape), (rows, columns)) for field in (column, row)]
    sky = cv2.remap(panorama, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    sky = cv2.resize(sky, (SOFT * columns, SOFT * rows), interpolation=cv2.INTER_LINEAR)
    cv2.mixChannels([sky[:bottom, :width]], [canvas[:bottom]], [0, 0, 1, 1, 2, 2])


def _enlarged(field: Floats, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Bilinear enlargement of lattice values that lie at multiples of `LATTICE`."""
    scale = np.array([[1 / LATTICE, 0.0, 0.0], [0.0, 1 / LATTICE, 0.0]])
    enlarged = cv2.warpAffine(
        field.astype(np.float32), scale, (shape[1], shape[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return np.asarray(enlarged, np.float32)


def horizon_rows(view: View) -> tuple[int, int]:
    """First and last pixel row that the horizon passes through."""
    width = view.image_size[1]
    a, b, c = view.rays[2]
    rows = [-(a * u + c) / b for u in (0.0, width - 1.0)]
    return int(np.floor(min(rows))), int(np.ceil(max(rows)))


def _row_at(view: View, distance: float) -> float:
    """Pixel row, in the middle of the image, of ground that is `distance` metres ahead."""
    middle = view.rays[2] @ np.array([view.image_size[1] / 2, 0.0, 1.0])
    return float((-view.centre[2] / distance - middle) / view.rays[2, 1])


def draw_ground(canvas: Bytes, view: View, ground: GroundMap, weather: Weather, shade: Shade) -> None:
    """Draw the ground below the horizon; `shade` holds polygons in pixels of what moves."""
    height, width = view.image_size
    top, bottom = horizon_rows(view)
    top, bottom = max(top + 1, 0), max(bottom + 2, 0)
    if top >= height:
        return
    picture = np.empty((height - top, width, 3), dtype=np.uint8)
    row = top
    for near, down, level in BANDS[::-1]:
        end = height
        if near > 0:
            end = int(np.clip(_row_at(view, near), row, height))
        if end > row:
            picture[row - top : end - top] = _band(view, ground, row, end, down, level)
            row = end
    _grain(picture, view, top)
    _cast(picture, shade, top, weather)
    _haze(picture, view, top, weather)
    mixed = min(bottom, height) - top
    cv2.mixChannels([picture[mixed:]], [canvas[top + mixed :]], [0, 0, 1, 1, 2, 2])
    if mixed > 0:
        v, u = np.mgrid[top : top + mixed, 0:width]
        below = (view.rays[2, 0] * u + view.rays[2, 1] * v + view.rays[2, 2]) < -1e-4
        strip = canvas[top : top + mixed, :, :3]
        strip[below] = picture[:mixed][below]


def _ground_from_rows(view: View, first_row: float, across: float, down: float) -> Floats:
    """3x3: (column, row of a band with `across` x `down` cells a pixel, 1) -> (x, y, 1) on the ground, up to scale."""
    unfold = np.array([[1 / across, 0.0, 0.5 / across - 0.5], [0.0, 1 / down, first_row + 0.5 / down - 0.5], [0, 0, 1]])
    rays = view.rays @ unfold
    cx, cy, cz = view.centre
    return np.stack([cx * rays[2] - cz * rays[0], cy * rays[2] - cz * rays[1], rays[2]])


def _band(view: View, ground: GroundMap, first: int, end: int, down: float, level: int) -> Bytes:
    """Rows `first` to `end` of the picture of the ground."""
    width = view.image_size[1]
    half = 0.5**level
    shrink = np.array([[half, 0.0, half / 2 - 0.5], [0.0, half, half / 2 - 0.5], [0.0, 0.0, 1.0]])
    warp = shrink @ ground.map_from_global() @ _ground_from_rows(view, first, ACROSS, down)
    band = cv2.warpPerspective(
        ground.pictures[level], warp, (int(np.ceil(width * ACROSS)), int(np.ceil((end - first) * down))),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    if down > 1:
        band = cv2.resize(band, (band.shape[1], end - first), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(band, (width, end - first), interpolation=cv2.INTER_LINEAR), np.uint8)


def _grain(picture: Bytes, view: View, top: int) -> None:
    """Fine grain on the ground that is close enough to show it, fading out with distance."""
    height, width = view.image_size
    first = int(np.clip(_row_at(view, GRAIN_WITHIN), top, height))
    if first >= height:
        return
    near_x, near_y = np.floor((view.centre[:2] - GRAIN_REACH) / GRAIN_PERIOD) * GRAIN_PERIOD
    texels = np.array([[1.0, 0.0, -near_x], [0.0, 1.0, -near_y], [0.0, 0.0, DETAIL_METRES]]) / DETAIL_METRES
    warp = texels @ _ground_from_rows(view, first, 1.0, 1.0)
    grain = cv2.warpPerspective(
        _grain_tiles(), warp, (width, height - first),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    fade = max(1, (height - first) // 2)
    for row in range(0, fade, GRAIN_STEP):  # no edge where the grain sets in
        rows = grain[row : min(row + GRAIN_STEP, fade)]
        cv2.convertScaleAbs(rows, rows, row / fade, 128 * (1 - row / fade))
    near = picture[first - top :]
    cv2.multiply(near, cv2.merge([grain, grain, grain]), near, 1 / 128)


@lru_cache(maxsize=1)
def _grain_tiles() -> Bytes:
    """Grain tiled far enough to reach `GRAIN_REACH` to all sides of any place in its first tile."""
    tile = noise_bytes(9, 0.5, 13.0, round(GRAIN_PERIOD / DETAIL_METRES))
    count = int(np.ceil(2 * GRAIN_REACH / GRAIN_PERIOD)) + 1
    return np.tile(tile, (count, count))


def _cast(picture: Bytes, shade: Shade, top: int, weather: Weather) -> None:
    """Darken the ground under moving objects; polygons in pixels."""
    if not shade.sun and not shade.contact:
        return
    light = np.full(picture.shape[:2], 255, dtype=np.uint8)
    in_shade = float((weather.sky_light / weather.ground_light).mean())
    for polygons, left in ((shade.sun, in_shade), (shade.contact, in_shade * CONTACT_LIGHT)):
        for polygon in polygons:
            corners = np.rint((polygon - [0, top]) * (1 << SHIFT)).astype(np.int32)
            cv2.fillConvexPoly(light, corners, (round(255 * left),), cv2.LINE_8, SHIFT)
    spans = [np.concatenate([polygon.min(axis=0), polygon.max(axis=0)]) for polygon in shade.sun + shade.contact]
    low = np.min(spans, axis=0)[:2] - np.array([4, top + 4])
    high = np.max(spans, axis=0)[2:] - np.array([-5, top - 5])
    (x0, y0), (x1, y1) = (np.clip(end, 0, light.shape[::-1]).astype(int).tolist() for end in (low, high))
    if x0 < x1 and y0 < y1:
        area = picture[y0:y1, x0:x1]
        soft = cv2.blur(light[y0:y1, x0:x1], (7, 5))
        cv2.multiply(area, cv2.merge([soft, soft, soft]), area, 1 / 255)


def _haze(picture: Bytes, view: View, top: int, weather: Weather) -> None:
    """Blend distant ground into the haze, row by row."""
    width = view.image_size[1]
    rows = np.arange(len(picture)) + top
    drop = -(view.rays[2] @ np.stack([np.full(len(rows), width / 2), rows, np.ones(len(rows))]))
    distance = view.centre[2] / np.maximum(drop, 1e-4)
    share = 1 - np.exp(-np.minimum(distance, 2000.0) / weather.haze)
    haze = np.empty_like(picture[:HAZE_STEP])
    haze[:] = np.clip(weather.horizon, 0, 255)
    for row in range(0, int((share > 0.03).sum()), HAZE_STEP):
        rows_here, weight = picture[row : row + HAZE_STEP], float(share[row : row + HAZE_STEP].mean())
        cv2.addWeighted(rows_here, 1 - weight, haze[: len(rows_here)], weight, 0.0, rows_here)
