"""`bevnext-sam2 bench scaling`: samples per second on 1 to N ranks, and the trainer against a bare DDP loop.

Every rank computes with one thread, on a core of its own, and has the same batch whatever the number of ranks; the
batches lie in memory, so nothing is read. The numbers of ranks take turns, so that a machine that slows down slows
all of them. As many trainings that know nothing of each other, on the same cores, show what the machine itself loses
when all its cores work (memory, caches, clocks): no number of ranks can scale better.

Ranks that exchange gradients go as fast as the core that is slowest at that step. On a machine whose cores fluctuate
(a virtual one beside others) the median therefore falls with the number of ranks, whatever the trainer does; the
fastest tenth of the steps shows the trainer without that. Both are said.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.machine import measured_on
from benchmarks.result_file import out_option, write_result
from configs.errors import BevnextError
from launcher.own_process import ROOT, own_environment
from scenes.command_options import data_set_options, index_dir_option, say_if_synthetic

WORKER: Final = "benchmarks.scaling_worker"
TARGET_SPEEDUP: Final = 1.95
"""On two ranks."""
TARGET_OVERHEAD: Final = 0.03
UNDISTURBED: Final = 0.1
"""Share of the blocks, the fastest ones, whose slowest stands for a machine without other work."""
Measurement = dict[str, Any]


@click.command()
@data_set_options
@index_dir_option
@click.option("--config", default="synthetic/bevnext-tiny", show_default=True, metavar="NAME|PATH", help="Recipe.")
@click.option("--ranks", type=click.IntRange(min=1), metavar="N", help="Most ranks. Default: one for each core.")
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=4, show_default=True, help="Samples of a rank's step."
)
@click.option("--steps", type=click.IntRange(min=1), default=1, show_default=True, help="Steps of a block.")
@click.option(
    "--blocks", type=click.IntRange(min=1), default=25, show_default=True, help="Blocks of each loop, in turn."
)
@click.option(
    "--passes", type=click.IntRange(min=1), default=3, show_default=True, help="Turns of all numbers of ranks."
)
@out_option
def scaling(
    data_root: Path,
    version: str,
    index_dir: Path | None,
    config: str,
    ranks: int | None,
    batch_size: int,
    steps: int,
    blocks: int,
    passes: int,
    out: Path | None,
) -> None:
    """Measure efficiency on 1 to N ranks of the CPU, one thread each, and the trainer's overhead over a bare DDP loop.

    Keep the machine quiet meanwhile. The result says how busy it was.
    """
    say_if_synthetic(version)
    cores = sorted(os.sched_getaffinity(0))
    counts = range(1, (ranks or len(cores)) + 1)
    if counts[-1] > len(cores):
        click.echo(f"note: {counts[-1]} ranks share {len(cores)} core(s); the efficiency says nothing", err=True)
    index = [] if index_dir is None else ["--index-dir", str(index_dir.absolute())]
    place = ["--data-root", str(data_root.absolute()), "--version", version, *index]
    size = ["--config", config, "--batch-size", str(batch_size), "--steps", str(steps), "--blocks", str(blocks)]
    measured: dict[int, list[Measurement]] = {count: [] for count in counts}
    apart: list[Measurement] = []
    psutil.cpu_percent()
    busy_before = psutil.cpu_percent(interval=1.0)
    for number in range(passes):
        for count in counts:
            click.echo(f"pass {number + 1} of {passes}: {count} rank(s) ...", err=True)
            measured[count].append(measure(count, [*place, *size]))
        click.echo(f"pass {number + 1} of {passes}: {counts[-1]} training(s) apart from each other ...", err=True)
        apart += measure_apart(counts[-1], cores, [*place, *size])
    result = measured_on("torch") | {
        "benchmark": "scaling",
        "baseline": "one rank with the same batch; for the overhead a bare DistributedDataParallel loop in turn",
        "recipe": config,
        "device": "CPU, one thread and one core for each rank, gloo",
        "batch_of_a_rank": batch_size,
        "other_load_percent": busy_before,
        "ranks": summary(measured),
        "apart": {"trainings": counts[-1], "speedup": speedup_apart(apart, counts[-1], measured[1])},
        "targets": {"speedup_on_2_ranks": TARGET_SPEEDUP, "overhead": TARGET_OVERHEAD},
    }
    _show(result)
    write_result(result, out)


def measure(ranks: int, arguments: list[str], core: int | None = None) -> Measurement:
    """Seconds of every block on `ranks` ranks: `{"samples": per block, "ours": [...], "bare": [...]}`.

    Args:
        core: the only one to use.

    Raises:
        BevnextError: a process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        pinned = [] if core is None else ["taskset", "--cpu-list", str(core)]
        start = [*pinned, sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        done = subprocess.run(
            [*start, "-m", WORKER, *arguments, "--result", str(result)],
            cwd=ROOT,
            env=own_environment({"OMP_NUM_THREADS": "1"}),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BevnextError(f"{ranks} rank(s) ended with exit code {done.returncode}:\n{done.stderr[-3000:]}")
        content: Measurement = json.loads(result.read_bytes())
        return content


def measure_apart(count: int, cores: list[int], arguments: list[str]) -> list[Measurement]:
    """`count` trainings on one rank each, at the same time, each on a core of its own."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda number: measure(1, arguments, cores[number % len(cores)]), range(count)))


def speedup_apart(apart: list[Measurement], count: int, alone: list[Measurement]) -> float:
    """What `count` trainings apart from each other do in the time of one that is alone on the machine."""
    return round(count * _seconds(alone) / _seconds(apart), 3)


def _seconds(passes: list[Measurement], loop: str = "ours") -> float:
    return float(median(seconds for one in passes for seconds in one[loop]))


def _undisturbed_seconds(passes: list[Measurement], loop: str = "ours") -> float:
    fastest_first = sorted(seconds for one in passes for seconds in one[loop])
    return float(fastest_first[int(len(fastest_first) * UNDISTURBED)])


def summary(measured: dict[int, list[Measurement]]) -> list[Measurement]:
    """For each number of ranks: medians over all blocks and the fastest tenth, against one rank and the bare loop."""
    return [_line(count, passes, measured[1]) for count, passes in measured.items()]


def _line(count: int, passes: list[Measurement], alone: list[Measurement]) -> Measurement:
    samples = passes[0]["samples"]
    speedup = count * _seconds(alone) / _seconds(passes)
    pairs = [ours / bare for one in passes for ours, bare in zip(one["ours"], one["bare"], strict=True)]
    return {
        "ranks": count,
        "samples_per_second": round(samples / _seconds(passes), 3),
        "speedup": round(speedup, 3),
        "efficiency": round(speedup / count, 4),
        "bare_samples_per_second": round(samples / _seconds(passes, "bare"), 3),
        "overhead": round(median(pairs) - 1, 4),
        "undisturbed": {
            loop: round(count * _undisturbed_seconds(alone, loop) / _undisturbed_seconds(passes, loop), 3)
            for loop in ("ours", "bare")
        },
    }


def _show(result: Measurement) -> None:
    table = Table(title=f"{result['recipe']}, {result['batch_of_a_rank']} samples a step and rank, one thread each")
    for heading in ("ranks", "samples/s", "speed-up", "efficiency", "fastest", "bare DDP", "overhead"):
        table.add_column(heading, justify="right")
    for line in result["ranks"]:
        table.add_row(
            str(line["ranks"]),
            f"{line['samples_per_second']:.2f}",
            f"{line['speedup']:.2f}",
            f"{line['efficiency']:.1%}",
            f"{line['undisturbed']['ours']:.2f}",
            f"{line['bare_samples_per_second']:.2f}",
            f"{line['overhead']:+.1%}",
        )
    console = Console()
    console.print(table)
    apart = result["apart"]
    console.print(
        f"{apart['trainings']} trainings apart from each other: {apart['speedup']:.2f}, the most the machine gives"
    )
    console.print("fastest: speed-up of the fastest tenth of the steps, as on cores that do not fluctuate")
    console.print(f"other load when it began: {result['other_load_percent']:.0f} % of the machine")
