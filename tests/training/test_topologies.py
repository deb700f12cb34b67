"""One optimiser step whatever the topology: equal gradients in float64."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from toy import ALONE, ToyDetector, rendezvous, step_batches, toy_plan, toy_recipe, toy_trainer

from training.world import World


def gradients(world: World, batch_size: int) -> dict[str, Tensor]:
    """What one step of 8 samples leaves in the first moments: (1 - beta1) times the clipped gradient."""
    torch.manual_seed(0)
    recipe = toy_recipe("optimizer.clip_norm=1e9", "engine.ema=null")
    plan = toy_plan(recipe, world, batch_size)
    trainer = toy_trainer(ToyDetector().double(), recipe, plan, world)
    report = trainer.train_step(step_batches(plan, world.rank, step=0))
    moments = trainer.state.optimizer.state_dict()["state"]
    found = {str(number): value["exp_avg"] for number, value in moments.items()}
    return {**found, "norm": torch.tensor(report.grad_norm), "loss": torch.tensor(report.loss)}


def _two_ranks(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=rendezvous(folder), rank=rank, world_size=2)
    world = World(rank=rank, size=2, device=torch.device("cpu"))
    found = {batch_size: gradients(world, batch_size) for batch_size in (4, 2)}
    torch.save(found, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


def test_gradients_are_those_of_one_process(tmp_path: Path) -> None:
    expected = gradients(ALONE, batch_size=8)
    mp.spawn(_two_ranks, (tmp_path,), nprocs=2)  # type: ignore[no-untyped-call]
    topologies = {"1 x (8 x 1)": gradients(ALONE, batch_size=1)}
    for rank in (0, 1):
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        topologies |= {f"rank {rank} of 2 x 4": found[4], f"rank {rank} of 2 x (2 x 2)": found[2]}
    assert expected["norm"] > 0.1
    for topology, found in topologies.items():
        for name, value in expected.items():
            tolerance = 1e-6 if name in ("norm", "loss") else 1e-12  # reports travel as float32
            torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance, msg=f"{topology}: {name}")
