"""Models of truck, bus, trailer and construction vehicle, each filling a box of length, width, height."""

from __future__ import annotations

import numpy as np

from scenes.synthetic.paints import GLASS, HEAD_LIGHT, RIM, RUBBER, SHADE, TAIL_LIGHT, pick, tint
from scenes.synthetic.solids import Model, Rgb, Side, Sketch


def truck(rng: np.random.Generator, length: float, width: float, height: float) -> Model:
    """A lorry: cab, then a box, a flat bed with load, or a tipper."""
    kind = rng.choice(["box", "flatbed", "tipper"], p=[0.6, 0.2, 0.2])
    cab_paint = pick(rng, ((232, 232, 230), (44, 84, 158), (186, 36, 34), (226, 150, 40), (60, 120, 96)))
    sketch = Sketch()
    half_l, half_w = length / 2, width / 2
    cab_length = float(np.clip(0.25 * length, 1.5, 2.1))
    cab_height = height * (0.8 if kind == "box" else 0.97)
    split = half_l - cab_length
    sketch.block((-half_l * 0.97, half_l * 0.96), (-half_w * 0.6, half_w * 0.6), (0.4, 0.92), SHADE)
    _wheels(sketch, (-half_l * 0.72, -half_l * 0.42, half_l - cab_length * 0.55), half_w, 0.48)
    cab = sketch.block(
        (split + 0.06, half_l), (-half_w * 0.96, half_w * 0.96), (0.98, cab_height), cab_paint,
        top_x=(split + 0.06, half_l - 0.22),
    )  # fmt: skip
    _cab_face(cab, cab_paint)
    if kind == "box":
        box_paint = pick(rng, ((228, 229, 226), (206, 208, 204), (238, 236, 228), (58, 102, 150)))
        cargo = sketch.block((-half_l, split - 0.05), (-half_w, half_w), (0.98, height), box_paint)
        _cargo_paint(cargo, box_paint, cab_paint)
    else:
        bed_paint = pick(rng, ((104, 108, 110), (70, 76, 86), (180, 120, 40)))
        rim = 0.52 * height if kind == "flatbed" else 0.78 * height
        bed = sketch.block((-half_l, split - 0.05), (-half_w, half_w), (0.98, rim), bed_paint)
        for side in ("left", "right", "back"):
            for u in np.linspace(0.06, 0.92, 6):
                bed[side].panel(float(u), float(u) + 0.02, 0.05, 0.95, tint(bed_paint, 0.62))
        load = pick(rng, ((142, 112, 76), (122, 120, 116), (168, 140, 104)))
        heap = sketch.block(
            (-half_l * 0.9, split - 0.35), (-half_w * 0.86, half_w * 0.86), (rim, height * 0.92), load,
            top_x=(-half_l * 0.6, split - 0.8), top_y=(-half_w * 0.5, half_w * 0.5),
        )  # fmt: skip
        heap["top"].panel(0.2, 0.8, 0.2, 0.8, tint(load, 0.85))
        _rear_lamps(bed["back"])
    return sketch.model()


def _wheels(sketch: Sketch, positions: tuple[float, ...], half_w: float, radius: float) -> None:
    """Wheels on both sides of axles at x = `positions`, below everything that is higher than their diameter."""
    for x in positions:
        for sign in (1, -1):
            y = sign * half_w * 0.81
            sketch.tyre((x, y, radius), radius, half_w * 0.3, RUBBER, (122, 122, 124))


def _cab_face(cab: dict[str, Side], paint: Rgb) -> None:
    cab["front"].panel(0.06, 0.94, 0.50, 0.88, GLASS, 0.8)
    cab["front"].panel(0.06, 0.94, 0.74, 0.88, tint(GLASS, 1.5), 0.8)
    cab["front"].panel(0.12, 0.88, 0.16, 0.42, tint(paint, 0.4))
    cab["front"].panel(0.0, 1.0, 0.0, 0.10, (52, 52, 54))
    for u in (0.03, 0.83):
        cab["front"].panel(u, u + 0.14, 0.03, 0.13, HEAD_LIGHT, 0.6)
    for side, u in (("left", 0.12), ("right", 0.38)):
        cab[side].panel(u, u + 0.5, 0.52, 0.88, GLASS, 0.75)
        cab[side].panel(0.0, 1.0, 0.0, 0.06, tint(paint, 0.5))


