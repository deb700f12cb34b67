"""The six tasks of the centre heads: which classes share a heat map group, and how their boxes are suppressed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Task:
    """Classes (ids of `configs.nuscenes.CLASSES`, consecutive) that share one head and one suppression."""

    classes: tuple[int, ...]
    suppression: Literal["rotated", "circle"]
    threshold: float
    """Rotated: overlap (IoU) above which a box goes. Circle: *squared* distance in m² (published quirk)."""
    sizes: tuple[float, ...]
    """Factor per class on length and width while overlaps are measured."""

    @property
    def span(self) -> slice:
        """The classes as a slice, which does not wait for an accelerator as a list of indices does."""
        return slice(self.classes[0], self.classes[-1] + 1)


TASKS: Final = (
    Task((0,), "rotated", 0.2, (1.0,)),
    Task((1, 2), "rotated", 0.2, (0.7, 0.7)),
    Task((3, 4), "rotated", 0.2, (0.4, 0.55)),
    Task((5,), "circle", 1.0, (1.0,)),
    Task((6, 7), "rotated", 0.2, (1.0, 1.0)),
    Task((8, 9), "rotated", 0.5, (4.5, 9.0)),
)

REGRESSIONS: Final = {"reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}
"""Branches of a box head and their channels: offset in the cell, height, log size, (sin, cos) of yaw, velocity."""
