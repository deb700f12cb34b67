"""Masks of objects on camera images, and each object cut out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from evaluation.figures.palette import rgb
from evaluation.figures.sample_view import SampleView
from evaluation.figures.style import Style
from integration.rle import Rle, decode_masks

Canvas = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Shares = npt.NDArray[np.float32]
Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]

_TINT: Final = 0.4
_AROUND: Final = 0.25
"""Of a crop's longer side: how much of the surroundings it shows."""
_SMALLEST: Final = 24
"""Pixels: a crop is never narrower."""
_DIMMED: Final = 0.55
_TILE: Final = (240, 180)
"""Width and height of a crop on the sheet, pixels."""
_COLUMNS: Final = 6
_CAPTION: Final = 36


class DrawnMask(Protocol):
    """One object in one camera, as `evaluation.object_masks.ObjectMask` is."""

    @property
    def box(self) -> int: ...
    @property
    def camera(self) -> str: ...
    @property
    def box_2d(self) -> tuple[float, float, float, float]: ...
    @property
    def segmentation(self) -> Rle: ...
    @property
    def quality(self) -> float: ...


def pixels_of(mask: DrawnMask) -> Mask:
    """bool `[height, width]` at the size of the image."""
    height, width = mask.segmentation["size"]
    return np.asarray(decode_masks([mask.segmentation], (height, width))[0].numpy())


def draw_masks(image: Canvas, masks: Sequence[DrawnMask], colours: Sequence[Colour]) -> None:
    """Tint and edge masks in an image of any scale, in place."""
    height, width = image.shape[:2]
    for mask, colour in zip(masks, colours, strict=True):
        share = _shares(pixels_of(mask), (width, height))
        _blend(image, colour, np.float32(_TINT) * share)
        _edge(image, share, colour, max(1, width // 500))


def best_views(masks: Sequence[DrawnMask]) -> dict[int, DrawnMask]:
    """For each box that has one, its largest mask that is not empty."""
    best: dict[int, tuple[int, DrawnMask]] = {}
    for mask in masks:
        area = int(pixels_of(mask).sum())
        if area > best.get(mask.box, (0, None))[0]:
            best[mask.box] = (area, mask)
    return {box: best[box][1] for box in sorted(best)}


def cut_out(view: SampleView, mask: DrawnMask) -> Canvas:
    """The object alone, uint8 RGBA `[h, w, 4]`: its pixels, and nothing around them."""
    pixels = pixels_of(mask)
    image = view.images[view.cameras.index(mask.camera)]
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.dstack([image[window], np.where(pixels[window], 255, 0).astype(np.uint8)])


def draw_objects(view: SampleView, masks: Sequence[DrawnMask], style: Style) -> Canvas:
    """A sheet of all objects that have a mask, each in the camera that shows most of it; uint8 RGB."""
    tiles = [_tile(view, mask, style) for mask in best_views(masks).values()]
    if not tiles:
        tiles = [_note("no object has a mask")]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % min(_COLUMNS, len(tiles)))
    columns = min(_COLUMNS, len(tiles))
    rows = [np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    return np.vstack(rows)


def _tile(view: SampleView, mask: DrawnMask, style: Style) -> Canvas:
    """A crop around the object, its surroundings dimmed, with a caption below."""
    image = view.images[view.cameras.index(mask.camera)]
    pixels = pixels_of(mask)
    left, top, right, bottom = _window(mask, pixels, (image.shape[0], image.shape[1]))
    width, height = _TILE
    crop = np.asarray(
        cv2.resize(image[top:bottom, left:right], (width, height), interpolation=cv2.INTER_CUBIC), np.uint8
    )
    share = _shares(pixels[top:bottom, left:right], (width, height))
    _blend(crop, (255, 255, 255), np.float32(_DIMMED) * (1 - share))
    _edge(crop, share, rgb(style.colours[mask.box]), 2)
    return _captioned(crop, style.labels[mask.box], f"{mask.camera.replace('_', ' ')} · quality {mask.quality:.2f}")


def _window(mask: DrawnMask, pixels: Mask, size: tuple[int, int]) -> Rectangle:
    """Left, top, right, bottom around box and mask, with the tile's aspect ratio, moved into the image."""
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    ends = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    ends = np.concatenate([np.minimum(ends[:2], mask.box_2d[:2]), np.maximum(ends[2:], mask.box_2d[2:])])
    middle, sides = (ends[:2] + ends[2:]) / 2, ends[2:] - ends[:2]
    aspect = _TILE[0] / _TILE[1]
    width = max(sides[0], sides[1] * aspect, _SMALLEST) * (1 + _AROUND)
    width = min(width, size[1], size[0] * aspect)
    half = np.array([width, width / aspect]) / 2
    middle = np.clip(middle, half, np.array([size[1], size[0]]) - half)
    left, top = np.floor(middle - half).clip(0).astype(int).tolist()
    right, bottom = np.ceil(middle + half).astype(int).tolist()
    return left, top, min(right, size[1]), min(bottom, size[0])


def _shares(pixels: Mask, size: tuple[int, int]) -> Shares:
    """How much of each pixel of an image of `size` (width, height) belongs to the object."""
    way = cv2.INTER_AREA if size[0] < pixels.shape[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels.astype(np.float32), size, interpolation=way), np.float32)


def _blend(image: Canvas, colour: Colour, share: Shares) -> None:
    rows, columns = np.flatnonzero(share.any(axis=1)), np.flatnonzero(share.any(axis=0))
    if len(rows) == 0:
        return
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    part, weight = image[window].astype(np.float32), share[window][..., None]
    image[window] = (part + weight * (np.array(colour, np.float32) - part)).round().astype(np.uint8)


def _edge(image: Canvas, share: Shares, colour: Colour, width: int) -> None:
    edges, _ = cv2.findContours((share > 0.5).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, edges, -1, colour, width, cv2.LINE_AA)


def _captioned(crop: Canvas, title: str, note: str) -> Canvas:
    width, height = _TILE
    picture = Image.new("RGB", (width + 8, height + _CAPTION + 8), "white")
    picture.paste(Image.fromarray(crop), (4, 4))
    draw = ImageDraw.Draw(picture)
    draw.text((6, height + 5), title, font=ImageFont.load_default(14), fill="#20242b")
    draw.text((6, height + 22), note, font=ImageFont.load_default(11), fill="#6d747d")
    return np.array(picture)


def _note(text: str) -> Canvas:
    return _captioned(np.full((_TILE[1], _TILE[0], 3), 245, np.uint8), text, "")