def _cargo_paint(cargo: dict[str, Side], paint: Rgb, accent: Rgb) -> None:
    for side in ("left", "right"):
        cargo[side].panel(0.0, 1.0, 0.0, 0.06, tint(paint, 0.5))
        cargo[side].panel(0.0, 1.0, 0.94, 1.0, tint(paint, 0.75))
        cargo[side].panel(0.16, 0.84, 0.42, 0.62, accent)
        for u in np.linspace(0.1, 0.9, 9):
            cargo[side].panel(float(u) - 0.003, float(u) + 0.003, 0.06, 0.94, tint(paint, 0.84))
    back = cargo["back"]
    back.panel(0.04, 0.495, 0.05, 0.95, tint(paint, 0.9))
    back.panel(0.505, 0.96, 0.05, 0.95, tint(paint, 0.9))
    for u in (0.2, 0.36, 0.63, 0.79):
        back.panel(u, u + 0.012, 0.08, 0.92, tint(paint, 0.55))
    _rear_lamps(back)


def _rear_lamps(back: Side) -> None:
    for u in (0.02, 0.88):
        back.panel(u, u + 0.1, 0.0, 0.05, TAIL_LIGHT, 0.7)


def bus(rng: np.random.Generator, length: float, width: float, height: float) -> Model:
    """A city bus: long body, band of windows, doors, destination display."""
    paint = pick(rng, ((196, 40, 38), (232, 178, 32), (52, 128, 72), (44, 98, 170), (226, 226, 222)))
    accent = pick(rng, ((240, 240, 236), (40, 44, 52), (232, 190, 60)))
    sketch = Sketch()
    half_l, half_w = length / 2, width / 2
    sketch.block((-half_l * 0.97, half_l * 0.97), (-half_w * 0.9, half_w * 0.9), (0.0, 0.32), SHADE)
    body = sketch.block(
        (-half_l, half_l), (-half_w, half_w), (0.32, height - 0.18), paint, top_x=(-half_l * 0.995, half_l * 0.98)
    )
    sketch.block(
        (-half_l * 0.98, half_l * 0.96), (-half_w * 0.94, half_w * 0.94), (height - 0.18, height), tint(accent, 0.92)
    )
    for side, sign in (("left", 1), ("right", -1)):
        flank = body[side]
        flank.panel(0.0, 1.0, 0.0, 0.10, tint(paint, 0.5))
        flank.panel(0.0, 1.0, 0.30, 0.38, accent)
        flank.panel(0.015, 0.985, 0.45, 0.88, tint(GLASS, 0.7), 0.75)
        panes = round(length / 1.5)
        for i in range(panes):
            u = 0.02 + 0.96 * i / panes
            flank.panel(u + 0.006, u + 0.9 / panes, 0.49, 0.85, GLASS, 0.75)
            flank.panel(u + 0.006, u + 0.9 / panes, 0.72, 0.85, tint(GLASS, 1.6), 0.75)
        if sign < 0:
            for u in (0.42, 0.86):
                flank.panel(u, u + 0.09, 0.03, 0.86, tint(GLASS, 0.6), 0.6)
                flank.panel(u + 0.005, u + 0.042, 0.08, 0.83, GLASS, 0.75)
                flank.panel(u + 0.048, u + 0.085, 0.08, 0.83, GLASS, 0.75)
        for x in (-half_l * 0.5, half_l * 0.62):
            centre = (x, sign * half_w, 0.5)
            flank.disc(centre, 0.6, SHADE, 14)
            flank.disc((x, sign * half_w, 0.48), 0.48, RUBBER, 14)
            flank.disc((x, sign * half_w, 0.48), 0.27, RIM, 10)
    front, back = body["front"], body["back"]
    front.panel(0.04, 0.96, 0.30, 0.82, GLASS, 0.8)
    front.panel(0.04, 0.96, 0.62, 0.82, tint(GLASS, 1.5), 0.8)
    front.panel(0.14, 0.86, 0.85, 0.96, (22, 22, 22))
    front.panel(0.2, 0.7, 0.875, 0.935, (250, 160, 40), 1.0)
    front.panel(0.0, 1.0, 0.0, 0.1, tint(paint, 0.5))
    back.panel(0.1, 0.9, 0.55, 0.85, GLASS, 0.8)
    back.panel(0.12, 0.88, 0.12, 0.38, tint(paint, 0.55))
    for u in (0.03, 0.85):
        front.panel(u, u + 0.12, 0.12, 0.2, HEAD_LIGHT, 0.6)
        back.panel(u, u + 0.08, 0.1, 0.42, TAIL_LIGHT, 0.7)
    return sketch.model()


