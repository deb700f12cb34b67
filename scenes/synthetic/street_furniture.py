"""Models of what stands along a street and is not annotated: tree trunks, lamp posts, signals, signs."""

from __future__ import annotations

import numpy as np

from scenes.synthetic.solids import Model, Sketch

STEEL = (112.0, 114.0, 116.0)


def trunk(height: float, shade: float) -> Model:
    """A tree's stem."""
    sketch = Sketch()
    sketch.column((0.0, 0.0), (0.2, 0.12), (0.0, height), (86 * shade, 72 * shade, 58 * shade), 7)
    return sketch.model()


def lamp_post() -> Model:
    """A lamp post whose arm reaches over the road along +x."""
    sketch = Sketch()
    sketch.column((0.0, 0.0), (0.11, 0.07), (0.0, 7.4), STEEL, 6)
    sketch.bar((0.0, 0.0, 7.4), (1.9, 0.0, 7.8), 0.09, STEEL)
    lamp = sketch.block((1.7, 2.5), (-0.14, 0.14), (7.84, 7.98), (150, 152, 154))
    lamp["bottom"].panel(0.1, 0.9, 0.1, 0.9, (236, 232, 214), 0.5)
    return sketch.model()


def signal(green: bool) -> Model:
    """A traffic signal that faces -x."""
    sketch = Sketch()
    sketch.column((0.0, 0.0), (0.07, 0.06), (0.0, 2.4), STEEL, 6)
    head = sketch.block((-0.12, 0.12), (-0.16, 0.16), (2.4, 3.4), (34, 36, 36))
    for z, lit, colour in (
        (2.57, green, (60, 220, 130)),
        (2.9, False, (230, 180, 40)),
        (3.23, not green, (235, 50, 40)),
    ):
        paint = colour if lit else tuple(0.22 * c for c in colour)
        head["back"].disc((-0.12, 0.0, z), 0.12, (paint[0], paint[1], paint[2]), 10, 1.0 if lit else 0.0)
    return sketch.model()


def sign(rng: np.random.Generator) -> Model:
    """A round or square traffic sign on a post, facing -x."""
    sketch = Sketch()
    sketch.column((0.0, 0.0), (0.04, 0.04), (0.0, 2.1), STEEL, 6)
    plate = sketch.block((-0.02, 0.02), (-0.32, 0.32), (2.1, 2.74), (168, 170, 172))
    face = plate["back"]
    if rng.random() < 0.5:
        face.disc((-0.02, 0.0, 2.42), 0.31, (196, 30, 34), 14)
        face.disc((-0.02, 0.0, 2.42), 0.23, (236, 236, 234), 14)
        face.panel(0.42, 0.58, 0.35, 0.65, (28, 28, 30))
    else:
        face.panel(0.03, 0.97, 0.03, 0.97, (34, 84, 160))
        face.panel(0.38, 0.52, 0.2, 0.8, (240, 240, 238))
        face.panel(0.5, 0.68, 0.5, 0.8, (240, 240, 238))
    return sketch.model()
