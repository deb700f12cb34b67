"""What lies behind all objects in a picture: the sky all around and the ground with its shadows."""

from __future__ import annotations

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

LATTICE = 8
"""Half-size pixels between the directions that are computed for the sky."""
BANDS = ((0.0, 1, 0), (12.0, 2, 0), (30.0, 4, 2))
"""Bands of ground: from how far ahead of the camera (metres), rows computed per pixel row, level of the pyramid.

Rows are computed several times over where the ground is foreshortened, then averaged: no shimmer, no blur across.
"""
DETAIL_METRES = 0.008
"""Texel of the fine asphalt grain, drawn on the nearest band."""
GRAIN_WITHIN = 9.0
"""Metres ahead of the camera."""


def draw_sky(canvas: Bytes, view: View, panorama: Bytes) -> None:
    """Fill the canvas with sky down to the lowest point of the horizon."""
    height, width = view.image_size
    bottom = min(height, horizon_rows(view)[1] + 2)
    if bottom <= 0:
        return
    # directions on a coarse lattice, enlarged: they bend slowly, and arctangents are dear; sky at half size: it is soft
    rows, columns = (bottom + 1) // 2, (width + 1) // 2
    v, u = np.mgrid[0 : rows + LATTICE : LATTICE, 0 : columns + LATTICE : LATTICE] * 2.0 + 0.5
    x, y, z = view.rays @ np.stack([u.ravel(), v.ravel(), np.ones(u.size)])
    middle = np.arctan2(*(view.rays @ np.array([width / 2, bottom / 2, 1.0]))[1::-1])
    turn = (np.arctan2(y, x) - middle + np.pi) % (2 * np.pi) - np.pi
    elevation = np.degrees(np.arctan2(z, np.hypot(x, y)))
    column = (turn + middle) * (panorama.shape[1] / (2 * np.pi))
    row = (PANORAMA_HIGHEST - elevation) * (panorama.shape[0] / (PANORAMA_HIGHEST - PANORAMA_LOWEST))
    maps = [_enlarged(field.reshape(u.shape), (rows, columns)) for field in (column, row)]
    sky = cv2.remap(panorama, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    sky = cv2.resize(sky, (2 * columns, 2 * rows), interpolation=cv2.INTER_LINEAR)
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
    for near, fold, level in BANDS[::-1]:
        end = height
        if near > 0:
            end = int(np.clip(_row_at(view, near), row, height))
        if end > row:
            picture[row - top : end - top] = _band(view, ground, row, end, fold, level)
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


def _ground_from_rows(view: View, first_row: float, fold: int) -> Floats:
    """3x3: (column, row of a folded band, 1) -> (x, y, 1) on the ground, up to scale."""
    unfold = np.array([[1.0, 0.0, 0.0], [0.0, 1 / fold, first_row + (0.5 / fold - 0.5)], [0.0, 0.0, 1.0]])
    rays = view.rays @ unfold
    cx, cy, cz = view.centre
    return np.stack([cx * rays[2] - cz * rays[0], cy * rays[2] - cz * rays[1], rays[2]])


def _band(view: View, ground: GroundMap, first: int, end: int, fold: int, level: int) -> Bytes:
    width = view.image_size[1]
    shrink = np.array(
        [[0.5**level, 0.0, 0.5 ** (level + 1) - 0.5], [0.0, 0.5**level, 0.5 ** (level + 1) - 0.5], [0, 0, 1]]
    )
    warp = shrink @ ground.map_from_global() @ _ground_from_rows(view, first, fold)
    rows = (end - first) * fold
    band = cv2.warpPerspective(
        ground.pictures[level], warp, (width, rows),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    if fold > 1:
        band = cv2.resize(band, (width, end - first), interpolation=cv2.INTER_AREA)
    return np.asarray(band, np.uint8)


def _grain(picture: Bytes, view: View, top: int) -> None:
    """Fine grain on the ground that is close enough to show it, fading out with distance."""
    height, width = view.image_size
    first = int(np.clip(_row_at(view, GRAIN_WITHIN), top, height))
    if first >= height:
        return
    tile = noise_bytes(9, 0.5, 13.0, 512)
    period = DETAIL_METRES * tile.shape[0]
    near_x, near_y = np.floor(view.centre[:2] / period) * period  # warps hold texels in 16 bits: start the tiling here
    texels = np.array([[1.0, 0.0, -near_x], [0.0, 1.0, -near_y], [0.0, 0.0, DETAIL_METRES]]) / DETAIL_METRES
    warp = texels @ _ground_from_rows(view, first, 1)
    grain = cv2.warpPerspective(
        tile, warp, (width, height - first),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_WRAP,
    )  # fmt: skip
    near = picture[first - top :]
    cv2.multiply(near, cv2.merge([grain, grain, grain]), near, 1 / 128)


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
    last = int((share > 0.03).sum())
    weight = share[:last, None, None].astype(np.float32)
    far = picture[:last].astype(np.float32)
    picture[:last] = (far + (weather.horizon.astype(np.float32) - far) * weight).astype(np.uint8)
