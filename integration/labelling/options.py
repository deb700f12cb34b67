"""What a labelling was asked for. No torch here: worker processes and the command line read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from configs.plan_schema import Precision


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Masks below any of these are left out. The defaults were chosen on the synthetic set (docs/sam2.md)."""

    quality: float = 0.5
    """Geometric mean of the two that follow."""
    iou: float = 0.3
    """What SAM 2 expects of the mask."""
    agreement: float = 0.3
    """IoU of the mask's bounds and those of the 3D box, as far as no nearer box covers it."""
    visible: float = 0.1
    """Pixels of the mask over pixels of the 3D box's outline."""


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """Everything that decides the labels, and where they go."""

    data_root: Path
    version: str
    split: str
    results: Path | None
    """nuScenes results to take boxes from; `None` takes the annotations."""
    min_score: float
    """Of boxes of a results file."""
    config: str
    weights: str
    network_size: tuple[int, int] | None
    thresholds: Thresholds
    tracks: bool
    device: str
    precision: Precision
    workers: int
    out: Path
