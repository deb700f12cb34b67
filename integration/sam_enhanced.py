"""BEVNeXt with SAM 2's image features.

Two ways: `shared` runs a frozen SAM 2 beside the image backbone, on the same augmented images, and adds its features
through zero-initialised adapters; `backbone` puts SAM 2's trunk in the place of the image backbone and trains it.
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
from detectors.bevnext.image_neck import ImageNeck
from detectors.bevnext.model import IMAGE_DEVIATION, IMAGE_MEAN, BEVNeXt
from detectors.interface import Detector
from detectors.layers.resnet import FINEST_STRIDE
from detectors.zoo import build_detector
from integration.sam2_weights import load_segmenter
from integration.sam_features import HieraBackbone, SamFeatures
from integration.segmenter import check_images, check_size

Mode = Literal["shared", "backbone"]

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
        mode: `shared` or `backbone`, as above.
        levels: strides of the backbone's maps that get features.
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
    ) -> None:
        recipe = bev_config if isinstance(bev_config, Recipe) else load_recipe(str(bev_config))
        super().__init__(_bevnext(recipe), recipe.data)
        check_size(recipe.data.image_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(CONTROL_SEED)
            segmenter = load_segmenter(sam2_model_cfg, sam2_checkpoint, network_size=recipe.data.image_size)
        trunk = segmenter.image_encoder.get_submodule("trunk")
        self.strides = (FINEST_STRIDE, 2 * FINEST_STRIDE, 4 * FINEST_STRIDE)
        self.sam: SamFeatures | None = None
        if mode == "backbone":
            self._replace_backbone(recipe.model, trunk)
        else:
            channels = dict(zip(self.strides, self.img_backbone.out_channels, strict=True))
            self.sam = SamFeatures(trunk, {stride: channels.get(stride, 0) for stride in levels}, fusion_dim)
        if device is not None:
            self.to(device)

    def image_features(self, images: Tensor) -> Tensor:
        """`[M, C', h, w]` of normalised images `[M, 3, H, W]`: backbone, SAM 2's features added, neck."""
        levels = self.img_backbone(images)
        if self.sam is not None:
            levels = self.fuse_features(levels, self.sam.pyramid(self._for_sam(images)))
        features: Tensor = self.img_neck(levels)
        return features

    def extract_sam_features(self, images: Tensor) -> dict[str, Any]:
        """SAM 2's maps of uint8 RGB images `[M, 3, H, W]` or `[B, N, 3, H, W]` of the recipe's image size.

        Returns:
            `pyramid`: maps by stride, `[M, C, h, w]`; `sam_features`: that of stride 16; `feature_shape`: its (h, w).
        """
        if self.sam is None:
            raise UsageError("mode backbone: SAM 2's trunk is the image backbone", fix="call image_features instead")
        flat = images.flatten(0, 1) if images.ndim == 5 else images
        check_images(flat)
        check_size(flat.shape[-2:])
        pyramid = self.sam.pyramid(self._for_sam(self.normalise(flat)))
        return {"pyramid": pyramid, "sam_features": pyramid[16], "feature_shape": tuple(pyramid[16].shape[-2:])}

    def fuse_features(self, img_feats: Sequence[Tensor], sam_feats: dict[int, Tensor]) -> tuple[Tensor, ...]:
        """The backbone's maps (stride 8, 16, 32) with SAM 2's, by stride, added."""
        assert self.sam is not None
        fused = self.sam(dict(zip(self.strides, img_feats, strict=True)), sam_feats)
        return tuple(fused[stride] for stride in self.strides)

    def _for_sam(self, images: Tensor) -> Tensor:
        """Images as BEVNeXt normalises them, as SAM 2 does: the same numbers, but colours in their right order."""
        if self.channel_order == (0, 1, 2):
            return images
        mean, deviation = (images.new_tensor(v)[:, None, None] for v in (IMAGE_MEAN, IMAGE_DEVIATION))
        return ((images * deviation + mean)[:, self.channel_order] - mean) / deviation

    def _replace_backbone(self, model: BEVNeXtConfig, trunk: nn.Module) -> None:
        if model.bgr_input:
            raise UsageError(
                "mode backbone: SAM 2 was trained on RGB images, model.bgr_input swaps their colours",
                fix="set model.bgr_input=false",
            )
        backbone: Any = HieraBackbone(trunk)
        self.img_backbone = backbone
        self.img_neck = ImageNeck(backbone.out_channels, model.neck_channels)


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
        recipe, sam2.weights, sam2.config, sam2.adapter_channels, mode=sam2.mode, levels=sam2.strides
    )


def _bevnext(recipe: Recipe) -> BEVNeXtConfig:
    if recipe.model.family != "bevnext":
        raise UsageError(f"sam2: recipe {recipe.name} is not a BEVNeXt", fix="leave the section sam2 out")
    return recipe.model
