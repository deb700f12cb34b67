"""The whole job as a list of our own commands, run in order; finished ones are remembered and not repeated."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from configs import run_directory
from configs.batch_arithmetic import largest_divisor
from configs.errors import DataError, ExitCode, UsageError
from configs.index_location import HEADER, index_directory
from configs.mask_weights import NANO_FILE, NANO_FOLDER, fetched_weights
from configs.recipes import SPLITS_OF_VERSION, load_recipe
from configs.replaced_file import replace_text
from configs.synthetic_set import SYNTHETIC_SIZE, SYNTHETIC_VERSION
from launcher.dataset import absolute
from launcher.own_process import ROOT, own_command, own_environment, shown
from launcher.supervision import PASSED_ON, supervise
from monitoring.devices import survey_gpus

# The size of the job.
RECIPE: Final = "synthetic/bevnext-tiny"
START_RECIPE: Final = "synthetic/bevnext-tiny-perspective"
CPU_PROCESSES: Final = 2
PICTURES: Final = 4

RUN: Final = "quickstart"
START_RUN: Final = "quickstart-image-branch"
START_WEIGHTS: Final = "ema.safetensors"
"""The averaged weights in a checkpoint."""
MEMORY: Final = "quickstart.json"
"""In the run directory: the arguments of the steps that are done."""
MASKS_HINT: Final = "bevnext-sam2 quickstart --masks trains a small SAM 2 (9 minutes more) and draws them"
GRACE_SECONDS: Final = 180.0
"""For the step that is stopped; training needs the most, see its plan."""
STOPPED: Final = (ExitCode.DONE, ExitCode.PREEMPTED, *(128 + number for number in PASSED_ON.values()))
"""Codes of steps that were asked to stop and did: a training has saved, another step is done again."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the job works; both absolute."""

    output_dir: Path
    data_root: Path

    @property
    def run_dir(self) -> Path:
        """Run directory of the training."""
        return self.output_dir / RUN

    @property
    def start_weights(self) -> Path:
        """Weights of the image branch, trained alone."""
        return self.output_dir / START_RUN / run_directory.CHECKPOINTS / "latest" / START_WEIGHTS

    @property
    def latest(self) -> Path:
        """The newest checkpoint, a link."""
        return self.run_dir / run_directory.CHECKPOINTS / "latest"

    @property
    def scores(self) -> Path:
        """What `eval` writes about the newest checkpoint."""
        return self.run_dir / run_directory.RESULTS / self.latest.resolve().name / "metrics.json"

    @property
    def pictures(self) -> Path:
        """Folder of the pictures of a held-out scene."""
        return self.run_dir / run_directory.FIGURES / "held_out_scene"

    @property
    def nano(self) -> Path:
        """Weights of SAM 2 nano, where `sam2 train` puts them."""
        return self.output_dir / NANO_FOLDER / NANO_FILE

    @property
    def masks(self) -> Path:
        """Masks of the held-out scene; their pictures lie beside them."""
        return self.run_dir / run_directory.FIGURES / "held_out_masks" / "masks.json"

    @property
    def report(self) -> Path:
        """The page about the run."""
        return self.run_dir / run_directory.REPORT

    @property
    def index(self) -> Path:
        """Header of the index."""
        return index_directory(self.data_root, SYNTHETIC_VERSION) / HEADER


@dataclass(frozen=True, slots=True)
class Step:
    """One command of ours."""

    title: str
    arguments: Callable[[], list[str]]
    """Made when the step's turn comes: the name of a held-out scene is known only then."""
    makes: Callable[[], Path] | None = None
    """What is there afterwards; the step is done again if it is not. `None` for a step that only shows something."""


