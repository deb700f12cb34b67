"""Models of people, two-wheelers and road furniture that is annotated: cone, barrier, waste bin."""

from __future__ import annotations

import numpy as np

from scenes.synthetic.paints import GLASS, RUBBER, SHADE, TAIL_LIGHT, pick, tint
from scenes.synthetic.solids import Model, Rgb, Sketch

CLOTHES: tuple[Rgb, ...] = (
    (180, 40, 44), (44, 70, 132), (224, 222, 216), (42, 44, 50), (84, 120, 82), (196, 150, 60),
    (120, 66, 110), (206, 112, 60), (96, 150, 176), (150, 146, 140),
)  # fmt: skip
TROUSERS: tuple[Rgb, ...] = ((34, 38, 52), (52, 62, 88), (92, 84, 72), (26, 26, 28), (120, 116, 108))
SKIN: tuple[Rgb, ...] = ((224, 178, 148), (198, 150, 116), (150, 104, 76), (104, 70, 50))
HAIR: tuple[Rgb, ...] = ((28, 22, 18), (70, 46, 28), (140, 110, 70), (120, 120, 120))
HIGH_VIS: Rgb = (238, 132, 30)


def pedestrian(
    rng: np.random.Generator, length: float, width: float, height: float, worker: bool = False
) -> tuple[Model, ...]:
    """A person: the four postures of a walk, the first with legs together. Workers wear high-visibility vests."""
    shirt = HIGH_VIS if worker else pick(rng, CLOTHES)
    looks = (shirt, pick(rng, TROUSERS), pick(rng, SKIN), pick(rng, HAIR))
    bag = None if worker or rng.random() < 0.5 else pick(rng, CLOTHES)
    together, left, right = (_walker(looks, bag, worker, swing, length, width, height) for swing in (0.0, 0.8, -0.8))
    return together, left, together, right


def _walker(
    looks: tuple[Rgb, Rgb, Rgb, Rgb],
    bag: Rgb | None,
    worker: bool,
    swing: float,
    length: float,
    width: float,
    height: float,
) -> Model:
    shirt, trousers, skin, hair = looks
    sketch = Sketch()
    hip, chest, neck = 0.47 * height, 0.77 * height, 0.83 * height
    thick, broad = length * 0.5, width * 0.5
    for sign in (1, -1):
        step = swing * sign * length * 0.38
        y0, y1 = sorted((sign * 0.03, sign * broad * 0.5))
        leg = sketch.block((step - 0.09, step + 0.09), (y0, y1), (0.0, hip), trousers, top_x=(-0.10, 0.10))
        for side in ("front", "back", "left", "right"):
            leg[side].panel(0.0, 1.0, 0.0, 0.10, SHADE)
    torso = sketch.block(
        (-thick * 0.32, thick * 0.32), (-broad * 0.5, broad * 0.5), (hip, chest), shirt,
        top_x=(-thick * 0.34, thick * 0.34), top_y=(-broad * 0.66, broad * 0.66),
    )  # fmt: skip
    for side in ("front", "back", "left", "right"):
        torso[side].panel(0.0, 1.0, 0.0, 0.3, tint(shirt, 0.85))
        if worker:
            torso[side].panel(0.0, 1.0, 0.22, 0.34, (226, 230, 190), 0.4)
            torso[side].panel(0.0, 1.0, 0.56, 0.66, (226, 230, 190), 0.4)
    sketch.block(
        (-thick * 0.34, thick * 0.34), (-broad * 0.88, broad * 0.88), (chest, neck), shirt,
        top_x=(-thick * 0.2, thick * 0.2), top_y=(-broad * 0.3, broad * 0.3),
    )  # fmt: skip
    for sign in (1, -1):
        reach = -swing * sign * length * 0.3
        y0, y1 = sorted((sign * broad * 0.76, sign * broad))
        shoulder_y = tuple(sorted((sign * broad * 0.67, sign * broad * 0.88)))
        arm = sketch.block(
            (reach - 0.05, reach + 0.05), (y0, y1), (0.44 * height, chest), tint(shirt, 0.9),
            top_x=(-0.065, 0.065), top_y=(shoulder_y[0], shoulder_y[1]),
        )  # fmt: skip
        for side in ("front", "back", "left", "right"):
            arm[side].panel(0.0, 1.0, 0.0, 0.16, skin)
    sketch.column((0.0, 0.0), (0.075, 0.085), (neck, 0.87 * height), skin, 6)
    head = sketch.column((0.0, 0.0), (0.10, 0.115), (0.87 * height, 0.955 * height), skin, 8)
    sketch.column((-0.01, 0.0), (0.122, 0.08), (0.955 * height, height), (240, 200, 40) if worker else hair, 8)
    back_of_head = [np.array([-0.125, y, z]) for y, z in ((0.06, 0.875 * height), (-0.06, 0.875 * height))]
    back_of_head += [np.array([-0.125, y, z]) for y, z in ((-0.06, 0.955 * height), (0.06, 0.955 * height))]
    sketch.polygon(head, back_of_head, hair)
    if bag is not None:
        sketch.block((-thick * 0.62, -thick * 0.38), (-broad * 0.4, broad * 0.4), (0.55 * height, 0.8 * height), bag)
    return sketch.model()


