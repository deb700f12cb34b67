"""The optimiser step: the recipe's step whatever the topology.

All micro-batches of a step are drawn first, their targets are made, the positives among these are counted and summed
over the processes, and every micro-batch's loss is divided by that sum. DDP averages gradients over processes, so the
loss is multiplied by their number: the gradient is the one of the whole step's batch in a single process.
"""

from __future__ import annotations

import gc
import inspect
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from configs.plan import Plan
from configs.schema import Recipe
from detectors.interface import Targets
from detectors.layers.constants import constants
from scenes.sample import Batch

from .fault import StepFault
from .norm_switch import NormSwitch
from .optimizer import set_rate
from .schedule import rate_factor
from .state import TrainingState
from .step_clock import StepClock, noted_all_reduce
from .unfreezing import Unfreezing
from .world import World

# As published: batch-norm statistics stay each process's own. Newer torch has a new name for it.
_DDP_OPTIONS = inspect.signature(DistributedDataParallel.__init__).parameters
_BUFFERS_STAY_LOCAL: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _DDP_OPTIONS else "broadcast_buffers": False
}
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one optimiser step did."""

    loss: float
    """Of the whole step: all processes, all micro-batches."""
    terms: dict[str, float]
    learning_rate: float
    grad_norm: float
    """Before clipping."""
    stop: bool
    """Some process was asked to stop."""
    damaged: bool = False
    """Some process could not read a sample, and took another one instead."""
    fault: StepFault | None = None
    """Why the step changed nothing but the number of steps done."""


class Trainer:
    """Does optimiser steps on a training state."""

    def __init__(self, state: TrainingState, recipe: Recipe, plan: Plan, world: World) -> None:
        self.state = state
        self.recipe = recipe
        self.plan = plan
        self.world = world
        self.parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
        skips = recipe.engine.guards.non_finite == "skip"
        self._statistics = list(state.detector.buffers()) if skips else []
        self._statistics_before = [buffer.clone() for buffer in self._statistics]
        self._norms = NormSwitch(recipe.engine, plan, world)
        self._unfreezing = Unfreezing(state.detector, recipe, plan)
        self._unfreezing.before_step(state.step)
        self.clock = StepClock(world.device)
        self.network: nn.Module = self._across_processes()

    def train_step(self, micro_batches: Sequence[Batch], stop: bool = False) -> StepReport:
        """One optimiser step on this process's micro-batches.

        Args:
            stop: this process was asked to stop; every process's report tells if any was.

        Returns:
            The same report on every process. Where the loss or its gradient is not finite, on any process, it has a
            `fault`; weights and optimiser are then as before the step, and batch-norm statistics too where the recipe
            skips such steps.
        """
        state = self.state
        self._norms.before_step(state.detector, state.step)
        if self._unfreezing.before_step(state.step):
            self.network = self._across_processes()
        self._seed_randomness()
        if self._statistics:
            torch._foreach_copy_(self._statistics_before, self._statistics)
        learning_rate = set_rate(state.optimizer, rate_factor(self.recipe.schedule, state.step, self.plan.total_steps))
        self.clock.begin("forward")
        targets = [state.detector.targets(batch) for batch in micro_batches]
        own_counts = torch.stack([one.counts for one in targets]).sum(0)
        self.clock.begin("all_reduce")
        normaliser = self.world.sum(own_counts)
        terms: dict[str, Tensor] = {}
        own_losses = []
        for number, (batch, of_batch) in enumerate(zip(micro_batches, targets, strict=True), start=1):
            with self._hold_gradients(unless=number == len(micro_batches)):
                found = self.forward_backward(batch, of_batch, normaliser)
            terms = {name: value + terms[name] if terms else value for name, value in found.items()}
            own_losses.append(torch.stack(list(found.values())).sum())
        self.clock.begin("optimizer")
        state.scaler.unscale_(state.optimizer)
        grad_norm = nn.utils.clip_grad_norm_(self.parameters, self.recipe.optimizer.clip_norm)
        damaged = any(batch.damaged for batch in micro_batches)
        flags = constants((stop, damaged), grad_norm.float())
        self.clock.begin("all_reduce")
        sums = self.world.sum(torch.cat([torch.stack([value.float() for value in terms.values()]), flags]))
        *values, stops, damages, norm = torch.cat([sums, grad_norm.float()[None]]).tolist()
        self.clock.begin("optimizer")
        fault = self._fault(sum(values), norm, micro_batches, own_losses, normaliser)
        if fault is None:
            state.scaler.step(state.optimizer)
        elif self._statistics:
            torch._foreach_copy_(self._statistics, self._statistics_before)
        if fault is not None and state.detector.memory is not None:
            state.detector.memory.forget()
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        if state.average and fault is None:
            state.average.update(state.step)
        self.clock.begin("other")
        terms_of_step = dict(zip(terms, values, strict=True))
        return StepReport(sum(values), terms_of_step, learning_rate, norm, stops > 0, damages > 0, fault)

    def forward_backward(self, batch: Batch, targets: Targets, normaliser: Tensor) -> dict[str, Tensor]:
        """Add one micro-batch's gradient; returns its loss terms, detached."""
        self.clock.begin("forward")
        device = self.world.device.type
        autocast = torch.autocast(device, _AUTOCAST.get(self.plan.precision), enabled=self.plan.precision in _AUTOCAST)
        with autocast:
            outputs = self.network(batch)
        terms = self.state.detector.loss(outputs, targets, normaliser)
        loss = torch.stack(list(terms.values())).sum() * self.world.size
        self.clock.begin("backward")
        self.state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.clock.end_backward()
        return {name: term.detach() for name, term in terms.items()}

    def _across_processes(self) -> nn.Module:
        """The detector, wrapped where there are other processes; what has a gradient then is what they share."""
        if self.world.size == 1:
            return self.state.detector
        self.network = self.state.detector
        gc.collect()  # an earlier wrapper's hooks on the parameters go with it
        network = DistributedDataParallel(self.state.detector, gradient_as_bucket_view=True, **_BUFFERS_STAY_LOCAL)
        network.register_comm_hook(self.clock, noted_all_reduce)
        return network

    def _hold_gradients(self, unless: bool) -> AbstractContextManager[None]:
        """Let gradients add up locally; they are summed over the processes with the last micro-batch."""
        if isinstance(self.network, DistributedDataParallel) and not unless:
            return self.network.no_sync()
        return nullcontext()

    def _seed_randomness(self) -> None:
        """Dropout is a pure function of (seed, step, rank): a run that is taken up needs no generator state."""
        words = (self.recipe.engine.seed, self.state.step, self.world.rank)
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]))

    def _fault(
        self, loss: float, norm: float, batches: Sequence[Batch], own_losses: Sequence[Tensor], normaliser: Tensor
    ) -> StepFault | None:
        """What is not finite, with the samples that cause it; the same on all processes, for all see the same sums."""
        overflow_is_handled = self.state.scaler.is_enabled()  # fp16: the scaler skips the step and scales down
        if math.isfinite(loss) and (math.isfinite(norm) or overflow_is_handled):
            return None
        if not math.isfinite(loss):
            reason = f"the loss is {loss}"
            own = [batch for batch, one in zip(batches, own_losses, strict=True) if not bool(one.isfinite())]
        else:
            reason = f"the gradient's norm is {norm}"
            own = self._with_bad_gradients(batches, normaliser)
        tokens = self.world.all_tokens(batch.tokens for batch in own)
        return StepFault(reason, tokens or self.world.all_tokens(batch.tokens for batch in batches))

    def _with_bad_gradients(self, batches: Sequence[Batch], normaliser: Tensor) -> list[Batch]:
        """Those of this process's micro-batches whose gradient alone is not finite, found by doing each again."""
        self._seed_randomness()
        found = []
        for batch in batches:
            self.state.optimizer.zero_grad(set_to_none=True)
            with self._hold_gradients(unless=False):
                self.forward_backward(batch, self.state.detector.targets(batch), normaliser)
            norms = [p.grad.norm() for p in self.parameters if p.grad is not None]
            if not bool(torch.stack(norms).isfinite().all()):
                found.append(batch)
        return found
