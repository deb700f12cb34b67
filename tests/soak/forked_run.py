"""Real runs of the real entry point that start in half a second, to be killed in large numbers.

Starting Python and importing torch take ten times as long as a few steps of the smallest model. So the processes of a
run are forked from one server that has imported them once; a `ForkedRun` does what torchrun would: it gives them their
ranks, and ends the others when one has failed. Real torchrun is for `signals.py`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Final

import psutil

from configs.process_death import die_with_parent
from evaluation.checkpoint_files import LATEST, read_manifest
from scenes.index import build_index
from scenes.synthetic import make_synthetic
from training.start_options import StartOptions

VERSION: Final = "v1.0-synthetic"
SAMPLES_PER_STEP: Final = 4
POLL_SECONDS: Final = 0.02
GRACE_SECONDS: Final = 60.0
"""From the end of one process to the kill of the others; torchrun would ask them to stop, as we do."""

_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload(["training.run", "forked_run"])


def make_driving_set(root: Path) -> Path:
    """Eight samples to train on, small images, indexed."""
    make_synthetic(root, scenes=3, samples_per_scene=4, image_size=(90, 160), workers=1, progress=False)
    build_index(root, VERSION, progress=False)
    return root


@dataclass
class ForkedRun:
    """A run of `steps` optimiser steps in `folder`/run."""

    driving_set: Path
    folder: Path
    steps: int = 16
    settings: tuple[str, ...] = ()
    starts: int = 0
    unruly: int = 0
    """Processes that had to be killed because they did not end when asked to."""
    orphans: int = 0
    """Processes that outlived the process that started them."""
    seconds: float = 0.0
    """How long the last start took, on this machine as it is now."""
    _seen: dict[int, psutil.Process] = field(default_factory=dict)

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    @property
    def log(self) -> str:
        """What rank 0 said in all starts."""
        return (self.folder / "rank_0.log").read_text()

    def start(
        self,
        ranks: int,
        workers: int,
        disturb: Callable[[Sequence[ForkServerProcess], float], bool] | None = None,
        resume: str = "auto",
        patch: Callable[[int], None] | None = None,
    ) -> list[int]:
        """One start on `ranks` processes; their exit codes, negative for a signal.

        Args:
            disturb: called with the processes and the seconds since the start until it returns true.
            patch: called in every process with its rank.
        """
        self.starts += 1
        self.folder.mkdir(exist_ok=True)
        options = self._options(workers, resume)
        place = (ranks, _free_port(), self.starts)
        processes = [
            _FORKSERVER.Process(target=_rank_main, args=(rank, *place, options, self.folder, patch))
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        try:
            self._supervise(processes, disturb)
        finally:
            for process in processes:
                process.kill()
                process.join()
        self._count_orphans()
        return [process.exitcode if process.exitcode is not None else 0 for process in processes]

    def _options(self, workers: int, resume: str) -> StartOptions:
        return StartOptions(
            run_dir=self.run_dir,
            data_root=self.driving_set,
            version=None,
            index_dir=None,
            config="synthetic/bevnext-smoke",
            config_given=True,
            overrides=(
                "data.source_size=[90, 160]",
                f"optimizer.reference_batch={SAMPLES_PER_STEP}",
                "engine.checkpoint_every=2",
                *self.settings,
            ),
            resume=resume,
            device="cpu",
            gpus=None,
            epochs=self.steps // 2,
            batch_size=None,
            gradient_accumulation=None,
            lr_scaling=None,
            mixed_precision=None,
            workers=workers,
            threads=1,
        )

    def _supervise(
        self,
        processes: Sequence[ForkServerProcess],
        disturb: Callable[[Sequence[ForkServerProcess], float], bool] | None,
    ) -> None:
        begun, deadline = time.monotonic(), float("inf")
        while any(process.is_alive() for process in processes):
            now = time.monotonic()
            self._look(processes)
            if disturb is not None and disturb(processes, now - begun):
                disturb = None
            if deadline == float("inf") and any(process.exitcode for process in processes):
                deadline = now + GRACE_SECONDS
                _signal_all(processes, signal.SIGTERM)
            if now > deadline:
                self.unruly += sum(process.is_alive() for process in processes)
                _signal_all(processes, signal.SIGKILL)
            time.sleep(POLL_SECONDS)
        self.seconds = time.monotonic() - begun

    def _look(self, processes: Sequence[ForkServerProcess]) -> None:
        for pid in (pid for process in processes for pid in children_of(process)):
            if pid not in self._seen and psutil.pid_exists(pid):
                self._seen[pid] = psutil.Process(pid)

    def _count_orphans(self) -> None:
        """Loader workers may need a moment: the kernel tells them of the death of their process."""
        deadline = time.monotonic() + GRACE_SECONDS
        while (alive := [one for one in self._seen.values() if _runs(one)]) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        self.orphans += len(alive)
        for process in alive:
            process.kill()
        self._seen.clear()

    # --- what is left ----------------------------------------------------------------------------------------------

    def ledger(self) -> dict[int, list[str]]:
        """Per step the samples that the finished run has learnt from, whichever process read them."""
        lines = [
            json.loads(line) for path in self.folder.glob("ledger_*.jsonl") for line in path.read_text().splitlines()
        ]
        last = {}
        for line in lines:
            last[line["step"]] = max(last.get(line["step"], 0), line["start"])
        found: dict[int, list[str]] = {step: [] for step in sorted(last)}
        for line in lines:
            if line["start"] == last[line["step"]]:
                found[line["step"]] += line["tokens"]
        return {step: sorted(tokens) for step, tokens in found.items()}

    def weights(self) -> dict[str, str]:
        """SHA-256 of all files of the last checkpoint: weights, average, optimiser."""
        manifest = read_manifest(self.run_dir / "checkpoints" / LATEST)
        assert manifest.step == self.steps
        return {name: entry.sha256 for name, entry in manifest.files.items()}


def children_of(process: ForkServerProcess) -> list[int]:
    """Process ids of its loader workers."""
    try:
        return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    except OSError:
        return []  # it has ended


def _runs(process: psutil.Process) -> bool:
    """It has not ended, and is not only waiting to be noticed by the process that has adopted it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal_all(processes: Sequence[ForkServerProcess], number: signal.Signals) -> None:
    for process in processes:
        if process.is_alive():
            os.kill(process.pid or 0, number)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _rank_main(
    rank: int,
    ranks: int,
    port: int,
    start: int,
    options: StartOptions,
    folder: Path,
    patch: Callable[[int], None] | None,
) -> None:
    """One process of a run, as torchrun would start it."""
    die_with_parent(signal.SIGKILL)
    multiprocessing.set_start_method("fork", force=True)  # of loader workers, as in a process of torchrun
    log = os.open(folder / f"rank_{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    from training.run import run_process

    _without_scores()
    _keep_ledger(folder / f"ledger_{rank}.jsonl", start)
    if patch is not None:
        patch(rank)
    sys.exit(int(run_process(options)))


def _without_scores() -> None:
    """A run ends with an evaluation, which takes longer than all of its steps and changes no weight."""
    from training import loop

    loop.evaluate_detector = lambda *arguments, **others: None


def _keep_ledger(path: Path, start: int) -> None:
    from training.trainer import Trainer

    step_of_engine = Trainer.train_step

    def recorded(self, micro_batches, stop=False):
        step = self.state.step
        report = step_of_engine(self, micro_batches, stop)
        tokens = [token for batch in micro_batches for token in batch.tokens]
        with path.open("a") as file:
            file.write(json.dumps({"start": start, "step": step, "tokens": tokens}) + "\n")
        return report

    Trainer.train_step = recorded
