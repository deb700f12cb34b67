"""From which step on batch normalisation counts the micro-batches of all devices (`engine.sync_bn`).

The published stage 2 turns its batch norms into synchronised ones at the start of the ninth epoch, against divergence.
Parameters, statistics and their names stay, so optimiser, average and checkpoints do not notice; a run that is taken up
later turns them again.
"""

from __future__ import annotations

from torch import nn

from configs.errors import UsageError
from configs.plan import Plan
from configs.schema import EngineConfig

from .world import World


class NormSwitch:
    """Turns the batch norms of a detector when their epoch comes. Alone there is nothing to do."""

    def __init__(self, engine: EngineConfig, plan: Plan, world: World) -> None:
        """Raises `UsageError` where the devices have no synchronised batch norm."""
        self.first_step: int | None = None
        if engine.sync_bn is None or world.size == 1:
            return
        if world.device.type == "cpu":
            raise UsageError(
                f"engine.sync_bn: torch has no batch norm over {world.size} processes on the CPU",
                fix="--set engine.sync_bn=null, or --num-processes 1",
            )
        self.first_step = engine.sync_bn.from_epoch * plan.steps_per_epoch

    def before_step(self, detector: nn.Module, step: int) -> None:
        """To be called before each optimiser step, counted from 0."""
        if self.first_step is not None and step >= self.first_step:
            nn.SyncBatchNorm.convert_sync_batchnorm(detector)  # type: ignore[no-untyped-call]
            self.first_step = None