def trailer(rng: np.random.Generator, length: float, width: float, height: float) -> Model:
    """A semi-trailer without its tractor: ribbed container on a frame, landing legs, striped rear bumper."""
    paint = pick(rng, ((148, 152, 156), (120, 60, 44), (58, 88, 72), (170, 172, 170), (112, 70, 84)))
    sketch = Sketch()
    half_l, half_w = length / 2, width / 2
    sketch.block((-half_l * 0.98, half_l * 0.98), (-half_w * 0.45, half_w * 0.45), (0.98, 1.16), (44, 44, 46))
    _wheels(sketch, (-half_l * 0.86, -half_l * 0.66, -half_l * 0.46), half_w, 0.48)
    for y in (-half_w * 0.5, half_w * 0.42):
        sketch.block((half_l * 0.48, half_l * 0.51), (y, y + 0.14), (0.0, 0.98), (70, 70, 72))
    box = sketch.block((-half_l, half_l), (-half_w, half_w), (1.16, height), paint)
    for side in ("left", "right"):
        ribs = round(length / 0.45)
        for i in range(ribs):
            u = 0.012 + 0.976 * i / ribs
            box[side].panel(u, u + 0.45 / ribs, 0.05, 0.95, tint(paint, 0.78))
        box[side].panel(0.0, 1.0, 0.0, 0.05, tint(paint, 0.5))
        box[side].panel(0.0, 1.0, 0.95, 1.0, tint(paint, 0.7))
    for u in (0.06, 0.28, 0.5, 0.72):
        box["front"].panel(u, u + 0.1, 0.05, 0.95, tint(paint, 0.8))
    back = box["back"]
    back.panel(0.04, 0.495, 0.05, 0.96, tint(paint, 0.9))
    back.panel(0.505, 0.96, 0.05, 0.96, tint(paint, 0.9))
    for u in (0.18, 0.34, 0.64, 0.8):
        back.panel(u, u + 0.015, 0.07, 0.94, (196, 196, 194))
    bumper = sketch.block((-half_l, -half_l + 0.12), (-half_w * 0.95, half_w * 0.95), (0.5, 0.7), (214, 208, 200))
    for i in range(6):
        bumper["back"].patch(
            [(i / 6, 0.0), (i / 6 + 0.08, 0.0), (i / 6 + 0.13, 1.0), (i / 6 + 0.05, 1.0)], (190, 30, 28)
        )
    return sketch.model()


def construction_vehicle(rng: np.random.Generator, length: float, width: float, height: float) -> Model:
    """An excavator on tracks or a wheel loader, in the yellow or orange of such machines."""
    paint = pick(rng, ((228, 168, 26), (236, 186, 40), (222, 122, 28)))
    if rng.random() < 0.5:
        return _excavator(paint, length, width, height)
    return _loader(paint, length, width, height)


