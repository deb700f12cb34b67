"""What SAM 2 is asked for each pair of an object and a camera, and its answer.

Weights that were trained with outlines get box and outline. Published ones get the box, points on nearer objects that
reach into it, and LiDAR points on the object where there are some; a second pass starts from the first one's mask and
its tight box, since the rectangle around a turned 3D box is looser than what SAM 2 was trained with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from configs.errors import UsageError
from integration.composition import keep_to_outlines, tight_boxes
from integration.outline_prior import decode_with_outline
from integration.projection import CameraRig, Pairs
from integration.rays import occluded_points
from integration.segmenter import (
    BOX_END,
    BOX_START,
    NEGATIVE,
    NO_POINT,
    POSITIVE,
    ImageFeatures,
    MaskOutputs,
    Prompts,
    Segmenter,
)

NEGATIVES: Final = 2
"""Points on nearer objects per prompt."""


@dataclass(frozen=True, slots=True)
class DecodedPairs:
    """SAM 2's answers, one mask a pair."""

    logits: Tensor
    """`[P, 1, h, w]`"""
    iou: Tensor
    """`[P]`"""
    presence: Tensor
    """`[P]`: logits."""
    token: Tensor
    """`[P, channels]`"""


def decode_pairs(
    segmenter: Segmenter,
    features: ImageFeatures | None,
    pairs: Pairs,
    others: Pairs,
    rig: CameraRig,
    outline: Tensor,
    open_outline: Tensor,
    passes: int,
    chunk: int,
    on_object: tuple[Tensor, Tensor] | None = None,
) -> DecodedPairs:
    """A mask for each pair.

    Args:
        others: all pairs that may hide something.
        features: of the rig's images in its order; `None` where there are no pairs.
        outline, open_outline: `[P, h, w]` of `rays.outline_coverage`.
        on_object: `[P, K, 2]` points on the objects, and `[P, K]` which of them count.

    Raises:
        UsageError: points for weights that were trained with outlines, which know no points.
    """
    if on_object is not None and segmenter.wants_outline:
        raise UsageError(
            "these weights were trained with outlines of 3D boxes and without points",
            fix="leave points out, or use published weights",
        )
    if features is None:
        rows, columns = outline.shape[1:]
        empty = torch.zeros
        return DecodedPairs(empty(0, 1, rows, columns), empty(0), empty(0), empty(0, segmenter.channels))
    image, boxes = pairs.camera.to(segmenter.device), pairs.box.float().to(segmenter.device)
    if segmenter.wants_outline:
        plain = Prompts.of_boxes(image, boxes)
        return _single(
            decode_with_outline(
                segmenter, features, plain, outline.to(boxes.device), open_outline.to(boxes.device), chunk
            )
        )
    points, labels = _nearer_points(pairs, others, rig)
    if on_object is not None:
        points = torch.cat([points, on_object[0].float()], 1)
        labels = torch.cat([labels, torch.where(on_object[1], POSITIVE, NO_POINT)], 1)
    found = segmenter.decode(features, _box_prompts(image, boxes, points, labels), chunk=chunk)
    for _ in range(passes - 1):
        gated = keep_to_outlines(found.logits, _in_cells(pairs.box, rig, outline), outline.to(found.logits.device))
        again = _box_prompts(image, _tight_in_image(gated, rig, boxes), points, labels, gated)
        found = segmenter.decode(features, again, chunk=chunk)
    return _single(found)


def _single(outputs: MaskOutputs) -> DecodedPairs:
    return DecodedPairs(outputs.logits.float(), outputs.iou[:, 0].float(), outputs.presence.float(), outputs.token)


def _nearer_points(pairs: Pairs, others: Pairs, rig: CameraRig) -> tuple[Tensor, Tensor]:
    """Points `[P, K, 2]` on nearer objects, and their labels."""
    points, valid = occluded_points(pairs, rig.cam_from_pixel, NEGATIVES, others)
    return points.float(), torch.where(valid, NEGATIVE, NO_POINT)


def _box_prompts(image: Tensor, boxes: Tensor, points: Tensor, labels: Tensor, masks: Tensor | None = None) -> Prompts:
    corners = torch.tensor([BOX_START, BOX_END], device=boxes.device).expand(len(boxes), 2)
    return Prompts(
        image,
        torch.cat([boxes.view(-1, 2, 2), points.to(boxes)], 1),
        torch.cat([corners, labels.to(boxes.device)], 1),
        masks,
    )


def _in_cells(boxes: Tensor, rig: CameraRig, raster: Tensor) -> Tensor:
    rows, columns = raster.shape[1:]
    return boxes * boxes.new_tensor([columns / rig.size[1], rows / rig.size[0]] * 2)


def _tight_in_image(logits: Tensor, rig: CameraRig, own: Tensor) -> Tensor:
    """Bounds of masks in pixels of the image; the pair's `own` box where a mask is empty."""
    found = logits[:, 0] > 0
    rows, columns = found.shape[1:]
    boxes = tight_boxes(found)
    boxes = boxes * boxes.new_tensor([rig.size[1] / columns, rig.size[0] / rows] * 2)
    return torch.where(found.flatten(1).any(1)[:, None], boxes, own)
