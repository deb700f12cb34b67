"""The signal matrix: SIGTERM, SIGINT and SIGUSR1 to the launcher and to torchrun, with the real trainer on two ranks.

    python tests/soak/signals.py --trials 50 --out benchmarks/results/signals.json

In every trial the exit code must be 75, exactly one checkpoint must be there and be whole, the time from the signal to
the end of the launcher must be below one step + saving + 2 s, and nothing that ran below the launcher may be left.
"""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import psutil

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from forked_run import make_driving_set  # noqa: E402

from benchmarks.machine import measured_on  # noqa: E402
from configs.errors import DataError  # noqa: E402
from evaluation.checkpoint_files import read_manifest  # noqa: E402
from launcher.own_process import ROOT, own_command, own_environment  # noqa: E402

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
TARGETS: Final = ("launcher", "torchrun")
ALLOWANCE_SECONDS: Final = 2.0
PATIENCE_SECONDS: Final = 300.0


@dataclass(frozen=True)
class Trial:
    """What one signal led to."""

    exit_code: int
    seconds: float
    """From the signal to the end of the launcher."""
    step_seconds: float
    save_seconds: float
    checkpoints: int
    """Finished ones; none was there before the signal."""
    orphans: int
    """Processes below the launcher that were left when it had ended."""

    @property
    def in_time(self) -> bool:
        return self.seconds <= self.step_seconds + self.save_seconds + ALLOWANCE_SECONDS

    @property
    def good(self) -> bool:
        return self.exit_code == 75 and self.checkpoints == 1 and self.orphans == 0


def training_command(driving_set: Path, folder: Path, *more: str) -> list[str]:
    """`bevnext-sam2 train` on two ranks into `folder`/run; without `more` it trains for ever and never saves."""
    return own_command(
        [
            *("train", "--config", "synthetic/bevnext-smoke", "--data-root", str(driving_set)),
            *("--set", "data.source_size=[90, 160]", "--set", "engine.checkpoint_every=1000000"),
            *("--num-processes", "2", "--workers", "1", "--epochs", "100000"),
            *("--output-dir", str(folder), "--run", "run", *more),
        ]
    )


def run_trial(driving_set: Path, folder: Path, number: signal.Signals, target: str, delay: float) -> Trial:
    """Start a run, send the signal while it trains, and see how it ends."""
    command = training_command(driving_set, folder)
    run_dir = folder / "run"
    with (folder / "output").open("wb") as output:
        launcher = subprocess.Popen(
            command, cwd=ROOT, env=own_environment(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        steps = wait_for_steps(launcher, run_dir)
        time.sleep(delay)
        below = psutil.Process(launcher.pid).children(recursive=True)
        victim = launcher.pid if target == "launcher" else psutil.Process(launcher.pid).children()[0].pid
        sent = time.monotonic()
        psutil.Process(victim).send_signal(number)
        code = launcher.wait(PATIENCE_SECONDS)
        seconds = time.monotonic() - sent
        orphans = [process for process in below if still_runs(process)]
    finally:
        for process in [*psutil.Process(launcher.pid).children(recursive=True)] if launcher.poll() is None else []:
            process.kill()
        launcher.kill()
        launcher.wait()
    for process in orphans:
        process.kill()
    events = _events(run_dir)
    saved = [event["seconds"] for event in events if event["event"] == "checkpoint"]
    return Trial(code, seconds, max(steps), saved[0] if saved else 0.0, _whole_checkpoints(run_dir), len(orphans))


def wait_for_steps(launcher: subprocess.Popen[Any], run_dir: Path) -> list[float]:
    """Seconds that each of the first steps took, the very first left out."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and launcher.poll() is None:
        times = [event["time"] for event in _events(run_dir) if event["event"] == "train"]
        if len(times) >= 4:
            return [later - earlier for earlier, later in zip(times, times[1:])]  # noqa: B905, RUF007
        time.sleep(0.05)
    raise AssertionError(f"{run_dir}: no step was made (exit code {launcher.poll()})")


def _events(run_dir: Path) -> list[dict[str, Any]]:
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _whole_checkpoints(run_dir: Path) -> int:
    found = 0
    for place in (run_dir / "checkpoints").glob("step_*"):
        try:
            read_manifest(place)
        except DataError:
            continue
        found += 1
    return found


def still_runs(process: psutil.Process) -> bool:
    """It has not ended, and is not only waiting to be noticed by the process that has adopted it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def summary(trials: list[Trial]) -> dict[str, Any]:
    """One cell of the matrix."""
    seconds = [trial.seconds for trial in trials]
    beyond = [trial.seconds - trial.step_seconds - trial.save_seconds for trial in trials]
    return {
        "trials": len(trials),
        "saved_and_75": sum(trial.exit_code == 75 and trial.checkpoints == 1 for trial in trials),
        "in_time": sum(trial.in_time for trial in trials),
        "orphans": sum(trial.orphans for trial in trials),
        "seconds_median": round(statistics.median(seconds), 2),
        "seconds_max": round(max(seconds), 2),
        "beyond_step_and_save_max": round(max(beyond), 2),
        "exit_codes": sorted({trial.exit_code for trial in trials}),
    }


@click.command(help=__doc__)
@click.option("--trials", default=50, show_default=True, help="For each signal and target.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the report there, as JSON.")
def main(trials: int, seed: int, out: Path | None) -> None:
    random = np.random.default_rng(seed)
    found: dict[tuple[str, str], list[Trial]] = {}
    with tempfile.TemporaryDirectory() as name:
        driving_set = make_driving_set(Path(name) / "driving")
        for count in range(trials):
            for target in TARGETS:
                for number in SIGNALS:
                    folder = Path(name) / f"{target}_{number.name}_{count}"
                    folder.mkdir()
                    trial = run_trial(driving_set, folder, number, target, random.uniform(0, 0.5))
                    found.setdefault((number.name, target), []).append(trial)
                    print(number.name, target, json.dumps(asdict(trial)), flush=True)
                    _write(found, seed, out)
    sys.exit(0 if all(trial.good for cell in found.values() for trial in cell) else 1)


def _write(found: dict[tuple[str, str], list[Trial]], seed: int, out: Path | None) -> None:
    report = {
        **measured_on("torch"),
        "benchmark": "signals",
        "what": "bevnext-sam2 train, 2 ranks, bevnext-smoke: a signal while it trains",
        "seed": seed,
        "matrix": [{"signal": name, "to": target, **summary(cell)} for (name, target), cell in found.items()],
    }
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
