"""`--batch-size auto`: the largest micro-batch that fits into the memory of every device, found by trying.

The launcher runs this module as a pass of its own before the run, on the processes that the run will have:
`torchrun ... -m training.batch_size --run-dir DIR --data-root DIR`. What running out of memory leaves behind in a
process cannot harm the run then. The answer goes to `batch_size.json` in the run directory.

All processes try the same candidates at the same time, and a candidate fits where it fits on all of them.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Final

import click
import torch

from configs import run_directory
from configs.errors import BevnextError, ExitCode
from configs.plan import Plan
from configs.recipes import load_recipe
from configs.replaced_file import replace_text
from configs.schema import Recipe
from scenes.dataset import SceneDataset
from scenes.index import open_index
from scenes.order import training_order
from scenes.sample import Sample, collate

from .memory import is_out_of_memory
from .outcome import record_outcome
from .run import build_state
from .trainer import Trainer
from .world import World, join_world, rank_of_environment

SPARE: Final = 0.05
"""Part of a device's memory that must stay free: batches differ, and memory fragments over a long run."""
STEPS: Final = 2
"""The optimiser's state is there from the second step on, so that is the one that needs most."""
SAMPLES: Final = 4
"""Different samples to fill the batches with."""


@dataclass
class Search:
    """Finds the largest of some candidates that fits; whatever fits, fits in smaller numbers, too."""

    fits: Callable[[int], bool]
    """Tries one; must give the same answer on all processes."""
    tried: dict[int, bool] = field(default_factory=dict)

    def largest(self, candidates: Sequence[int]) -> int | None:
        """The largest that fits, `None` if none does; ascending candidates, about 2 log2(n) trials.

        The steps upwards double, so that the first that does not fit is not far beyond memory.
        """
        good, step = -1, 1
        while good + step < len(candidates) and self._try(candidates[good + step]):
            good, step = good + step, 2 * step
        bad = min(good + step, len(candidates))
        while bad - good > 1:
            middle = (good + bad) // 2
            good, bad = (middle, bad) if self._try(candidates[middle]) else (good, middle)
        return candidates[good] if good >= 0 else None

    def _try(self, number: int) -> bool:
        if number not in self.tried:
            self.tried[number] = self.fits(number)
        return self.tried[number]


@dataclass(frozen=True)
class Probe:
    """Trains a few steps of nothing with a batch, to see whether it fits."""

    recipe: Recipe
    plan: Plan
    world: World
    samples: Sequence[Sample]

    def fits_everywhere(self, device_batch: int) -> bool:
        """The batch fits on all devices; the same answer on all processes."""
        does_not = torch.tensor(float(not self.fits_here(device_batch)), device=self.world.device)
        return self.world.sum(does_not).item() == 0

    def fits_here(self, device_batch: int) -> bool:
        """The batch fits on this process's device, with something to spare."""
        fits = self._fits(device_batch)
        release_memory(self.world.device)
        return fits

    def _fits(self, device_batch: int) -> bool:
        try:
            self._train(device_batch)
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if not is_out_of_memory(error):
                raise
            return False
        return share_left(self.world.device) >= SPARE

    def _train(self, device_batch: int) -> None:
        """Whole optimiser steps of a fresh detector, without the other processes: they may be out of memory."""
        alone = World(rank=0, size=1, device=self.world.device)
        state = build_state(self.recipe, self.plan, alone, None)
        trainer = Trainer(state, self.recipe, self.plan, alone)
        buckets = [torch.empty_like(parameter) for parameter in trainer.parameters] if self.world.size > 1 else []
        batch = collate(list(islice(cycle(self.samples), device_batch))).to(self.world.device)
        passes = min(2, self.plan.accumulation)  # gradients are held during the second one
        for _ in range(STEPS):
            trainer.train_step([batch] * passes)
        del buckets  # DDP's, which hold the gradients that are exchanged


def share_left(device: torch.device) -> float:
    """Free part of the device's memory while the cache still holds the most that was needed."""
    free, total = torch.get_device_module(device).mem_get_info(device)
    return float(free / total)


def release_memory(device: torch.device) -> None:
    """Give back what the last trial held."""
    gc.collect()
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()


def find_batch_size(run_dir: Path, data_root: Path, index_dir: Path | None) -> None:
    """Try the candidates of the plan in the run directory and write down the largest that fits.

    Raises:
        BevnextError: not even the smallest one fits.
    """
    recipe = load_recipe(str(run_dir / run_directory.RECIPE))
    plan = Plan.model_validate_json((run_dir / run_directory.PLAN).read_bytes())
    index = open_index(data_root, recipe.data.version, index_dir)
    rows = index.rows_in(recipe.data.train_split)
    order = training_order(index, rows, recipe.data, recipe.engine.seed)
    walks = recipe.data.streaming is not None
    dataset = SceneDataset(index, rows, recipe.data, True, recipe.engine.seed, key_images_only=walks)
    read = order.reads(0, plan.effective_batch)
    samples = [dataset[read(position)] for position in range(min(SAMPLES, len(order)))]
    torch.set_num_threads(plan.threads)
    with join_world(plan.device_kind, plan.device_ids) as world:
        search = Search(Probe(recipe, plan, world, samples).fits_everywhere)
        found = search.largest(plan.batch_candidates)
        if world.is_main:
            tell(run_dir, plan, search, found)
        world.text_from_main("told")  # no process ends before the answer is there
    if found is None:
        raise BevnextError(
            f"not even a micro-batch of {plan.batch_candidates[0]} fits into the memory of {plan.device_names[0]}",
            fix="--mixed-precision, --set model.backbone.checkpointing=true or a smaller data.image_size need less",
        )


def tell(run_dir: Path, plan: Plan, search: Search, found: int | None) -> None:
    """Write the answer, and say what was tried."""
    tried = ", ".join(f"{number} {'fits' if fits else 'does not fit'}" for number, fits in sorted(search.tried.items()))
    print(f"--batch-size auto on {plan.devices} x {plan.device_names[0]}: {tried}", flush=True)
    answer = {"device_batch": found, "tried": search.tried, "spare": SPARE, "device": plan.device_names[0]}
    replace_text(run_dir / run_directory.BATCH_SIZE, json.dumps(answer, indent=2) + "\n")


@click.command()
@click.option("--run-dir", required=True, type=click.Path(path_type=Path))
@click.option("--data-root", required=True, type=click.Path(path_type=Path))
@click.option("--index-dir", type=click.Path(path_type=Path))
def command(run_dir: Path, data_root: Path, index_dir: Path | None) -> None:
    """Find the largest batch that fits, for the plan in the run directory."""
    rank, _, _ = rank_of_environment()
    try:
        find_batch_size(run_dir, data_root, index_dir)
    except BevnextError as error:
        if record_outcome(run_dir, error.exit_code, rank, error.message, error.fix):
            print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    if rank == 0:
        record_outcome(run_dir, ExitCode.DONE, rank)
    sys.exit(ExitCode.DONE)


if __name__ == "__main__":
    command()
