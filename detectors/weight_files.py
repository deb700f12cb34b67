"""Weights files: `.safetensors`, or `.pth` with tensors and plain values only. Nothing in one is executed."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from configs.errors import UsageError
from configs.published_weights import weights_path

WRAPPER_KEYS: Final = ("state_dict", "model")
"""Where training frameworks put the weights beside their epoch, counters, optimiser and configuration."""


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """What a file holds."""

    path: Path
    state: dict[str, Tensor]
    """On the CPU, by name."""
    beside: tuple[str, ...]
    """Other top-level keys, which are left aside, such as `epoch`, `meta`, `updates`."""


def read_weights(name_or_file: str | Path) -> WeightsFile:
    """The weights of a file, or of a name of `checkpoints list`.

    Raises:
        UsageError: no such file, or one that holds no weights or more than tensors and plain values.
        DataError: published weights that are not as they were fetched.
    """
    path = weights_path(name_or_file)
    content = _content(path)
    beside: tuple[str, ...] = ()
    for key in WRAPPER_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            beside = tuple(str(other) for other in content if other != key)
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UsageError(f"no state dict in {path}", fix="give a file of tensors by name, bare or under `state_dict`")
    return WeightsFile(path, {str(name): value for name, value in content.items()}, beside)


def _content(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise UsageError(
            f"cannot read weights from {path}: {_first_line(error)}",
            fix="give a complete .safetensors file, or a .pth file that holds tensors and plain values only",
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
