"""What one scene's labels hold, and the file that keeps them: one JSON a scene."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from configs.errors import DataError
from configs.nuscenes import CAMERAS
from configs.replaced_file import replace_text
from integration.rle import Rle

_SEGMENT_STEP: Final = 0x9E3779
_SEGMENTS: Final = 1 << 24

Counts = Mapping[str, Mapping[str, int]]
"""By class and verdict (`quality.KEPT`, or why a mask was left out)."""


@dataclass(frozen=True, slots=True)
class LabelledObject:
    """One mask that was kept."""

    instance: str
    label: int
    category: str
    attribute: str
    """Empty where there is none."""
    score: float
    segment: int
    """Its id in panoptic images; the same in all images of the scene."""
    mask: Rle
    area: int
    """Pixels."""
    mask_box: tuple[int, int, int, int]
    """Left, top, width, height of the mask's pixels."""
    outline_box: tuple[float, float, float, float]
    """Left, top, right, bottom of the 3D box in the image, hidden parts included."""
    iou: float
    agreement: float
    visible: float
    quality: float
    occlusion: float
    truncation: float
    presence: float
    from_film: bool


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image of a key frame, with or without objects."""

    row: int
    """Of the key frame in the index."""
    camera: str
    sample: str
    timestamp_us: int
    file_name: str
    """Within the data root."""
    height: int
    width: int
    objects: tuple[LabelledObject, ...]

    @property
    def id(self) -> int:
        """Number of the image in COCO files, from 1."""
        return self.row * len(CAMERAS) + CAMERAS.index(self.camera) + 1

    @property
    def panoptic_name(self) -> str:
        """Of its PNG within the panoptic folder."""
        return f"{self.camera}/{Path(self.file_name).stem}.png"


@dataclass(frozen=True, slots=True)
class SceneLabels:
    """One scene."""

    token: str
    name: str
    images: tuple[LabelledImage, ...]
    counts: Counts

    def write(self, path: Path) -> None:
        """A reader sees all of it or none."""
        replace_text(path, json.dumps(asdict(self), allow_nan=False) + "\n")


def read_scene(path: Path) -> SceneLabels:
    """What `SceneLabels.write` wrote.

    Raises:
        DataError: the file is damaged.
    """
    try:
        return _scene(json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is damaged: {error!r}", fix="remove it and start the same command again: it labels that scene anew"
        ) from error


def segment_id(number: int) -> int:
    """A panoptic id for the n-th object of a scene, counted from 1: all differ, and so do their colours."""
    return number * _SEGMENT_STEP % _SEGMENTS  # the step is odd, so no two numbers below 2^24 share an id


def _scene(content: dict[str, Any]) -> SceneLabels:
    images = tuple(
        LabelledImage(**(image | {"objects": tuple(map(_object, image["objects"]))})) for image in content["images"]
    )
    counts = {name: dict(verdicts) for name, verdicts in content["counts"].items()}
    return SceneLabels(content["token"], content["name"], images, counts)


def _object(content: dict[str, Any]) -> LabelledObject:
    return LabelledObject(**(content | {name: tuple(content[name]) for name in ("mask_box", "outline_box")}))
