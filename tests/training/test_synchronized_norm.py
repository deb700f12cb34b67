"""Batch norm over two processes is batch norm over one process with all samples: outputs, gradients, statistics."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from test_topologies import batch_of
from torch import Tensor, nn
from toy import ALONE, sample_numbers, toy_plan, toy_recipe, toy_trainer

from detectors.layers.synchronized_norm import synchronize_norms
from detectors.zoo import build_detector
from training.world import World

RECIPE = toy_recipe("optimizer.clip_norm=1e9", "engine.ema=null", "engine.sync_bn={from_epoch: 0}")
SHAPES = [(6, 5), (6, 5, 4, 3)]


def layer(dimensions: int) -> nn.Sequential:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(5) if dimensions == 2 else nn.BatchNorm2d(5)
    nn.init.normal_(norm.weight)
    return nn.Sequential(norm).double()


def values(shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * 3 + 7


def through(network: nn.Module, x: Tensor, upstream: Tensor) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    out = network(x)
    (out * upstream).sum().backward()
    assert x.grad is not None
    return {"out": out.detach(), "grad": x.grad}


def _halves(world: World, folder: Path) -> None:
    """Rank 0 has a third of the values, rank 1 two thirds."""
    found = {}
    for shape in SHAPES:
        network = layer(len(shape))
        synchronize_norms(network)
        rows = slice(0, 2) if world.rank == 0 else slice(2, 6)
        found[str(shape)] = through(network, values(shape)[rows], values(shape)[rows].cos()) | dict(
            network.named_buffers()
        )
        found[str(shape)] |= {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    torch.save(found, folder / f"norm{world.rank}.pt")


def test_two_processes_normalise_as_one(tmp_path: Path) -> None:
    run_ranks(_halves, 2, tmp_path)
    first, second = (torch.load(tmp_path / f"norm{rank}.pt", weights_only=True) for rank in (0, 1))
    for shape in SHAPES:
        network = layer(len(shape))
        expected = through(network, values(shape), values(shape).cos())
        for name in ("out", "grad"):
            whole = torch.cat([first[str(shape)][name], second[str(shape)][name]])
            torch.testing.assert_close(whole, expected[name], rtol=1e-12, atol=1e-12)
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(first[str(shape)][name] + second[str(shape)][name], parameter.grad)
        for name, buffer in network.named_buffers():
            torch.testing.assert_close(first[str(shape)][name], buffer)
            torch.testing.assert_close(second[str(shape)][name], buffer)


def step_of_network(world: World, batch_size: int) -> dict[str, Tensor]:
    """Gradients and statistics after one step of the small detector in training mode, without dropout."""
    torch.manual_seed(0)
    detector = build_detector(RECIPE.model, RECIPE.data).double().train()
    for module in detector.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    plan = toy_plan(RECIPE, world, batch_size)
    trainer = toy_trainer(detector, RECIPE, plan, world)
    trainer.train_step([batch_of("bevnext", numbers) for numbers in sample_numbers(plan, world.rank, step=0)])
    moments = trainer.state.optimizer.state
    found = {name: moments[parameter]["exp_avg"] for name, parameter in detector.named_parameters()}
    return found | {name: buffer for name, buffer in detector.named_buffers() if "running" in name}


def _step(world: World, folder: Path) -> None:
    torch.save(step_of_network(world, 4), folder / f"step{world.rank}.pt")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_step_of_the_detector_is_the_step_of_one_process(rank: int, step_folder: Path) -> None:
    found = torch.load(step_folder / f"step{rank}.pt", weights_only=True)
    for name, expected in step_of_network(ALONE, 8).items():
        scale = expected.abs().max().clamp(min=1e-5)  # a bias before a norm has no gradient but rounding
        difference = float((found[name] - expected).abs().max() / scale)
        assert difference < 1e-8, f"{name}: {difference:.1e}"


@pytest.fixture(scope="module")
def step_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synchronized")
    run_ranks(_step, 2, folder)
    return folder
