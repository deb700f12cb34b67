"""Models of cars. Every function of a kind takes a random stream and the box (length, width, height) to fill."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scenes.synthetic.paints import GLASS, HEAD_LIGHT, RIM, RUBBER, SHADE, TAIL_LIGHT, pick, tint
from scenes.synthetic.solids import Model, Rgb, Side, Sketch

CAR_PAINTS: tuple[Rgb, ...] = (
    (226, 228, 230), (205, 208, 211), (150, 154, 158), (92, 96, 101), (38, 40, 44), (24, 25, 28),
    (148, 28, 32), (38, 62, 116), (58, 96, 150), (120, 104, 84), (50, 78, 62), (214, 176, 66),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Body:
    """Proportions of a car: shares of its length."""

    nose: float
    tail: float
    windscreen: float
    rear_window: float


BODIES = {
    "saloon": _Body(0.25, 0.16, 0.14, 0.11),
    "hatch": _Body(0.22, 0.03, 0.15, 0.10),
    "estate": _Body(0.24, 0.02, 0.14, 0.06),
    "van": _Body(0.10, 0.01, 0.13, 0.03),
}


def car(rng: np.random.Generator, length: float, width: float, height: float) -> Model:
    """Saloon, hatchback, estate or van: sill, flanks, shoulder, greenhouse, wheels, lamps."""
    body = BODIES[str(rng.choice(list(BODIES), p=[0.36, 0.24, 0.26, 0.14]))]
    paint = pick(rng, CAR_PAINTS)
    sketch = Sketch()
    half_l, half_w = length / 2, width / 2
    x0, x1 = -half_l + body.tail * length, half_l - body.nose * length
    low, mid, belt = 0.22 * height, 0.46 * height, 0.56 * height
    radius = min(0.35, 0.21 * height)
    sketch.block((-half_l * 0.9, half_l * 0.9), (-half_w * 0.8, half_w * 0.8), (0.0, 0.17), SHADE)
    sill = sketch.block(
        (-half_l * 0.95, half_l * 0.95), (-half_w * 0.9, half_w * 0.9), (0.17, low), tint(paint, 0.45),
        top_x=(-half_l * 0.985, half_l * 0.985), top_y=(-half_w, half_w),
    )  # fmt: skip
    flank = sketch.block(
        (-half_l * 0.985, half_l * 0.985), (-half_w, half_w), (low, mid), paint, top_x=(-half_l, half_l)
    )
    shoulder = sketch.block(
        (-half_l, half_l), (-half_w, half_w), (mid, belt), paint,
        top_x=(min(-half_l * 0.93, x0), max(x1 + 0.02, half_l * 0.76)), top_y=(-half_w * 0.9, half_w * 0.9),
    )  # fmt: skip
    cabin = sketch.block(
        (x0, x1), (-half_w * 0.88, half_w * 0.88), (belt, height), paint,
        top_x=(x0 + body.rear_window * length, x1 - body.windscreen * length), top_y=(-half_w * 0.68, half_w * 0.68),
    )  # fmt: skip
    for side, sign in (("left", 1), ("right", -1)):
        _car_side(flank[side], shoulder[side], cabin[side], paint, sign)
        for x in (-half_l * 0.61, half_l * 0.62):
            _car_wheel(flank[side], (x, sign * half_w, radius), radius)
    cabin["front"].panel(0.05, 0.95, 0.05, 0.94, GLASS, 0.8)
    cabin["front"].patch([(0.08, 0.55), (0.92, 0.72), (0.92, 0.92), (0.08, 0.92)], tint(GLASS, 1.8), 0.8)
    cabin["back"].panel(0.08, 0.92, 0.12, 0.9, GLASS, 0.8)
    cabin["back"].patch([(0.1, 0.6), (0.9, 0.7), (0.9, 0.88), (0.1, 0.88)], tint(GLASS, 1.5), 0.8)
    shoulder["front"].panel(0.0, 1.0, 0.0, 1.0, tint(paint, 1.05))
    _car_ends(sill, flank, shoulder, paint, float(rng.uniform(0.15, 0.25)))
    return sketch.model()


def _car_side(flank: Side, shoulder: Side, cabin: Side, paint: Rgb, sign: int) -> None:
    flank.panel(0.0, 1.0, 0.0, 0.28, tint(paint, 0.74))
    shoulder.panel(0.0, 1.0, 0.0, 0.35, tint(paint, 1.12))
    for u in (0.33, 0.52, 0.69):
        edge = u if sign < 0 else 1 - u
        flank.panel(edge - 0.0025, edge + 0.0025, 0.05, 1.0, tint(paint, 0.4))
        shoulder.panel(edge - 0.0025, edge + 0.0025, 0.0, 0.9, tint(paint, 0.5))
    for u in (0.47, 0.64):
        edge = u if sign < 0 else 1 - u
        flank.panel(edge - 0.018, edge + 0.018, 0.82, 0.9, tint(paint, 0.6))
    cabin.patch([(0.05, 0.06), (0.485, 0.06), (0.485, 0.88), (0.10, 0.88)], GLASS, 0.75)
    cabin.patch([(0.515, 0.06), (0.95, 0.06), (0.90, 0.88), (0.515, 0.88)], GLASS, 0.75)
    cabin.patch([(0.08, 0.55), (0.485, 0.6), (0.485, 0.86), (0.10, 0.86)], tint(GLASS, 1.7), 0.75)
    cabin.patch([(0.515, 0.6), (0.93, 0.66), (0.90, 0.86), (0.515, 0.86)], tint(GLASS, 1.7), 0.75)


def _car_wheel(flank: Side, centre: tuple[float, float, float], radius: float) -> None:
    x, y, z = centre
    flank.disc((x, y, z + 0.02), radius * 1.2, SHADE, 14)
    flank.disc(centre, radius, RUBBER, 14)
    flank.disc(centre, radius * 0.64, RIM, 10)
    for k in range(5):
        angle = 2 * np.pi * k / 5 + x
        hole = (x + 0.4 * radius * np.cos(angle), y, z + 0.4 * radius * np.sin(angle))
        flank.disc(hole, radius * 0.13, (58, 58, 60), 6)
    flank.disc(centre, radius * 0.14, tint(RIM, 0.6), 6)


def _car_ends(
    sill: dict[str, Side], flank: dict[str, Side], shoulder: dict[str, Side], paint: Rgb, lamp: float
) -> None:
    for end in ("front", "back"):
        sill[end].panel(0.2, 0.8, 0.2, 0.9, SHADE)
        flank[end].panel(0.0, 1.0, 0.0, 0.42, tint(paint, 0.8))
        flank[end].panel(0.0, 1.0, 0.40, 0.45, tint(paint, 0.45))
        flank[end].panel(0.38, 0.62, 0.12, 0.32, (226, 226, 216))
    flank["front"].panel(0.28, 0.72, 0.55, 0.95, (30, 30, 32))
    flank["front"].panel(0.28, 0.72, 0.72, 0.77, tint(paint, 0.9))
    shoulder["back"].panel(0.02, 0.98, 0.85, 1.0, tint(paint, 0.7))
    for u in (0.03, 0.97 - lamp):
        flank["front"].panel(u, u + lamp, 0.58, 0.98, tint(HEAD_LIGHT, 0.7), 0.4)
        flank["front"].panel(u + 0.03, u + lamp - 0.03, 0.66, 0.92, HEAD_LIGHT, 0.6)
        flank["back"].panel(u, u + lamp, 0.5, 1.0, tint(TAIL_LIGHT, 0.6), 0.5)
        flank["back"].panel(u + 0.02, u + lamp - 0.02, 0.62, 0.95, TAIL_LIGHT, 0.7)
