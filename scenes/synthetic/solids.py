"""Painted convex solids: what every object of the synthetic world is built from.

A model is a list of convex solids in the object's own frame (x forward, y left, z up, origin on the ground below the
centre; metres). The camera draws the painted polygons of the solids, the LiDAR meets their planes: both see one shape.
Paint (`Side.panel`, `Side.disc`) lies in the plane of a side and is drawn right after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rgb = tuple[float, float, float]

MAX_PLANES = 10


@dataclass(frozen=True, slots=True)
class Model:
    """Polygons to draw (arrays of length F, in drawing order within a solid) and solids to hit (length S)."""

    points: Floats
    """`[P, 3]` corners of all polygons, one after the other, metres."""
    starts: NDArray[np.int64]
    """`[F + 1]` first corner of each polygon in `points`."""
    normals: Floats
    """`[F, 3]` outward unit normals."""
    offsets: Floats
    """`[F]` of the polygons' planes: `normal . x = offset`."""
    colours: Floats
    """`[F, 3]` RGB reflectance, 0 to 255."""
    glow: Floats
    """`[F]` 0 for a lit surface, 1 for one whose colour ignores the sun (glass, lamps)."""
    two_sided: NDArray[np.bool_]
    extent: Floats
    """`[F]` square root of the area, metres: polygons far below a pixel are not drawn."""
    solid_of: NDArray[np.int64]
    """`[F]` solid of each polygon."""
    planes: Floats
    """`[S, 10, 4]` outward normals and offsets, `n . x <= d` inside; unused rows are `(0, 0, 0, 1)`."""
    bounds: Floats
    """`[S, 2, 3]` lower and upper corner of each solid."""

    def moved(self, shift: Floats) -> Model:
        """The same model, `shift` `[3]` metres further in its own frame."""
        planes = self.planes.copy()
        planes[..., 3] += planes[..., :3] @ shift
        offsets = self.offsets + self.normals @ shift
        return replace(self, points=self.points + shift, offsets=offsets, planes=planes, bounds=self.bounds + shift)


@dataclass(frozen=True, slots=True)
class Side:
    """One planar side of a solid that can be painted; `quad` runs counter-clockwise from the lower left corner."""

    sketch: Sketch
    solid: int
    quad: Floats

    def panel(self, u0: float, u1: float, v0: float, v1: float, colour: Rgb, glow: float = 0.0) -> None:
        """A rectangle of paint, `u` to the right and `v` up, both 0 to 1, as seen from outside."""
        self.patch(((u0, v0), (u1, v0), (u1, v1), (u0, v1)), colour, glow)

    def patch(self, uv: Sequence[tuple[float, float]], colour: Rgb, glow: float = 0.0) -> None:
        """A convex polygon of paint with corners in u, v."""
        a, b, c, d = self.quad
        u, v = np.array(uv).T[..., None]
        self.sketch.polygon(self.solid, (a * (1 - u) + b * u) * (1 - v) + (d * (1 - u) + c * u) * v, colour, glow)

    def disc(self, centre: Sequence[float], radius: float, colour: Rgb, corners: int = 12, glow: float = 0.0) -> None:
        """A disc in the side's plane around a point (metres, object frame); it may reach over the side's edge."""
        right = self.quad[1] - self.quad[0]
        right = right / np.sqrt(right @ right)
        up = self.quad[3] - self.quad[0]
        up = up - (up @ right) * right
        up = up / np.sqrt(up @ up)
        angles = np.arange(corners)[:, None] * (2 * np.pi / corners)
        rim = np.array(centre) + radius * (np.cos(angles) * right + np.sin(angles) * up)
        self.sketch.polygon(self.solid, rim, colour, glow)


