"""Exponential moving average of a detector's weights, as the published recipes keep it."""

from __future__ import annotations

import copy
import math

import torch

from configs.schema import EmaConfig
from detectors.interface import Detector


class MovingAverage:
    """A second detector whose floating state, batch-norm statistics too, follows the trained one.

    After the n-th step `average += (1 - d) * (weights - average)` with `d = decay * (1 - exp(-u / ramp))`,
    `u = init_updates + n`. Integer state (`num_batches_tracked`) keeps its first value, as published.
    """

    def __init__(self, detector: Detector, config: EmaConfig) -> None:
        self.detector = copy.deepcopy(detector).eval().requires_grad_(False)
        self.config = config
        pairs = zip(self.detector.state_dict().values(), detector.state_dict().values(), strict=True)
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        self._average = [average for average, _ in floating]
        self._weights = [weights for _, weights in floating]

    def decay(self, step: int) -> float:
        """Weight of the old average at the end of optimiser step `step` (from 1)."""
        return self.config.decay * (1 - math.exp(-(self.config.init_updates + step) / self.config.ramp))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the weights after optimiser step `step` (from 1)."""
        torch._foreach_lerp_(self._average, self._weights, 1 - self.decay(step))
