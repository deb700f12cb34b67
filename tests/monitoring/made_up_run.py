"""Run directories and machines for the monitor to look at."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from made_up_traces import GPU_PLAN, run

from monitoring.samples import DeviceSample, HostSample, MachineSample

H200 = {
    "utilisation": 98.0, "sm_activity": 84.0, "tensor_activity": 36.0, "memory_used": 98e9, "memory_total": 150e9,
    "power": 655.0, "power_limit": 700.0, "temperature": 64.0, "slowdown_temperature": 87.0, "sm_clock": 1905.0,
    "sm_clock_max": 1980.0, "clock_reasons": 4.0, "ecc_uncorrected": 0.0, "xid_errors": 0.0, "energy": 1e6,
}  # fmt: skip
HOST = {
    "cpu": 41.0, "iowait": 0.4, "cores": 128.0, "memory_used": 210e9, "memory_total": 1000e9,
    "shared_memory_used": 9e9, "shared_memory_total": 64e9, "disk_used": 3e12, "disk_total": 7e12,
}  # fmt: skip


def machine(gpus: int = 8, **different: float) -> MachineSample:
    """A machine of H200s; `different` figures belong to the last of them."""
    devices = [
        DeviceSample(
            index=number, uuid=f"GPU-{number}", name="NVIDIA H200",
            values={**H200, **(different if number == gpus - 1 else {})},
        )
        for number in range(gpus)
    ]  # fmt: skip
    host = HostSample(name="node0", values=HOST)
    return MachineSample(time=time.time(), backend="NVML, driver 580.95.05", devices=tuple(devices), host=host)


def write_run(directory: Path, lines: list[dict[str, Any]] | None = None, **plan: Any) -> Path:
    """A run directory of eight ranks in the middle of a training, by this process."""
    directory.mkdir(parents=True)
    lines = lines if lines is not None else run(ranks=8)
    for line in lines:
        if line["event"] == "train":
            line |= {
                "epoch": line["step"] / 100,
                "loss": 2.5,
                "learning_rate": 2e-4,
                "grad_norm": 12.5,
                "time": time.time(),
            }
            line |= {"samples_per_second": 98.5, "images_per_second": 5319.0, "eta_seconds": 43210.0, "data_wait": 0.01}
            line |= {"memory_bytes": 95e9, "terms": {"loss_depth": 1.5, "loss_boxes": 1.0}}
            for one in line["ranks"]:
                one |= {"pid": os.getpid(), "host": socket.gethostname()}
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = {**GPU_PLAN, "recipe": "bevnext/bevnext-stage2", "total_steps": 46320, "epochs": 24, "steps_per_epoch": 1930}
    (directory / "plan.json").write_text(json.dumps({**told, **plan}))
    return directory
