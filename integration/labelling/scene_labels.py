"""Labels of one scene: masks, the choice among them, panoptic images, and the scene's file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import torch
from torch import Tensor

from configs.nuscenes import CAMERAS, CLASSES
from configs.replaced_file import replace_bytes
from integration.composition import tight_boxes
from integration.labelling.boxes import FrameBoxes, annotated_boxes
from integration.labelling.composed import pixel_owners
from integration.labelling.films import FilmFollower
from integration.labelling.folder import LabelFolder
from integration.labelling.frame_masks import FrameMasker, FrameMasks
from integration.labelling.options import LabelOptions
from integration.labelling.quality import KEPT, Quality, agreement
from integration.labelling.records import LabelledImage, LabelledObject, SceneLabels, segment_id
from integration.precision import lower_kind
from integration.rle import encode_masks
from integration.sam2_weights import load_segmenter
from scenes.frame import Frame, SceneInfo
from scenes.index import open_index

WINDOW: Final = 20
"""Key frames that a film holds at most; of a longer scene several are made. Bounds memory."""
_DIGITS: Final = 4


@dataclass(frozen=True, slots=True)
class SceneTask:
    """A scene to label."""

    scene: SceneInfo
    boxes: Mapping[str, FrameBoxes] | None
    """By sample; `None` takes the annotations."""


class SceneLabeller:
    """Labels scenes, one after the other, with one SAM 2 on one device."""

    def __init__(self, options: LabelOptions, device: torch.device) -> None:
        self.options = options
        self.index = open_index(options.data_root, options.version)
        self.folder = LabelFolder(options.out)
        segmenter = load_segmenter(options.config, options.weights, network_size=options.network_size, device=device)
        segmenter.lower_kind = lower_kind(options.precision, device)
        self.masker = FrameMasker(segmenter)
        self.follower = FilmFollower(options.config, options.weights, device) if options.tracks else None

    def label(self, task: SceneTask) -> SceneLabels:
        """Label a scene and write its files; the scene's own file comes last, and says that all is there."""
        numbers: dict[str, int] = {}
        counts: dict[str, Counter[str]] = {}
        images = [
            self._image(masks, camera, numbers, counts) for masks in self._masks(task) for camera in range(len(CAMERAS))
        ]
        own = {name: dict(verdicts) for name, verdicts in counts.items()}
        labels = SceneLabels(task.scene.token, task.scene.name, tuple(images), own)
        labels.write(self.folder.scene_file(task.scene.token))
        return labels

    def _masks(self, task: SceneTask) -> Iterator[FrameMasks]:
        rows = task.scene.rows.tolist()
        length = WINDOW if self.follower else 1
        for start in range(0, len(rows), length):
            frames = [self.index.frame(row) for row in rows[start : start + length]]
            masks = [self.masker.masks_of(frame, _boxes_of(task, frame)) for frame in frames]
            yield from self.follower.follow(masks) if self.follower else masks

    def _image(
        self, masks: FrameMasks, camera: int, numbers: dict[str, int], counts: dict[str, Counter[str]]
    ) -> LabelledImage:
        for instance in masks.boxes.instances:
            numbers.setdefault(instance, len(numbers) + 1)
        frame = masks.frame
        own = (masks.pairs.camera == camera).nonzero()[:, 0]
        logits = masks.logits[own].to(self.masker.segmenter.device)  # at full size they are many
        owner = pixel_owners(logits, masks.pairs.distance[own].argsort(), frame.image_size).cpu()
        objects: list[LabelledObject] = []
        segments = np.zeros(len(own) + 1, np.uint32)  # the last is for pixels without an owner
        for place, pair in enumerate(own.tolist()):
            mask = owner == place
            quality = _quality(masks, pair, mask)
            number = int(masks.pairs.object[pair])
            verdict = quality.verdict(self.options.thresholds)
            counts.setdefault(CLASSES[masks.boxes.labels[number]], Counter())[verdict] += 1
            if verdict == KEPT:
                segments[place] = segment_id(numbers[masks.boxes.instances[number]])
                objects.append(_object(masks, pair, mask, quality, int(segments[place])))
        image = LabelledImage(
            row=frame.row,
            camera=CAMERAS[camera],
            sample=frame.token,
            timestamp_us=int(frame.camera_timestamps_us[camera]),
            file_name=frame.image_paths[camera].relative_to(self.index.dataroot).as_posix(),
            height=frame.image_size[0],
            width=frame.image_size[1],
            objects=tuple(objects),
        )
        self._write_panoptic(image, segments[owner.numpy()])
        return image

    def _write_panoptic(self, image: LabelledImage, segments: np.ndarray[tuple[int, int], np.dtype[np.uint32]]) -> None:
        """Ids as COCO's panoptic PNGs hold them: R + 256 G + 65536 B, 0 for nothing."""
        blue_green_red = np.stack([segments >> 16, segments >> 8 & 255, segments & 255], -1).astype(np.uint8)
        replace_bytes(self.folder.panoptic / image.panoptic_name, cv2.imencode(".png", blue_green_red)[1].tobytes())


def _boxes_of(task: SceneTask, frame: Frame) -> FrameBoxes:
    return annotated_boxes(frame.annotations) if task.boxes is None else task.boxes[frame.token]


def _quality(masks: FrameMasks, pair: int, mask: Tensor) -> Quality:
    return Quality(
        iou=float(masks.iou[pair]),
        agreement=float(agreement(mask[None], masks.open_box[pair, None])[0]),
        visible=float(mask.sum() / masks.pairs.area[pair].clamp(min=1)),
    )


def _object(masks: FrameMasks, pair: int, mask: Tensor, quality: Quality, segment: int) -> LabelledObject:
    boxes, number = masks.boxes, int(masks.pairs.object[pair])
    left, top, right, bottom = tight_boxes(mask[None])[0].int().tolist()
    outline = [round(edge, 1) for edge in masks.pairs.box[pair].tolist()]
    return LabelledObject(
        instance=boxes.instances[number],
        label=int(boxes.labels[number]),
        category=boxes.categories[number],
        attribute=boxes.attributes[number],
        score=round(float(boxes.scores[number]), _DIGITS),
        segment=segment,
        mask=encode_masks(mask[None])[0],
        area=int(mask.sum()),
        mask_box=(left, top, right - left, bottom - top),
        outline_box=(outline[0], outline[1], outline[2], outline[3]),
        iou=round(quality.iou, _DIGITS),
        agreement=round(quality.agreement, _DIGITS),
        visible=round(quality.visible, _DIGITS),
        quality=round(quality.quality, _DIGITS),
        occlusion=round(float(masks.occlusion[pair]), _DIGITS),
        truncation=round(float(masks.pairs.truncation[pair]), _DIGITS),
        presence=round(float(masks.presence[pair]), _DIGITS),
        from_film=bool(masks.from_film[pair]),
    )