def bicycle(rng: np.random.Generator, length: float, width: float, height: float, rider: bool) -> Model:
    """A bicycle, with a rider if `rider`; `height` includes the rider."""
    frame = pick(rng, ((196, 40, 40), (40, 92, 168), (34, 36, 40), (60, 140, 90), (222, 222, 220)))
    sketch = Sketch()
    radius = 0.19 * length
    rear, front = -length / 2 + radius, length / 2 - radius
    top = 0.95 if rider else height
    for x in (rear, front):
        sketch.wheel((x, 0.0, radius), radius, 0.05, RUBBER, (120, 120, 122))
    pedals, seat, bars = (-0.08, 0.0, 0.32), (-0.28, 0.0, top * 0.8), (front - 0.16, 0.0, top * 0.9)
    for start, end in (
        (pedals, seat),
        (pedals, (front - 0.13, 0.0, top * 0.65)),
        (seat, (front - 0.15, 0.0, top * 0.72)),
    ):
        sketch.bar(start, end, 0.05, frame)
    sketch.bar((rear, 0.0, radius), pedals, 0.04, frame)
    sketch.bar((rear, 0.0, radius), seat, 0.035, frame)
    sketch.bar((front, 0.0, radius), bars, 0.045, frame)
    sketch.block((-0.42, -0.16), (-0.08, 0.08), (top * 0.8, top * 0.86), SHADE)
    handle = width / 2
    sketch.block((front - 0.22, front - 0.12), (-handle, handle), (top * 0.9, top * 0.95), (50, 50, 52))
    if rider:
        _rider(sketch, rng, -0.22, front - 0.22, top, height, width)
    return sketch.model()


