"""Fit score feedback: what the masks of a detector's boxes say about which of them are true."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from integration.bev_sam_fusion import BEVSAMFusion
from integration.labelling.boxes import FrameBoxes
from integration.labelling.results_file import read_results
from integration.projection import centre_and_axes
from integration.sam2_weights import digest
from integration.scene_boxes import rig_of
from integration.score_feedback import ScoreFeedback, feedback_features, fit_feedback, true_detections
from scenes.frame import Frame
from scenes.index import SceneIndex
from scenes.loading import ImageLoader


def calibrate(
    fusion: BEVSAMFusion,
    index: SceneIndex,
    rows: Sequence[int],
    results: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> ScoreFeedback:
    """Feedback fitted on the detections that `fusion` makes masks for.

    Args:
        rows: of training scenes; of scenes that it will be judged on it would learn the answers.
        results: detections of those in the nuScenes results format.

    Raises:
        DataError: results that are damaged, or of other samples.
        UsageError: too few true or false detections.
    """
    tokens = [index.token(int(row)) for row in rows]
    found = read_results(results, tokens, fusion.limits.min_score).frames
    loader, parts = ImageLoader(), []
    for done, (row, token) in enumerate(zip(rows, tokens, strict=True), start=1):
        if len(found[token]):
            parts.append(_of_sample(fusion, index.frame(int(row)), found[token], loader))
        if on_progress is not None:
            on_progress(done, len(tokens))
    features, labels, true = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return fit_feedback(features, labels, true, digest(fusion.segmenter).hex())


def upright(boxes: FrameBoxes) -> Tensor:
    """float64 `[n, 9]`: the project's boxes, global frame."""
    centre, axes = centre_and_axes(boxes.corners)
    sizes, yaw = 2 * axes.norm(dim=-1), torch.atan2(axes[:, 0, 1], axes[:, 0, 0])
    return torch.cat([centre, sizes, yaw[:, None], boxes.velocity], 1)


def _of_sample(
    fusion: BEVSAMFusion, frame: Frame, found: FrameBoxes, loader: ImageLoader
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    boxes, rig, annotations = upright(found), rig_of(frame), frame.annotations
    images = [loader.read(path, frame.image_size).permute(2, 0, 1).clone() for path in frame.image_paths]
    given = {"boxes_3d": boxes, "scores": torch.from_numpy(found.scores), "labels": torch.from_numpy(found.labels)}
    result = fusion.segment(torch.stack(images), given, rig)
    kept = result["kept"].numpy()
    true = true_detections(
        boxes[:, :2].numpy(), found.scores, found.labels, annotations.translation[:, :2], annotations.labels
    )
    return feedback_features(result), found.labels[kept], true[kept]
