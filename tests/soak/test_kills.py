"""Runs that are killed, hang, lose a process or change their size, and go on exactly."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from forked_run import ForkedRun, children_of, make_driving_set
from kills import Soak
from safetensors.torch import load_file

STEPS = 8


@pytest.fixture(scope="session")
def soak_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_driving_set(tmp_path_factory.mktemp("soak"))


@pytest.fixture
def run(soak_set: Path, tmp_path: Path) -> Iterator[ForkedRun]:
    run = ForkedRun(soak_set, tmp_path / "forked", STEPS)
    yield run
    assert run.orphans == 0


@pytest.fixture(scope="session")
def straight(soak_set: Path, tmp_path_factory: pytest.TempPathFactory) -> ForkedRun:
    """A run of one process that nothing disturbed."""
    run = ForkedRun(soak_set, tmp_path_factory.mktemp("straight"), STEPS)
    assert run.start(1, workers=0) == [0], run.log
    return run


def outcome(run: ForkedRun) -> dict[str, object]:
    found = json.loads((run.run_dir / "outcome.json").read_bytes())
    assert isinstance(found, dict)
    return found


@pytest.mark.timeout(3600)  # some thirty starts, whatever the machine has else to do
def test_ten_random_kills(soak_set: Path, tmp_path: Path) -> None:
    soak = Soak(tmp_path, soak_set, np.random.default_rng(7), steps=STEPS)
    soak.run_until(10)
    found = soak.report()
    assert found["kills"] == 10
    assert found["bit_equal"] == found["same_samples"] == found["runs"], found
    assert found["orphans"] == found["unruly"] == 0, found


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("ranks", "workers"), [(2, 1), (4, 0), *(pytest.param(*pair, marks=SLOW) for pair in ((1, 4), (2, 4), (4, 1)))]
)
def test_the_samples_of_every_step_are_the_same(ranks: int, workers: int, run: ForkedRun, straight: ForkedRun) -> None:
    run.steps = 4
    assert run.start(ranks, workers) == [0] * ranks, run.log
    expected = straight.ledger()
    assert run.ledger() == {step: expected[step] for step in range(4)}


def hold(step: int, rank: int) -> None:
    """Wait after that many steps, until the test has done what it wants: nobody has to be faster than the other."""
    from training.trainer import Trainer

    train_step, folder = Trainer.train_step, log_folder()

    def held(self, micro_batches, stop=False):
        if self.state.step == step:
            (folder / f"held_{step}_{rank}").touch()
            while not (folder / f"go_on_{step}").exists():
                time.sleep(0.02)
        return train_step(self, micro_batches, stop)

    Trainer.train_step = held


def log_folder() -> Path:
    return Path("/proc/self/fd/1").readlink().parent


Disturbance = Callable[[Sequence[ForkServerProcess]], None]


def start_held(run: ForkedRun, step: int, ranks: int, workers: int, disturb: Disturbance) -> list[int]:
    """Exit codes of a start that is disturbed when all its processes have done that many steps."""

    def disturbed(processes: Sequence[ForkServerProcess], seconds: float) -> bool:
        if not all((run.folder / f"held_{step}_{rank}").exists() for rank in range(ranks)):
            return False
        disturb(processes)
        (run.folder / f"go_on_{step}").touch()
        return True

    return run.start(ranks, workers, disturbed, patch=partial(hold, step))


def stop(processes: Sequence[ForkServerProcess]) -> None:
    for process in processes:
        os.kill(process.pid or 0, signal.SIGTERM)


def test_another_number_of_processes_goes_on_with_the_same_samples(run: ForkedRun, straight: ForkedRun) -> None:
    assert start_held(run, 2, 1, 0, stop) == [75], run.log
    assert start_held(run, 5, 2, 1, stop) == [75, 75], run.log
    assert run.start(4, 0) == [0] * 4, run.log
    assert run.ledger() == straight.ledger()
    ours, theirs = (load_file(one.run_dir / "checkpoints" / "latest" / "model.safetensors") for one in (run, straight))
    assert ours.keys() == theirs.keys()  # batch-norm statistics are of each process's own share: close, not equal
    assert all(bool(value.isfinite().all()) for value in ours.values() if value.is_floating_point())


def test_a_checkpoint_that_was_cut_short_is_passed_over_and_named(run: ForkedRun, straight: ForkedRun) -> None:
    assert start_held(run, 4, 1, 0, stop) == [75], run.log
    latest = (run.run_dir / "checkpoints" / "latest").resolve()
    os.truncate(latest / "model.safetensors", 1000)
    assert run.start(1, 0) == [0], run.log
    assert f"not used: {latest / 'model.safetensors'} has 1000 bytes" in run.log
    assert run.weights() == straight.weights()


def test_a_dead_loader_worker_is_named_and_the_run_goes_on_exactly(run: ForkedRun, straight: ForkedRun) -> None:
    def kill_worker(processes: Sequence[ForkServerProcess]) -> None:
        os.kill(children_of(processes[0])[0], signal.SIGKILL)

    assert start_held(run, 3, 1, 2, kill_worker) == [1], run.log
    assert "a process that reads samples was ended" in str(outcome(run)["error"])
    assert "fewer --workers" in str(outcome(run)["fix"])
    assert run.start(1, 2) == [0], run.log
    assert run.weights() == straight.weights()


def test_a_process_that_waits_for_the_others_at_the_start_can_be_stopped(run: ForkedRun) -> None:
    def never_arrives(processes: Sequence[ForkServerProcess], seconds: float) -> bool:
        os.kill(processes[0].pid or 0, signal.SIGSTOP)
        if not ends_at_ctrl_c(processes[1]):  # it is still reading its options
            return False
        time.sleep(2)  # now it is about to wait
        os.kill(processes[1].pid or 0, signal.SIGINT)
        os.kill(processes[0].pid or 0, signal.SIGKILL)
        return True

    assert run.start(2, 0, never_arrives) == [-signal.SIGKILL, -signal.SIGINT], run.log


def ends_at_ctrl_c(process: ForkServerProcess) -> bool:
    """The process neither ignores SIGINT nor listens to it, as Python does until something else is said."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    masks = re.findall(r"^Sig(?:Ign|Cgt):\s*(\w+)$", status, re.MULTILINE)
    return not any(int(mask, 16) >> (signal.SIGINT - 1) & 1 for mask in masks)


