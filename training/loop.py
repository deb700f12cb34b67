"""The run: steps, checkpoints and evaluations in turn, until the plan is done or someone asks to stop."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path

import torch

from configs import run_directory
from configs.errors import ExitCode
from configs.plan import Plan
from configs.schema import Recipe
from evaluation.checkpoint_files import read_manifest, step_directory_name
from evaluation.evaluate import RESULTS_FILE, evaluate_detector
from scenes.index import SceneIndex
from scenes.sample import Batch

from .board_pictures import pictures_of_network, pictures_of_results
from .carried import carried_by_all
from .checkpoint_writer import CheckpointWriter
from .checkpoints import CheckpointFolder, RunManifest
from .guards import Guards
from .memory import out_of_memory_explained
from .profiler import profiled
from .rank_figures import RankMeter
from .reporter import SilentReporter, log_due
from .step_clock import StepClock
from .stop_signal import StopSignal
from .trainer import Trainer
from .watchdog import Watchdog
from .world import World


@dataclass(frozen=True)
class Run:
    """The parts of a run, put together by the entry script."""

    run_dir: Path
    recipe: Recipe
    plan: Plan
    world: World
    trainer: Trainer
    folder: CheckpointFolder
    writer: CheckpointWriter
    reporter: SilentReporter
    stop: StopSignal
    watchdog: Watchdog
    index: SceneIndex
    profile: tuple[int, int] | None = None
    """First and last step to record."""


class StoppedError(Exception):
    """Asked to stop in the middle of an evaluation."""


def train(run: Run, batches: Iterable[Batch]) -> ExitCode:
    """Train to the end of the plan, or until asked to stop.

    Args:
        batches: this process's micro-batches from the state's step on.
    """
    state, plan = run.trainer.state, run.plan
    guards = Guards(run.recipe.engine.guards, state, run.writer, run.world, run.reporter)
    clock, first, logged = run.trainer.clock, state.step, state.step
    meter = RankMeter(clock, run.world, plan.workers)
    try:
        if _evaluation_due(run):  # stopped between a checkpoint and its evaluation
            evaluate(run)
        steps = micro_batches_of_steps(batches, plan.accumulation, run.world.device, clock)
        traces = run.run_dir / run_directory.PROFILE
        for micro_batches, waited in profiled(steps, run.profile, done=state.step, folder=traces, rank=run.world.rank):
            with out_of_memory_explained(plan, run.recipe, state.step, micro_batches):
                report = run.trainer.train_step(micro_batches, stop=bool(run.stop))
            run.watchdog.beat(f"step {state.step + 1}")
            guards.after_step(report, micro_batches)
            if not report.fault:
                due = log_due(state.step, first, plan, run.recipe.engine.log_every)
                run.reporter.step(state.step, report, waited, meter.all_ranks(state.step - logged) if due else None)
                logged = state.step if due else logged
            run.writer.collect()
            if report.stop or _checkpoint_due(run):
                save(run, finish=report.stop or _evaluation_point(run))
            if report.stop:
                return ExitCode.PREEMPTED
            if _evaluation_due(run):
                evaluate(run)
    except StoppedError:  # the checkpoint that was being evaluated is saved
        return ExitCode.PREEMPTED
    return ExitCode.DONE


def micro_batches_of_steps(
    batches: Iterable[Batch], accumulation: int, device: torch.device, clock: StepClock
) -> Iterator[tuple[list[Batch], float]]:
    """The micro-batches of one step after the other on the device, with the seconds that were waited for them."""
    stream = iter(batches)
    while True:
        begun = time.perf_counter()
        clock.begin("data_wait")
        micro_batches = []
        for batch in islice(stream, accumulation):
            clock.begin("host_to_device")
            micro_batches.append(batch.to(device, non_blocking=True))
            clock.begin("data_wait")
        clock.begin("other")
        if not micro_batches:
            return
        yield micro_batches, time.perf_counter() - begun


def save(run: Run, finish: bool) -> None:
    """Write a checkpoint of the step just done; all processes go on together.

    Args:
        finish: wait until it is on disk, also where checkpoints are written beside the training.
    """
    run.watchdog.expect("a checkpoint", run.watchdog.long)
    run.trainer.clock.begin("checkpoint")
    carried = carried_by_all(run.trainer.state, run.plan, run.world)
    if run.world.is_main:
        run.writer.write(_manifest(run), run.trainer.state, carried)
        if finish:
            run.writer.finish()
    run.world.wait_for_main()
    run.trainer.clock.begin("other")
    run.watchdog.beat(f"step {run.trainer.state.step + 1}")


def _manifest(run: Run) -> RunManifest:
    step, plan = run.trainer.state.step, run.plan
    return RunManifest(
        step=step,
        epoch=step // plan.steps_per_epoch,
        recipe=run.recipe.name,
        created=datetime.now(timezone.utc).isoformat(),
        files={},
        model=run.recipe.model.model_dump(mode="json"),
        sam2=run.recipe.sam2.model_dump(mode="json") if run.recipe.sam2 else None,
        effective_batch=plan.effective_batch,
        steps_per_epoch=plan.steps_per_epoch,
        world_size=run.world.size,
    )


def evaluate(run: Run) -> None:
    """Official metrics of the averaged weights on the validation split; the best checkpoint is kept."""
    begun = time.perf_counter()
    run.trainer.clock.begin("evaluation")
    detector, step = run.trainer.state.best_detector, run.trainer.state.step
    name = step_directory_name(step)
    with run.watchdog.nothing_to_lose(), _stop_of_others(run):
        run.world.copy_from_main(list(detector.buffers()))  # batch-norm statistics: one detector on all processes
        summary = evaluate_detector(
            detector,
            run.index,
            run.recipe.data.val_split,
            run.recipe.data,
            run.run_dir / run_directory.RESULTS / name,
            device=run.world.device,
            batch_size=run.plan.device_batch,
            workers=run.plan.workers,
            on_progress=lambda done, samples: _predicted(run, done, samples),
        )
    if summary is not None:
        metrics = summary.as_scalars()
        run.reporter.evaluation(step, metrics, time.perf_counter() - begun)
        run.folder.record_metrics(run.folder.folder / name, metrics)
        show_evaluation(run, run.run_dir / run_directory.RESULTS / name / RESULTS_FILE)
    run.trainer.clock.begin("other")


def show_evaluation(run: Run, results: Path) -> None:
    """Pictures of the evaluation just done, for TensorBoard."""
    detector, split, data = run.trainer.state.best_detector, run.recipe.data.val_split, run.recipe.data
    pictures = pictures_of_results(run.index, split, results)
    pictures |= pictures_of_network(detector, run.index, split, data, run.world.device)
    run.reporter.pictures(run.trainer.state.step, pictures)


def _predicted(run: Run, done: int, samples: int) -> None:
    if run.stop:
        raise StoppedError
    run.watchdog.expect("evaluation", run.watchdog.long)
    run.reporter.predicted(done, samples)


@contextmanager
def _stop_of_others(run: Run) -> Iterator[None]:
    """Processes that are asked to stop leave the evaluation each on its own, and the rest lose their connection."""
    try:
        yield
    except RuntimeError as error:
        if run.stop:
            raise StoppedError from error
        raise


def _epoch_ended(run: Run) -> bool:
    return run.trainer.state.step % run.plan.steps_per_epoch == 0


def _checkpoint_due(run: Run) -> bool:
    every = run.recipe.engine.checkpoint_every
    return (run.trainer.state.step % every == 0 if every else _epoch_ended(run)) or _evaluation_point(run)


def _evaluation_point(run: Run) -> bool:
    """An evaluation belongs after this step."""
    step, every = run.trainer.state.step, run.recipe.engine.evaluate_every
    if every is None:
        return False
    epoch = step // run.plan.steps_per_epoch
    return step == run.plan.total_steps or bool(every and step and _epoch_ended(run) and epoch % every == 0)


def _evaluation_due(run: Run) -> bool:
    """An evaluation belongs after this step, and its checkpoint does not hold it yet; rank 0 decides.

    A run that begins with a checkpoint from elsewhere, or of other steps, has none of its own to evaluate there.
    """
    if not _evaluation_point(run):
        return False
    place = run.folder.folder / step_directory_name(run.trainer.state.step)
    missing = run.world.is_main and place.is_dir() and not read_manifest(place, verify=False).metrics
    return run.world.text_from_main("due" if missing else "") == "due"
