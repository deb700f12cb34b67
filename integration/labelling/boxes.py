"""The boxes of a key frame that get masks, wherever they come from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from integration.scene_boxes import annotated_corners, known_velocity
from scenes.frame import Annotations


@dataclass(frozen=True, slots=True)
class FrameBoxes:
    """n boxes of one key frame, global frame at its time."""

    corners: Tensor
    """float64 `[n, 8, 3]`, in the order of `projection.SIGNS`."""
    velocity: Tensor
    """float64 `[n, 2]`, m/s; 0 where it is not known."""
    labels: NDArray[np.int64]
    """`[n]`: class; -1 for what is outside the detection task: it hides others, and gets no mask itself."""
    categories: tuple[str, ...]
    """Names of the nuScenes category table."""
    attributes: tuple[str, ...]
    """Empty where there is none."""
    instances: tuple[str, ...]
    """What tells an object from all others of the scene, the same in all its frames if that is known."""
    scores: NDArray[np.float64]
    """1 for annotations."""

    def __len__(self) -> int:
        return len(self.labels)


def annotated_boxes(annotations: Annotations) -> FrameBoxes:
    """The annotations of a key frame; objects are the annotated instances."""
    return FrameBoxes(
        corners=annotated_corners(annotations),
        velocity=known_velocity(annotations),
        labels=annotations.labels,
        categories=tuple(annotations.categories.tolist()),
        attributes=tuple(annotations.attributes.tolist()),
        instances=tuple(annotations.instance_tokens.tolist()),
        scores=np.ones(len(annotations)),
    )
