"""One process of a run, from its options to its exit code; the entry scripts call this."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path

import torch
from torch.amp.grad_scaler import GradScaler

from configs import run_directory
from configs.errors import BevnextError, ExitCode, UsageError
from configs.plan import Plan
from configs.process_death import die_with_parent
from configs.schema import Recipe
from integration.sam_enhanced import build_recipe_detector
from scenes.dataset import SceneDataset
from scenes.index import open_index
from scenes.loader import training_batches
from scenes.order import BatchLayout, training_order

from .carried import take_up_carried
from .causes import explain
from .checkpoint_writer import CheckpointWriter
from .checkpoints import CheckpointFolder
from .device_watch import DeviceWatch
from .frozen_parts import freeze
from .loop import Run, train
from .moving_average import MovingAverage
from .optimizer import build_optimizer
from .outcome import earlier_end, forget_earlier_end, record_outcome
from .reporter import Reporter, SilentReporter
from .restarts import Launch
from .resume import agree_on_start, step_to_go_on_from
from .start import choose_plan, choose_recipe, write_start
from .start_options import StartOptions
from .start_weights import load_start_weights
from .state import TrainingState
from .stop_signal import StopSignal, end_at_once
from .trainer import Trainer
from .watchdog import Watchdog
from .world import World, join_world, rank_of_environment


def run_process(options: StartOptions) -> ExitCode:
    """Train as the options say, tell how it ended, and return the exit code; no error leaves this function."""
    if "TORCHELASTIC_RUN_ID" in os.environ:  # whatever kills torchrun, its workers stop and save
        die_with_parent(signal.SIGTERM)
    rank, _, _ = rank_of_environment()
    run_dir = options.run_dir
    try:
        if run_dir is not None and (ended := _open_run_dir(run_dir)) is not None:
            return ended
        recipe = choose_recipe(options)
        if run_dir is None:
            run_dir = Path("outputs") / recipe.name
            if (ended := _open_run_dir(run_dir)) is not None:
                return ended
        code = _train(options, run_dir, recipe)
        if rank == 0:
            record_outcome(run_dir, code, rank)
    except BevnextError as error:
        if record_outcome(run_dir, error.exit_code, rank, error.message, error.fix):
            print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        message, fix = explain(error)
        if record_outcome(run_dir, ExitCode.CRASHED, rank, message, fix):
            traceback.print_exc()
            print(f"error: {message}\n  fix: {fix}" if fix else f"error: {message}", file=sys.stderr)
        return ExitCode.CRASHED
    return code


def _open_run_dir(run_dir: Path) -> ExitCode | None:
    """Make the run directory; where torchrun has restarted a run that is over, the code it ended with."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        ended = earlier_end(run_dir)
        if ended is None:
            forget_earlier_end(run_dir)
    except OSError as error:
        raise UsageError(
            f"--run-dir {run_dir}: {error.strerror}", fix="name a directory that can be written"
        ) from error
    return ended


