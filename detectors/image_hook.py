"""The hook of image branches: where another network's features enter a camera detector.

A family that has it gives `Detector.image_channels`, and hands its backbone's maps through `Detector.sam` before they
are merged or lifted. It need not know more of what comes in, nor the guest more of the family.

Shape legend: M images, H W their size, C channels, h w the size of a map.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from detectors.geometry import frame_by_frame
from detectors.interface import CameraBatch


@dataclass(frozen=True, slots=True)
class CameraViews:
    """M images as an image branch gets them, and as they were before augmentation."""

    canvas: Tensor
    """uint8 RGB `[M, 3, H, W]`: the network's images."""
    canvas_from_img: Tensor
    """float32 `[M, 4, 4]`: pixels of the image as stored to those of the canvas."""
    whole: Tensor | None
    """uint8 RGB `[M, 3, ., .]`: the images as stored, resized to `data.whole_size`; `None` where that is null."""

    @classmethod
    def of_frames(cls, batch: CameraBatch, frames: slice) -> CameraViews:
        """Frame by frame, as image features of several frames are made."""
        canvas, canvas_from_img = (
            frame_by_frame(values[:, frames]).flatten(0, 1) for values in (batch.images, batch.canvas_from_img)
        )
        whole = None if batch.whole is None else frame_by_frame(batch.whole[:, frames]).flatten(0, 1)
        return cls(canvas, canvas_from_img, whole)

    def of_samples(self, rows: Sequence[int], samples: int) -> CameraViews:
        """Those of some samples of a batch of so many, of one frame."""

        def chosen(values: Tensor) -> Tensor:
            return values.view(samples, -1, *values.shape[1:])[list(rows)].flatten(0, 1)

        whole = None if self.whole is None else chosen(self.whole)
        return CameraViews(chosen(self.canvas), chosen(self.canvas_from_img), whole)


class ImageHook(nn.Module, ABC):
    """Changes the maps of an image branch."""

    @abstractmethod
    def forward(self, levels: Mapping[int, Tensor], views: CameraViews) -> dict[int, Tensor]:
        """The maps `[M, C, h, w]` by stride, of the same shapes."""
