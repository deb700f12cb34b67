"""Labels as COCO files: instances, and panoptic segments beside their PNGs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from configs.nuscenes import CLASSES
from integration.labelling.json_stream import write_lists
from integration.labelling.records import LabelledImage, LabelledObject, SceneLabels
from integration.labelling.results_file import CATEGORY_OF_CLASS
from integration.mask_pictures import COLOURS

Scenes = Callable[[], Iterable[SceneLabels]]
"""Gives all scenes, in order, each time it is called."""

_LICENCE: Final = "the licence of the data set holds for labels made from it"


def write_coco(folder: Path, scenes: Scenes, info: Mapping[str, Any]) -> None:
    """Write `instances.json` and `panoptic.json`; file names of images are within the data root."""
    head = {"description": "instance masks made by SAM 2 from 3D boxes", **info, "licence": _LICENCE}
    write_lists(
        folder / "instances.json",
        {
            "info": head,
            "licenses": [],
            "images": _images(scenes()),
            "annotations": _annotations(scenes()),
            "categories": [_category(number) for number in range(len(CLASSES))],
        },
    )
    write_lists(
        folder / "panoptic.json",
        {
            "info": head,
            "licenses": [],
            "images": _images(scenes()),
            "annotations": _segments(scenes()),
            "categories": [
                _category(number) | {"isthing": 1, "color": list(COLOURS[number % len(COLOURS)])}
                for number in range(len(CLASSES))
            ],
        },
    )


def _category(number: int) -> dict[str, Any]:
    name = CLASSES[number]
    return {"id": number + 1, "name": name, "supercategory": CATEGORY_OF_CLASS[name].partition(".")[0]}


def _images(scenes: Iterable[SceneLabels]) -> Iterator[dict[str, Any]]:
    for scene in scenes:
        for image in scene.images:
            yield {
                "id": image.id,
                "file_name": image.file_name,
                "width": image.width,
                "height": image.height,
                "scene": scene.name,
                "sample_token": image.sample,
                "camera": image.camera,
                "timestamp": image.timestamp_us,
            }


def _annotations(scenes: Iterable[SceneLabels]) -> Iterator[dict[str, Any]]:
    number = 0
    for image in _all_images(scenes):
        for found in image.objects:
            number += 1
            yield {
                "id": number,
                "image_id": image.id,
                "category_id": found.label + 1,
                "segmentation": found.mask,
                "area": found.area,
                "bbox": list(found.mask_box),
                "iscrowd": 0,
                "instance": found.instance,
                "score": found.score,
                "predicted_iou": found.iou,
                "agreement": found.agreement,
                "visible_fraction": found.visible,
                "quality": found.quality,
                "occlusion": found.occlusion,
                "truncation": found.truncation,
                "presence": found.presence,
                "from_film": found.from_film,
            }


def _segments(scenes: Iterable[SceneLabels]) -> Iterator[dict[str, Any]]:
    for image in _all_images(scenes):
        yield {
            "image_id": image.id,
            "file_name": image.panoptic_name,
            "segments_info": [_segment(found) for found in image.objects],
        }


def _segment(found: LabelledObject) -> dict[str, Any]:
    return {
        "id": found.segment,
        "category_id": found.label + 1,
        "area": found.area,
        "bbox": list(found.mask_box),
        "iscrowd": 0,
    }


def _all_images(scenes: Iterable[SceneLabels]) -> Iterator[LabelledImage]:
    for scene in scenes:
        yield from scene.images