def _train(options: StartOptions, run_dir: Path, recipe: Recipe) -> ExitCode:
    index = open_index(options.data_root, recipe.data.version, options.index_dir)
    rows = index.rows_in(recipe.data.train_split)
    order = training_order(index, rows, recipe.data, recipe.engine.seed)
    _, _, processes = rank_of_environment()
    plan = choose_plan(options, run_dir, recipe, len(order), processes)
    torch.set_num_threads(plan.threads)
    end_at_once()
    with join_world(plan.device_kind, plan.device_ids) as world:
        stop = StopSignal().listen()
        folder = CheckpointFolder(run_dir / run_directory.CHECKPOINTS, recipe.engine.keep_last, recipe.engine.keep_best)
        launch = Launch(run_dir)
        resume = "auto" if launch.is_restart and folder.has_any() else options.resume
        start = agree_on_start(run_dir, folder, resume, world)
        state = build_state(recipe, plan, world, start.place)
        weights_account = load_start_weights(state, recipe.model) if start.place is None else []
        layout = BatchLayout(world.rank, world.size, plan.device_batch, plan.accumulation)
        if start.place is not None:
            take_up_carried(state, start.place, plan, layout)
        walks = recipe.data.streaming is not None
        dataset = SceneDataset(index, rows, recipe.data, True, recipe.engine.seed, key_images_only=walks)
        batches = training_batches(
            dataset,
            order,
            layout,
            first_step=state.step,
            stop_step=plan.total_steps,
            workers=plan.workers,
            pin_memory=world.device.type != "cpu",
            skip_damaged=recipe.engine.guards.damaged_samples == "skip",
        )
        if world.is_main:
            launch.note_start(state.step)
            write_start(run_dir, recipe, plan)
        log_every = recipe.engine.log_every
        with (
            Watchdog(run_dir, world, stop, recipe.engine.guards.hang_seconds) as watchdog,
            _reporter(run_dir, plan, log_every, state.step, world) as reporter,
            CheckpointWriter(folder, reporter, _writes_beside(recipe, world)) as writer,
        ):
            for message in start.passed_over:
                reporter.say(f"not used: {message}")
            reporter.say(_opening(recipe, plan, run_dir, state.step))
            reporter.describe(recipe)
            for line in weights_account:
                reporter.say(line)
            trainer = Trainer(state, recipe, plan, world)
            parts = (run_dir, recipe, plan, world, trainer, folder, writer, reporter, stop, watchdog, index)
            code = train(Run(*parts, profile=options.profile), batches)
            reporter.say(_closing(code, run_dir, state.step))
    return code


def _reporter(run_dir: Path, plan: Plan, log_every: int, first_step: int, world: World) -> SilentReporter:
    """One process speaks, and looks at the hardware of its machine."""
    if not world.is_main:
        return SilentReporter()
    return Reporter(run_dir, plan, log_every, first_step, devices=DeviceWatch(run_dir))


def _writes_beside(recipe: Recipe, world: World) -> bool:
    wanted = recipe.engine.checkpoint_writing
    return wanted == "async" or (wanted == "auto" and world.device.type != "cpu")


def build_state(recipe: Recipe, plan: Plan, world: World, checkpoint: Path | None) -> TrainingState:
    """The detector with its optimiser and average, fresh or as a checkpoint holds them; the same on every process.

    A fresh one holds none of the weights that the recipe names.

    Raises:
        UsageError: the checkpoint belongs to another recipe, or does not fit the plan.
    """
    torch.manual_seed(recipe.engine.seed)
    torch.backends.cudnn.benchmark = True  # shapes never change
    detector = build_recipe_detector(recipe).to(world.device)
    if recipe.engine.channels_last:
        detector.to(memory_format=torch.channels_last)
    detector.train()
    freeze(detector, recipe.optimizer.frozen)
    state = TrainingState(
        detector=detector,
        optimizer=build_optimizer(detector, recipe.optimizer, plan.learning_rate, recipe.sam2),
        scaler=GradScaler(world.device.type, enabled=plan.precision == "fp16"),
        average=MovingAverage(detector, recipe.engine.ema) if recipe.engine.ema else None,
    )
    if checkpoint is not None:
        state.restore(checkpoint, step_to_go_on_from(checkpoint, recipe, plan))
    return state


def _opening(recipe: Recipe, plan: Plan, run_dir: Path, step: int) -> str:
    synthetic = " (synthetic data)" if "synthetic" in recipe.data.version else ""
    begin = f"goes on after step {step}" if step else "starts"
    return (
        f"{recipe.name} on {recipe.data.version}{synthetic} {begin}: {plan.devices} process(es) on "
        f"{plan.device_names[0]}, {plan.total_steps} steps of {plan.devices} x {plan.device_batch} x "
        f"{plan.accumulation} = {plan.effective_batch} samples, {plan.precision}; everything goes to {run_dir}"
    )


def _closing(code: ExitCode, run_dir: Path, step: int) -> str:
    if code is ExitCode.PREEMPTED:
        return f"stopped as asked after step {step}, saved; the same command goes on (exit code {int(code)})"
    return f"done after step {step}; checkpoints, results and curves are in {run_dir}"
