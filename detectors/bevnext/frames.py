"""What stage 2 uses of the frames before the key frame."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from detectors.geometry import CameraGeometry


@dataclass(frozen=True, slots=True)
class EarlierFrames:
    """Frame by frame, the latest first; all samples of a frame stand together."""

    features: Tensor
    """`[(T-1)*B*N, C', h, w]` image features, without gradient."""
    geometry: CameraGeometry
    """Of `(T-1)*B` samples."""
