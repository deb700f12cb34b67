"""Masks and outlines drawn on camera images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from integration.convex import Polygons

Canvas = NDArray[np.uint8]
Colour = tuple[int, int, int]

COLOURS: Final[Sequence[Colour]] = (
    (30, 136, 255),
    (255, 140, 26),
    (53, 168, 58),
    (238, 59, 52),
    (155, 107, 234),
    (16, 184, 172),
    (240, 71, 159),
    (220, 174, 0),
)
"""Neighbours in this row are easy to tell apart on photographs."""
_TINT: Final = 0.5
_COLUMNS: Final = 3


def draw_masks(image: Canvas, masks: Tensor, numbers: Sequence[int]) -> Canvas:
    """A copy of an RGB image `[H, W, 3]` with bool masks `[P, H, W]` tinted and edged, in the colours of `numbers`."""
    picture = image.copy()
    for mask, number in zip(masks.numpy(), numbers, strict=True):
        colour = COLOURS[number % len(COLOURS)]
        picture[mask] = ((1 - _TINT) * picture[mask] + _TINT * np.array(colour)).astype(np.uint8)
        edges, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, edges, -1, colour, max(1, image.shape[1] // 800))
    return picture


def draw_outlines(image: Canvas, polygons: Polygons, boxes: Tensor, numbers: Sequence[int]) -> Canvas:
    """A copy of an RGB image with the outlines of 3D boxes, and their 2D boxes `[P, 4]` in thin lines."""
    picture = image.copy()
    width = max(1, image.shape[1] // 600)
    for place, number in enumerate(numbers):
        colour = COLOURS[number % len(COLOURS)]
        corners = polygons.vertices[place, : int(polygons.count[place])].round().int().numpy()
        cv2.polylines(picture, [corners], True, colour, 2 * width, cv2.LINE_AA)
        left, top, right, bottom = boxes[place].round().int().tolist()
        cv2.rectangle(picture, (left, top), (right, bottom), colour, width)
    return picture


def sheet(pictures: Sequence[Canvas], width: int = 800) -> Canvas:
    """Images of one size in rows of three, each scaled to `width` pixels; missing places are white."""
    height = round(width * pictures[0].shape[0] / pictures[0].shape[1])
    tiles = [cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA) for picture in pictures]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % _COLUMNS)
    rows = [np.concatenate(tiles[start : start + _COLUMNS], 1) for start in range(0, len(tiles), _COLUMNS)]
    return np.asarray(np.concatenate(rows, 0), np.uint8)
