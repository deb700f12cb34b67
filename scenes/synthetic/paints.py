"""Colours that models share, and how they vary."""

from __future__ import annotations

import numpy as np

from scenes.synthetic.solids import Rgb

GLASS: Rgb = (46, 56, 66)
RUBBER: Rgb = (26, 26, 27)
RIM: Rgb = (150, 152, 156)
SHADE: Rgb = (16, 16, 17)
TAIL_LIGHT: Rgb = (168, 18, 20)
HEAD_LIGHT: Rgb = (236, 236, 226)


def tint(colour: Rgb, factor: float) -> Rgb:
    """A darker (< 1) or lighter (> 1) shade of a colour."""
    r, g, b = (min(255.0, max(0.0, c * factor)) for c in colour)
    return (r, g, b)


def pick(rng: np.random.Generator, paints: tuple[Rgb, ...]) -> Rgb:
    """One of the paints, slightly varied."""
    return tint(paints[int(rng.integers(len(paints)))], float(rng.uniform(0.9, 1.1)))
