"""What a run carries from step to step, and its form on disk."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import AdamW

from detectors.interface import Detector
from evaluation.checkpoint_files import EMA_WEIGHTS, WEIGHTS

from .moving_average import MovingAverage

OPTIMIZER: Final = "optimizer.pt"
CARRIED: Final = "carried.safetensors"
"""What a detector that is trained along scenes remembers within an epoch, of all ranks."""


@dataclass(slots=True)
class TrainingState:
    """Everything that changes while training. Learning rate, sample order and randomness follow from `step`."""

    detector: Detector
    """The bare module (not wrapped) on its device."""
    optimizer: AdamW
    scaler: GradScaler
    average: MovingAverage | None
    step: int = 0
    """Optimiser steps done."""
    faults: int = 0
    """Steps among them that changed nothing because their loss or gradient was not finite."""

    @property
    def best_detector(self) -> Detector:
        """The detector to evaluate: the average where there is one."""
        return self.average.detector if self.average else self.detector

    def snapshot(self, copied: bool, carried: dict[str, Tensor] | None = None) -> Snapshot:
        """What a checkpoint holds, in main memory.

        Args:
            copied: later steps do not change it.
            carried: what the detectors of all ranks remember, in main memory already.
        """
        others = {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict(), "faults": self.faults}
        return Snapshot(
            weights=_on_host(self.detector.state_dict(), copied),
            average=_on_host(self.average.detector.state_dict(), copied) if self.average else None,
            others=_on_host(others, copied),
            carried=carried,
        )

    def restore(self, directory: Path, step: int) -> None:
        """Take up the state that a verified checkpoint directory holds."""
        self.detector.load_state_dict(load_file(directory / WEIGHTS))
        if self.average:
            self.average.detector.load_state_dict(load_file(directory / EMA_WEIGHTS))
        others = torch.load(directory / OPTIMIZER, map_location="cpu", weights_only=True)
        self.optimizer.load_state_dict(others["optimizer"])
        self.scaler.load_state_dict(others["scaler"])
        self.faults = others.get("faults", 0)  # checkpoints of the first versions have none
        self.step = step


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state at one step."""

    weights: dict[str, Tensor]
    average: dict[str, Tensor] | None
    others: dict[str, Any]
    carried: dict[str, Tensor] | None

    def payloads(self) -> Iterator[tuple[str, bytes]]:
        """The files of a checkpoint, made one after the other so that only one is in memory."""
        yield WEIGHTS, save(_contiguous(self.weights))
        if self.average is not None:
            yield EMA_WEIGHTS, save(_contiguous(self.average))
        if self.carried is not None:
            yield CARRIED, save(self.carried)
        buffer = io.BytesIO()
        torch.save(self.others, buffer)
        yield OPTIMIZER, buffer.getvalue()


def _on_host(value: Any, copied: bool) -> Any:
    """Dicts and lists with all tensors in main memory."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=copied)
    if isinstance(value, dict):
        return {key: _on_host(item, copied) for key, item in value.items()}
    if isinstance(value, list):
        return [_on_host(item, copied) for item in value]
    return value


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """In plain memory order, as safetensors wants it."""
    return {name: tensor.contiguous() for name, tensor in tensors.items()}