# --- processes that hang -------------------------------------------------------------------------------------------


def silence(straight: ForkedRun) -> str:
    """The setting by which a process hangs that is silent for as long as a whole run takes on this machine."""
    return f"engine.guards.hang_seconds={max(4.0, straight.seconds)}"


def test_a_process_that_stands_still_ends_the_run_with_77_and_all_stacks(run: ForkedRun, straight: ForkedRun) -> None:
    run.steps = 40  # never over before it is disturbed, and never disturbed while it saves, which may take longer
    run.settings = (silence(straight), "engine.checkpoint_every=40")

    def stand_still(processes: Sequence[ForkServerProcess], seconds: float) -> bool:
        if not (run.run_dir / "train.log").exists() or "step 2/40" not in run.log:
            return False
        os.kill(processes[1].pid or 0, signal.SIGSTOP)
        return True

    assert run.start(2, 0, stand_still) == [77, -signal.SIGKILL], run.log
    found = outcome(run)
    assert (found["exit_code"], found["rank"]) == (77, 0)
    assert "rank 0 in " in str(found["error"])
    assert "rank 1 in " in str(found["error"])
    for rank in range(2):
        assert "most recent call first" in (run.run_dir / "stacks" / f"rank_{rank}.txt").read_text()


def sleep_in_step_three(rank: int) -> None:
    from scenes.dataset import SceneDataset

    read = SceneDataset.__getitem__

    def slow(self, key):
        if rank == 0 and key.epoch == 1:
            time.sleep(1000)
        return read(self, key)

    SceneDataset.__getitem__ = slow


def test_reading_that_hangs_is_told_by_name(run: ForkedRun, straight: ForkedRun) -> None:
    run.settings = (silence(straight),)
    assert run.start(1, 0, patch=sleep_in_step_three) == [77], run.log
    assert "rank 0 waited too long for step 3; rank 0 in slow (test_kills.py:" in str(outcome(run)["error"])


def hold_the_interpreter(rank: int) -> None:
    """Never give another thread a turn, as a faulty extension does."""
    import ctypes

    from training.trainer import Trainer

    step = Trainer.train_step

    def stuck(self, micro_batches, stop=False):
        if self.state.step == 2:
            ctypes.PyDLL(None).sleep(1000)
        return step(self, micro_batches, stop)

    Trainer.train_step = stuck


@pytest.mark.slow
def test_an_interpreter_that_is_stuck_leaves_its_stack(run: ForkedRun, straight: ForkedRun) -> None:
    run.settings = (silence(straight),)
    assert run.start(1, 0, patch=hold_the_interpreter) == [1], run.log  # the launcher sees the stacks and says 77
    assert "in stuck" in (run.run_dir / "stacks" / "rank_0.txt").read_text()
    assert not (run.run_dir / "outcome.json").exists()


# --- a stop while a checkpoint is evaluated ------------------------------------------------------------------------


def score_for_ever(rank: int) -> None:
    """Rank 0 computes the official metrics, the others wait."""
    from training import loop

    def evaluate(*arguments, **others):
        (log_folder() / f"evaluating_{rank}").touch()
        if rank == 0:
            time.sleep(1000)
        torch.distributed.barrier()

    loop.evaluate_detector = evaluate


def test_a_stop_during_an_evaluation_does_not_wait_for_it(run: ForkedRun) -> None:
    run.steps = 2
    sent = 0.0

    def stop(processes: Sequence[ForkServerProcess], seconds: float) -> bool:
        nonlocal sent
        if not all((run.folder / f"evaluating_{rank}").exists() for rank in range(2)):
            return False
        for process in processes:
            os.kill(process.pid or 0, signal.SIGTERM)
        sent = time.monotonic()
        return True

    assert run.start(2, 0, stop, patch=score_for_ever) == [75, 75], run.log
    assert time.monotonic() - sent < 100  # the evaluation takes ten times as long
    assert outcome(run)["exit_code"] == 75
