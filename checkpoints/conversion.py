"""From a published `.pth` to safetensors, and whether weights fit the network they are for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from torch import nn

from configs.errors import UsageError
from configs.published_weights import record
from configs.recipes import load_recipe
from configs.replaced_file import replacing
from configs.schema import BEVNeXtConfig, DataConfig
from detectors.interface import Detector
from detectors.weight_files import WeightsFile, read_weights
from detectors.zoo import BACKBONE, backbone_part, build_detector, misfit
from integration.sam2_package import construct_sam2

SAM2: Final = "sam2/"
"""Stands before the name of a SAM 2 configuration where a recipe is asked for."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Weights that fit a network."""

    file: WeightsFile
    entries: int
    """What the network takes from the file."""


def check_fit(weights: str | Path, recipe_name: str, backbone_only: bool) -> Fit:
    """Compare names and shapes of a weights file with the network of a recipe; nothing is computed.

    Raises:
        UsageError: it lists what is missing, extra or of another shape.
    """
    file = read_weights(weights)
    state = backbone_part(file) if backbone_only else file.state
    network = _network(recipe_name)
    own = (network.get_submodule(BACKBONE) if backbone_only else network).state_dict()
    if fault := misfit(own, state):
        what = "the image backbone" if backbone_only else "the network"
        raise UsageError(
            f"{file.path} does not fit {what} of {recipe_name}: {fault}",
            fix="name the recipe that it belongs to, or the file that belongs to the recipe",
        )
    return Fit(file, len(own))


def convert(file: WeightsFile, target: Path) -> None:
    """Write the weights alone to `target` as safetensors, and keep its SHA-256; a reader sees a whole file or none."""
    tensors = {name: tensor.contiguous().clone() for name, tensor in file.state.items()}
    with replacing(target) as unfinished:
        save_file(tensors, unfinished, metadata={"format": "pt", "source": file.path.name})
    record(target)


def _network(recipe_name: str) -> nn.Module:
    if recipe_name.startswith(SAM2):
        return construct_sam2(recipe_name.removeprefix(SAM2))
    recipe = load_recipe(recipe_name)
    return _network_without_memory(recipe.model, recipe.data)


@cache
def _network_without_memory(model: BEVNeXtConfig, data: DataConfig) -> Detector:
    """A network that has names and shapes, and nothing in them."""
    with torch.device("meta"):
        return build_detector(model, data)
