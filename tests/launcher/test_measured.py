"""What earlier runs tell the plan: only comparable ones, only of their latest start, and it is said which run."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UsageError
from launcher.options import TrainRequest
from launcher.planning import PlannedRun, decide, plan_run
from launcher.run_folder import write_run
from monitoring.devices import GpuSurvey

NO_GPU = GpuSurvey(problem="none", driver_missing=True)


def planned(root: Path, **request: Any) -> PlannedRun:
    return plan_run(decide(TrainRequest(data_root=root, num_processes=2, **request), NO_GPU))


def trained(root: Path, rates: list[float], saves: list[float], *, earlier: bool = False, **request: Any) -> PlannedRun:
    """A run that has logged rates of all its processes together, and the seconds of its checkpoints."""
    run = planned(root, **request)
    write_run(run.choices.run_dir, run.choices.recipe, run.plan, run.launch())
    now = time.time() + (-3600 if earlier else 1)
    lines = [{"event": "train", "time": now, "step": 1, "samples_per_second": rate} for rate in rates]
    lines += [{"event": "checkpoint", "time": now, "step": 1, "seconds": seconds} for seconds in saves]
    (run.choices.run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"cut')
    return run


def test_the_run_itself_tells_demand_and_grace(root: Path) -> None:
    first = trained(root, [1.0, 20.0, 30.0, 40.0], [3.0, 25.5])
    again = planned(root, resume="auto").plan
    assert (again.samples_per_second, again.images_per_second) == (30.0, 180.0)
    assert again.grace_seconds == 2 * 28  # a step of 4 samples at 20 a second, 25.5 s for the checkpoint, 2 to spare
    for name in ("samples_per_second", "grace_seconds"):
        assert f"timed in {first.choices.run_dir} (2 x 4 x 1, fp32)" in again.origins[name]
    with pytest.raises(UsageError, match="--grace-seconds 27 is less than 28, the time for a step"):
        planned(root, resume="auto", grace_seconds=27)


def test_the_newest_run_beside_it_stands_in(root: Path) -> None:
    trained(root, [1.0, 10.0], [], run="old")
    newer = trained(root, [1.0, 50.0], [2.0], run="new").choices.run_dir
    os.utime(newer.parent / "old" / "plan.json", (1, 1))
    found = planned(root, run="third").plan
    assert found.samples_per_second == 50.0
    assert str(newer) in found.origins["samples_per_second"]
    assert str(newer) in found.origins["grace_seconds"]


def test_another_network_or_an_earlier_start_tells_nothing(root: Path) -> None:
    trained(root, [1.0, 10.0], [1.0], run="a", overrides=("model.head.channels=17",))
    trained(root, [1.0, 10.0], [1.0], run="b", overrides=("data.image_size=[64, 128]",))
    trained(root, [1.0, 10.0], [1.0], run="c", earlier=True)
    trained(root, [], [], run="d")
    (planned(root).choices.run_dir.parent / "e").mkdir()
    found = planned(root).plan
    assert found.samples_per_second is None
    assert found.origins["samples_per_second"].startswith("unknown")
    assert (found.grace_seconds, found.origins["grace_seconds"]) == (120, "default: no checkpoint has been timed yet")
