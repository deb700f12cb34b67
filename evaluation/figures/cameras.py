"""Six camera images in the usual 3 x 2 arrangement with boxes drawn as wireframes.

Predictions carry their class colour, a tinted front face, a heading line on the ground and, where there is room, class
and score. Ground truth is a thin white wireframe with a dark edge. With masks, an object's pixels are tinted instead of
its front face, and the wireframe is thin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from evaluation.figures.masks import DrawnMask, draw_masks
from evaluation.figures.palette import TRUTH_COLOUR, rgb
from evaluation.figures.projection import clip_polygon, clip_segments, frustum_planes, project, transform
from evaluation.figures.sample_view import SampleView
from evaluation.figures.style import Style, by_class
from evaluation.global_boxes import FloatArray, GlobalBoxes

Canvas = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

_COLUMNS: Final = 3
_EDGES: Final = np.array(
    [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]
)
_FRONT: Final = [0, 1, 2, 3]  # corners of `GlobalBoxes.corners`
_SHIFT: Final = 4  # OpenCV takes fixed-point pixels with this many fractional bits
_DARK: Final = (16, 18, 22)
_TINT: Final = 0.30
_SMALL: Final = 0.06  # boxes lower than this share of the image get thin lines and no label
_SHOWN_RANGE: Final = 75.0  # metres


@dataclass(frozen=True, slots=True)
class _Pen:
    """Line widths and letter size for images of one size."""

    line: int
    thin: int
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont

    @classmethod
    def for_width(cls, width: int) -> _Pen:
        size = max(10, round(width / 56))
        return cls(line=max(1, round(width / 420)), thin=max(1, round(width / 800)), font=ImageFont.load_default(size))


def draw_cameras(
    view: SampleView,
    predictions: GlobalBoxes,
    truth: GlobalBoxes | None = None,
    *,
    image_width: int = 800,
    masks: Sequence[DrawnMask] | None = None,
    style: Style | None = None,
) -> Canvas:
    """The sheet of six images, uint8 RGB; each image is scaled to `image_width` pixels before lines are drawn.

    Args:
        masks: of the predictions, by their positions.
        style: of the predictions. Default: by class.
    """
    style = style or by_class(predictions)
    tiles = [
        draw_camera(view, position, predictions, truth, image_width, masks, style)
        for position in range(len(view.cameras))
    ]
    return _arrange(tiles, gap=max(2, image_width // 100))


def draw_camera(
    view: SampleView,
    position: int,
    predictions: GlobalBoxes,
    truth: GlobalBoxes | None,
    image_width: int,
    masks: Sequence[DrawnMask] | None = None,
    style: Style | None = None,
) -> Canvas:
    """One camera image with its boxes, uint8 RGB."""
    image, intrinsics = _scaled(view.images[position], view.intrinsics[position], image_width)
    style = style or by_class(predictions)
    pen = _Pen.for_width(image_width)
    camera = _Camera(
        intrinsics, view.cam_from_global[position], frustum_planes(intrinsics, (image.shape[0], image.shape[1]))
    )
    if masks is not None:
        pen = replace(pen, line=pen.thin)
        own = [mask for mask in masks if mask.camera == view.cameras[position]]
        draw_masks(image, own, [rgb(style.colours[mask.box]) for mask in own])
    if truth is not None:
        for box in camera.see(truth, by_class(truth)):
            box.draw_truth(image, pen)
    boxes = camera.see(predictions, style)
    for box in boxes:
        box.draw_prediction(image, pen, tint=masks is None)
    return _with_texts(image, view.cameras[position], boxes, pen)


@dataclass(frozen=True, slots=True)
class _SeenBox:
    """A box in one image, in pixels, after clipping: edges, heading line `[k, 2, 2]` and front face `[k, 2]`."""

    segments: FloatArray
    heading: FloatArray
    front_face: FloatArray
    colour: Colour
    text: str

    def draw_truth(self, image: Canvas, pen: _Pen) -> None:
        for colour, width in ((_DARK, 3 * pen.thin), (rgb(TRUTH_COLOUR), pen.thin)):
            _lines(image, self.segments, colour, width)
            _lines(image, self.heading, colour, width)

    def draw_prediction(self, image: Canvas, pen: _Pen, tint: bool) -> None:
        if tint and len(self.front_face) >= 3:
            _tint(image, self.front_face, self.colour)
        width = pen.line if self.height() > _SMALL * image.shape[0] else pen.thin
        _lines(image, self.segments, self.colour, width)
        _lines(image, self.heading, self.colour, width)

    def label_anchor(self, size: tuple[int, int]) -> FloatArray | None:
        """The highest end of an edge that lies in an image of `size` (height, width)."""
        ends = self.segments.reshape(-1, 2)
        inside = ends[((ends >= 0) & (ends < size[::-1])).all(axis=1)]
        return inside[inside[:, 1].argmin()] if len(inside) else None

    def height(self) -> float:
        """Extent in v."""
        return float(np.ptp(self.segments[..., 1]))


@dataclass(frozen=True, slots=True)
class _Camera:
    intrinsics: FloatArray
    cam_from_global: FloatArray
    planes: FloatArray

    def see(self, boxes: GlobalBoxes, style: Style) -> list[_SeenBox]:
        """The boxes that this camera sees a part of, farthest first."""
        corners = transform(self.cam_from_global, boxes.corners())
        depths = corners[..., 2].mean(axis=1)
        seen = []
        for i in np.argsort(-depths):
            if depths[i] > _SHOWN_RANGE or corners[i, :, 2].max() <= 0:
                continue
            box = self._see_one(corners[i], rgb(style.colours[i]), style.labels[i])
            if box is not None:
                seen.append(box)
        return seen

    def _see_one(self, corners: FloatArray, colour: Colour, text: str) -> _SeenBox | None:
        edges = clip_segments(corners[_EDGES], self.planes)
        if len(edges) == 0:
            return None
        floor_centre, front_floor = corners[[2, 3, 6, 7]].mean(axis=0), corners[[2, 3]].mean(axis=0)
        heading = clip_segments(np.stack([floor_centre, front_floor])[None], self.planes)
        return _SeenBox(
            segments=project(edges, self.intrinsics),
            heading=project(heading, self.intrinsics),
            front_face=project(clip_polygon(corners[_FRONT], self.planes), self.intrinsics),
            colour=colour,
            text=text,
        )


def _scaled(image: Canvas, intrinsics: FloatArray, width: int) -> tuple[Canvas, FloatArray]:
    """A copy of the image at `width` pixels, and the intrinsics for it (pixel centres stay centres)."""
    factor = width / image.shape[1]
    size = (width, round(image.shape[0] * factor))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    scale = np.array([[factor, 0, (factor - 1) / 2], [0, factor, (factor - 1) / 2], [0, 0, 1]])
    return np.array(resized), scale @ intrinsics


def _fixed_point(points: FloatArray) -> npt.NDArray[np.int32]:
    fixed: npt.NDArray[np.int32] = np.round(points * (1 << _SHIFT)).astype(np.int32)
    return fixed


def _lines(image: Canvas, segments: FloatArray, colour: Colour, width: int) -> None:
    cv2.polylines(image, list(_fixed_point(segments)), False, colour, width, cv2.LINE_AA, _SHIFT)


def _tint(image: Canvas, polygon: FloatArray, colour: Colour) -> None:
    """Blend a filled polygon into its bounding rectangle of the image."""
    height, width = image.shape[:2]
    left, top = np.clip(np.floor(polygon.min(axis=0)).astype(int), 0, (width, height))
    right, bottom = np.clip(np.ceil(polygon.max(axis=0)).astype(int) + 1, 0, (width, height))
    if left >= right or top >= bottom:
        return
    region = image[top:bottom, left:right]
    painted = region.copy()
    cv2.fillPoly(painted, [_fixed_point(polygon - (left, top))], colour, cv2.LINE_AA, _SHIFT)
    cv2.addWeighted(painted, _TINT, region, 1 - _TINT, 0, dst=region)


def _with_texts(image: Canvas, camera: str, boxes: list[_SeenBox], pen: _Pen) -> Canvas:
    """Camera name, and labels of the boxes from near to far where they do not cover one another."""
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture, "RGBA")
    taken = [_pill(draw, (pen.line * 3, pen.line * 3), camera.replace("_", " "), (*_DARK, 190), pen)]
    for box in reversed(boxes):
        anchor = box.label_anchor((picture.height, picture.width))
        if anchor is None or box.height() < _SMALL * picture.height:
            continue
        place = _label_rectangle(draw, box.text, anchor, picture.width, pen)
        if place[1] >= 0 and not any(_overlap(place, other) for other in taken):
            taken.append(_pill(draw, place[:2], box.text, (*box.colour, 225), pen))
    return np.array(picture)


Rectangle = tuple[float, float, float, float]


def _label_rectangle(
    draw: ImageDraw.ImageDraw, text: str, anchor: FloatArray, image_width: int, pen: _Pen
) -> Rectangle:
    """Above its anchor, moved left where it would leave the image."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=pen.font)
    width, height = right - left + 6, bottom - top + 6
    u, v = min(float(anchor[0]), image_width - width), float(anchor[1])
    return u, v - height - 1, u + width, v - 1


def _pill(
    draw: ImageDraw.ImageDraw, corner: tuple[float, float], text: str, colour: tuple[int, int, int, int], pen: _Pen
) -> Rectangle:
    """Text on a rounded rectangle whose top left corner is given; returns the rectangle."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=pen.font)
    rectangle = (corner[0], corner[1], corner[0] + right - left + 6, corner[1] + bottom - top + 6)
    draw.rounded_rectangle(rectangle, radius=3, fill=colour)
    draw.text((corner[0] + 3 - left, corner[1] + 3 - top), text, font=pen.font, fill=(255, 255, 255, 255))
    return rectangle


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _arrange(tiles: list[Canvas], gap: int) -> Canvas:
    """Tiles in rows of three on white, `gap` pixels apart."""
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // _COLUMNS)
    sheet = np.full((rows * (height + gap) - gap, _COLUMNS * (width + gap) - gap, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = i // _COLUMNS * (height + gap), i % _COLUMNS * (width + gap)
        sheet[top : top + height, left : left + width] = tile
    return sheet
