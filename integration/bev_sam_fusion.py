"""Boxes of a detector and SAM 2 together: a mask for every object in every camera that sees it.

Shape legend: B samples, C cameras, N detections, K of them kept, P pairs of an object and a camera, H W image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from configs.errors import UsageError
from configs.plan_schema import Precision
from integration.composition import box_iou, keep_to_outlines, share_pixels, tight_boxes
from integration.object_prompts import DecodedPairs, decode_pairs
from integration.point_prompts import points_on_objects
from integration.precision import lower_kind
from integration.projection import ALL_VISIBLE, CameraRig, Pairs, Visibility, check_boxes, project_boxes, worth
from integration.rays import occlusion, outline_coverage
from integration.rle import encode_masks
from integration.sam2_weights import digest, load_segmenter
from integration.sam_features import TrunkMaps
from integration.score_feedback import feedback_for, fused_scores
from integration.segmenter import LOGIT_STRIDE, ImageFeatures, check_images, upsample

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """Which objects get masks; bounds time and memory whatever is detected."""

    min_score: float = 0.1
    objects: int = 64
    """Of one sample: those with the highest scores."""
    per_camera: int = 24


class BEVSAMFusion(nn.Module):
    """Masks for the detections of a sample.

    Args:
        sam2_checkpoint: weights file or name of `checkpoints list`; `None` keeps random weights, for tests.
        sam2_model_cfg: SAM 2 configuration: a published name such as `sam2.1_hiera_t`, `sam2_hiera_nano`, or a file.
        device: default: a GPU if there is one.
        network_size: height and width that images are resized to for SAM 2, multiples of 32. Default: the weights' own.
        passes: 2 lets a second pass start from the first one's mask and its tight box; 1 is faster.
        box_format: order of the three sizes in `boxes_3d`: `lwh` (the project's), or `wlh`.
        mask_format: masks as `bool` tensors, or as COCO `rle` (much smaller).
        precision: what SAM 2 computes in: `fp32`, `bf16`, `fp16`.
        feedback: file of `sam2 calibrate`, made with the same weights: `scores_fused` are then the detector's scores
            calibrated by what the masks say. Default: they are the detector's scores.
    """

    def __init__(
        self,
        sam2_checkpoint: str | Path | None,
        sam2_model_cfg: str | Path,
        device: torch.device | str | None = None,
        *,
        network_size: tuple[int, int] | None = None,
        limits: Limits | None = None,
        visibility: Visibility | None = None,
        passes: Literal[1, 2] = 2,
        chunk: int = 32,
        box_format: Literal["lwh", "wlh"] = "lwh",
        mask_format: Literal["bool", "rle"] = "bool",
        precision: Precision = "fp32",
        feedback: str | Path | None = None,
    ) -> None:
        super().__init__()
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.segmenter = load_segmenter(sam2_model_cfg, sam2_checkpoint, network_size=network_size, device=place)
        self.segmenter.lower_kind = lower_kind(precision, self.segmenter.device)
        self.limits = limits or Limits()
        self.visibility = visibility or Visibility()
        self.passes = passes
        self.chunk = chunk
        self.box_format = box_format
        self.mask_format = mask_format
        self._trunk_sha256: bytes | None = None
        self.feedback = None if feedback is None else feedback_for(self.segmenter, Path(feedback))

    @torch.no_grad()
    def forward(
        self,
        image: Tensor,
        bev_detections: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
        camera_params: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
        points: Tensor | Sequence[Tensor] | None = None,
    ) -> Result | list[Result]:
        """Masks of the detections.

        Args:
            image: uint8 RGB `[B, 3, H, W]` (one camera) or `[B, C, 3, H, W]`.
            bev_detections: `boxes_3d` `[N, 7]` or `[N, 9]` (x, y, z of the centre, l, w, h, yaw, vx, vy), `scores`
                `[N]`, `labels` `[N]`; one mapping for B = 1, else one per sample.
            camera_params: `intrinsics` `[3, 3]` or `[C, 3, 3]`; `extrinsics` `[4, 4]` or `[C, 4, 4]`: from the frame of
                the boxes to the camera at its own time; optionally `delay` `[C]`, seconds from the boxes' time to the
                camera's, and `canvas_from_img` `[C, 4, 4]` where the image was resized or cropped after calibration
                (with `source_size`, height and width before). One mapping for all samples, or one per sample.
            points: LiDAR points `[n, 3]` in the frame of the boxes and at their time, for B = 1, or one tensor per
                sample: up to three on each object that its camera sees become part of the prompts.

        Returns:
            For one mapping a mapping, else a list. `kept` `[K]` positions of the kept detections; `boxes_3d`, `scores`
            (as given), `labels` of those; per pair `pair_object` `[P]` (position among the kept), `pair_camera` `[P]`,
            `boxes_2d` `[P, 4]` (left, top, right, bottom), `masks` `[P, H, W]` that share out the pixels,
            `mask_logits_lowres` (before they did), `mask_scores`, `object_presence`, `depth` (of the centre, metres),
            `truncation`, `occlusion`, `visible_fraction`; `scores_fused` `[K]` (see `feedback`); `instance_maps` int
            `[C, H, W]`: position among the kept, -1 for none.
            With one camera (`[B, 3, H, W]`) the pairs are the kept objects themselves, P = K; one that the camera does
            not see has an empty mask and a box of zeros.
        """
        one_camera = image.ndim == 4
        images = image[:, None] if one_camera else image
        if images.ndim != 5:
            raise UsageError(f"image is {list(image.shape)}", fix="give uint8 [B, 3, H, W] or [B, C, 3, H, W]")
        single = isinstance(bev_detections, Mapping)
        samples = [bev_detections] if isinstance(bev_detections, Mapping) else list(bev_detections)
        cameras = [camera_params] * len(images) if isinstance(camera_params, Mapping) else list(camera_params)
        clouds: Sequence[Tensor | None] = [None] * len(images)
        if points is not None:
            clouds = [points] if isinstance(points, Tensor) else points
        if not len(samples) == len(cameras) == len(clouds) == len(images):
            raise UsageError(
                f"{len(images)} samples, {len(samples)} sets of detections, {len(cameras)} sets of cameras, "
                f"{len(clouds)} sets of points",
                fix="give one set per sample",
            )
        results = []
        for views, found, calibration, cloud in zip(images, samples, cameras, clouds, strict=True):
            check_images(views)
            result = self.segment(views, found, rig_from(calibration, views), points=cloud)
            results.append(_by_object(result) if one_camera else result)
        return results[0] if single else results

    @torch.no_grad()
    def segment(
        self,
        images: Tensor,
        detections: Mapping[str, Tensor],
        rig: CameraRig,
        features: ImageFeatures | None = None,
        points: Tensor | None = None,
    ) -> Result:
        """As `forward`, for one sample's images `[C, 3, H, W]`; `features` of those images, if they are known.

        Images may be of another size than the rig's, if they show the whole of what its cameras see.
        """
        boxes, scores, labels = self._checked(detections)
        kept = (scores >= self.limits.min_score).nonzero()[:, 0]
        kept = kept[scores[kept].argsort(descending=True, stable=True)[: self.limits.objects]]
        seen = project_boxes(boxes[kept], rig, ALL_VISIBLE)
        pairs = self._bounded(seen.select(worth(seen, self.visibility)), len(rig))
        outline, open_outline = outline_coverage(pairs, rig.cam_from_pixel, rig.size, self._raster(), others=seen)
        if features is None and len(pairs):
            features = self.segmenter.encode(images)
        if features is not None:
            features = replace(features, source_size=rig.size)
        on_object = None if points is None else points_on_objects(points.cpu(), boxes[kept], pairs, rig)
        decoded = decode_pairs(
            self.segmenter, features, pairs, seen, rig, outline, open_outline, self.passes, self.chunk, on_object
        )
        # masks at full size stay where the network is; what is told of them comes back
        logits = keep_to_outlines(decoded.logits, self._cells(pairs.box, rig.size), outline.to(decoded.logits.device))
        masks, maps = self._composed(logits, pairs, rig)
        result = {
            "kept": kept,
            "boxes_3d": detections["boxes_3d"][kept.to(detections["boxes_3d"].device)],
            "scores": scores[kept],
            "labels": labels[kept],
            "pair_object": pairs.object,
            "pair_camera": pairs.camera,
            "boxes_2d": pairs.box.float(),
            "masks": encode_masks(masks) if self.mask_format == "rle" else masks.cpu(),
            "mask_logits_lowres": logits.half().cpu(),
            "mask_scores": _quality(decoded, masks, pairs),
            "object_presence": decoded.presence.sigmoid().cpu(),
            "depth": pairs.depth.float(),
            "truncation": pairs.truncation.float(),
            "occlusion": occlusion(pairs, rig.cam_from_pixel, seen).float(),
            "visible_fraction": (masks.flatten(1).sum(1).cpu() / pairs.area.clamp(min=1)).float(),
            "instance_maps": maps.cpu(),
        }
        return result | {"scores_fused": fused_scores(result, self.feedback)}

    def features_of(self, maps: TrunkMaps) -> ImageFeatures:
        """For `segment`: features from maps that a detector in mode native has made of the same images already.

        Raises:
            UsageError: maps of other weights than this SAM 2's, or of images of another size than it takes.
        """
        if self._trunk_sha256 is None:
            self._trunk_sha256 = digest(self.segmenter.image_encoder.trunk)
        if maps.sha256 != self._trunk_sha256:
            raise UsageError(
                "masks from a detector's features: its SAM 2 has other weights, or trains",
                fix="give both the same SAM 2, and leave sam2.unfreeze_at_epoch out",
            )
        features = self.segmenter.finish(maps.maps, self.segmenter.network_size)
        if features.network_size != self.segmenter.network_size:
            raise UsageError(
                f"masks from a detector's features: they are of images of {features.network_size} (height, width), "
                f"network_size is {self.segmenter.network_size}",
                fix=f"give BEVSAMFusion network_size={features.network_size}, the recipe's data.whole_size",
            )
        return features

    def project_3d_to_2d(
        self,
        boxes_3d: Tensor,
        camera_intrinsics: Tensor,
        camera_extrinsics: Tensor,
        image_size: tuple[int, int] | None = None,
    ) -> Tensor:
        """2D boxes `[N, 4]` of 3D boxes in one camera; zeros for those it does not see.

        Args:
            image_size: height and width. Default: twice the principal point.
        """
        if image_size is None:
            centre = camera_intrinsics[:2, 2]
            image_size = (round(2 * float(centre[1])), round(2 * float(centre[0])))
        rig = CameraRig(camera_intrinsics[None], camera_extrinsics[None], image_size)
        pairs = project_boxes(self._in_our_format(boxes_3d), rig, self.visibility)
        found = torch.zeros(len(boxes_3d), 4)
        found[pairs.object] = pairs.box.float()
        return found

    def _checked(self, detections: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        missing = [name for name in ("boxes_3d", "scores", "labels") if name not in detections]
        if missing:
            raise UsageError(f"detections have no {', '.join(missing)}", fix="give boxes_3d, scores and labels")
        boxes = self._in_our_format(detections["boxes_3d"].detach().cpu())
        check_boxes(boxes)
        scores, labels = detections["scores"].detach().cpu(), detections["labels"].detach().cpu()
        if not len(boxes) == len(scores) == len(labels):
            raise UsageError(
                f"{len(boxes)} boxes_3d, {len(scores)} scores, {len(labels)} labels", fix="give as many of each"
            )
        if not bool(scores.isfinite().all()):
            raise UsageError("detections have a score that is no number", fix="leave such boxes out")
        return boxes, scores, labels

    def _in_our_format(self, boxes: Tensor) -> Tensor:
        if self.box_format == "lwh" or boxes.ndim != 2 or boxes.shape[1] < 7:
            return boxes
        return torch.cat([boxes[:, :3], boxes[:, [4, 3]], boxes[:, 5:]], 1)

    def _bounded(self, pairs: Pairs, cameras: int) -> Pairs:
        """At most `per_camera` pairs of each camera; objects come by falling score, so the first ones stay."""
        kept = [(pairs.camera == camera).nonzero()[: self.limits.per_camera, 0] for camera in range(cameras)]
        return pairs.select(torch.cat(kept))

    def _raster(self) -> tuple[int, int]:
        height, width = self.segmenter.network_size
        return height // LOGIT_STRIDE, width // LOGIT_STRIDE

    def _cells(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        rows, columns = self._raster()
        return boxes * boxes.new_tensor([columns / size[1], rows / size[0]] * 2)

    def _composed(self, logits: Tensor, pairs: Pairs, rig: CameraRig) -> tuple[Tensor, Tensor]:
        """Masks `[P, H, W]` and maps `[C, H, W]`, one camera after the other, on the device of the logits."""
        device = logits.device
        masks = torch.zeros(len(pairs), *rig.size, dtype=torch.bool, device=device)
        maps = torch.full((len(rig), *rig.size), -1, dtype=torch.int64, device=device)
        for camera in sorted(set(pairs.camera.tolist())):
            own = (pairs.camera == camera).nonzero()[:, 0]
            order, objects, place = (one.to(device) for one in (pairs.distance[own].argsort(), pairs.object[own], own))
            shared = share_pixels(upsample(logits[place], rig.size)[:, 0], order)
            masks[place] = shared.logits > 0
            maps[camera] = torch.where(shared.owner >= 0, objects[shared.owner], -1)
        return masks, maps


def rig_from(calibration: Mapping[str, Tensor], images: Tensor) -> CameraRig:
    """The cameras of a `camera_params` mapping for images `[C, 3, H, W]`. Raises `UsageError` for what does not fit."""
    for name in ("intrinsics", "extrinsics"):
        if name not in calibration:
            raise UsageError(f"camera_params has no {name}", fix="masks need calibration: intrinsics and extrinsics")
    intrinsics, extrinsics = (
        matrix[None] if matrix.ndim == 2 else matrix
        for matrix in (calibration[name].detach().cpu() for name in ("intrinsics", "extrinsics"))
    )
    if len(intrinsics) != len(images):
        raise UsageError(f"{len(images)} images, {len(intrinsics)} intrinsics", fix="give one per camera")
    height, width = images.shape[-2:]
    canvas = calibration.get("canvas_from_img")
    if canvas is None:
        return CameraRig(intrinsics, extrinsics, (height, width), calibration.get("delay"))
    if "source_size" not in calibration:
        raise UsageError("camera_params has canvas_from_img, but no source_size", fix="give height and width before it")
    rows, columns = (int(length) for length in calibration["source_size"])
    return CameraRig(intrinsics, extrinsics, (rows, columns), calibration.get("delay"), canvas.cpu(), (height, width))


def _quality(decoded: DecodedPairs, masks: Tensor, pairs: Pairs) -> Tensor:
    """`[P]`, 0 to 1: what SAM 2 expects of the mask, and how well the mask's bounds agree with the box."""
    agreement = box_iou(tight_boxes(masks).cpu(), pairs.box.float())
    return (decoded.iou.cpu().clamp(0, 1) * agreement).sqrt()


def _by_object(result: Result) -> Result:
    """One camera: rows of pairs become rows of objects."""
    count, place = len(result["kept"]), result["pair_object"]
    spread = dict(result)
    for name, value in result.items():
        if name in ("kept", "boxes_3d", "scores", "scores_fused", "labels", "instance_maps"):
            continue
        if name == "masks" and isinstance(value, list):
            height, width = result["instance_maps"].shape[-2:]
            empty = encode_masks(torch.zeros(1, height, width, dtype=torch.bool))[0]
            at = dict(zip(place.tolist(), value, strict=True))
            spread[name] = [at.get(number, empty) for number in range(count)]
            continue
        rows = value.new_zeros(count, *value.shape[1:])
        rows[place] = value
        spread[name] = rows
    spread["pair_object"] = torch.arange(count)
    spread["seen"] = torch.zeros(count, dtype=torch.bool).index_fill(0, place, True)
    return spread
