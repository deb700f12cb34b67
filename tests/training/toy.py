"""A toy detector and toy batches: the engine's rules without the cost of a real network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from configs.plan import DeviceFacts, Plan, PlanOptions, make_plan
from configs.recipes import load_recipe
from configs.schema import Recipe
from detectors.interface import CameraBatch, Detections, Detector, Targets
from scenes.sample import Batch
from training.moving_average import MovingAverage
from training.optimizer import build_optimizer
from training.state import TrainingState
from training.trainer import Trainer
from training.world import World

CELLS = 8


@dataclass(frozen=True, slots=True)
class ToyTargets(Targets):
    batch: CameraBatch


class ToyDetector(Detector):
    """Two losses with normalisers of their own, dropout and batch norm, as real families have."""

    def __init__(self, dropout: float = 0.0, norm: bool = False) -> None:
        super().__init__()
        self.img_backbone = nn.Linear(CELLS, 16)
        self.norm: nn.Module = nn.BatchNorm1d(16) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.boxes = nn.Linear(16, 9)
        self.depth = nn.Linear(16, CELLS)

    def forward(self, batch: CameraBatch) -> tuple[Tensor, Tensor]:
        pixels = batch.images.flatten(1)[:, :CELLS].to(self.boxes.weight.dtype) / 255
        hidden = self.dropout(torch.tanh(self.norm(self.img_backbone(pixels))))
        return self.boxes(hidden), self.depth(hidden)

    def targets(self, batch: CameraBatch) -> ToyTargets:
        boxes = sum(len(boxes) for boxes in batch.boxes)
        known = (batch.depth > 0).sum().item()
        counts = torch.tensor([boxes, known], dtype=torch.float32, device=batch.depth.device)
        return ToyTargets(counts, batch)

    def loss(self, outputs: Any, targets: ToyTargets, normaliser: Tensor | None = None) -> dict[str, Tensor]:
        (found, depth), batch = outputs, targets.batch
        counts = (targets.counts if normaliser is None else normaliser).clamp(min=1).to(found.dtype)
        terms = [
            (boxes.to(found) - one).abs().sum() + 0 * one.sum() for one, boxes in zip(found, batch.boxes, strict=True)
        ]
        target = batch.depth.flatten(1)[:, :CELLS].to(found)
        wrong = ((depth - target) ** 2 * (target > 0)).sum()
        return {"loss_boxes": torch.stack(terms).sum() / counts[0], "loss_depth": wrong / counts[1]}

    def decode(self, outputs: Any) -> list[Detections]:
        raise NotImplementedError


def toy_sample_batch(samples: list[int]) -> Batch:
    """A batch of the given samples; sample 0, 3, 6, ... has no boxes, the others 1 to 4; content follows the number."""
    images, depth, boxes = [], [], []
    for sample in samples:
        random = torch.Generator().manual_seed(sample)
        images.append(torch.randint(0, 256, (1, 1, 3, 2, 4), dtype=torch.uint8, generator=random))
        drawn = torch.rand(1, 2, 4, generator=random)
        depth.append(drawn * (drawn > 0.1 * (sample % 8)))
        boxes.append(torch.randn(0 if sample % 3 == 0 else 1 + sample % 4, 9, generator=random))
    eye = torch.eye(4).expand(len(samples), 1, 1, 4, 4)
    return Batch(
        images=torch.stack(images),
        img_from_cam=eye,
        ego_from_cam=eye,
        canvas_from_img=eye,
        bev_from_ego=torch.eye(4).expand(len(samples), 4, 4),
        global_from_ego=torch.eye(4, dtype=torch.float64).expand(len(samples), 4, 4),
        depth=torch.stack(depth),
        boxes=boxes,
        labels=[torch.zeros(len(one), dtype=torch.int64) for one in boxes],
        rows=torch.tensor(samples),
        tokens=[f"token{sample}" for sample in samples],
    )


def toy_recipe(*overrides: str) -> Recipe:
    return load_recipe("synthetic/bevnext-smoke", ("optimizer.reference_batch=8", *overrides))


def toy_plan(recipe: Recipe, world: World, batch_size: int, samples: int = 32) -> Plan:
    options = PlanOptions(num_devices=world.size, batch_size=batch_size)
    return make_plan(recipe, samples=samples, devices=DeviceFacts(cpu_cores=world.size), options=options)


def toy_trainer(detector: Detector, recipe: Recipe, plan: Plan, world: World) -> Trainer:
    state = TrainingState(
        detector=detector,
        optimizer=build_optimizer(detector, recipe.optimizer, plan.learning_rate),
        scaler=torch.amp.GradScaler("cpu", enabled=plan.precision == "fp16"),
        average=MovingAverage(detector, recipe.engine.ema) if recipe.engine.ema else None,
    )
    return Trainer(state, recipe, plan, world)


ALONE = World(rank=0, size=1, device=torch.device("cpu"))


def sample_numbers(plan: Plan, rank: int, step: int) -> list[list[int]]:
    """The samples of one rank's micro-batches: number `step * effective` on, shared out as the loader does."""
    first = step * plan.effective_batch
    return [
        [first + (m * plan.devices + rank) * plan.device_batch + i for i in range(plan.device_batch)]
        for m in range(plan.accumulation)
    ]


def step_batches(plan: Plan, rank: int, step: int) -> list[Batch]:
    return [toy_sample_batch(numbers) for numbers in sample_numbers(plan, rank, step)]
