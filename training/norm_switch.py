"""From which step on batch normalisation counts the micro-batches of all devices (`engine.sync_bn`).

The published stage 2 turns its batch norms into synchronised ones at the start of the ninth epoch, against divergence.
Parameters, statistics and their names stay, so optimiser, average and checkpoints do not notice; a run that is taken up
later turns them again.
"""

from __future__ import annotations

from torch import nn

from configs.plan import Plan
from configs.schema import EngineConfig
from detectors.layers.synchronized_norm import synchronize_norms

from .world import World


class NormSwitch:
    """Turns the batch norms of a detector when their epoch comes. Alone there is nothing to do."""

    def __init__(self, engine: EngineConfig, plan: Plan, world: World) -> None:
        self.first_step: int | None = None
        if engine.sync_bn is not None and world.size > 1:
            self.first_step = engine.sync_bn.from_epoch * plan.steps_per_epoch
        self._on_cpu = world.device.type == "cpu"

    def before_step(self, detector: nn.Module, step: int) -> None:
        """To be called before each optimiser step, counted from 0."""
        if self.first_step is not None and step >= self.first_step:
            if self._on_cpu:  # torch's own is for accelerators
                synchronize_norms(detector)
            else:
                nn.SyncBatchNorm.convert_sync_batchnorm(detector)  # type: ignore[no-untyped-call]
            self.first_step = None
