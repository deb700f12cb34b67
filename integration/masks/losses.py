"""The losses SAM 2 is trained with (its paper, section D.2.2, and its published training configuration).

Per object 20 x focal + 1 x dice + 1 x |expected IoU - IoU| + 1 x presence; the first three only where there is an
object. Shape legend: P prompts, H W target masks.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor
from torch.nn import functional

FOCAL_WEIGHT: Final = 20.0
FOCAL_ALPHA: Final = 0.25
FOCAL_GAMMA: Final = 2.0


def mask_losses(logits: Tensor, iou: Tensor, presence: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Scalar terms, means over objects; their sum is minimised.

    Args:
        logits: `[P, H, W]`, at the targets' size.
        iou: `[P]`: what the network expects.
        presence: `[P]`: logits.
        targets: float `[P, H, W]`, 0 to 1; all 0 where the object is not seen.
    """
    present = (targets.flatten(1).amax(1) >= 0.5).float()
    count = present.sum().clamp(min=1)
    found_iou = _iou(logits.detach() > 0, targets >= 0.5)
    terms = {
        "focal": FOCAL_WEIGHT * _focal(logits, targets),
        "dice": _dice(logits, targets),
        "iou": (iou - found_iou).abs(),
    }
    means = {name: (term * present).sum() / count for name, term in terms.items()}
    return means | {"presence": functional.binary_cross_entropy_with_logits(presence, present)}


def _focal(logits: Tensor, targets: Tensor) -> Tensor:
    likelihood = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probability = logits.sigmoid()
    wrong = probability + targets - 2 * probability * targets
    weight = FOCAL_ALPHA * targets + (1 - FOCAL_ALPHA) * (1 - targets)
    return (weight * wrong**FOCAL_GAMMA * likelihood).flatten(1).mean(1)


def _dice(logits: Tensor, targets: Tensor) -> Tensor:
    probability = logits.sigmoid()
    both = (probability * targets).flatten(1).sum(1)
    return 1 - (2 * both + 1) / (probability.flatten(1).sum(1) + targets.flatten(1).sum(1) + 1)


def _iou(found: Tensor, truth: Tensor) -> Tensor:
    both = (found & truth).flatten(1).sum(1)
    return both / (found | truth).flatten(1).sum(1).clamp(min=1)