class Sketch:
    """Collects solids and paint, then freezes them into a `Model`."""

    def __init__(self) -> None:
        self._polygons: list[tuple[int, Floats, Rgb, float, bool]] = []
        self._solids: list[list[Floats]] = []

    def polygon(
        self, solid: int, corners: Floats | Sequence[Floats], colour: Rgb, glow: float = 0.0, two_sided: bool = False
    ) -> None:
        """Paint a convex planar polygon of solid `solid`, corners counter-clockwise from outside."""
        self._polygons.append((solid, np.asarray(corners), colour, glow, two_sided))

    def solid(self, faces: Sequence[Floats]) -> int:
        """A convex solid given by its faces (corners counter-clockwise from outside), not painted yet."""
        self._solids.append(list(faces))
        return len(self._solids) - 1

    def block(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        z: tuple[float, float],
        colour: Rgb,
        top_x: tuple[float, float] | None = None,
        top_y: tuple[float, float] | None = None,
        glow: float = 0.0,
    ) -> dict[str, Side]:
        """A box, or with `top_x`, `top_y` a frustum; its sides by name: front, back, left, right, top, bottom."""
        low = _rectangle(x, y, z[0])
        high = _rectangle(top_x or x, top_y or y, z[1])
        quads = {
            "front": np.array([low[1], low[2], high[2], high[1]]),
            "back": np.array([low[3], low[0], high[0], high[3]]),
            "left": np.array([low[2], low[3], high[3], high[2]]),
            "right": np.array([low[0], low[1], high[1], high[0]]),
            "top": high,
            "bottom": low[::-1],
        }
        solid = self.solid(list(quads.values()))
        for quad in quads.values():
            self.polygon(solid, list(quad), colour, glow)
        return {name: Side(self, solid, quad) for name, quad in quads.items()}

    def column(
        self, centre: tuple[float, float], radii: tuple[float, float], z: tuple[float, float], colour: Rgb, n: int = 8
    ) -> int:
        """An upright column or cone of `n` (at most 8) sides with a lower and an upper radius; returns the solid."""
        angles = (np.arange(n) + 0.5) * (2 * np.pi / n)
        rim = np.stack([np.cos(angles), np.sin(angles), np.zeros(n)], axis=1)
        low = rim * radii[0] + [*centre, z[0]]
        high = rim * radii[1] + [*centre, z[1]]
        faces = [np.array([low[i], low[(i + 1) % n], high[(i + 1) % n], high[i]]) for i in range(n)]
        solid = self.solid([*faces, high, low[::-1]])
        for face in [*faces, high]:
            self.polygon(solid, list(face), colour)
        return solid

    def bar(self, start: Sequence[float], end: Sequence[float], thickness: float, colour: Rgb) -> None:
        """A square bar between two points."""
        a, b = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
        along = (b - a) / np.linalg.norm(b - a)
        side = np.cross(along, [0.0, 1.0, 0.0] if abs(along[1]) < 0.9 else [1.0, 0.0, 0.0])
        side *= thickness / 2 / np.linalg.norm(side)
        other = np.cross(along, side)
        offsets = [side + other, -side + other, -side - other, side - other]
        faces = [
            np.array([a + offsets[i], a + offsets[(i + 1) % 4], b + offsets[(i + 1) % 4], b + offsets[i]])
            for i in range(4)
        ]
        faces = [face if _normal(face) @ (face.mean(axis=0) - (a + b) / 2) > 0 else face[::-1] for face in faces]
        ends = [np.array([b + o for o in offsets]), np.array([a + o for o in offsets])]
        ends = [face if _normal(face) @ (face[0] - (a + b) / 2) > 0 else face[::-1] for face in ends]
        solid = self.solid([*faces, *ends])
        for face in [*faces, *ends]:
            self.polygon(solid, list(face), colour)

    def wheel(self, centre: tuple[float, float, float], radius: float, width: float, colour: Rgb, hub: Rgb) -> None:
        """A slender wheel that one can look through, axis along y (bicycles, motorcycles)."""
        middle = np.asarray(centre)
        solid, _ = self._drum(middle, radius, width, colour)
        circle = _circle(12)
        inner = radius - max(0.05, 0.16 * radius)
        for p, q in zip(circle, np.roll(circle, -1, axis=0), strict=True):
            ring = [middle + p * radius, middle + q * radius, middle + q * inner, middle + p * inner]
            self.polygon(solid, ring, colour, two_sided=True)
        self.polygon(solid, list(middle + circle[::2] * radius * 0.3), hub, two_sided=True)

    def tyre(self, centre: tuple[float, float, float], radius: float, width: float, colour: Rgb, hub: Rgb) -> None:
        """A solid wheel, axis along y, with a hub on both sides."""
        middle = np.asarray(centre)
        solid, sides = self._drum(middle, radius, width, colour)
        for side in sides:
            self.polygon(solid, list(side), colour)
            rim = side.mean(axis=0)
            self.polygon(solid, list(rim + (side - rim) * 0.58), hub)
            self.polygon(solid, list(rim + (side - rim) * 0.22), (54, 54, 56))

    def _drum(self, middle: Floats, radius: float, width: float, colour: Rgb) -> tuple[int, list[Floats]]:
        """An eight-sided drum, axis along y, its tread painted; returns the solid and its left and right side."""
        rim = _circle(8) * radius + middle
        half = np.array([0, width / 2, 0])
        left, right = (rim + half)[::-1], rim - half
        following = np.roll(rim, -1, axis=0)
        tread = [np.array([p + half, p - half, q - half, q + half]) for p, q in zip(rim, following, strict=True)]
        tread = [face if _normal(face) @ (face[0] - middle) > 0 else face[::-1] for face in tread]
        solid = self.solid([*tread, left, right])
        for face in tread:
            self.polygon(solid, list(face), colour)
        return solid, [left, right]

    def model(self) -> Model:
        """All that was sketched, as arrays."""
        polygons = sorted(self._polygons, key=lambda polygon: polygon[0])
        points = np.concatenate([corners for _, corners, *_ in polygons])
        starts = np.cumsum([0, *(len(corners) for _, corners, *_ in polygons)])
        normals, areas = _newell(points, starts)
        planes, bounds = self._frozen_solids()
        return Model(
            points=points,
            starts=starts.astype(np.int64),
            normals=normals,
            offsets=(normals * points[starts[:-1]]).sum(axis=1),
            colours=np.array([colour for _, _, colour, _, _ in polygons], dtype=np.float64),
            glow=np.array([glow for *_, glow, _ in polygons]),
            two_sided=np.array([two_sided for *_, two_sided in polygons]),
            extent=np.sqrt(areas),
            solid_of=np.array([solid for solid, *_ in polygons], dtype=np.int64),
            planes=planes,
            bounds=bounds,
        )

    def _frozen_solids(self) -> tuple[Floats, Floats]:
        """`planes` and `bounds` of a `Model`."""
        planes = np.zeros((len(self._solids), MAX_PLANES, 4))
        planes[..., 3] = 1.0
        bounds = np.empty((len(self._solids), 2, 3))
        for solid, faces in enumerate(self._solids):
            corners = np.concatenate(faces)
            starts = np.cumsum([0, *(len(face) for face in faces)])
            normals, _ = _newell(corners, starts)
            planes[solid, : len(faces), :3] = normals
            planes[solid, : len(faces), 3] = (normals * corners[starts[:-1]]).sum(axis=1)
            bounds[solid] = corners.min(axis=0), corners.max(axis=0)
        return planes, bounds


