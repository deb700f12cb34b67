"""One rank of `bench scaling`: blocks of steps of our training loop and of a bare DDP loop, in turn, timed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import torch
import torch.distributed as dist
from rich.console import Console
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from configs.plan import DeviceFacts, Plan, PlanOptions, make_plan
from configs.recipes import load_recipe, with_version
from configs.schema import Recipe
from scenes.dataset import SceneDataset
from scenes.index import SceneIndex, open_index
from scenes.sample import Batch, collate
from training.checkpoint_writer import CheckpointWriter
from training.checkpoints import CheckpointFolder
from training.loop import Run, train
from training.reporter import Reporter, SilentReporter
from training.run import build_state
from training.stop_signal import StopSignal
from training.trainer import Trainer
from training.watchdog import Watchdog
from training.world import World, join_world, rank_of_environment

ENDLESS = 10**6
"""Samples of an epoch: neither its end nor that of the run comes in between."""


@dataclass(frozen=True)
class Setting:
    """What both loops work on."""

    recipe: Recipe
    plan: Plan
    world: World
    batch: Batch
    index: SceneIndex


@click.command()
@click.option("--data-root", type=click.Path(path_type=Path), required=True)
@click.option("--version", required=True)
@click.option("--index-dir", type=click.Path(path_type=Path))
@click.option("--config", required=True)
@click.option("--batch-size", type=int, required=True)
@click.option("--steps", type=int, required=True)
@click.option("--blocks", type=int, required=True)
@click.option("--result", type=click.Path(path_type=Path), required=True)
def command(
    data_root: Path,
    version: str,
    index_dir: Path | None,
    config: str,
    batch_size: int,
    steps: int,
    blocks: int,
    result: Path,
) -> None:
    """Time the blocks; rank 0 writes the result."""
    rank, local_rank, size = rank_of_environment()
    torch.set_num_threads(1)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[local_rank % len(cores)]})
    index = open_index(data_root, version, index_dir)
    height, width = index.frame(0).image_size
    recipe = with_version(load_recipe(config, (f"data.source_size=[{height}, {width}]",)), version)
    options = PlanOptions(num_devices=size, batch_size=batch_size, gradient_accumulation=1, threads=1, workers=0)
    plan = make_plan(recipe, samples=ENDLESS, devices=DeviceFacts(cpu_cores=size), options=options)
    with join_world("cpu", plan.device_ids) as world, tempfile.TemporaryDirectory() as folder:
        batch = _batch(index, recipe, batch_size, rank)
        setting = Setting(recipe, plan, world, batch, index)
        with _our_loop(setting, Path(folder)) as ours:
            bare = _bare_loop(setting)
            seconds = _race(ours, bare, steps, blocks, world)
        if world.is_main:
            result.write_text(json.dumps({"samples": steps * batch_size * size} | seconds))


def _batch(index: SceneIndex, recipe: Recipe, batch_size: int, rank: int) -> Batch:
    rows = index.rows_in(recipe.data.train_split)
    dataset = SceneDataset(index, rows, recipe.data, training=True)
    return collate([dataset[(rank * batch_size + number) % len(dataset)] for number in range(batch_size)])


Loop = Callable[[int], None]
"""Does so many optimiser steps."""


def _race(ours: Loop, bare: Loop, steps: int, blocks: int, world: World) -> dict[str, list[float]]:
    """Seconds of each block; who begins changes from block to block. One block each is for warming up."""
    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    loops = [("ours", ours), ("bare", bare)]
    for block in range(blocks + 1):
        for name, loop in loops if block % 2 else reversed(loops):
            _meet(world)
            begun = time.perf_counter()
            loop(steps)
            _meet(world)
            if block:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def _meet(world: World) -> None:
    if world.size > 1:
        dist.barrier()


@contextlib.contextmanager
def _our_loop(setting: Setting, run_dir: Path) -> Iterator[Loop]:
    """The loop that `train` runs, with its log, its guards and its moving average."""
    recipe, plan, world = setting.recipe, setting.plan, setting.world
    state = build_state(recipe, plan, world, None)
    folder = CheckpointFolder(run_dir / "checkpoints", recipe.engine.keep_last)
    stop = StopSignal()
    quiet = Console(file=io.StringIO())
    with (
        Watchdog(run_dir, world, stop, recipe.engine.guards.hang_seconds) as watchdog,
        Reporter(run_dir, plan, 10, 0, quiet) if world.is_main else SilentReporter() as reporter,
        CheckpointWriter(folder, reporter, beside=False) as writer,
    ):
        run = Run(
            run_dir=run_dir,
            recipe=recipe,
            plan=plan,
            world=world,
            trainer=Trainer(state, recipe, plan, world),
            folder=folder,
            writer=writer,
            reporter=reporter,
            stop=stop,
            watchdog=watchdog,
            index=setting.index,
        )
        yield lambda steps: _go(run, setting.batch, steps)


def _go(run: Run, batch: Batch, steps: int) -> None:
    train(run, [batch] * steps)


def _bare_loop(setting: Setting) -> Loop:
    """The least that trains: forward, loss, backward with DDP, clip, step."""
    state = build_state(setting.recipe, setting.plan, setting.world, None)
    detector, optimizer = state.detector, state.optimizer
    network: nn.Module = detector
    if setting.world.size > 1:
        network = DistributedDataParallel(detector, gradient_as_bucket_view=True)
    parameters = list(detector.parameters())
    clip_norm = setting.recipe.optimizer.clip_norm

    def loop(steps: int) -> None:
        for _ in range(steps):
            terms = detector.loss(network(setting.batch), detector.targets(setting.batch))
            torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return loop


if __name__ == "__main__":
    command()
