"""The synthetic driving set that is made on demand: its place, version and size."""

from __future__ import annotations

from pathlib import Path
from typing import Final

SYNTHETIC_ROOT: Final = Path("data/synthetic")
SYNTHETIC_VERSION: Final = "v1.0-synthetic"
SYNTHETIC_SIZE: Final = (
    *("--scenes", "80", "--samples", "4", "--reach", "20"),
    *("--image-size", "704x396", "--no-lidar-sweeps"),
)
"""Options of `data synth`: many short scenes with traffic close by, as small as `synthetic/bevnext-tiny`."""
