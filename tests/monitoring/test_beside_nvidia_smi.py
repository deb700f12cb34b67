"""On a machine with GPUs the sampler tells what `nvidia-smi` tells: what moves nearly, all else exactly."""

from __future__ import annotations

import csv
import shutil
import subprocess

import pytest

from monitoring.nvml import NvmlDevices
from monitoring.samples import DeviceSample, Missing

pytestmark = pytest.mark.gpu
MEBIBYTE = 2**20
FIGURES = {
    # name: (nvidia-smi's, in units of ours, how far apart two looks may be: a part of it, and so much)
    "memory_total": ("memory.total", MEBIBYTE, 0.0, MEBIBYTE),
    "memory_used": ("memory.used", MEBIBYTE, 0.05, 64 * MEBIBYTE),
    "memory_reserved": ("memory.reserved", MEBIBYTE, 0.0, 2 * MEBIBYTE),
    "power": ("power.draw", 1, 0.25, 30.0),
    "power_limit": ("enforced.power.limit", 1, 0.0, 0.01),
    "temperature": ("temperature.gpu", 1, 0.0, 4.0),
    "memory_temperature": ("temperature.memory", 1, 0.0, 4.0),
    "sm_clock_max": ("clocks.max.sm", 1, 0.0, 0.0),
    "pcie_generation_max": ("pcie.link.gen.max", 1, 0.0, 0.0),
    "pcie_width_max": ("pcie.link.width.max", 1, 0.0, 0.0),
    "ecc_uncorrected": ("ecc.errors.uncorrected.volatile.total", 1, 0.0, 0.0),
}


def told_by_nvidia_smi() -> list[dict[str, str]]:
    """A row for each GPU, by nvidia-smi's names."""
    if shutil.which("nvidia-smi") is None:
        pytest.skip("there is no nvidia-smi here")
    names = ["uuid", "name", *(name for name, *_ in FIGURES.values())]
    command = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return [dict(zip(names, (cell.strip() for cell in row), strict=True)) for row in csv.reader(text.splitlines())]


def whole_gpus() -> list[DeviceSample]:
    devices = NvmlDevices()
    assert devices.problem is None
    found = devices.sample(0.0)
    devices.close()
    return [one for one in found if one.kind == "gpu"]


def test_figures_agree() -> None:
    rows, gpus = told_by_nvidia_smi(), whole_gpus()
    assert [(one.uuid, one.name) for one in gpus] == [(row["uuid"], row["name"]) for row in rows]
    apart = []
    for gpu, row in zip(gpus, rows, strict=True):
        for figure, (name, unit, part, most) in FIGURES.items():
            ours: float | Missing = gpu.values.get(figure, Missing(gpu.missing.get(figure, "")))
            try:
                theirs = float(row[name]) * unit
            except ValueError:  # such as [N/A]
                theirs = None
            if theirs is None and isinstance(ours, Missing):
                continue
            if theirs is None or isinstance(ours, Missing) or abs(ours - theirs) > part * theirs + most:
                apart.append(f"GPU {gpu.index} {figure}: {ours}, nvidia-smi {row[name]}")
    assert not apart


def test_counters_of_activity_are_there_from_hopper_on() -> None:
    """GPM: with two looks there are shares, not a zero in place of one."""
    devices = NvmlDevices()
    devices.sample(0.0)
    found = devices.sample(1.0)
    devices.close()
    for one in found:
        old = "Hopper" in one.missing.get("sm_activity", "")
        assert old or 0 <= one.values["sm_activity"] <= 100, one.missing
