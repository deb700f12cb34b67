"""`bevnext-sam2 bench`: speeds as ratios against a named baseline measured in the same run."""

from __future__ import annotations

from typing import Final

import click

from configs.lazy_group import LazyGroup

COMMANDS: Final = {
    "detector": ("benchmarks.detector:detector", "A network by part, and against the same written plainly."),
    "loader": ("benchmarks.loader:loader", "Decode and resize against Pillow."),
    "scaling": ("benchmarks.scaling:scaling", "1 to N ranks, and the trainer against a bare DDP loop."),
    "sam": ("benchmarks.sam:sam", "SAM 2 per image and per box, and its cost in a detector."),
    "ablation": ("benchmarks.ablation:ablation", "What SAM 2's features are worth in a detector, with controls."),
    "index": ("benchmarks.index:index", "Build and open the index of a set of trainval's size."),
}


@click.group(cls=LazyGroup, subcommands=COMMANDS)
def bench() -> None:
    """Measure speed against a named baseline in the same run; results go to benchmarks/results."""
