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
from scenes.synthetic.textures import Texture, facade, foliage, tree_crown
from scenes.synthetic.view import NEAR, SHIFT, View
from scenes.synthetic.world import Block, Crown, Weather

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

FINEST = 1.2
"""Paint smaller than this many pixels is left out."""
FAR_OUT = 2.0**20
"""Rasteriser units (1/16 pixel) from the image's corner beyond which polygons are cut."""


def draw_model(
    canvas: Bytes, view: View, model: Model, pose: Floats, colours: Floats, weather: Weather, number: int
) -> None:
    """Draw a model standing at `pose` (x, y, yaw) in the given lit `colours` `[F, 3]`."""
    rotation = _standing(pose[2])
    place = np.array([pose[0], pose[1], 0.0])
    linear = view.image_from_global[:, :3] @ rotation
    offset = view.image_from_global[:, :3] @ place + view.image_from_global[:, 3]
    homogeneous = model.points @ linear.T + offset
    depth = homogeneous[:, 2]
    camera = rotation.T @ (view.centre - place)
    distance = max(float(np.sqrt(camera @ camera)), 1.0)

    visible = (model.normals @ camera > model.offsets) | model.two_sided
    visible &= model.extent > FINEST * distance / view.focal
    rank = np.argsort(box_order(model.bounds[:, 0], model.bounds[:, 1], camera))
    shown = np.flatnonzero(visible)
    shown = shown[np.argsort(rank[model.solid_of[shown]], kind="stable")]
    paints = np.clip(hazed(colours[shown], distance, weather), 0, 255).tolist()
    pixels = homogeneous[:, :2] * (float(1 << SHIFT) / np.maximum(depth, NEAR))[:, None]
    tame = (depth > NEAR) & (np.abs(pixels).max(axis=1) < FAR_OUT)
    corners = np.rint(np.clip(pixels, -FAR_OUT, FAR_OUT)).astype(np.int32)
    starts, ends = model.starts[shown].tolist(), model.starts[shown + 1].tolist()
    if tame.all():
        for start, end, (r, g, b) in zip(starts, ends, paints, strict=True):
            cv2.fillConvexPoly(canvas, corners[start:end], (r, g, b, number), cv2.LINE_8, SHIFT)
        return
    for start, end, (r, g, b) in zip(starts, ends, paints, strict=True):
        outline = corners[start:end] if tame[start:end].all() else _cut_to_sight(homogeneous[start:end], view)
        if len(outline):
            cv2.fillConvexPoly(canvas, outline, (r, g, b, number), cv2.LINE_8, SHIFT)


def lit_colours(model: Model, yaw: float, light: float, weather: Weather) -> Floats:
    """Colours `[F, 3]` of a model turned by `yaw`; `light`, 0 to 1, is how much of the sun reaches it."""
    sunny = weather.lit(model.normals @ _standing(yaw).T, model.glow)
    shady = weather.sky_light * (0.78 + 0.22 * model.normals[:, 2:3])
    return np.asarray(model.colours * (sunny * light + shady * (1 - light)))


def _standing(yaw: float) -> Floats:
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _cut_to_sight(homogeneous: Floats, view: View) -> NDArray[np.int32]:
    """Corners, in rasteriser units, of the part of a polygon that is in front of the camera and near the image."""
    if homogeneous[:, 2].max() <= NEAR:
        return np.empty((0, 2), dtype=np.int32)
    return np.asarray(np.rint(view.clipped(homogeneous) * (1 << SHIFT)), np.int32)


def hazed(colours: Floats, distance: float, weather: Weather) -> Floats:
    """Colours as seen through `distance` metres of haze."""
    clear = float(np.exp(-distance / weather.haze))
    return colours * clear + weather.horizon * (1 - clear)


def draw_block(canvas: Bytes, view: View, block: Block, weather: Weather) -> None:
    """Draw a building or hedge: its visible walls textured, its roof plain."""
    corners = block_corners(block)
    texture = foliage(block.texture) if block.is_hedge else facade(block.texture)
    for i in range(4):
        j = (i + 1) % 4
        along = corners[j] - corners[i]
        length = float(np.linalg.norm(along))
        right = along / length
        normal = np.array([right[1], -right[0], 0.0])
        if normal @ (view.centre - corners[i]) <= 0:
            continue
        wall = np.array([corners[i], corners[j], corners[j + 4], corners[i + 4]])
        _draw_textured(canvas, view, wall, right, np.array([0.0, 0.0, 1.0]), texture, weather, normal)
    top = corners[4:]
    if view.centre[2] > top[0, 2]:
        up = np.array([0.0, 0.0, 1.0])
        right = (top[1] - top[0]) / np.linalg.norm(top[1] - top[0])
        _draw_textured(canvas, view, top, right, np.cross(up, right), texture, weather, up)


def _draw_textured(
    canvas: Bytes, view: View, quad: Floats, right: Floats, up: Floats, texture: Texture, weather: Weather,
    normal: Floats,
) -> None:  # fmt: skip
    """Fill a rectangle with a texture; `quad[0]` is its lower left corner, `right` and `up` are its directions."""
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
    level = int(
        np.clip(np.round(np.log2(max(texture.texel * depth / view.focal, 1e-6) * 1.4)), 0, len(texture.levels) - 1)
    )
    height = texture.levels[0].shape[0]
    flip = np.array([[texture.texel, 0.0, 0.0], [0.0, -texture.texel, height - 1.0], [0.0, 0.0, 1.0]])
    shrink = np.diag([0.5**level, 0.5**level, 1.0])
    shift = np.array([[1.0, 0.0, x0], [0.0, 1.0, y0], [0.0, 0.0, 1.0]])
    warp = shrink @ flip @ metres_from_image @ shift
    patch = cv2.warpPerspective(
        texture.levels[level], warp, (x1 - x0, y1 - y0),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
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