def steps_of(place: Place, *, seed: int, fresh: bool, masks: bool = False) -> list[Step]:
    """The job in order; with `masks`, or where weights of SAM 2 are, it ends with masks."""
    data = ["--data-root", str(place.data_root), "--version", SYNTHETIC_VERSION]
    synth = ["data", "synth", "--out", str(place.data_root), "--seed", str(seed), *SYNTHETIC_SIZE]
    synth += ["--overwrite"] if fresh else []
    common = ["--set", f"engine.seed={seed}", *data, "--output-dir", str(place.output_dir), "--resume", "auto"]
    start = ["--config", START_RECIPE, *_devices(START_RECIPE), *common, "--run", START_RUN]
    training = ["--config", RECIPE, *_devices(RECIPE), *common, "--run", RUN]
    training += ["--set", f"model.weights={place.start_weights}"]
    training += ["--set", "engine.evaluate_every=null"]  # `eval` follows, with pictures
    run = ["--run", str(place.run_dir), *data]
    return [
        Step("Make a synthetic driving set: six cameras, LiDAR, boxes", lambda: synth, lambda: place.data_root),
        Step("Index it for fast reading", lambda: ["data", "index", *data], lambda: place.index),
        Step("Train the image branch alone: depth and classes", lambda: ["train", *start], lambda: place.start_weights),
        Step("Plan the training of the whole network", lambda: ["plan", *training]),
        Step("Train it", lambda: ["train", *training], lambda: place.latest),
        Step(
            "Score it on scenes it has never seen",
            lambda: ["eval", *run, "--pictures", str(PICTURES)],
            lambda: place.scores,
        ),
        Step(
            "Draw a held-out scene: cameras, view from above, film",
            lambda: ["infer", *run, "--scene", held_out_scene(place.data_root), "--out", str(place.pictures)],
            lambda: place.pictures,
        ),
        *_mask_steps(place, data, train=masks),
        Step("Write the report", lambda: ["report", "--run", str(place.run_dir)], lambda: place.report),
    ]


def _mask_steps(place: Place, data: list[str], *, train: bool) -> list[Step]:
    """Masks of the held-out scene: by published weights of SAM 2 if some were fetched, else by small ones.

    The small ones are trained first if that is asked for; where there are none, there are no masks.
    """
    published = fetched_weights()
    weights = place.nano if published is None else absolute(published)
    training = ["sam2", "train", "--data-root", str(place.data_root), "--out", str(place.nano.parent)]
    drawing = ["demo", "--run", str(place.run_dir), *data, "--sam2-weights", str(weights)]
    steps = []
    if train and published is None:
        steps.append(Step("Train a small SAM 2", lambda: training, lambda: place.nano))
    if steps or weights.is_file():
        steps.append(
            Step(
                f"Draw masks of what was found in the held-out scene, by {weights.parent.name}/{weights.name}",
                lambda: [*drawing, "--scene", held_out_scene(place.data_root), "--out", str(place.masks.parent)],
                lambda: place.masks,
            )
        )
    return steps


def run_quickstart(output_dir: Path, data_root: Path, *, seed: int, fresh: bool, masks: bool = False) -> int:
    """Do all steps that are not done yet; returns the exit code of the one that fails, 75 when asked to stop, else 0.

    Raises:
        UsageError: the run directory holds something else than a quickstart with these options.
    """
    place = Place(output_dir, data_root)
    if fresh:
        _forget(place)
    begun = time.monotonic()
    steps = steps_of(place, seed=seed, fresh=fresh, masks=masks)
    memory = _Memory(place.run_dir)
    for number, step in enumerate(steps, start=1):
        arguments = step.arguments()
        click.secho(f"\n[{number}/{len(steps)}] {step.title}", bold=True)
        click.echo(f"$ {shown(arguments)}")
        made = memory.product(step, arguments)
        if made is not None:
            click.echo(f"done before: {made}")
            continue
        if step.makes is not None:
            memory.forget_from(step, steps)
        started = time.monotonic()
        if code := _run(arguments):
            how = "was stopped" if code == ExitCode.PREEMPTED else f"ended with code {code}"
            click.secho(f"step {number} {how}; the same command goes on from here", fg="red", err=True)
            return code
        memory.keep(step, arguments)
        what = f"made {step.makes()} in" if step.makes else "took"
        click.secho(f"{what} {_duration(time.monotonic() - started)}", fg="green")
    _summary(place, time.monotonic() - begun)
    return int(ExitCode.DONE)


