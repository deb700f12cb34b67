"""What geometry says before any pixel is looked at: log-odds of a pixel belonging to an object, given its 3D box.

Added to the decoder's logits, it makes the picture correct the outline instead of finding the object anew. The decoder
must have been trained with it (`sam2 train` does so from scratch); published weights have not, and take the box alone.

Shape legend: P pairs, h w raster at a quarter of the network image.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from integration.segmenter import ImageFeatures, MaskOutputs, Prompts, Segmenter

OPEN: Final = 0.8
"""Share of the pixels of an outline that no nearer box covers which show the object; these
three were counted in the training scenes of a synthetic set."""
COVERED: Final = 0.25
"""The same where a nearer box covers the outline: boxes are larger than what is in them."""
OUTSIDE: Final = 0.0005
"""The same outside the outline, of all pixels of an image."""


def outline_log_odds(outline: Tensor, open_outline: Tensor) -> Tensor:
    """Log-odds `[P, 1, h, w]`.

    Args:
        outline: `[P, h, w]`: share of each raster cell that the box fills.
        open_outline: `[P, h, w]`: the part that no nearer box covers.
    """
    chance = OPEN * open_outline + COVERED * (outline - open_outline) + OUTSIDE * (1 - outline)
    return torch.logit(chance)[:, None]


def decode_with_outline(
    segmenter: Segmenter,
    features: ImageFeatures,
    prompts: Prompts,
    outline: Tensor,
    open_outline: Tensor,
    chunk: int = 32,
) -> MaskOutputs:
    """Masks from boxes and outlines: the log-odds are the mask to start from, and are added to what comes out."""
    odds = outline_log_odds(outline, open_outline).to(features.embedding)
    outputs = segmenter.decode(features, replace(prompts, masks=odds), chunk=chunk)
    return replace(outputs, logits=outputs.logits + odds)
