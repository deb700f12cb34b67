"""What a checkpoint costs training: written before the next step, or beside the next steps.

    python tests/soak/checkpoint_writing.py --out benchmarks/results/checkpoint_writing.json

A fixed amount of computing follows each checkpoint, longer than the writing takes. `sync` adds the whole writing to it;
`async` adds the copy, and what the writer takes from the computing.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import torch

sys.path[:0] = [str(Path(__file__).parents[2])]

from benchmarks.machine import measured_on  # noqa: E402
from configs.plan import DeviceFacts, make_plan  # noqa: E402
from configs.recipes import load_recipe  # noqa: E402
from training.checkpoint_writer import CheckpointWriter  # noqa: E402
from training.checkpoints import CheckpointFolder, RunManifest  # noqa: E402
from training.reporter import SilentReporter  # noqa: E402
from training.run import build_state  # noqa: E402
from training.state import TrainingState  # noqa: E402
from training.world import World  # noqa: E402


def state_of(name: str) -> TrainingState:
    """A fresh state with the moments of one optimiser step."""
    recipe = load_recipe(name, ["model.backbone.weights=null"])
    plan = make_plan(recipe, samples=1000, devices=DeviceFacts())
    state = build_state(recipe, plan, World(0, 1, torch.device("cpu")), None)
    for group in state.optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    return state


def compute(rounds: int) -> float:
    """Seconds that a fixed amount of computing takes."""
    matrix = torch.ones(256, 256)
    begun = time.perf_counter()
    for _ in range(rounds):
        matrix @ matrix
    return time.perf_counter() - begun


def cost(state: TrainingState, folder: Path, beside: bool, rounds: int) -> tuple[float, float]:
    """Seconds until training goes on, and until a checkpoint and the computing after it are done."""
    manifest = RunManifest(
        step=1,
        epoch=0,
        recipe="",
        created="",
        files={},
        model={},
        effective_batch=1,
        steps_per_epoch=1,
        world_size=1,
    )
    with CheckpointWriter(CheckpointFolder(folder, keep_last=1), SilentReporter(), beside) as writer:
        begun = time.perf_counter()
        writer.write(manifest, state)
        stalled = time.perf_counter() - begun
        compute(rounds)
        writer.finish()
        return stalled, time.perf_counter() - begun


def measure(name: str, repeats: int) -> dict[str, Any]:
    state = state_of(name)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        written = cost(state, folder, False, 0)[0]
        rounds = int(1000 * 1.5 * written / compute(1000)) + 1
        alone = statistics.median(compute(rounds) for _ in range(repeats))
        sync = [cost(state, folder, False, rounds) for _ in range(repeats)]
        beside = [cost(state, folder, True, rounds) for _ in range(repeats)]
        size = sum(path.stat().st_size for path in (folder / "step_00000001").iterdir())
    return {
        "recipe": name,
        "megabytes": round(size / 1e6),
        "sync_stall_seconds": round(statistics.median(stall for stall, _ in sync), 3),
        "async_stall_seconds": round(statistics.median(stall for stall, _ in beside), 3),
        "sync_cost_seconds": round(statistics.median(total for _, total in sync) - alone, 3),
        "async_cost_seconds": round(statistics.median(total for _, total in beside) - alone, 3),
    }


@click.command(help=__doc__)
@click.option("--repeats", default=3, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures there, as JSON.")
def main(repeats: int, out: Path | None) -> None:
    torch.set_num_threads(1)
    rows = [measure(name, repeats) for name in ("synthetic/bevnext-tiny", "bevnext/bevnext-stage1")]
    report = {**measured_on("torch", "safetensors"), "benchmark": "checkpoint_writing", "rows": rows}
    print(json.dumps(report, indent=1))
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