def motorcycle(rng: np.random.Generator, length: float, width: float, height: float, rider: bool) -> Model:
    """A motorcycle or scooter, with a rider if `rider`; `height` includes the rider."""
    paint = pick(rng, ((186, 28, 30), (36, 38, 42), (30, 70, 150), (226, 120, 24), (210, 212, 214)))
    sketch = Sketch()
    radius = 0.155 * length
    rear, front = -length / 2 + radius, length / 2 - radius
    top = 1.1 if rider else height
    for x in (rear, front):
        sketch.wheel((x, 0.0, radius), radius, 0.15, RUBBER, (140, 140, 144))
    engine = sketch.block((rear + radius * 0.8, front - radius * 1.1), (-0.2, 0.2), (0.22, 0.55), (70, 70, 74))
    for side in ("left", "right"):
        engine[side].panel(0.3, 0.75, 0.15, 0.85, (118, 118, 122))
    tank = sketch.block((-0.12, front - radius), (-0.18, 0.18), (0.55, top * 0.8), paint,
                        top_x=(-0.05, front - radius * 1.3), top_y=(-0.13, 0.13))  # fmt: skip
    for side in ("left", "right"):
        tank[side].panel(0.15, 0.85, 0.3, 0.55, tint(paint, 0.6))
    sketch.block((rear - 0.1, -0.13), (-0.16, 0.16), (0.55, top * 0.72), (30, 30, 32))
    tail = sketch.block((-length / 2 + 0.02, rear - 0.1), (-0.12, 0.12), (0.6, top * 0.74), paint)
    tail["back"].panel(0.1, 0.9, 0.2, 0.7, TAIL_LIGHT, 0.7)
    sketch.bar((front, 0.0, radius), (front - 0.24, 0.0, top * 0.86), 0.1, (120, 120, 124))
    lamp = sketch.block((front - 0.2, front + 0.02), (-0.11, 0.11), (top * 0.72, top * 0.86), paint)
    lamp["front"].panel(0.1, 0.9, 0.1, 0.9, (240, 240, 230), 0.7)
    handle = width / 2
    sketch.block((front - 0.34, front - 0.26), (-handle, handle), (top * 0.86, top * 0.91), SHADE)
    screen_top = top if not rider else top * 0.97
    sketch.block((front - 0.24, front - 0.12), (-0.13, 0.13), (top * 0.91, screen_top), GLASS, glow=0.6)
    if rider:
        _rider(sketch, rng, -0.3, front - 0.36, top, height, width, helmet=True)
    return sketch.model()


def _rider(
    sketch: Sketch,
    rng: np.random.Generator,
    seat: float,
    hands: float,
    top: float,
    height: float,
    width: float,
    helmet: bool = False,
) -> None:
    shirt, trousers, skin = pick(rng, CLOTHES), pick(rng, TROUSERS), pick(rng, SKIN)
    sit, shoulder = top * 0.82, height - 0.3
    broad = min(0.19, width / 2)
    for sign in (1, -1):
        y0, y1 = sorted((sign * 0.09, sign * 0.2))
        sketch.block((seat - 0.02, seat + 0.42), (y0, y1), (sit - 0.14, sit), trousers)
        sketch.block(
            (seat + 0.26, seat + 0.42), (y0, y1), (0.28, sit - 0.14), trousers, top_x=(seat + 0.28, seat + 0.42)
        )
    sketch.block((seat - 0.16, seat + 0.12), (-broad * 0.75, broad * 0.75), (sit, shoulder), shirt,
                 top_x=(seat + 0.02, seat + 0.30), top_y=(-broad, broad))  # fmt: skip
    for sign in (1, -1):
        sketch.bar(
            (seat + 0.24, sign * broad * 0.9, shoulder - 0.06),
            (hands, sign * (width / 2 - 0.05), top * 0.94),
            0.09,
            tint(shirt, 0.9),
        )
    cap = pick(rng, ((224, 224, 222), (30, 30, 32), (186, 40, 40), (40, 80, 150)))
    head, crown = height - 0.24, height - 0.14
    sketch.column((seat + 0.17, 0.0), (0.06, 0.06), (shoulder, head), skin, 6)
    sketch.column((seat + 0.19, 0.0), (0.09, 0.115), (head, crown), cap if helmet else skin, 8)
    if helmet:
        sketch.block((seat + 0.26, seat + 0.32), (-0.07, 0.07), (head + 0.03, crown), GLASS, glow=0.6)
    sketch.column((seat + 0.19, 0.0), (0.125, 0.085), (crown, height), cap, 8)


