"""One optimiser step whatever the topology: equal gradients in float64, with frozen statistics.

The micro-batches have uneven numbers of positives, and frames without boxes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_up_driving import made_up_batch
from ranks import run_ranks
from torch import Tensor
from toy import ALONE, ToyDetector, sample_numbers, toy_plan, toy_recipe, toy_sample_batch, toy_trainer

from configs.schema import Recipe
from detectors.interface import Detector
from detectors.zoo import build_detector
from scenes.sample import Batch
from training.world import World

RECIPE = toy_recipe("optimizer.clip_norm=1e9", "engine.ema=null")
FAMILIES = ("toy", "bevnext")
ONE_BATCH = "1 x (1 x 8)"
HEADS = ("heatmap", "xy", "z", "whl", "yaw", "vel")
LOSSES = {
    "toy": {"loss_boxes", "loss_depth"},
    "bevnext": {"loss_depth", *(f"task{task}.loss_{head}" for task in range(6) for head in HEADS)},
}


def detector_of(family: str, recipe: Recipe) -> Detector:
    torch.manual_seed(0)
    detector = ToyDetector() if family == "toy" else build_detector(recipe.model, recipe.data)
    return detector.double().eval()


def batch_of(family: str, numbers: list[int]) -> Batch:
    return toy_sample_batch(numbers) if family == "toy" else made_up_batch(RECIPE.data, numbers)


def gradients(family: str, world: World, batch_size: int) -> dict[str, Tensor]:
    """What one step of 8 samples leaves in Adam's first moments: (1 - beta1) times the gradient."""
    plan = toy_plan(RECIPE, world, batch_size)
    detector = detector_of(family, RECIPE)
    trainer = toy_trainer(detector, RECIPE, plan, world)
    batches = [batch_of(family, numbers) for numbers in sample_numbers(plan, world.rank, step=0)]
    report = trainer.train_step(batches)
    moments = trainer.state.optimizer.state
    found = {name: moments[parameter]["exp_avg"] for name, parameter in detector.named_parameters()}
    return found | {name: torch.tensor(value) for name, value in report.terms.items()}


def _gradients_of_rank(world: World, folder: Path) -> None:
    found = {family: {size: gradients(family, world, size) for size in (4, 2)} for family in FAMILIES}
    torch.save(found, folder / f"rank{world.rank}.pt")


def by_topology(folder: Path) -> dict[str, dict[str, dict[str, Tensor]]]:
    """Per family and topology: the gradients, and the losses as reported."""
    run_ranks(_gradients_of_rank, 2, folder)
    found = {
        family: {f"1 x ({8 // size} x {size})": gradients(family, ALONE, size) for size in (8, 1)}
        for family in FAMILIES
    }
    for rank in (0, 1):
        saved = torch.load(folder / f"rank{rank}.pt", weights_only=True)
        for family in FAMILIES:
            found[family] |= {
                f"2 x 4, rank {rank}": saved[family][4],
                f"2 x (2 x 2), rank {rank}": saved[family][2],
            }
    return found


def largest_difference(found: dict[str, Tensor], expected: dict[str, Tensor], losses: bool) -> float:
    """Over all gradients (or reported losses), relative to the largest value of each."""
    assert found.keys() == expected.keys()
    pairs = [(found[name], value) for name, value in expected.items() if ("loss_" in name) == losses]
    return max(float((one - other).abs().max() / other.abs().max().clamp(min=1e-30)) for one, other in pairs)


@pytest.fixture(scope="module")
def topologies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, Tensor]]]:
    return by_topology(tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_one_process(family: str, topologies: dict[str, dict[str, dict[str, Tensor]]]) -> None:
    expected = topologies[family].pop(ONE_BATCH)
    assert {name for name in expected if "loss_" in name} == LOSSES[family]  # every loss takes part
    assert all(float(expected[name]) > 0 for name in LOSSES[family])
    for topology, found in topologies[family].items():
        assert largest_difference(found, expected, losses=False) <= 1e-10, topology
        assert largest_difference(found, expected, losses=True) <= 1e-6, topology  # reports are float32
