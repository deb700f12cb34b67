"""One optimiser step whatever the topology: equal gradients in float64, with frozen statistics.

The micro-batches have uneven numbers of positives, and frames without boxes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from made_up_driving import made_up_batch
from torch import Tensor
from toy import ALONE, ToyDetector, rendezvous, sample_numbers, toy_plan, toy_recipe, toy_sample_batch, toy_trainer

from configs.schema import Recipe
from detectors.interface import Detector
from detectors.zoo import build_detector
from scenes.sample import Batch
from training.world import World

RECIPE = toy_recipe("optimizer.clip_norm=1e9", "engine.ema=null")
FAMILIES = ("toy", "bevnext")
TOLERANCE = 1e-10


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


def _two_ranks(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=rendezvous(folder), rank=rank, world_size=2)
    world = World(rank=rank, size=2, device=torch.device("cpu"))
    found = {family: {size: gradients(family, world, size) for size in (4, 2)} for family in FAMILIES}
    torch.save(found, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, Tensor]]]:
    """Per family and topology."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(_two_ranks, (folder,), nprocs=2)  # type: ignore[no-untyped-call]
    found: dict[str, dict[str, dict[str, Tensor]]] = {family: {} for family in FAMILIES}
    for rank in (0, 1):
        saved = torch.load(folder / f"rank{rank}.pt", weights_only=True)
        for family in FAMILIES:
            found[family] |= {
                f"rank {rank} of 2 x 4": saved[family][4],
                f"rank {rank} of 2 x (2 x 2)": saved[family][2],
            }
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_one_process(family: str, of_two_ranks: dict[str, dict[str, dict[str, Tensor]]]) -> None:
    expected = gradients(family, ALONE, batch_size=8)
    topologies = {"1 x (8 x 1)": gradients(family, ALONE, batch_size=1), **of_two_ranks[family]}
    assert all(value.abs().max() > 0 for name, value in expected.items() if "loss" in name)
    for topology, found in topologies.items():
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            tolerance = (1e-6 if "loss" in name else TOLERANCE) * float(value.abs().max())  # reports are float32
            largest = float((found[name] - value).abs().max())
            assert largest <= tolerance, (topology, name, largest, float(value.abs().max()))
