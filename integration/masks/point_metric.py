"""How well masks agree with LiDAR points: a metric for data without mask labels.

Of the points that a camera sees, an object's own lie in its box, above the ground; its rivals lie in its outline,
enlarged, and belong to something else. Recall is the share of its own points that the mask holds; precision the share
of its own among own and rival points that the mask holds. It says nothing on pixels without points: above the LiDAR's
field of view, and between rings.

Shape legend: P pairs of an object and a camera, n points, m of them in one camera, Q pairs of one camera.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.nuscenes import CLASSES
from integration.convex import Polygons
from integration.lidar_points import SeenPoints, points_in_solids
from integration.masks.metrics import OCCLUSION_BINS
from integration.projection import CameraRig, Pairs
from integration.rays import pixel_rays, ray_depths

GROUND: Final = 0.2
"""Metres above a box's bottom: lower points may be the ground's."""
UNSURE: Final = 0.1
"""Metres about a box: points there belong to nobody."""
ENLARGED: Final = 1.2
"""The outline in which rival points lie, as a multiple of the outline."""
FEWEST: Final = 5
"""Own points of an object that is scored."""
STANDING: Final = 1.0
"""m/s; faster objects have moved between LiDAR and camera, and are scored apart."""
RANGES: Final = (("0 to 20 m", 0.0, 20.0), ("20 to 40 m", 20.0, 40.0), ("beyond 40 m", 40.0, np.inf))
LEAK_SHARE: Final = 0.9

Scores = Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True, slots=True)
class PointTruth:
    """What the points of one camera say about the Q pairs in it."""

    pairs: Tensor
    """int64 `[Q]`: positions among all P pairs."""
    pixel: Tensor
    """int64 `[m, 2]`"""
    own: Tensor
    """bool `[Q, m]`"""
    rival: Tensor
    """bool `[Q, m]`"""
    beyond: Tensor
    """float64 `[Q, m]`: metres that the point lies behind the box on its ray, or behind the box's centre where the ray
    misses the box."""
    hull: Tensor
    """bool `[Q, m]`: the point's pixel is in the outline of the box."""
    open_hull: Tensor
    """bool `[Q, m]`: and no other box is nearer there."""


def point_truth(
    points: Tensor, seen: SeenPoints, corners: Tensor, pairs: Pairs, others: Pairs, rig: CameraRig
) -> Iterator[PointTruth]:
    """The truth of each camera that sees an object.

    Args:
        points: `[n, 3]`, in the frame of the boxes.
        seen: of those, what the cameras see.
        corners: `[N, 8, 3]`: all boxes at the points' time, in that frame.
        pairs: the pairs that are scored.
        others: all pairs that may hide something.
    """
    inside = points_in_solids(points, corners, floor=GROUND)
    near = points_in_solids(points, corners, margin=UNSURE)
    for camera in sorted(set(pairs.camera.tolist())):
        chosen = (pairs.camera == camera).nonzero()[:, 0]
        local, here = pairs.select(chosen), seen.select(seen.camera == camera)
        own = inside[local.object][:, here.point]
        around = _enlarged(local.polygons).inner_distance(here.pixel.double()) >= 0
        rays = pixel_rays(here.pixel.double(), rig.cam_from_pixel[camera])
        enter, leave = ray_depths(local.corners, rays)
        nearest = ray_depths(others.corners[others.camera == camera], rays)[0].amin(0)
        behind = torch.where(leave.isfinite(), leave, local.depth[:, None])
        yield PointTruth(
            pairs=chosen,
            pixel=here.pixel,
            own=own,
            rival=around & ~own & ~near[local.object][:, here.point],
            beyond=here.depth - behind,
            hull=enter.isfinite(),
            open_hull=enter.isfinite() & (enter <= nearest),
        )


class PointScores:
    """Collects the scores of several ways to make masks, pair by pair."""

    def __init__(self, ways: Sequence[str]) -> None:
        self.ways = tuple(ways)
        self._pairs: dict[str, list[NDArray[np.float64]]] = {name: [] for name in ("label", "range", "hidden", "speed")}
        self._own: list[NDArray[np.float64]] = []
        self._hits: dict[str, list[NDArray[np.float64]]] = {way: [] for way in ways}
        self._false: dict[str, list[NDArray[np.float64]]] = {way: [] for way in ways}
        self._leaks: dict[str, list[list[float]]] = {way: [] for way in ways}

    def add(
        self,
        truth: PointTruth,
        held: Mapping[str, Tensor],
        labels: Tensor,
        distance: Tensor,
        occlusion: Tensor,
        speed: Tensor,
    ) -> None:
        """The Q pairs of one camera.

        Args:
            held: of each way bool `[Q, m]`: the mask holds the point.
            labels, distance, occlusion, speed: `[Q]`: class, metres from the vehicle, share of the outline that nearer
                boxes cover, metres per second.
        """
        own = truth.own.sum(1)
        kept = (own >= FEWEST) & (labels >= 0)
        for name, values in zip(self._pairs, (labels, distance, occlusion, speed), strict=True):
            self._pairs[name].append(values[kept].double().numpy())
        self._own.append(own[kept].double().numpy())
        for way in self.ways:
            false = held[way][kept] & truth.rival[kept]
            self._hits[way].append((held[way] & truth.own)[kept].sum(1).double().numpy())
            self._false[way].append(false.sum(1).double().numpy())
            self._leaks[way] += [depth[wrong].tolist() for depth, wrong in zip(truth.beyond[kept], false, strict=True)]

    def summary(self) -> Scores:
        """By group, then by way: means over pairs of `recall`, `precision` (of masks that hold a point) and `f1`;
        `depth_leak`, the 90th percentile of how far false points lie behind the box, metres; number of `objects`.

        All groups but `moving` are of standing objects.
        """
        pairs = {name: np.concatenate([*arrays, np.zeros(0)]) for name, arrays in self._pairs.items()}
        standing = pairs["speed"] <= STANDING
        groups = {"all": standing}
        groups |= {name: standing & (pairs["label"] == number) for number, name in enumerate(CLASSES)}
        for bins, value in ((RANGES, pairs["range"]), (OCCLUSION_BINS, pairs["hidden"])):
            groups |= {name: standing & (value >= low) & (value < high) for name, low, high in bins}
        groups["moving"] = ~standing
        return {
            name: {way: self._scores(way, chosen) for way in self.ways}
            for name, chosen in groups.items()
            if any(chosen)
        }

    def _scores(self, way: str, chosen: NDArray[np.bool_]) -> dict[str, float]:
        own, hits, false = (np.concatenate(values)[chosen] for values in (self._own, self._hits[way], self._false[way]))
        holding = hits + false > 0
        precision = hits[holding] / (hits + false)[holding]
        leaks = [leak for place in np.flatnonzero(chosen) for leak in self._leaks[way][place]]
        return {
            "recall": float((hits / own).mean()),
            "precision": float(precision.mean()) if len(precision) else 0.0,
            "f1": float((2 * hits / (own + hits + false)).mean()),
            "depth_leak": float(np.quantile(leaks, LEAK_SHARE)) if leaks else 0.0,
            "objects": int(chosen.sum()),
        }


def _enlarged(polygons: Polygons) -> Polygons:
    """About the centres of their bounds."""
    bounds = polygons.bounds()
    centre = (bounds[:, :2] + bounds[:, 2:])[:, None] / 2
    return Polygons(centre + ENLARGED * (polygons.vertices - centre), polygons.count)
