"""SAM 2's mask for every box of a key frame in every camera that sees it, each image on its own.

Shape legend: P pairs of a box and a camera, h w raster at a quarter of the network image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from integration.composition import keep_to_outlines
from integration.labelling.boxes import FrameBoxes
from integration.object_prompts import decode_pairs
from integration.projection import ALL_VISIBLE, CameraRig, Pairs, Visibility, project_solids, worth
from integration.rays import occlusion, open_bounds, outline_coverage
from integration.scene_boxes import rig_of
from integration.segmenter import LOGIT_STRIDE, Segmenter
from scenes.frame import Frame
from scenes.loading import ImageLoader

PASSES = 2
"""Of the decoder for weights without outlines; see `object_prompts`."""


@dataclass(frozen=True, slots=True)
class FrameMasks:
    """The P pairs of a key frame that are worth a mask, with their masks."""

    frame: Frame
    boxes: FrameBoxes
    pairs: Pairs
    """`object` counts the boxes."""
    near: Tensor
    """bool `[P, h, w]`: cells that the 3D box touches."""
    logits: Tensor
    """float32 `[P, h, w]`: above 0 inside the object; masks may overlap."""
    iou: Tensor
    """`[P]`: what SAM 2 expects of the mask."""
    presence: Tensor
    """`[P]`, 0 to 1: SAM 2 sees an object at all."""
    occlusion: Tensor
    """`[P]`: share of the outline that nearer boxes cover."""
    open_box: Tensor
    """`[P, 4]`: bounds of the outline as far as no nearer box covers it, pixels."""
    from_film: Tensor
    """bool `[P]`: the mask came through the film, not from the image alone."""

    def instances(self) -> list[str]:
        """Of each pair."""
        return [self.boxes.instances[number] for number in self.pairs.object.tolist()]


class FrameMasker:
    """Makes masks of key frames with one SAM 2."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self._loader = ImageLoader()

    @torch.no_grad()
    def masks_of(self, frame: Frame, boxes: FrameBoxes) -> FrameMasks:
        """Masks of the boxes of a key frame.

        Raises:
            DamagedFileError: an image is missing or damaged.
        """
        rig = rig_of(frame)
        seen = project_solids(boxes.corners, rig, boxes.velocity, ALL_VISIBLE)
        in_task = torch.from_numpy(boxes.labels)[seen.object] >= 0
        pairs = seen.select(worth(seen, Visibility()) & in_task)
        raster = tuple(length // LOGIT_STRIDE for length in self.segmenter.network_size)
        outline, open_outline = outline_coverage(
            pairs, rig.cam_from_pixel, rig.size, (raster[0], raster[1]), others=seen
        )
        chunk = 1 if self.segmenter.device.type == "cpu" else len(rig)  # one at a time takes a sixth of the memory
        features = self.segmenter.encode(self._images(frame), chunk) if len(pairs) else None
        decoded = decode_pairs(self.segmenter, features, pairs, seen, rig, outline, open_outline, PASSES, chunk=32)
        near = outline > 0
        return FrameMasks(
            frame=frame,
            boxes=boxes,
            pairs=pairs,
            near=near,
            logits=kept_near(decoded.logits[:, 0], pairs, near, rig).cpu(),
            iou=decoded.iou.cpu().clamp(0, 1),
            presence=decoded.presence.sigmoid().cpu(),
            occlusion=occlusion(pairs, rig.cam_from_pixel, seen).float(),
            open_box=open_bounds(pairs, rig.cam_from_pixel, seen).float(),
            from_film=torch.zeros(len(pairs), dtype=torch.bool),
        )

    def _images(self, frame: Frame) -> Tensor:
        images = [self._loader.read(path, frame.image_size).numpy().copy() for path in frame.image_paths]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def kept_near(logits: Tensor, pairs: Pairs, near: Tensor, rig: CameraRig) -> Tensor:
    """Logits `[P, h, w]` that are low away from the 3D boxes, on their device."""
    cells = in_cells(pairs.box.float(), (near.shape[1], near.shape[2]), rig.size)
    return keep_to_outlines(logits[:, None], cells, near.to(logits.device).float())[:, 0]


def in_cells(boxes: Tensor, raster: tuple[int, int], image_size: tuple[int, int]) -> Tensor:
    """2D boxes `[P, 4]` in pixels, in cells of a raster over the image."""
    return boxes * boxes.new_tensor([raster[1] / image_size[1], raster[0] / image_size[0]] * 2)
