"""Runs that are killed at random moments and taken up again, until they are done; then compared bit by bit.

    python tests/soak/kills.py --kills 200 --out benchmarks/results/soak.json

Every run must end with the same weights, average and optimiser state as one that nothing disturbed, and must have
learnt from the same samples in the same steps.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from forked_run import ForkedRun, children_of, make_driving_set  # noqa: E402

from benchmarks.machine import measured_on  # noqa: E402

STEPS: Final = 16
KINDS: Final = {
    "SIGKILL of one process": 0.25,
    "SIGKILL of all processes": 0.15,
    "SIGKILL while a checkpoint is written": 0.2,
    "SIGKILL, then the latest checkpoint is cut short": 0.1,
    "SIGTERM": 0.15,
    "SIGKILL of a loader worker": 0.15,
}
"""What happens to a run, and how often."""


@dataclass
class Soak:
    """Random kills of runs on `ranks` processes each."""

    folder: Path
    driving_set: Path
    random: np.random.Generator
    steps: int = STEPS
    kills: Counter[str] = field(default_factory=Counter)
    runs: list[dict[str, Any]] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)

    def run_until(self, wanted: int, seconds: float = float("inf")) -> None:
        """Kill runs until there were `wanted` kills, or that time is over, and let the last one end."""
        deadline = time.monotonic() + seconds
        self._straight(1)  # the first start waits for imports
        straight = {ranks: self._straight(ranks) for ranks in (1, 2)}
        while self.kills.total() < wanted and time.monotonic() < deadline:
            ranks = int(self.random.choice([1, 2, 2]))
            self._disturbed(straight[ranks], ranks, wanted)

    def _straight(self, ranks: int) -> tuple[ForkedRun, float]:
        """A run that nothing disturbs, and how long it took."""
        run = ForkedRun(self.driving_set, self.folder / f"straight_{ranks}", self.steps)
        shutil.rmtree(run.folder, ignore_errors=True)
        begun = time.monotonic()
        assert run.start(ranks, workers=1) == [0] * ranks, run.log
        return run, time.monotonic() - begun

    def _disturbed(self, straight: tuple[ForkedRun, float], ranks: int, wanted: int) -> None:
        expected, seconds = straight
        writing = str(self.random.choice(["sync", "async"]))
        settings = (f"engine.checkpoint_writing={writing}",)
        run = ForkedRun(self.driving_set, self.folder / f"run_{len(self.runs)}", self.steps, settings)
        kills = 0
        while True:
            kind = str(self.random.choice(list(KINDS), p=list(KINDS.values())))
            if self.kills.total() >= wanted:
                kind = ""
            kill = Kill(kind, run, self.random.uniform(0, seconds), self.random)
            workers = int(self.random.integers(1 if kind.endswith("worker") else 0, 3))
            codes = run.start(ranks, workers, kill)
            self.codes.update(f"{kind if kill.done else 'undisturbed'}: {code}" for code in codes)
            if kill.done:
                kills += 1
                self.kills[kind] += 1
                kill.aftermath()
            elif codes == [0] * ranks:
                break
            else:
                raise AssertionError(f"start {run.starts} of {run.folder} ended with {codes}:\n{run.log}")
        self.runs.append(
            {
                "ranks": ranks,
                "writing": writing,
                "kills": kills,
                "bit_equal": run.weights() == expected.weights(),
                "same_samples": run.ledger() == expected.ledger(),
                "passed_over": run.log.count("not used:"),
                "orphans": run.orphans,
                "unruly": run.unruly,
            }
        )
        print(f"{self.kills.total()} kills, {len(self.runs)} runs: {self.runs[-1]}", flush=True)

    def report(self) -> dict[str, Any]:
        """What happened, in numbers."""
        names = ("bit_equal", "same_samples", "passed_over", "orphans", "unruly")
        return {
            "kills": self.kills.total(),
            "kills_by_kind": dict(self.kills),
            "runs": len(self.runs),
            **{name: int(sum(run[name] for run in self.runs)) for name in names},
            "exit_codes": dict(sorted(self.codes.items())),
        }


class Kill:
    """One disturbance of one start, at a random moment."""

    def __init__(self, kind: str, run: ForkedRun, moment: float, random: np.random.Generator) -> None:
        self.kind = kind
        self.run = run
        self.moment = moment
        self.random = random
        self.done = False

    def __call__(self, processes: Sequence[ForkServerProcess], seconds: float) -> bool:
        if not self.kind or seconds < self.moment or any(process.exitcode is not None for process in processes):
            return not self.kind
        victims, number = [process.pid or 0 for process in processes], signal.SIGKILL
        if self.kind == "SIGTERM":
            number = signal.SIGTERM
        elif self.kind.endswith("worker"):
            workers = [worker for process in processes for worker in children_of(process)]
            victims = [int(self.random.choice(workers))] if workers else []
        elif self.kind.endswith("written"):
            victims = victims[:1] if self._is_writing() else []
        elif "all" not in self.kind:
            victims = [int(self.random.choice(victims))]
        for victim in victims:
            try:
                os.kill(victim, number)
            except ProcessLookupError:
                continue
            self.done = True
        return self.done

    def _is_writing(self) -> bool:
        if not any((self.run.run_dir / "checkpoints").glob(".unfinished-*")):
            return False
        time.sleep(self.random.uniform(0, 0.04))
        return True

    def aftermath(self) -> None:
        """A machine that loses its power may lose what it had not written."""
        latest = self.run.run_dir / "checkpoints" / "latest"
        if self.kind.endswith("short") and latest.is_dir():
            path = latest / str(self.random.choice(["model.safetensors", "ema.safetensors", "optimizer.pt"]))
            os.truncate(path, path.stat().st_size // 2)


@click.command(help=__doc__)
@click.option("--kills", default=200, show_default=True)
@click.option("--minutes", default=float("inf"), help="Stop after that time with fewer kills.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the report there, as JSON.")
def main(kills: int, minutes: float, seed: int, out: Path | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        soak = Soak(folder, make_driving_set(folder / "driving"), np.random.default_rng(seed))
        begun = time.monotonic()
        soak.run_until(kills, 60 * minutes)
        report = {
            **measured_on("torch", "safetensors"),
            "benchmark": "soak",
            "what": f"runs of {STEPS} steps of bevnext-smoke, killed at random moments and resumed",
            "seed": seed,
            "seconds": round(time.monotonic() - begun),
            **soak.report(),
        }
    print(json.dumps(report, indent=1))
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n")
    runs = report["runs"]
    good = report["bit_equal"] == report["same_samples"] == runs and report["orphans"] == 0
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
