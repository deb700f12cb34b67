"""How well masks agree with exact ones: IoU and boundary F, by occlusion.

Boundary F (Martin et al. 2004, as DAVIS uses it): precision and recall of boundary pixels that have one of the other
mask within a tolerance, and their harmonic mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

TOLERANCE: Final = 0.0025
"""Of a boundary, as a share of the image's diagonal; 2 pixels at 704 x 396, 5 at 1600 x 900."""
OCCLUSION_BINS: Final = (("open", 0.0, 0.1), ("partly hidden", 0.1, 0.4), ("mostly hidden", 0.4, 1.01))
"""Name, and from where up to where the share of an outline is that nearer boxes cover."""


def mask_iou(found: Mask, truth: Mask) -> float:
    """Of two masks `[H, W]`; 1 for two empty ones."""
    either = np.count_nonzero(found | truth)
    return float(np.count_nonzero(found & truth) / either) if either else 1.0


def boundary_f(found: Mask, truth: Mask) -> float:
    """Of two masks `[H, W]`; 1 for two empty ones, 0 where one is empty."""
    window = _window(found | truth, reach := max(1, round(TOLERANCE * math.hypot(*found.shape))))
    edges = [_edge(mask[window]) for mask in (found, truth)]
    counts = [int(edge.sum()) for edge in edges]
    if not all(counts):
        return float(not any(counts))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    near = [np.asarray(cv2.dilate(edge, disk), np.uint8) for edge in edges]
    precision = np.count_nonzero(edges[0] & near[1]) / counts[0]
    recall = np.count_nonzero(edges[1] & near[0]) / counts[1]
    return float(2 * precision * recall / max(precision + recall, 1e-9))


def _edge(mask: Mask) -> NDArray[np.uint8]:
    """Pixels of a mask that touch one outside it."""
    grey = np.pad(mask.astype(np.uint8), 1)
    return np.asarray(grey - cv2.erode(grey, np.ones((3, 3), np.uint8)), np.uint8)


def _window(mask: Mask, margin: int) -> tuple[slice, slice]:
    """The part of an image around a mask."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    down, across = (slice(max(0, ends[0] - margin), ends[-1] + margin + 1) for ends in (rows, columns))
    return down, across


@dataclass
class MaskScores:
    """Collects the scores of several ways to make masks, object by object."""

    ways: Sequence[str]
    iou: dict[str, list[float]] = field(default_factory=dict)
    boundary: dict[str, list[float]] = field(default_factory=dict)
    occlusion: list[float] = field(default_factory=list)

    def add(self, occlusion: float, truth: Mask, found: Sequence[Mask]) -> None:
        """One object: its exact mask, and what each way made of it."""
        self.occlusion.append(occlusion)
        for way, mask in zip(self.ways, found, strict=True):
            self.iou.setdefault(way, []).append(mask_iou(mask, truth))
            self.boundary.setdefault(way, []).append(boundary_f(mask, truth))

    def summary(self) -> dict[str, dict[str, dict[str, float]]]:
        """By occlusion (`all` too), then by way: mean `iou`, mean `boundary_f`, number of `objects`."""
        shares = np.array(self.occlusion)
        bins = {"all": shares >= 0} | {name: (shares >= low) & (shares < high) for name, low, high in OCCLUSION_BINS}
        return {
            name: {
                way: {
                    "iou": float(np.array(self.iou[way])[chosen].mean()),
                    "boundary_f": float(np.array(self.boundary[way])[chosen].mean()),
                    "objects": int(chosen.sum()),
                }
                for way in self.ways
            }
            for name, chosen in bins.items()
            if chosen.any()
        }