def traffic_cone(rng: np.random.Generator, length: float, width: float, height: float) -> Model:
    """An orange cone with white bands on a square foot."""
    orange = tint((236, 88, 24), float(rng.uniform(0.88, 1.08)))
    sketch = Sketch()
    half_l, half_w = length / 2, width / 2
    foot = 0.06 * height
    sketch.block((-half_l, half_l), (-half_w, half_w), (0.0, foot), tint(orange, 0.7) if rng.random() < 0.6 else SHADE)
    low, high = min(half_l, half_w) * 0.8, 0.05
    levels = [(0.0, orange), (0.28, (238, 238, 234)), (0.46, orange), (0.62, (238, 238, 234)), (0.78, orange)]
    edges = [level for level, _ in levels] + [1.0]
    for (start, colour), end in zip(levels, edges[1:], strict=True):
        radii = (low + (high - low) * start, low + (high - low) * end)
        heights = (foot + (height - foot) * start, foot + (height - foot) * end)
        sketch.column((0.0, 0.0), radii, heights, colour, 8)
    return sketch.model()


def barrier(rng: np.random.Generator, length: float, width: float, height: float) -> Model:
    """A road barrier: water-filled plastic, concrete, or boards on feet, with its long side along y."""
    kind = rng.choice(["plastic", "concrete", "boards"], p=[0.45, 0.2, 0.35])
    sketch = Sketch()
    half_l, half_w = length / 2, width / 2
    if kind == "boards":
        for y in (-half_w * 0.8, half_w * 0.8):
            sketch.block((-half_l, half_l), (y - 0.06, y + 0.06), (0.0, 0.1), (70, 70, 72))
            sketch.block((-0.04, 0.04), (y - 0.04, y + 0.04), (0.1, height), (190, 190, 188))
        for z0, z1 in ((0.45, 0.68), (0.75, 0.99)):
            board = sketch.block((0.04, 0.08), (-half_w, half_w), (z0 * height, z1 * height), (236, 236, 232))
            for side in ("front", "back"):
                for i in range(7):
                    u = i / 7
                    board[side].patch([(u, 0), (u + 0.07, 0), (min(1.0, u + 0.14), 1), (u + 0.07, 1)], (200, 34, 30))
        return sketch.model()
    paint = pick(rng, ((204, 66, 38), (226, 226, 222), (224, 108, 40))) if kind == "plastic" else (168, 166, 160)
    base = sketch.block((-half_l, half_l), (-half_w, half_w), (0.0, 0.3 * height), paint,
                        top_x=(-half_l * 0.6, half_l * 0.6))  # fmt: skip
    wall = sketch.block((-half_l * 0.6, half_l * 0.6), (-half_w, half_w), (0.3 * height, height), paint,
                        top_x=(-half_l * 0.35, half_l * 0.35))  # fmt: skip
    for side in ("front", "back"):
        base[side].panel(0.0, 1.0, 0.0, 0.2, tint(paint, 0.6))
        for u in (0.18, 0.68):
            base[side].panel(u, u + 0.14, 0.0, 0.45, SHADE)
        if kind == "plastic":
            for u in (0.12, 0.42, 0.72):
                wall[side].panel(u, u + 0.16, 0.15, 0.75, tint(paint, 0.78))
        else:
            wall[side].panel(0.0, 1.0, 0.62, 0.8, (222, 180, 40))
        wall[side].panel(0.0, 1.0, 0.93, 1.0, tint(paint, 1.12))
    return sketch.model()


def waste_bin(rng: np.random.Generator, length: float, width: float, height: float) -> Model:
    """A wheeled waste bin with a lid."""
    paint = pick(rng, ((52, 92, 62), (60, 64, 70), (44, 76, 120)))
    sketch = Sketch()
    half_l, half_w = length / 2, width / 2
    sketch.block((-half_l * 0.8, half_l * 0.8), (-half_w * 0.85, half_w * 0.85), (0.0, height * 0.88), paint,
                 top_x=(-half_l * 0.95, half_l * 0.95), top_y=(-half_w * 0.95, half_w * 0.95))  # fmt: skip
    sketch.block((-half_l, half_l), (-half_w, half_w), (height * 0.88, height), tint(paint, 0.8))
    return sketch.model()
