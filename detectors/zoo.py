"""Build a detector from a recipe, and read published weights into it.

Weights are `.safetensors`, or `.pth` files that hold tensors and plain values only: nothing in a file is executed.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from configs.errors import UsageError
from configs.schema import BEVNeXtConfig, DataConfig
from detectors.bevnext.model import BEVNeXt
from detectors.interface import Detector

WRAPPER_KEYS = ("state_dict", "model")
NAMES_SHOWN = 8


def build_detector(model: BEVNeXtConfig, data: DataConfig) -> Detector:
    """The detector of a recipe, freshly initialised. Backbone weights are read by `load_backbone`."""
    return BEVNeXt(model, data)


def load_published(detector: nn.Module, path: Path | str) -> None:
    """Load a whole detector's weights by name; every name and shape must match.

    Reads a bare state dict or one wrapped as mmcv does (`state_dict` beside `meta`, `epoch`, `updates`, ...).
    Raises `UsageError` that lists what is missing, unexpected or of another shape.
    """
    _load_exactly(detector, read_weights(path), path, whose="the detector")


def load_backbone(detector: nn.Module, path: Path | str) -> None:
    """Load weights of the image backbone alone: torchvision's names, or a detector's under `backbone.`.

    Everything that is not backbone in the file (`fc.*`, necks, heads) is left aside; what the backbone has must be
    there. Raises `UsageError` otherwise.
    """
    state = read_weights(path)
    for prefix in ("img_backbone.", "backbone."):
        if any(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            break
    else:
        state = {name: value for name, value in state.items() if not name.startswith("fc.")}
    _load_exactly(detector.get_submodule("img_backbone"), state, path, whose="the image backbone")


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The state dict of a weights file, on the CPU, without executing anything in it."""
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"weights file not found: {path}", fix="check the path, or the recipe's `weights`")
    try:
        content: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError) as error:
        raise UsageError(
            f"cannot read weights from {path}: {_first_line(error)}",
            fix="give a complete .safetensors file, or a .pth file that holds tensors and plain values only",
        ) from error
    for key in WRAPPER_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UsageError(f"no state dict in {path}", fix="give a file of tensors by name, bare or under `state_dict`")
    return dict(content)


def _load_exactly(module: nn.Module, state: Mapping[str, Tensor], path: Path | str, whose: str) -> None:
    own = module.state_dict()
    faults = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "of another shape": [
            f"{name} ({_shape(state[name])} in the file, {_shape(value)} here)"
            for name, value in own.items()
            if name in state and state[name].shape != value.shape
        ],
    }
    if any(faults.values()):
        lists = "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in faults.items() if names)
        raise UsageError(f"{path} does not fit {whose}: {lists}", fix="use the recipe that these weights belong to")
    module.load_state_dict(state)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
