"""Detectors with SAM 2's image features.

Three ways: `shared` runs a frozen SAM 2 beside the image backbone, on the same augmented images, and adds its features
through zero-initialised adapters; `native` does so on the whole images, at a size that suits SAM 2, and samples its
maps where the detector's cells lie; `backbone` puts SAM 2's trunk in the place of the image backbone and trains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from configs.errors import UsageError
from configs.recipes import load_recipe
from configs.schema import BEVNeXtConfig, Recipe
from detectors.bevnext.model import BEVNeXt
from detectors.image_hook import CameraViews
from detectors.interface import Detector
from detectors.zoo import build_detector
from integration.sam2_weights import load_segmenter
from integration.sam_features import TRUNK_STRIDES, HieraBackbone, SamFeatures, TrunkMaps
from integration.segmenter import check_images, check_size

Mode = Literal["shared", "native", "backbone"]

CONTROL_SEED: Final = 0
"""Random weights of SAM 2 are the same ones in training, on resuming and in evaluation: they are not saved."""


class SAMEnhancedBEVDetector(BEVNeXt):
    """A BEVNeXt whose image features know what SAM 2 sees.

    Parameters keep BEVNeXt's names, so that its weights can be handed over; what is new is under `sam`.

    Args:
        bev_config: recipe of the detector: loaded, a name, or a file.
        sam2_checkpoint: weights of SAM 2: a file or a name of `checkpoints list`; `None` keeps random ones, the control
            that tells features of SAM 2 from mere capacity.
        sam2_model_cfg: its configuration, such as `sam2.1_hiera_t`.
        fusion_dim: width of the adapters.
        mode: `shared`, `native` or `backbone`, as above; `native` needs a recipe with `data.whole_size`.
        levels: strides of the backbone's maps that get features.
        trained_later: the trunk's last stage and its norms are parameters of the detector that may be given a gradient.
    """

    def __init__(
        self,
        bev_config: Recipe | str | Path,
        sam2_checkpoint: str | Path | None,
        sam2_model_cfg: str | Path,
        fusion_dim: int = 128,
        device: torch.device | str | None = None,
        *,
        mode: Mode = "shared",
        levels: Sequence[int] = (8, 16, 32),
        trained_later: bool = False,
    ) -> None:
        recipe = bev_config if isinstance(bev_config, Recipe) else load_recipe(str(bev_config))
        super().__init__(_bevnext(recipe), recipe.data)
        trunk = trunk_of(recipe, sam2_checkpoint, sam2_model_cfg, mode)
        if mode == "backbone":
            replace_backbone(self, trunk)
        else:
            self.sam = features_for(self, recipe, trunk, fusion_dim, mode, levels, trained_later)
        if device is not None:
            self.to(device)

    @property
    def features(self) -> SamFeatures:
        """SAM 2 and the adapters. Raises `UsageError` in mode backbone."""
        if not isinstance(self.sam, SamFeatures):
            raise UsageError("mode backbone: SAM 2's trunk is the image backbone", fix="call image_features instead")
        return self.sam

    def extract_sam_features(self, images: Tensor) -> dict[str, Any]:
        """SAM 2's maps of uint8 RGB images `[M, 3, H, W]` or `[B, N, 3, H, W]`, sides multiples of 32.

        Returns:
            `pyramid`: maps by stride, `[M, C, h, w]`; `sam_features`: that of stride 16; `feature_shape`: its (h, w);
            `trunk_maps`: the same for `BEVSAMFusion.features_of`.
        """
        flat = images.flatten(0, 1) if images.ndim == 5 else images
        check_images(flat)
        check_size(flat.shape[-2:])
        maps: TrunkMaps = self.features.trunk_maps(CameraViews(flat, flat.new_zeros(len(flat), 4, 4), flat))
        pyramid = dict(zip(TRUNK_STRIDES, maps.maps, strict=True))
        return {
            "pyramid": pyramid,
            "sam_features": pyramid[16],
            "feature_shape": tuple(pyramid[16].shape[-2:]),
            "trunk_maps": maps,
        }

    def fuse_features(self, img_feats: Sequence[Tensor], sam_feats: dict[int, Tensor]) -> tuple[Tensor, ...]:
        """The backbone's maps (stride 8, 16, 32) with SAM 2's on the same cells, by stride, added."""
        fused = self.features.fuse(dict(zip(self.image_channels, img_feats, strict=True)), sam_feats)
        return tuple(fused[stride] for stride in self.image_channels)


def trunk_of(recipe: Recipe, checkpoint: str | Path | None, config: str | Path, mode: Mode) -> nn.Module:
    """SAM 2's image trunk with the weights of a file, or the control's; for images of the recipe's size."""
    native = mode == "native"
    if native and recipe.data.whole_size is None:
        raise UsageError(
            f"sam2.mode native: recipe {recipe.name} has no data.whole_size", fix="set it, such as [512, 896]"
        )
    size = recipe.data.whole_size if native and recipe.data.whole_size else recipe.data.image_size
    check_size(recipe.data.image_size)
    check_size(size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(CONTROL_SEED)
        segmenter = load_segmenter(config, checkpoint, network_size=size)
    trunk: nn.Module = segmenter.image_encoder.trunk
    return trunk


def features_for(
    detector: Detector,
    recipe: Recipe,
    trunk: nn.Module,
    width: int,
    mode: Mode,
    strides: Sequence[int],
    trained_later: bool,
) -> SamFeatures:
    """What `detector.sam` is set to, in any family that has `image_channels`.

    Raises:
        UsageError: the family has no hook, or no map of such a stride.
    """
    channels = detector.image_channels
    missing = [stride for stride in strides if stride not in channels]
    if missing:
        raise UsageError(
            f"sam2.strides: a {recipe.model.family} has no image features of stride {', '.join(map(str, missing))}",
            fix=f"choose among {', '.join(map(str, channels))}" if channels else "leave the section sam2 out",
        )
    return SamFeatures(
        trunk,
        {stride: channels[stride] for stride in strides},
        width,
        native=mode == "native",
        source_size=recipe.data.source_size,
        trained_later=trained_later,
    )


def replace_backbone(detector: BEVNeXt, trunk: nn.Module) -> None:
    """Put SAM 2's trunk in the place of the image backbone."""
    if detector.config.bgr_input:
        raise UsageError(
            "mode backbone: SAM 2 was trained on RGB images, model.bgr_input swaps their colours",
            fix="set model.bgr_input=false",
        )
    backbone = HieraBackbone(trunk)
    detector.replace_backbone(backbone, backbone.out_channels)


def build_recipe_detector(recipe: Recipe) -> Detector:
    """The detector of a recipe, with SAM 2's features where its section `sam2` asks for them.

    Raises:
        UsageError: the section names neither weights nor `random: true`.
    """
    if recipe.sam2 is None:
        return build_detector(recipe.model, recipe.data)
    sam2 = recipe.sam2
    if (sam2.weights is None) != sam2.random:
        raise UsageError(
            "sam2.weights: no weights of SAM 2 are named"
            if sam2.weights is None
            else "sam2.random beside sam2.weights",
            fix="name a file or a name of `checkpoints list`; sam2.random=true alone is the control",
        )
    return SAMEnhancedBEVDetector(
        recipe,
        sam2.weights,
        sam2.config,
        sam2.adapter_channels,
        mode=sam2.mode,
        levels=sam2.strides,
        trained_later=sam2.unfreeze_at_epoch is not None,
    )


def _bevnext(recipe: Recipe) -> BEVNeXtConfig:
    if recipe.model.family != "bevnext":
        raise UsageError(f"sam2: recipe {recipe.name} is not a BEVNeXt", fix="leave the section sam2 out")
    return recipe.model
