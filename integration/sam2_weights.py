"""Weights of SAM 2: published checkpoints (`.pt`, with memory) and ours (`.safetensors`, image part alone), strict."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from configs.errors import UsageError
from configs.replaced_file import replacing
from detectors.weight_files import read_weights
from detectors.zoo import misfit
from integration.sam2_package import construct_sam2
from integration.segmenter import Segmenter

_SIZE: Final = "network_size"
_OUTLINE: Final = "wants_outline"


def load_segmenter(
    config: str | Path,
    checkpoint: str | Path | None,
    *,
    network_size: tuple[int, int] | None = None,
    wants_outline: bool = False,
    device: torch.device | str = "cpu",
) -> Segmenter:
    """A SAM 2 for images with the weights of a file, in eval mode.

    Args:
        config: as in `sam2_package.find_config`.
        checkpoint: a published file, its name in `checkpoints list`, or a file of `save_segmenter`; `None` keeps
            random weights, for tests and for training from scratch.
        network_size: height and width of the network image, multiples of 32. Default: the one that a file of
            `save_segmenter` was trained at, else the configuration's square.
        wants_outline: for random weights only; a file of `save_segmenter` knows what it was trained with.

    Raises:
        UsageError: no such file or configuration, or weights that belong to another one.
    """
    with _current(torch.device(device)):
        network = construct_sam2(config)
    if checkpoint is None:
        return Segmenter(network, network_size, wants_outline).to(device).eval()
    file = read_weights(checkpoint)
    notes = _notes(file.path)
    segmenter = Segmenter(network, network_size or _size_in(notes), notes.get(_OUTLINE) == "yes")
    target = segmenter if is_image_part(file.state) else network
    if fault := misfit(target.state_dict(), file.state):
        raise UsageError(
            f"{file.path} does not fit the SAM 2 configuration {config}: {fault}",
            fix="use the configuration that belongs to the checkpoint (2.0 and 2.1 differ, and so do the sizes)",
        )
    target.load_state_dict(file.state)
    return segmenter.to(device).eval()


def save_segmenter(segmenter: Segmenter, path: Path) -> None:
    """Write the image part's weights as safetensors, with the size and the kind of prompt they were trained with."""
    state = {name: value.detach().cpu().contiguous() for name, value in segmenter.state_dict().items()}
    height, width = segmenter.network_size
    notes = {_SIZE: f"{height}x{width}", _OUTLINE: "yes" if segmenter.wants_outline else "no"}
    with replacing(path) as unfinished:
        save_file(state, unfinished, notes)


def digest(module: nn.Module) -> bytes:
    """SHA-256 over the names and values of all weights: equal weights, equal digest, whatever file they came from."""
    sha = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        sha.update(name.encode())
        sha.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return sha.digest()


def _current(device: torch.device) -> AbstractContextManager[object]:
    """A GPU is made the current one: the package puts small tables there while it builds."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _notes(path: Path) -> Mapping[str, str]:
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def _size_in(notes: Mapping[str, str]) -> tuple[int, int] | None:
    if _SIZE not in notes:
        return None
    height, width = notes[_SIZE].split("x")
    return int(height), int(width)


def is_image_part(state: Mapping[str, Tensor]) -> bool:
    """Ours have no memory; all published files have."""
    return not any(name.startswith(("memory_", "maskmem_")) for name in state)