def held_out_scene(data_root: Path) -> str:
    """Name of the first scene that is not trained on. Raises `DataError` where the set does not tell."""
    path = data_root / SYNTHETIC_VERSION / "splits.json"
    try:
        return str(json.loads(path.read_bytes())[SPLITS_OF_VERSION[SYNTHETIC_VERSION][1]][0])
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise DataError(f"{path} names no held-out scene ({error!r})", fix="bevnext-sam2 quickstart --fresh") from error


class _Memory:
    """The steps that are done, with their arguments, kept in the run directory."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / MEMORY
        run_dir.mkdir(parents=True, exist_ok=True)
        self.done: dict[str, list[str]] = json.loads(self.path.read_bytes()) if self.path.is_file() else {}

    def product(self, step: Step, arguments: list[str]) -> Path | None:
        """What the step has made before and is still there. Raises `UsageError` if it was done with other arguments."""
        if step.makes is None or step.title not in self.done:
            return None
        if self.done[step.title] != _identity(arguments):
            raise UsageError(
                f"{self.path.parent} belongs to a quickstart with other options: {shown(self.done[step.title])}",
                fix="use the same options, another --output-dir, or --fresh to replace it",
            )
        made = step.makes()
        return made if made.exists() else None

    def keep(self, step: Step, arguments: list[str]) -> None:
        """The step is done."""
        self.done[step.title] = _identity(arguments)
        self._write()

    def forget_from(self, step: Step, steps: list[Step]) -> None:
        """What stands on this step must be done again."""
        for later in steps[steps.index(step) :]:
            self.done.pop(later.title, None)
        self._write()

    def _write(self) -> None:
        replace_text(self.path, json.dumps(self.done, indent=2))


def _identity(arguments: list[str]) -> list[str]:
    """What decides the result of a step."""
    return [argument for argument in arguments if argument != "--overwrite"]


def _forget(place: Place) -> None:
    """Remove an earlier quickstart's runs."""
    if not place.run_dir.exists():
        return
    if not (place.run_dir / MEMORY).is_file():
        raise UsageError(f"--fresh: {place.run_dir} was not made by quickstart", fix="use another --output-dir")
    for run_dir in (place.run_dir, place.output_dir / START_RUN):
        if run_dir.exists():
            click.echo(f"removing the earlier run {run_dir}")
            shutil.rmtree(run_dir)


def _run(arguments: list[str]) -> int:
    ended = supervise(
        own_command(arguments),
        cwd=ROOT,
        environment=own_environment(),
        grace_seconds=GRACE_SECONDS,
        say=lambda text: click.echo(f"[quickstart] {text}", err=True),
    )
    stopped = ended.asked_to_stop and not ended.killed and ended.exit_code in STOPPED
    return int(ExitCode.PREEMPTED) if stopped else ended.exit_code


def _devices(recipe: str) -> list[str]:
    """All GPUs between which the recipe's batch can be divided, else processes on the CPU."""
    gpus = len(survey_gpus().visible())
    if not gpus:
        return ["--device", "cpu", "--num-processes", str(CPU_PROCESSES)]
    return ["--num-gpus", str(largest_divisor(load_recipe(recipe).optimizer.reference_batch, gpus))]


def _summary(place: Place, seconds: float) -> None:
    scores = json.loads(place.scores.read_bytes())
    click.secho(f"\nAll done in {_duration(seconds)}, on synthetic data:", bold=True)
    for name, value in (
        ("held-out mAP", f"{scores['mean_ap']:.3f}"),
        ("held-out NDS", f"{scores['nds']:.3f}"),
        ("report", place.report),
        ("pictures", place.run_dir / run_directory.FIGURES),
        ("checkpoint", place.latest),
        ("scores", place.scores),
        ("data", place.data_root),
        ("masks", place.masks.parent if place.masks.is_file() else f"not made; {MASKS_HINT}"),
    ):
        click.echo(f"  {name:13} {value}")


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {seconds % 60:.0f} s"
