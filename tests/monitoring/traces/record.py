"""Records traces of causes that are really caused here: real loader workers, real processes, real files.

Each trains a small network with the project's step, clock and meter, and writes `<name>.json` beside this file, with
what the monitor is to say of it. From the checkout, in its environment; without names, all of them:

    python tests/monitoring/traces/record.py slow_disk slow_disk_without_workers            two minutes each
    python tests/monitoring/traces/record.py slowed_rank big_checkpoints slow_exchange      half a minute each
    python tests/monitoring/traces/record.py other_jobs                                     half a minute
    python tests/monitoring/traces/record.py few_workers few_processors healthy             half a minute each

The causes of the first two lines are strong enough for a machine that does other things, too, and the third is about
just that. Those of the last line need a machine of two cores or more that does nothing else: there, check with
`uptime` that the load is under 0.2, and record them one after the other. Then look what the monitor says:

    pytest tests/monitoring/test_verdicts.py -k really_caused

A whole training whose cause is known becomes a trace, too (name, cause, run directory):

    bevnext-sam2 train --config synthetic/bevnext-smoke --set engine.checkpoint_every=1 --epochs 3 --run often
    python tests/monitoring/traces/record.py --run smoke_checkpoints checkpoints outputs/often
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))
sys.path.insert(0, str(Path(__file__).parents[2] / "training"))

import torch
from ranks import run_ranks
from torch.utils.data import DataLoader, Dataset
from toy import ToyDetector, toy_plan, toy_recipe, toy_sample_batch, toy_trainer

from monitoring.sampler import Sampler
from monitoring.window import Hardware
from training.loop import micro_batches_of_steps
from training.rank_figures import RankMeter
from training.world import World

HERE = Path(__file__).parent
STEPS, LOG_EVERY = 24, 4
COMPUTE = 0.10  # processor seconds of one forward pass


@dataclass(frozen=True)
class Setting:
    """How a run is spoilt; times in seconds."""

    cause: str
    ranks: int = 1
    workers: int = 1
    decode: float = 0.02
    """Processor time that reading a batch takes."""
    disk: float = 0.0
    """Time that reading a batch waits for a slow disk."""
    slow_rank: float = 0.0
    checkpoint_mib: int = 0
    exchange_mib: int = 0
    other_jobs: int = 0
    """Processes of somebody else that compute all the time."""


SETTINGS = {
    "slow_disk": Setting("data: disk", disk=4.0),
    "slow_disk_without_workers": Setting("data: disk", workers=0, disk=4.0),
    "slowed_rank": Setting("slow rank", ranks=2, slow_rank=0.15),
    "big_checkpoints": Setting("checkpoints", checkpoint_mib=96),
    "slow_exchange": Setting("communication", ranks=2, exchange_mib=192),
    "other_jobs": Setting("processors", other_jobs=2 * (os.cpu_count() or 1)),
    "few_workers": Setting("data: workers", workers=1, decode=0.3),
    "few_processors": Setting("data: processors", workers=4 * (os.cpu_count() or 1), decode=1.5),
    "healthy": Setting("compute"),
}


class Reading(Dataset[Any]):
    """Batches that cost what the setting says."""

    def __init__(self, setting: Setting, size: int) -> None:
        self.setting, self.size = setting, size

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, number: int) -> Any:
        time.sleep(self.setting.disk)
        busy(self.setting.decode)
        return toy_sample_batch([number * self.size + one for one in range(self.size)])


@contextmanager
def other_jobs(number: int) -> Iterator[None]:
    """So many processes compute meanwhile."""
    jobs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for job in jobs:
            job.kill()
            job.wait()


def busy(seconds: float) -> None:
    """Compute for so much processor time."""
    begun = time.thread_time()
    while time.thread_time() - begun < seconds:
        pass


class BusyDetector(ToyDetector):
    """A forward pass of a known length, and as many gradients to exchange as are wanted."""

    def __init__(self, setting: Setting, rank: int) -> None:
        super().__init__()
        self.own = COMPUTE + (setting.slow_rank if rank == 1 else 0.0)
        self.extra = torch.nn.Parameter(torch.zeros(setting.exchange_mib * 2**18 or 1))

    def forward(self, batch: Any) -> Any:
        busy(self.own)
        boxes, depth = super().forward(batch)
        return boxes + 0 * self.extra.sum(), depth


def one_rank(world: World, folder: Path, setting: Setting) -> None:
    recipe = toy_recipe()
    plan = toy_plan(recipe, world, 4, samples=STEPS * 8)
    trainer = toy_trainer(BusyDetector(setting, world.rank), recipe, plan, world)
    meter = RankMeter(trainer.clock, world, setting.workers)
    batches = DataLoader(Reading(setting, 4), batch_size=None, num_workers=setting.workers)
    lines: list[dict[str, Any]] = []
    with Sampler("host") as sampler:
        sampler.sample()
        steps = micro_batches_of_steps(iter(batches), 1, world.device, trainer.clock)
        for step, (micro_batches, _) in enumerate(steps, start=1):
            trainer.train_step(micro_batches)
            if setting.checkpoint_mib and step % 4 == 0:
                trainer.clock.begin("checkpoint")
                write(folder / "checkpoint", setting.checkpoint_mib)
                trainer.clock.begin("other")
            if step == 1 or step % LOG_EVERY == 0:
                ranks = meter.all_ranks(1 if step == 1 else 3 if step == LOG_EVERY else LOG_EVERY)
                lines.append({"event": "train", "step": step, "ranks": ranks})
                hardware = Hardware((sampler.sample(),)).line()
                lines.append({"event": "devices", "step": step, "devices": [], "host": hardware["host"]})
    if world.is_main:
        told = {**plan.model_dump(mode="json"), "workers": setting.workers}
        (folder / "trace.json").write_text(json.dumps({"cause": setting.cause, "plan": told, "lines": lines}))


def write(path: Path, mib: int) -> None:
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(2**20))
        file.flush()
        os.fsync(file.fileno())


def record(name: str) -> None:
    """Cause it, and write down what happens."""
    setting = SETTINGS[name]
    with tempfile.TemporaryDirectory() as folder, other_jobs(setting.other_jobs):
        if setting.ranks == 1:
            one_rank(World(rank=0, size=1, device=torch.device("cpu")), Path(folder), setting)
        else:
            run_ranks(one_rank, setting.ranks, Path(folder), setting)
        keep(name, json.loads((Path(folder) / "trace.json").read_text()))


def record_run(name: str, cause: str, directory: Path) -> None:
    """Take over what a whole training has written."""
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    told = [
        {key: line[key] for key in ("event", "step", "ranks", "devices", "host") if key in line}
        for line in lines
        if line["event"] in ("train", "devices")
    ]
    keep(name, {"cause": cause, "plan": json.loads((directory / "plan.json").read_text()), "lines": told})


def keep(name: str, found: dict[str, Any]) -> None:
    """Write a trace without what is of this machine alone."""
    for line in found["lines"]:
        for one in line.get("ranks", ()):
            one["host"] = "recorded"
    found["plan"] = {
        key: found["plan"][key] for key in ("device_kind", "workers", "device_batch", "nodes", "precision")
    }
    (HERE / f"{name}.json").write_text(json.dumps(found, indent=0) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--run"]:
        record_run(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
        sys.exit()
    for chosen in sys.argv[1:] or SETTINGS:
        record(chosen)
        print(chosen, flush=True)
