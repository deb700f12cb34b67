"""Build a detector from a recipe, and read published weights into it: whole networks, or their image backbone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from configs.errors import UsageError
from configs.schema import BEVNeXtConfig, DataConfig
from detectors.bevnext.model import BEVNeXt
from detectors.interface import Detector
from detectors.weight_files import WeightsFile, read_weights

BACKBONE: Final = "img_backbone"
_BACKBONE_PREFIXES: Final = (f"{BACKBONE}.", "backbone.")
_COUNTER: Final = "num_batches_tracked"
NAMES_SHOWN: Final = 8


def build_detector(model: BEVNeXtConfig, data: DataConfig) -> Detector:
    """The detector of a recipe, freshly initialised: no weights are read."""
    return BEVNeXt(model, data)


def load_published(detector: nn.Module, weights: Path | str) -> None:
    """Load a whole detector's weights by name; every name and shape must match.

    Args:
        weights: a file, bare or wrapped as mmcv does (`state_dict` beside `meta`, `epoch`, `updates`, ...), or a name
            of `checkpoints list`.

    Raises:
        UsageError: it lists what is missing, unexpected or of another shape.
    """
    file = read_weights(weights)
    _load_exactly(detector, file.state, file.path, whose="the detector")


def load_backbone(detector: nn.Module, weights: Path | str) -> None:
    """Load weights of the image backbone alone: torchvision's names, or a detector's under `backbone.`.

    Everything that is not backbone in the file (`fc.*`, necks, heads) is left aside; what the backbone has must be
    there. Raises `UsageError` otherwise.
    """
    file = read_weights(weights)
    _load_exactly(detector.get_submodule(BACKBONE), backbone_part(file), file.path, whose="the image backbone")


def backbone_part(file: WeightsFile) -> dict[str, Tensor]:
    """The image backbone's entries of a file, under torchvision's names."""
    for prefix in _BACKBONE_PREFIXES:
        if any(name.startswith(prefix) for name in file.state):
            return {n.removeprefix(prefix): value for n, value in file.state.items() if n.startswith(prefix)}
    return {name: value for name, value in file.state.items() if not name.startswith("fc.")}


def misfit(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """What of `state` does not fit a network's entries `own`, in words; empty where it fits.

    Files older than torch 0.4.1 lack batch norm's `num_batches_tracked`, which nothing of ours reads; as in torch's own
    `load_state_dict` that is no fault.
    """
    faults = {
        "missing": sorted(name for name in own.keys() - state.keys() if not name.endswith(_COUNTER)),
        "unexpected": sorted(state.keys() - own.keys()),
        "of another shape": [
            f"{name} ({shape_text(state[name])} in the file, {shape_text(value)} here)"
            for name, value in own.items()
            if name in state and state[name].shape != value.shape
        ],
    }
    return "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in faults.items() if names)


def shape_text(tensor: Tensor) -> str:
    """`256x64x3x3`."""
    return "x".join(map(str, tensor.shape)) or "scalar"


def _load_exactly(module: nn.Module, state: Mapping[str, Tensor], path: Path, whose: str) -> None:
    own = module.state_dict()
    if fault := misfit(own, state):
        raise UsageError(f"{path} does not fit {whose}: {fault}", fix="use the recipe that these weights belong to")
    counters = {name: torch.zeros_like(own[name]) for name in own.keys() - state.keys()}
    module.load_state_dict({**state, **counters})


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
