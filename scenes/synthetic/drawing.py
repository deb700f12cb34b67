"""Draws painted models, textured boxes and leaf sprites onto a canvas of colour and object number.

The canvas is uint8 `[H, W, 4]`: RGB, and in the fourth channel the number of the annotated object (0 for none), so
that one fill writes picture and mask alike.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from scenes.synthetic.paint_order import box_order
from scenes.synthetic.shadows import block_corners
from scenes.synthetic.solids import Model
from scenes.synthetic.textures import FACADE_METRES, FACADE_SIZE, facade, foliage, tree_crown
from scenes.synthetic.view import NEAR, SHIFT, View
from scenes.synthetic.world import Block, Crown, Weather

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

FINEST = 0.8
"""Paint smaller than this many pixels is left out."""
HEDGE_METRES = 2.56
FAR_OUT = 2.0**24


def draw_model(
    canvas: Bytes, view: View, model: Model, pose: Floats, light: float, weather: Weather, number: int
) -> None:
    """Draw a model standing at `pose` (x, y, yaw); `light` 0 to 1 is how much of the sun reaches it."""
    c, s = np.cos(pose[2]), np.sin(pose[2])
    rotation = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    place = np.array([pose[0], pose[1], 0.0])
    linear = view.image_from_global[:, :3] @ rotation
    offset = view.image_from_global[:, :3] @ place + view.image_from_global[:, 3]
    homogeneous = model.points @ linear.T + offset
    camera = rotation.T @ (view.centre - place)
    distance = max(float(np.linalg.norm(view.centre - place)), 1.0)

    first = model.starts[:-1]
    towards = (model.normals * (camera - model.points[first])).sum(axis=1)
    visible = (towards > 0) | model.two_sided
    visible &= model.extent * view.focal / distance > FINEST
    colours = _shaded(model, rotation, light, weather, distance)
    order = box_order(model.bounds[:, 0], model.bounds[:, 1], camera)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    shown = np.flatnonzero(visible)
    shown = shown[np.argsort(rank[model.solid_of[shown]], kind="stable")]
    bounds = np.stack([first[shown], model.starts[shown + 1]], axis=1).tolist()
    paints = [(*rgb, number) for rgb in colours[shown].tolist()]
    easy, outside = _reach(homogeneous, model.starts, view)
    pixels = np.rint(homogeneous[:, :2] / np.maximum(homogeneous[:, 2:], NEAR) * (1 << SHIFT))
    pixels = np.clip(pixels, -FAR_OUT, FAR_OUT).astype(np.int32)
    for face, (start, end), paint in zip(shown.tolist(), bounds, paints, strict=True):
        if easy[face]:
            cv2.fillConvexPoly(canvas, pixels[start:end], paint, cv2.LINE_8, SHIFT)
        elif not outside[face]:
            corners = view.clipped(homogeneous[start:end])
            if len(corners):
                cv2.fillConvexPoly(canvas, np.rint(corners * (1 << SHIFT)).astype(np.int32), paint, cv2.LINE_8, SHIFT)


def _reach(homogeneous: Floats, starts: NDArray[np.int64], view: View) -> tuple[list[bool], list[bool]]:
    """Per polygon: whether all corners are in front of the camera and not far outside; whether all are behind it."""
    depth = homogeneous[:, 2]
    tame = (depth > NEAR) & (np.abs(homogeneous[:, :2]).max(axis=1) < 4 * max(view.image_size) * depth)
    easy = np.logical_and.reduceat(tame, starts[:-1])
    outside = np.logical_and.reduceat(depth <= NEAR, starts[:-1])
    return easy.tolist(), outside.tolist()


def _shaded(model: Model, rotation: Floats, light: float, weather: Weather, distance: float) -> Floats:
    sunny = weather.lit(model.normals @ rotation.T, model.glow)
    shady = weather.sky_light * (0.78 + 0.22 * model.normals[:, 2:3])
    colours = model.colours * (sunny * light + shady * (1 - light))
    return np.clip(hazed(colours, distance, weather), 0, 255)


def hazed(colours: Floats, distance: float, weather: Weather) -> Floats:
    """Colours as seen through `distance` metres of haze."""
    clear = float(np.exp(-distance / weather.haze))
    return colours * clear + weather.horizon * (1 - clear)


def draw_block(canvas: Bytes, view: View, block: Block, weather: Weather) -> None:
    """Draw a building or hedge: its visible walls textured, its roof plain."""
    corners = block_corners(block)
    texture = foliage(block.texture) if block.is_hedge else facade(block.texture)
    texel = 256 / HEDGE_METRES if block.is_hedge else FACADE_SIZE[1] / FACADE_METRES[0]
    for i in range(4):
        j = (i + 1) % 4
        along = corners[j] - corners[i]
        length = float(np.linalg.norm(along))
        right = along / length
        normal = np.array([right[1], -right[0], 0.0])
        if normal @ (view.centre - corners[i]) <= 0:
            continue
        wall = np.array([corners[i], corners[j], corners[j + 4], corners[i + 4]])
        _draw_textured(canvas, view, wall, right, np.array([0.0, 0.0, 1.0]), texture, texel, weather, normal)
    top = corners[4:]
    if view.centre[2] > top[0, 2]:
        up = np.array([0.0, 0.0, 1.0])
        right = (top[1] - top[0]) / np.linalg.norm(top[1] - top[0])
        _draw_textured(canvas, view, top, right, np.cross(up, right), texture, texel, weather, up)


def _draw_textured(
    canvas: Bytes, view: View, quad: Floats, right: Floats, up: Floats, texture: tuple[Bytes, ...], texel: float,
    weather: Weather, normal: Floats,
) -> None:  # fmt: skip
    """Fill a rectangle (`quad[0]` its lower left corner) with a repeating texture of `texel` pixels a metre."""
    homogeneous = quad @ view.image_from_global[:, :3].T + view.image_from_global[:, 3]
    outline = view.clipped(homogeneous)
    area = _pixel_box(outline, view.image_size)
    if area is None:
        return
    x0, y0, x1, y1 = area
    linear = view.image_from_global[:, :3]
    image_from_metres = np.stack([linear @ right, linear @ up, homogeneous[0]], axis=1)
    metres_from_image = np.linalg.inv(image_from_metres)
    middle = np.array([*outline.mean(axis=0), 1.0])
    depth = 1 / max(float((metres_from_image @ middle)[2]), 1e-6)
    level = int(np.clip(np.round(np.log2(max(texel * depth / view.focal, 1e-6) * 1.4)), 0, len(texture) - 1))
    height = texture[0].shape[0]
    flip = np.array([[texel, 0.0, 0.0], [0.0, -texel, height], [0.0, 0.0, 1.0]])
    shrink = np.diag([0.5**level, 0.5**level, 1.0])
    shift = np.array([[1.0, 0.0, x0], [0.0, 1.0, y0], [0.0, 0.0, 1.0]])
    warp = shrink @ flip @ metres_from_image @ shift
    patch = cv2.warpPerspective(
        texture[level], warp, (x1 - x0, y1 - y0),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_WRAP,
    )  # fmt: skip
    clear = float(np.exp(-depth / weather.haze))
    light = weather.lit(normal) * clear
    patch = cv2.transform(patch, np.column_stack([np.diag([*light, 0.0]), [*(weather.horizon * (1 - clear)), 0.0]]))
    mask = np.zeros((y1 - y0, x1 - x0), dtype=np.uint8)
    corners = np.rint((outline - [x0, y0]) * (1 << SHIFT)).astype(np.int32)
    cv2.fillConvexPoly(mask, corners, (255,), cv2.LINE_8, SHIFT)
    cv2.copyTo(patch, mask, canvas[y0:y1, x0:x1])


def draw_crown(canvas: Bytes, view: View, crown: Crown, weather: Weather) -> None:
    """Draw the leaves of a tree as a sprite that faces the camera."""
    homogeneous = view.image_from_global[:, :3] @ crown.centre + view.image_from_global[:, 3]
    if homogeneous[2] < crown.radius * 0.5 + NEAR:
        return
    depth = float(homogeneous[2])
    middle = homogeneous[:2] / depth
    radius = crown.radius * 1.25 * view.focal / depth
    square = middle + radius * np.array([[-1.0, -1.0], [1.0, 1.0]])
    area = _pixel_box(square, view.image_size)
    if area is None:
        return
    x0, y0, x1, y1 = area
    texture = tree_crown(crown.sprite)
    level = int(np.clip(np.round(np.log2(texture[0].shape[0] / (2 * radius))), 0, len(texture) - 1))
    scale = texture[level].shape[0] / (2 * radius)
    warp = np.array([[scale, 0.0, (x0 - square[0, 0]) * scale], [0.0, scale, (y0 - square[0, 1]) * scale]])
    patch = cv2.warpAffine(texture[level], warp, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    mask = cv2.threshold(patch[..., 3], 127, 255, cv2.THRESH_BINARY)[1]
    clear = float(np.exp(-depth / weather.haze))
    shade = (weather.sky_light * 0.85 + weather.sun_light * 0.45) * clear
    patch = cv2.transform(patch, np.column_stack([np.diag([*shade, 0.0]), [*(weather.horizon * (1 - clear)), 0.0]]))
    cv2.copyTo(patch, mask, canvas[y0:y1, x0:x1])


def _pixel_box(points: Floats, image_size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """x0, y0, x1, y1 of the pixels that `points` span within the image; None if there are none."""
    if len(points) == 0:
        return None
    height, width = image_size
    x0, y0 = np.clip(np.floor(points.min(axis=0)), 0, [width, height]).astype(int)
    x1, y1 = np.clip(np.ceil(points.max(axis=0)) + 1, 0, [width, height]).astype(int)
    return None if x1 <= x0 or y1 <= y0 else (int(x0), int(y0), int(x1), int(y1))
