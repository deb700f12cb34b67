"""What a synthetic set is made from, and what came out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from configs.errors import UsageError

VERSION: Final = "v1.0-synthetic"
GENERATOR: Final = 6
"""Raised whenever the same options give other bytes than before."""
TRAIN_SPLIT: Final = "synthetic_train"
VAL_SPLIT: Final = "synthetic_val"
STAMP: Final = "synthetic.json"
"""File in the root of a complete set that holds its options."""
SMALLEST, LARGEST = 64, 4096
SHORTEST_REACH, LONGEST_REACH = 10.0, 100.0


@dataclass(frozen=True, slots=True)
class SyntheticOptions:
    """Everything that decides the bytes of a set."""

    scenes: int
    samples_per_scene: int
    image_size: tuple[int, int]
    """Height, width in pixels."""
    seed: int
    lidar_sweeps: bool
    camera_sweeps: bool
    reach: float
    """Metres of road before the first and after the last ego position that hold actors."""

    def __post_init__(self) -> None:
        for name, value in (("--scenes", self.scenes), ("--samples", self.samples_per_scene)):
            if value < 1:
                raise UsageError(f"{name} {value}: at least 1 is needed", fix=f"give {name} a positive number")
        height, width = self.image_size
        if not (SMALLEST <= height <= LARGEST and SMALLEST <= width <= LARGEST):
            fix = f"choose a size between {SMALLEST}x{SMALLEST} and {LARGEST}x{LARGEST}, such as 1600x900"
            raise UsageError(f"--image-size {width}x{height} is out of range", fix=fix)
        if not SHORTEST_REACH <= self.reach <= LONGEST_REACH:
            fix = f"choose {SHORTEST_REACH:.0f} to {LONGEST_REACH:.0f} metres"
            raise UsageError(f"--reach {self.reach:g} is out of range", fix=fix)
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: must not be negative", fix="give --seed 0 or more")

    def stamp(self) -> dict[str, Any]:
        """JSON-able identity of the set."""
        return {"generator": GENERATOR, **asdict(self), "image_size": list(self.image_size)}

    def splits(self) -> dict[str, list[str]]:
        """Scene names per split: the last fifth is held out (one at least, if there are two)."""
        names = [scene_name(scene) for scene in range(self.scenes)]
        held_out = max(1, round(0.2 * self.scenes)) if self.scenes > 1 else 0
        splits = {TRAIN_SPLIT: names[: self.scenes - held_out], VAL_SPLIT: names[self.scenes - held_out :]}
        return {name: scenes for name, scenes in splits.items() if scenes}


@dataclass(frozen=True, slots=True)
class SyntheticSummary:
    """What `make_synthetic` made or found."""

    root: Path
    version: str
    scenes: int
    samples: int
    images: int
    annotations: int
    splits: dict[str, list[str]]
    seconds: float
    reused: bool


def scene_name(scene: int) -> str:
    """Name of a scene, as in nuScenes."""
    return f"scene-{scene:04d}"
