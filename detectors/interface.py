"""What every detector family takes and gives.

Detectors do not import the loader: `CameraBatch` states what they read of a batch, and `scenes.sample.Batch` fits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from detectors.image_hook import ImageHook


class CameraBatch(Protocol):
    """The part of a batch that camera detectors read; shapes and frames as in `scenes.sample.Batch`."""

    @property
    def images(self) -> Tensor: ...
    @property
    def whole(self) -> Tensor | None: ...
    @property
    def img_from_cam(self) -> Tensor: ...
    @property
    def ego_from_cam(self) -> Tensor: ...
    @property
    def canvas_from_img(self) -> Tensor: ...
    @property
    def bev_from_ego(self) -> Tensor: ...
    @property
    def global_from_ego(self) -> Tensor: ...
    @property
    def depth(self) -> Tensor: ...
    @property
    def boxes(self) -> list[Tensor]: ...
    @property
    def labels(self) -> list[Tensor]: ...
    @property
    def walk(self) -> list[tuple[int, int]]: ...


@dataclass(frozen=True, slots=True)
class Detections:
    """Boxes found in one sample, in the `bev` frame (the ego frame when nothing is augmented)."""

    boxes: Tensor
    """float32 `[n, 9]`: x, y, z (gravity centre), l, w, h, yaw, vx, vy; metres, radians, m/s."""
    scores: Tensor
    """float32 `[n]` in 0..1."""
    labels: Tensor
    """int64 `[n]`: index into `configs.nuscenes.CLASSES`."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What losses compare a network's outputs with; a family adds what its own need."""

    counts: Tensor
    """float32 `[K]`: what the losses divide by, such as numbers of objects (additive over samples)."""


class Stream(ABC):
    """A detector on its way along scenes, in eval mode: what it made of a frame serves the samples that follow.

    Frames are told apart by numbers that the caller chooses, such as rows of the index.
    """

    @abstractmethod
    def remember(self, batch: CameraBatch, keys: Sequence[int]) -> None:
        """Prepare what later samples use of the batch's key frames, which have these numbers."""

    @abstractmethod
    def detect(self, batch: CameraBatch, frames: Sequence[Sequence[int]]) -> Any:
        """Raw outputs as of `Detector.forward`, from a batch whose `images` may hold the key frames alone.

        `frames` are the numbers of each sample's frames, the key frame first; every other one was a key frame of a
        batch before, and used by the last `detect`, or remembered since.
        """


class Memory(ABC):
    """What a detector in training carries from one batch to the next beside its weights.

    Samples are told apart by their slot in the optimiser step, so any split of the step can take up another's.
    """

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """All of it, by names `SLOT.PART`."""

    @abstractmethod
    def take_up(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Hold what `state` was given instead of what is there."""

    @abstractmethod
    def forget(self) -> None:
        """Drop all of it."""


class Detector(nn.Module, ABC):
    """A detector that can be trained by the engine and evaluated.

    One optimiser step is the recipe's step whatever the topology: the `targets` of all micro-batches are made before
    any forward pass, the engine sums their counts over micro-batches and ranks, and `loss` divides by that sum.
    """

    memory: Memory | None = None
    """Of a detector that is trained along scenes."""

    def __init__(self) -> None:
        super().__init__()
        self.sam: ImageHook | None = None
        """Adds another network's features to the image branch, in families that have `image_channels`."""

    @property
    def image_channels(self) -> dict[int, int]:
        """Channels, by stride, of the maps that go through `sam`; empty in a family without that hook."""
        return {}

    @abstractmethod
    def forward(self, batch: CameraBatch) -> Any:
        """Raw outputs of the network for `loss` and `decode`."""

    @abstractmethod
    def targets(self, batch: CameraBatch) -> Targets:
        """What `loss` is given beside the outputs, made once for each micro-batch."""

    @abstractmethod
    def loss(self, outputs: Any, targets: Any, normaliser: Tensor | None = None) -> dict[str, Tensor]:
        """Scalar loss terms; their plain sum is minimised.

        Args: `targets` of the batch that the outputs are of; `normaliser` `[K]`, by default the targets' counts.
        """

    def stream(self) -> Stream | None:
        """A way to run along scenes with less work than sample by sample, and equal results; `None`: there is none."""
        return None

    @abstractmethod
    def decode(self, outputs: Any) -> list[Detections]:
        """Final detections per sample, after non-maximum suppression."""
