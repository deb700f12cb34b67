"""A page of labelled images to look at: everything inside it, so it opens from disk and can be sent as one file."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from configs.nuscenes import CLASSES
from configs.replaced_file import replace_text
from integration.labelling.coco import Scenes
from integration.labelling.options import LabelOptions
from integration.labelling.quality import KEPT, REASONS
from integration.labelling.records import Counts, LabelledImage, LabelledObject, SceneLabels
from integration.mask_pictures import COLOURS, Canvas, draw_masks
from integration.rle import decode_masks
from scenes.index import SceneIndex
from scenes.loading import ImageLoader

PICTURES: Final = 24
"""On the page."""
WIDTH: Final = 960
"""Of a picture, pixels."""
_TEMPLATE: Final = "page.html.j2"
_JPEG_QUALITY: Final = 85
_SHORTEST_NAMED: Final = 24
"""Pixels, of a mask in the picture: smaller ones have no caption, so that captions do not hide the picture."""


@dataclass(frozen=True, slots=True)
class _Picture:
    """One image of the page."""

    source: str
    """data: URL"""
    scene: str
    sample: str
    camera: str
    objects: tuple[LabelledObject, ...]


def write_page(path: Path, scenes: Scenes, index: SceneIndex, counts: Counts, options: LabelOptions) -> None:
    """Write the page: images that have masks, evenly spread over the scenes, and the counts of all."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    chosen = _spread(scenes)
    page = environment.get_template(_TEMPLATE).render(
        options=options,
        counts=counts,
        classes=CLASSES,
        kept=KEPT,
        reasons=REASONS,
        total=sum(own.get(KEPT, 0) for own in counts.values()),
        pictures=[_picture(scene, image, index) for scene, image in chosen],
    )
    replace_text(path, page)


def _spread(scenes: Scenes) -> list[tuple[SceneLabels, LabelledImage]]:
    """Labelled images at even distances; two passes, so that they never all stand in memory."""
    total = sum(1 for _ in _labelled(scenes()))
    wanted = {int(place) for place in (np.arange(min(PICTURES, total)) + 0.5) * total / max(min(PICTURES, total), 1)}
    return [one for place, one in enumerate(_labelled(scenes())) if place in wanted]


def _labelled(scenes: Iterable[SceneLabels]) -> Iterable[tuple[SceneLabels, LabelledImage]]:
    for scene in scenes:
        for image in scene.images:
            if image.objects:
                yield scene, image


def _picture(scene: SceneLabels, image: LabelledImage, index: SceneIndex) -> _Picture:
    size = (image.height, image.width)
    pixels = ImageLoader().read(index.dataroot / image.file_name, size).numpy()
    numbers = [_colour(found) for found in image.objects]
    drawn = draw_masks(pixels, decode_masks([found.mask for found in image.objects], size), numbers)
    scale = WIDTH / image.width
    drawn = np.asarray(cv2.resize(drawn, (WIDTH, round(image.height * scale)), interpolation=cv2.INTER_AREA), np.uint8)
    for found, number in zip(image.objects, numbers, strict=True):
        _draw_box(drawn, found, number, scale)
    encoded = cv2.imencode(".jpg", drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
    source = f"data:image/jpeg;base64,{base64.b64encode(encoded).decode()}"
    return _Picture(source, scene.name, image.sample, image.camera, image.objects)


def _colour(found: LabelledObject) -> int:
    """The same for an object in all its images."""
    return found.segment // 8 % len(COLOURS)


def _draw_box(canvas: Canvas, found: LabelledObject, number: int, scale: float) -> None:
    """The bounds of the 3D box in a thin line, and a caption where there is room for one."""
    left, top, right, bottom = (round(edge * scale) for edge in found.outline_box)
    cv2.rectangle(canvas, (left, top), (right, bottom), COLOURS[number], 1, cv2.LINE_AA)
    if min(right - left, bottom - top) >= _SHORTEST_NAMED:
        place = (left + 2, max(top - 3, 10))
        text = f"{CLASSES[found.label]} {found.quality:.2f}"
        for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.38, colour, thickness, cv2.LINE_AA)