def _excavator(paint: Rgb, length: float, width: float, height: float) -> Model:
    sketch = Sketch()
    half_l, half_w = length / 2, width / 2
    rear, front = -half_l, half_l * 0.15
    for y0, y1 in ((-half_w, -half_w * 0.5), (half_w * 0.5, half_w)):
        track = sketch.block((rear + 0.1, front + 0.2), (y0, y1), (0.0, 0.75), (46, 44, 42), top_x=(rear + 0.3, front))
        for side in ("left", "right"):
            track[side].panel(0.1, 0.9, 0.3, 0.7, (84, 80, 74))
    sketch.block((rear + 0.4, front - 0.1), (-half_w * 0.5, half_w * 0.5), (0.4, 0.85), SHADE)
    hull = sketch.block((rear, front), (-half_w * 0.9, half_w * 0.9), (0.85, height * 0.56), paint)
    for side in ("left", "right", "back"):
        hull[side].panel(0.0, 1.0, 0.0, 0.18, tint(paint, 0.4))
        hull[side].panel(0.15, 0.45, 0.35, 0.8, tint(paint, 0.55))
    cab = sketch.block(
        (front - 1.5, front - 0.05), (half_w * 0.05, half_w * 0.85), (height * 0.56, height * 0.94), paint,
        top_x=(front - 1.45, front - 0.3),
    )  # fmt: skip
    for side in ("front", "left", "right", "back"):
        cab[side].panel(0.1, 0.9, 0.12, 0.9, GLASS, 0.8)
    elbow = (half_l * 0.55, -half_w * 0.3, height * 0.96)
    sketch.bar((front - 0.3, -half_w * 0.3, height * 0.6), elbow, 0.36, paint)
    wrist = (half_l * 0.86, -half_w * 0.3, height * 0.34)
    sketch.bar(elbow, wrist, 0.28, tint(paint, 0.9))
    sketch.block(
        (half_l * 0.7, half_l), (-half_w * 0.62, half_w * 0.02), (0.1, height * 0.33), (64, 62, 60),
        top_x=(half_l * 0.78, half_l * 0.96),
    )  # fmt: skip
    return sketch.model()


def _loader(paint: Rgb, length: float, width: float, height: float) -> Model:
    sketch = Sketch()
    half_l, half_w = length / 2, width / 2
    radius = 0.23 * height
    for x in (-half_l * 0.55, half_l * 0.3):
        for sign in (1, -1):
            sketch.tyre((x, sign * half_w * 0.8, radius), radius, half_w * 0.36, RUBBER, paint)
    sketch.block((-half_l * 0.9, half_l * 0.5), (-half_w * 0.58, half_w * 0.58), (0.5, 1.15), (52, 50, 48))
    engine = sketch.block((-half_l, -half_l * 0.3), (-half_w * 0.6, half_w * 0.6), (1.15, height * 0.62), paint)
    for side_name in ("left", "right", "back"):
        engine[side_name].panel(0.2, 0.8, 0.25, 0.75, tint(paint, 0.5))
    cab = sketch.block((-half_l * 0.28, half_l * 0.2), (-half_w * 0.55, half_w * 0.55), (1.15, height), paint,
                       top_x=(-half_l * 0.24, half_l * 0.12))  # fmt: skip
    for side_name in ("front", "back", "left", "right"):
        cab[side_name].panel(0.1, 0.9, 0.3, 0.9, GLASS, 0.8)
    for y0 in (-half_w * 0.45, half_w * 0.45):
        sketch.bar((half_l * 0.22, y0, 1.35), (half_l * 0.74, y0, 0.85), 0.24, tint(paint, 0.9))
    shovel = sketch.block(
        (half_l * 0.72, half_l), (-half_w, half_w), (0.12, 1.05), (78, 74, 68), top_x=(half_l * 0.76, half_l * 0.84)
    )
    shovel["front"].panel(0.02, 0.98, 0.12, 0.95, (104, 98, 88))
    return sketch.model()
