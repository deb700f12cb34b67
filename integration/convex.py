"""Convex polygons in the plane, many at a time.

Shape legend: P polygons, V vertex places. A polygon's vertices are the
first `count` of its places; the places behind them repeat its last vertex. Everything can be differentiated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Polygons:
    """P convex polygons."""

    vertices: Tensor
    """`[P, V, 2]`, in the order of their angle."""
    count: Tensor
    """int64 `[P]`: 0 for an empty one."""

    def area(self) -> Tensor:
        """`[P]`, never negative."""
        following = _neighbours(self.vertices, self.count, 1)
        crosses = _cross(self.vertices, following) * _used(self.vertices, self.count)
        return 0.5 * crosses.sum(-1).abs()

    def bounds(self) -> Tensor:
        """`[P, 4]`: least x and y, greatest x and y; zeros for an empty one."""
        ends = torch.cat([self.vertices.amin(1), self.vertices.amax(1)], -1)
        return torch.where(self.count[:, None] > 0, ends, 0.0)

    def moved(self, linear: Tensor, offset: Tensor) -> Polygons:
        """Under `linear` `[P, 2, 2]` and `offset` `[P, 2]`."""
        return Polygons(self.vertices @ linear.transpose(-1, -2) + offset[:, None], self.count)

    def inner_distance(self, places: Tensor) -> Tensor:
        """`[P, m]`: how far places `[m, 2]` or `[P, m, 2]` lie within the polygons; negative outside."""
        after = _neighbours(self.vertices, self.count, 1)
        used = _used(self.vertices, self.count) & (after != self.vertices).any(-1)
        edge = after - self.vertices
        turn = _cross(self.vertices, after).mul(used).sum(-1).sign()[:, None, None]
        sideways = _cross(edge[:, :, None], places[..., None, :, :] - self.vertices[:, :, None])
        distance = turn * sideways / edge.norm(dim=-1).clamp(min=1e-9)[..., None]
        return torch.where(used[..., None], distance, torch.inf).amin(1)


def convex_hull(points: Tensor, valid: Tensor) -> Polygons:
    """The hulls of P sets of points.

    Sorted by their angle about the centre, points form a star. A vertex of it that bends inwards lies in the triangle
    of the centre and its two neighbours, so it is no vertex of the hull, and all such can be taken out at once, until
    none is left.

    Args:
        points: `[P, V, 2]`
        valid: bool `[P, V]`: the points that count.
    """
    count = valid.sum(-1)
    weights = valid[..., None] / count.clamp(min=1)[:, None, None]
    rays = points - (torch.where(valid[..., None], points, 0.0) * weights).sum(1, keepdim=True)
    angle = torch.atan2(rays[..., 1], rays[..., 0]).detach()
    order = torch.where(valid, angle, torch.inf).argsort(-1)
    polygons = Polygons(_take(points, order), count)
    for _ in range(points.shape[1]):
        here, used = polygons.vertices, _used(polygons.vertices, polygons.count)
        before, after = (_neighbours(here, polygons.count, step) for step in (-1, 1))
        kept = used & ((_cross(here - before, after - here) >= 0) | (polygons.count[:, None] <= 3))
        if bool((kept == used).all()):
            break
        polygons = _compacted(here, kept)
    return _compacted(polygons.vertices, _used(polygons.vertices, polygons.count))


def clip_to_rectangle(polygons: Polygons, size: tuple[int, int]) -> Polygons:
    """The parts within 0 <= x <= width and 0 <= y <= height (Sutherland and Hodgman's algorithm).

    Args:
        size: height, width.
    """
    height, width = size
    x, y = (1.0, 0.0), (0.0, 1.0)
    for normal, limit in ((x, 0.0), ((-1.0, 0.0), -width), (y, 0.0), ((0.0, -1.0), -height)):
        polygons = _clip(polygons, polygons.vertices.new_tensor(normal), float(limit))
    return polygons


def _clip(polygons: Polygons, normal: Tensor, limit: float) -> Polygons:
    """The parts where `normal . p >= limit`."""
    here, used = polygons.vertices, _used(polygons.vertices, polygons.count)
    after = _neighbours(here, polygons.count, 1)
    height, height_after = here @ normal - limit, after @ normal - limit
    inside, inside_after = height >= 0, height_after >= 0
    crosses = used & (inside != inside_after)
    share = torch.where(crosses, height / torch.where(crosses, height - height_after, 1.0), 0.0)
    crossing = here + share[..., None] * (after - here)
    both = torch.stack([here, crossing], 2).flatten(1, 2)
    kept = torch.stack([used & inside, crosses], 2).flatten(1, 2)
    return _compacted(both, kept)


def _compacted(points: Tensor, kept: Tensor) -> Polygons:
    """The kept points in front, in their order, and no more places than are needed."""
    count = kept.sum(-1)
    places = int(count.max()) if len(count) else 0
    order = (~kept).to(torch.uint8).argsort(dim=-1, stable=True)[:, : max(places, 1)]
    position = torch.arange(order.shape[1], device=points.device).expand_as(order)
    last = (count - 1).clamp(min=0)[:, None]
    return Polygons(_take(points, order.gather(1, position.minimum(last))), count)


def _neighbours(points: Tensor, count: Tensor, step: int) -> Tensor:
    """For every vertex the one `step` places on, round about."""
    position = torch.arange(points.shape[1], device=points.device)
    return _take(points, (position + step) % count.clamp(min=1)[:, None])


def _used(points: Tensor, count: Tensor) -> Tensor:
    return torch.arange(points.shape[1], device=points.device) < count[:, None]


def _take(points: Tensor, order: Tensor) -> Tensor:
    return points.gather(1, order[..., None].expand(-1, -1, 2))


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
