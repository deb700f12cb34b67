"""Weights from one stage to the next: what has the same name and the same shape is copied, the rest stays as it is.

That is what the published stage 2 does with the file of stage 1 (mmcv's loading that is not strict), heads and proposal
head included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from configs.errors import UsageError
from detectors.weight_files import read_weights
from detectors.zoo import shape_text


@dataclass(frozen=True, slots=True)
class HandOver:
    """The account of a hand-over; names in the network's order."""

    path: Path
    copied: tuple[str, ...]
    reshaped: dict[str, tuple[str, str]]
    """Name to shape in the file and shape here: not copied."""
    absent: tuple[str, ...]
    """The network has them, the file does not: they stay new."""
    unused: tuple[str, ...]
    """The file has them, the network does not."""

    @property
    def entries(self) -> int:
        """Entries of the network."""
        return len(self.copied) + len(self.reshaped) + len(self.absent)

    def lines(self) -> list[str]:
        """The account to print: a total, then a line for each part of the network."""
        parts = {_part(name): None for name in (*self.copied, *self.reshaped, *self.absent, *self.unused)}
        counts = [Counter(map(_part, names)) for names in (self.copied, self.reshaped, self.absent, self.unused)]
        width = max(map(len, parts))
        total = (
            f"hand-over from {self.path}: {len(self.copied)} of {self.entries} entries copied by name and shape; "
            f"new: {len(self.reshaped)} of another shape, {len(self.absent)} that the file lacks; "
            f"{len(self.unused)} of the file not used"
        )
        return [total, *(f"  {part:{width}}  {_told([count[part] for count in counts])}" for part in parts)] + [
            f"  another shape: {name} ({there} in the file, {here} here)"
            for name, (there, here) in self.reshaped.items()
        ]


def hand_over(network: nn.Module, weights: Path | str) -> HandOver:
    """Copy into `network` what a weights file, or a name of `checkpoints list`, has of it.

    Raises:
        UsageError: nothing fits, so that the file is of another family.
    """
    file = read_weights(weights)
    own = network.state_dict()
    shared = own.keys() & file.state.keys()
    fitting = [name for name in own if name in shared and own[name].shape == file.state[name].shape]
    if not any(own[name].is_floating_point() for name in fitting):
        raise UsageError(
            f"{file.path}: none of its {len(file.state)} entries has name and shape of one of the network's {len(own)}",
            fix="name weights of another stage of the same family in model.hand_over",
        )
    with torch.no_grad():
        for name in fitting:
            own[name].copy_(file.state[name])
    return HandOver(
        file.path,
        copied=tuple(fitting),
        reshaped={
            name: (shape_text(file.state[name]), shape_text(own[name]))
            for name in own
            if name in shared and own[name].shape != file.state[name].shape
        },
        absent=tuple(name for name in own if name not in shared),
        unused=tuple(name for name in file.state if name not in shared),
    )


def _part(name: str) -> str:
    return name.partition(".")[0]


def _told(counts: Iterable[int]) -> str:
    kinds = ("copied", "of another shape", "new", "not used")
    return ", ".join(f"{count} {kind}" for count, kind in zip(counts, kinds, strict=True) if count)
