"""From which step on the last stage of SAM 2's trunk trains (`sam2.unfreeze_at_epoch`)."""

from __future__ import annotations

from torch import nn

from configs.plan import Plan
from configs.schema import Recipe
from integration.sam_features import TRAINED_LATER


class Unfreezing:
    """Gives parameters of SAM 2 a gradient when their epoch comes.

    Which ones have one is a function of the step alone, so a run that is taken up before or after that epoch, or put
    back over it, goes on as if it had never stopped. Optimiser, average and checkpoints know them from the first step.
    """

    def __init__(self, detector: nn.Module, recipe: Recipe, plan: Plan) -> None:
        epoch = recipe.sam2.unfreeze_at_epoch if recipe.sam2 else None
        self.first_step = 0 if epoch is None else epoch * plan.steps_per_epoch
        self._parameters = [value for name, value in detector.named_parameters() if name.startswith(TRAINED_LATER)]

    def before_step(self, step: int) -> bool:
        """To be called before each optimiser step, counted from 0.

        Returns:
            Something changed: a wrapper that shares gradients between processes has to be made anew.
        """
        due = step >= self.first_step
        changed = [parameter for parameter in self._parameters if parameter.requires_grad != due]
        for parameter in changed:
            parameter.requires_grad_(due)
        return bool(changed)
