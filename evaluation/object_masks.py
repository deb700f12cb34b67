"""Masks of SAM 2 for the boxes of a sample: made, and written beside the results file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from configs.errors import DataError
from configs.mask_weights import MaskWeights
from configs.plan_schema import Precision
from configs.replaced_file import replace_text
from evaluation.figures.sample_view import SampleView
from evaluation.global_boxes import GlobalBoxes, rotation_matrices
from integration.bev_sam_fusion import BEVSAMFusion, Limits
from integration.projection import CameraRig
from integration.rle import Rle

MASKS_FILE: Final = "masks.json"


@dataclass(frozen=True, slots=True)
class ObjectMask:
    """One object in one camera."""

    box: int
    """Position among the boxes that were given; in files, among the sample's boxes of the results file."""
    camera: str
    box_2d: tuple[float, float, float, float]
    """Left, top, right, bottom of the 3D box in the image, pixels."""
    segmentation: Rle
    """COCO run lengths at the size of the image."""
    quality: float
    """0..1: what SAM 2 expects of the mask, and how well its bounds agree with the box."""
    presence: float
    """0..1: SAM 2 sees an object at all."""
    occlusion: float
    """Share of the outline that nearer boxes cover."""
    truncation: float
    """Share of the outline outside the image."""
    visible_fraction: float
    """Pixels of the mask over pixels of the outline."""


def mask_maker(
    weights: MaskWeights,
    device: torch.device | str | None = None,
    min_score: float = 0.0,
    precision: Precision = "fp32",
) -> BEVSAMFusion:
    """SAM 2 for `segment`, which leaves out boxes with lower scores.

    Raises:
        UsageError: weights that are missing or do not fit their configuration, or a precision that the device has not.
    """
    limits = Limits(min_score=min_score)
    return BEVSAMFusion(weights.weights, weights.config, device, limits=limits, mask_format="rle", precision=precision)


def segment(fusion: BEVSAMFusion, view: SampleView, boxes: GlobalBoxes) -> list[ObjectMask]:
    """Masks of boxes in all cameras of a sample, camera by camera; at most as many as the limits of `fusion` say.

    Boxes stand upright in the global frame, and the ego motion up to each camera's time is taken into account.

    Args:
        fusion: made by `mask_maker`.
    """
    images = torch.from_numpy(np.stack(view.images)).permute(0, 3, 1, 2)
    detections = {
        "boxes_3d": box_tensor(boxes),
        "scores": torch.from_numpy(boxes.scores),
        "labels": torch.from_numpy(boxes.labels),
    }
    found = fusion.segment(images, detections, rig_of_view(view))
    kept = found["kept"]
    return [
        ObjectMask(
            box=int(kept[found["pair_object"][pair]]),
            camera=view.cameras[found["pair_camera"][pair]],
            box_2d=tuple(round(edge, 1) for edge in found["boxes_2d"][pair].tolist()),
            segmentation=found["masks"][pair],
            quality=_share(found["mask_scores"][pair]),
            presence=_share(found["object_presence"][pair]),
            occlusion=_share(found["occlusion"][pair]),
            truncation=_share(found["truncation"][pair]),
            visible_fraction=_share(found["visible_fraction"][pair]),
        )
        for pair in range(len(found["pair_object"]))
    ]


def _share(value: Tensor) -> float:
    return round(float(value), 4)


def rig_of_view(view: SampleView) -> CameraRig:
    """The cameras of a sample; boxes are in the global frame at the key frame's time."""
    height, width = view.images[0].shape[:2]
    return CameraRig(
        img_from_cam=torch.from_numpy(view.intrinsics.copy()),
        cam_from_ego=torch.from_numpy(view.cam_from_global.copy()),
        image_size=(height, width),
        delay=torch.from_numpy(view.delays.copy()),
    )


def box_tensor(boxes: GlobalBoxes) -> Tensor:
    """float64 `[n, 9]`: x, y, z (gravity centre), l, w, h, yaw, vx, vy in the global frame; velocity 0 if unknown."""
    turned = rotation_matrices(boxes.rotations)
    yaw = np.arctan2(turned[:, 1, 0], turned[:, 0, 0])
    columns = (boxes.centres, boxes.sizes[:, [1, 0, 2]], yaw[:, None], np.nan_to_num(boxes.velocities))
    return torch.from_numpy(np.concatenate(columns, axis=1))


def of_kept(masks: Sequence[ObjectMask], kept: npt.NDArray[np.bool_]) -> list[ObjectMask]:
    """The masks of the boxes that stay, with their positions among those."""
    position = np.cumsum(kept) - 1
    return [replace(mask, box=int(position[mask.box])) for mask in masks if kept[mask.box]]


def write_masks(path: Path, masks: Mapping[str, Sequence[ObjectMask]], weights: MaskWeights, boxes_file: str) -> Path:
    """Write masks by sample token; `boxes_file` is the file beside it whose boxes the positions count."""
    meta = {"boxes": boxes_file, "sam2_config": weights.config, "sam2_weights": weights.weights}
    results = {token: [asdict(mask) for mask in found] for token, found in masks.items()}
    return replace_text(path, json.dumps({"meta": meta, "results": results}, allow_nan=False))


def read_masks(path: Path) -> dict[str, list[ObjectMask]]:
    """Masks by sample token, as `write_masks` wrote them. Raises `DataError` for anything else."""
    try:
        results: dict[str, list[dict[str, Any]]] = json.loads(path.read_bytes())["results"]
        return {
            token: [ObjectMask(**(one | {"box_2d": tuple(one["box_2d"])})) for one in found]
            for token, found in results.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} holds no masks: {error!r}", fix="write it again with `infer --masks` or `demo`"
        ) from error
