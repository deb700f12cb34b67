"""Running a BEVNeXt along scenes: what was made of a frame is remembered while later samples use it.

Backbone and neck see pixels alone, so their features serve every later key frame. What depends on the key frame (depth
network, CRF, lifting) is computed again: results are those of `BEVNeXt.forward`. A network that was trained on carried
BEV maps gets those instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from detectors.bevnext.carrying import CarriedMap, into_rasters_of_key_frames, maps_of
from detectors.bevnext.frames import EarlierFrames
from detectors.geometry import CameraGeometry
from detectors.interface import CameraBatch, Stream

if TYPE_CHECKING:
    from detectors.bevnext.model import BEVNeXt, BEVNeXtOutputs
    from detectors.bevnext.view_transform import LiftedViews


class FeatureStream(Stream):
    """Image features of recent frames, by the frame's number."""

    def __init__(self, detector: BEVNeXt) -> None:
        self.detector = detector
        self._features: dict[int, Tensor] = {}

    @torch.no_grad()
    def remember(self, batch: CameraBatch, keys: Sequence[int]) -> None:
        """Make and keep features of the key frames; a frame in a batch twice is made once."""
        new = {frame: i for i, frame in enumerate(keys) if frame not in self._features}
        if not new:
            return
        rows = list(new.values())
        images = batch.images[rows, 0].flatten(0, 1)
        views = self.detector.views(batch, slice(0, 1))
        features = self.detector.image_features(
            self.detector.normalise(images), views and views.of_samples(rows, len(batch.images))
        )
        self._features |= dict(zip(new, features.chunk(len(new)), strict=True))

    @torch.no_grad()
    def detect(self, batch: CameraBatch, frames: Sequence[Sequence[int]]) -> BEVNeXtOutputs:
        """Raw outputs; features of other frames than these are forgotten, such as those of a scene that has ended.

        Args:
            batch: `images` may hold the key frame alone.
            frames: per sample the numbers of its frames, the key frame first. All others were given as key frames.
        """
        self.remember(batch, [own[0] for own in frames])
        used = {frame for own in frames for frame in own}
        self._features = {frame: self._features[frame] for frame in used}
        key, *earlier = ([own[t] for own in frames] for t in range(len(frames[0])))
        history = [self._features[frame] for of_age in earlier for frame in of_age]
        return self.detector.detect(
            torch.cat([self._features[frame] for frame in key]),
            batch.images[:, 0].flatten(0, 1),
            CameraGeometry.of_key_frame(batch),
            EarlierFrames(torch.cat(history), CameraGeometry.of_earlier_frames(batch)),
        )


class MapStream(Stream):
    """BEV maps of recent frames, by the frame's number."""

    def __init__(self, detector: BEVNeXt) -> None:
        self.detector = detector
        self._maps: dict[int, CarriedMap] = {}

    @torch.no_grad()
    def remember(self, batch: CameraBatch, keys: Sequence[int]) -> None:
        """Make and keep the maps of the batch's key frames."""
        self._make(batch, keys)

    @torch.no_grad()
    def detect(self, batch: CameraBatch, frames: Sequence[Sequence[int]]) -> BEVNeXtOutputs:
        """Raw outputs; maps of other frames than these are forgotten. Arguments as of `FeatureStream.detect`."""
        lifted, bev = self._make(batch, [own[0] for own in frames])
        self._maps = {frame: self._maps[frame] for own in frames for frame in own}
        earlier = into_rasters_of_key_frames(
            [[self._maps[frame] for frame in own] for own in frames], self.detector.grid
        )
        return self.detector.find(lifted, torch.cat([bev, earlier], 1), CameraGeometry.of_key_frame(batch))

    def _make(self, batch: CameraBatch, keys: Sequence[int]) -> tuple[LiftedViews, Tensor]:
        canvas = batch.images[:, 0].flatten(0, 1)
        features = self.detector.image_features(
            self.detector.normalise(canvas), self.detector.views(batch, slice(0, 1))
        )
        lifted, bev = self.detector.key_frame_bev(features, canvas, CameraGeometry.of_key_frame(batch))
        self._maps |= dict(zip(keys, maps_of(bev, batch), strict=True))
        return lifted, bev
