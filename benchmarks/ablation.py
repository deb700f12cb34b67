"""`bevnext-sam2 bench ablation`: what SAM 2's features are worth in a detector, beside the controls of such a claim.

Every arm is the same recipe with the same seed, start weights, samples in the same order, augmentation and number of
steps. The arm that decides is `random`: the same adapters on a SAM 2 that knows nothing. What `sam2` has over `plain`
can come from more capacity; what it has over `random` comes from what SAM 2 learnt.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from benchmarks.machine import measured_on
from benchmarks.result_file import out_option, write_result
from configs import run_directory
from configs.errors import BevnextError, UsageError
from evaluation.checkpoint_files import find_checkpoint, read_manifest
from launcher.own_process import ROOT, own_environment
from scenes.command_options import data_set_options, index_dir_option, say_if_synthetic

TRAINER: Final = "training.train_bevnext_sam2"
PLAIN: Final = "plain"
ARMS: Final = {
    PLAIN: "without SAM 2",
    "random": "adapters on a frozen SAM 2 of random weights (control)",
    "sam2": "adapters on the frozen, trained SAM 2",
    "unfrozen": "the same; its last stage and norms train from half time on",
}
SHOWN: Final = ("mAP", "NDS", "mATE", "mAOE")
Measurement = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """What all arms share."""

    recipe: str
    weights: Path
    start: Path | None
    epochs: int
    data: list[str]
    overrides: tuple[str, ...]
    options: list[str]

    def arguments(self, arm: str, seed: int) -> list[str]:
        """Of the trainer, but for the run directory."""
        trained = f"sam2.weights={self.weights}"
        own = {
            PLAIN: ["sam2=null"],
            "random": ["sam2.weights=null", "sam2.random=true"],
            "sam2": [trained],
            "unfrozen": [trained, f"sam2.unfreeze_at_epoch={self.epochs // 2}"],
        }[arm]
        start = [] if self.start is None else [f"model.hand_over={self.start}"]
        settings = [*start, *self.overrides, *own, f"engine.seed={seed}", "engine.evaluate_every=0"]
        changed = [part for setting in settings for part in ("--set", setting)]
        return ["--config", self.recipe, "--epochs", str(self.epochs), *self.data, *changed, *self.options]


@click.command()
@data_set_options
@index_dir_option
@click.option(
    "--config", default="synthetic/bevnext-tiny-sam2", show_default=True, metavar="NAME|PATH", help="Recipe with SAM 2."
)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of the recipe, in all arms."
)
@click.option(
    "--sam2-weights",
    type=click.Path(path_type=Path),
    default="outputs/sam2-nano/sam2.safetensors",
    show_default=True,
    help="Of the SAM 2 that the recipe names.",
)
@click.option(
    "--start",
    type=click.Path(path_type=Path),
    help="Weights that all arms start from, such as those of an image branch. Default: random ones.",
)
@click.option("--epochs", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--arm", "arms", type=click.Choice(list(ARMS)), multiple=True, help="Only these. Default: all.")
@click.option("--seed", "seeds", type=int, multiple=True, default=(0,), show_default=True, help="One round each.")
@click.option("--device", metavar="cpu|cuda|...", help="Device type [default: what is there].")
@click.option(
    "--runs", type=click.Path(path_type=Path), default="outputs/ablation", show_default=True, help="Where the runs go."
)
@out_option
def ablation(
    data_root: Path,
    version: str,
    index_dir: Path | None,
    config: str,
    overrides: tuple[str, ...],
    sam2_weights: Path,
    start: Path | None,
    epochs: int,
    arms: tuple[str, ...],
    seeds: tuple[int, ...],
    device: str | None,
    runs: Path,
    out: Path | None,
) -> None:
    """Train a detector without SAM 2, with a random one, with a trained one, and with one whose last stage trains.

    The same command goes on with what is not done yet; the result is written after every arm.
    """
    say_if_synthetic(version)
    index = [] if index_dir is None else ["--index-dir", str(index_dir.absolute())]
    data = ["--data-root", str(data_root.absolute()), "--version", version, *index]
    options = [] if device is None else ["--device", device]
    weights = _existing(sam2_weights, "--sam2-weights", "`bevnext-sam2 sam2 train --out outputs/sam2-nano` makes them")
    start = start and _existing(start, "--start", "name a file such as outputs/RUN/checkpoints/latest/ema.safetensors")
    setting = Setting(config, weights, start, epochs, data, overrides, options)
    result = measured_on("torch", "sam2") | {
        "benchmark": "ablation",
        "baseline": ARMS[PLAIN],
        "recipe": config,
        "data": version,
        "changed": list(overrides),
        "start": "random weights" if start is None else "the same weights in all arms",
        "epochs": epochs,
        "arms": [],
    }
    for line in run_arms(setting, arms or tuple(ARMS), seeds, runs.absolute()):
        result["arms"].append(line)
        write_result(result, out)
    Console().print(table(result))


def run_arms(setting: Setting, arms: Sequence[str], seeds: Sequence[int], runs: Path) -> Iterator[Measurement]:
    """Metrics of every arm with every seed, one after the other; those whose runs are done are not trained again."""
    for seed in seeds:
        for arm in arms:
            run = runs / f"{arm}-seed{seed}"
            seconds = None
            if not _metrics(run):
                click.echo(f"seed {seed}, {arm}: {ARMS[arm]} ...", err=True)
                seconds = _train([*setting.arguments(arm, seed), "--run-dir", str(run)], run)
            metrics = {name: round(value, 4) for name, value in _metrics(run).items()}
            yield {"arm": arm, "seed": seed, "cpu_seconds": seconds, "metrics": metrics}


def _existing(path: Path, option: str, fix: str) -> Path:
    if not path.is_file():
        raise UsageError(f"{option} {path}: no such file", fix=fix)
    return path.absolute()


def _metrics(run: Path) -> dict[str, float]:
    """Of the last checkpoint of a run; empty while it is not done."""
    if not (run / run_directory.CHECKPOINTS).is_dir():
        return {}
    try:
        return read_manifest(find_checkpoint(run), verify=False).metrics
    except UsageError:  # stopped before its first checkpoint
        return {}


def _train(arguments: list[str], run: Path) -> float:
    """Processor seconds of a run to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run.mkdir(parents=True, exist_ok=True)
    with (run / "said.log").open("a") as said:
        done = subprocess.run(
            [sys.executable, "-m", TRAINER, *arguments],
            cwd=ROOT,
            env=own_environment(),
            stdout=said,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        raise BevnextError(
            f"{run.name} ended with exit code {done.returncode}: {_last_line(run / 'said.log')}",
            fix=f"see {run / 'said.log'}; the same command goes on",
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1)


def _last_line(path: Path) -> str:
    lines = path.read_text().strip().splitlines()
    return next((line for line in reversed(lines) if line.startswith("error")), lines[-1] if lines else "(silent)")


def table(result: Measurement) -> Table:
    """One line an arm and seed, with the difference to the plain detector of the same seed."""
    plain = {line["seed"]: line["metrics"] for line in result["arms"] if line["arm"] == PLAIN}
    shown = Table(title=f"{result['recipe']}, {result['epochs']} epochs of {result['data']}")
    shown.add_column("arm")
    for heading in ("seed", *SHOWN, "mAP - plain", "NDS - plain", "CPU s"):
        shown.add_column(heading, justify="right")
    for line in result["arms"]:
        metrics, base = line["metrics"], plain.get(line["seed"])
        differences = [f"{metrics[name] - base[name]:+.4f}" if base else "" for name in ("mAP", "NDS")]
        seconds = "" if line["cpu_seconds"] is None else f"{line['cpu_seconds']:.0f}"
        values = [f"{metrics[name]:.3f}" for name in SHOWN]
        shown.add_row(line["arm"], str(line["seed"]), *values, *differences, seconds)
    return shown