def fitted(models: Sequence[Model]) -> tuple[tuple[Model, ...], Floats]:
    """Models (the postures of one object) centred on their common box, standing on the ground; the box's l, w, h."""
    low = np.min([model.bounds[:, 0].min(axis=0) for model in models], axis=0)
    high = np.max([model.bounds[:, 1].max(axis=0) for model in models], axis=0)
    shift = np.array([-(low[0] + high[0]) / 2, -(low[1] + high[1]) / 2, -low[2]])
    return tuple(model.moved(shift) for model in models), high - low


def _rectangle(x: tuple[float, float], y: tuple[float, float], z: float) -> Floats:
    return np.array([[x[0], y[0], z], [x[1], y[0], z], [x[1], y[1], z], [x[0], y[1], z]])


def _circle(n: int) -> Floats:
    """Unit circle around the y axis, counter-clockwise as seen from the right (from -y)."""
    angles = np.arange(n) * (2 * np.pi / n)
    return np.stack([np.cos(angles), np.zeros(n), np.sin(angles)], axis=1)


def _normal(corners: Floats) -> Floats:
    normals, _ = _newell(corners, np.array([0, len(corners)]))
    normal: Floats = normals[0]
    return normal


def _newell(points: Floats, starts: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Unit normals and areas of polygons stored one after the other (Newell's sum: corners may be collinear)."""
    following = np.arange(1, len(points) + 1)
    following[starts[1:] - 1] = starts[:-1]
    (ax, ay, az), (bx, by, bz) = points.T, points[following].T
    cross = np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=1)
    sums = np.add.reduceat(cross, starts[:-1], axis=0)
    lengths = np.sqrt((sums**2).sum(axis=1))
    return sums / np.maximum(lengths, 1e-12)[:, None], lengths / 2
