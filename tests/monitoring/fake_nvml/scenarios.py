"""What the sampler makes of a pretended NVML. Run as `scenarios.py NAME` with the pretended library in
LD_LIBRARY_PATH; prints JSON. Processes of their own: a loaded library stays loaded."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

import pynvml

from monitoring import training_processes
from monitoring.fields import DEVICE
from monitoring.nvml import NvmlDevices
from monitoring.nvml_ask import GONE
from monitoring.nvml_device import PATIENCE
from monitoring.nvml_queries import OF_THE_WHOLE_GPU
from monitoring.sampler import Sampler
from monitoring.samples import DeviceSample

FAKE = ctypes.CDLL("libnvidia-ml.so.1")
FAKE.fake_calls.restype = ctypes.c_ulonglong
CODES = sorted({code for name, code in vars(pynvml).items() if name.startswith("NVML_ERROR_") and code})
NEW_CODE = 777  # of a driver that is newer than the binding
PLACEHOLDER = -1
OLD_FORMS = (
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetFieldValues",
)
CLOSING = ("nvmlShutdown", "nvmlEventSetFree", "nvmlGpmSampleFree")
OLDER = {"memory_used": 50e9}
"""What the old form of a function answers: used with what is reserved."""
CHANGING = ("pcie_tx", "pcie_rx", "nvlink_tx", "nvlink_rx")


def fail(name: str, code: int) -> None:
    FAKE.fake_fail(name.encode(), code)


def functions_used() -> list[str]:
    """Every function of the library that the sampler calls, old forms too."""
    FAKE.fake_gpus(1, 1)
    for old in ("", *OLD_FORMS):
        FAKE.fake_heal()
        if old:
            fail(old, pynvml.NVML_ERROR_NOT_SUPPORTED)
        devices = NvmlDevices()
        devices.sample(time.monotonic())
        devices.sample(time.monotonic())
        devices.close()
    FAKE.fake_heal()
    return sorted(pynvml._nvmlGetFunctionPointer_cache)


def looks(devices: NvmlDevices, count: int) -> tuple[list[tuple[DeviceSample, ...]], list[set[str]]]:
    samples, alerts = [], []
    for _ in range(count):
        samples.append(devices.sample(time.monotonic()))
        alerts.append({alert.kind for alert in devices.alerts()})
    return samples, alerts


def complaints(samples: list[tuple[DeviceSample, ...]], true: dict[str, dict[str, float]]) -> list[str]:
    """A figure in neither or both places, one without a reason, a value that is not the true one."""
    found = []
    for one in (device for sample in samples for device in sample):
        found += [
            f"{one.kind} {name}: value {one.values.get(name)}, reason {one.missing.get(name)!r}"
            for name in DEVICE
            if (name in one.values) == bool(one.missing.get(name))
        ]
        for name, value in one.values.items():
            if name not in CHANGING and value not in (true[one.kind].get(name), OLDER.get(name)):
                found.append(f"{one.kind} {name} is {value}, truly {true[one.kind].get(name)}")
    return found


def matrix() -> dict[str, Any]:
    """Every function x every error x {at the start, in mid-run}."""
    functions = functions_used()
    healthy = NvmlDevices()
    looks(healthy, 1)
    true = {one.kind: dict(one.values) for one in healthy.sample(time.monotonic())}
    healthy.close()
    cases, wrong, alerted = 0, [], 0
    for function in functions:
        for code in (*CODES, NEW_CODE, PLACEHOLDER):
            for when in ("start", "mid-run"):
                FAKE.fake_heal()
                case = f"{function} {code} {when}"
                cases += 1
                try:
                    if when == "start":
                        fail(function, code)
                    devices = NvmlDevices()
                    samples, _ = looks(devices, 2)
                    if when == "mid-run":
                        fail(function, code)
                    more, alerts = looks(devices, PATIENCE)
                    wrong += [f"{case}: {text}" for text in complaints(samples + more, true)]
                    every_time = function in EVERY_SAMPLE and when == "mid-run"
                    if every_time and code in {*GONE, pynvml.NVML_ERROR_UNKNOWN}:
                        alerted += 1
                        if "gpu_lost" not in set.union(*alerts):
                            wrong.append(f"{case}: no alert within {PATIENCE} intervals")
                    devices.close()
                    if FAKE.fake_leaks() and function not in CLOSING:
                        wrong.append(f"{case}: {FAKE.fake_leaks()} things of the driver are not given back")
                    forget_leaks()
                except Exception as error:
                    wrong.append(f"{case}: {type(error).__name__}: {error}")
    return {"functions": len(functions), "codes": len(CODES) + 2, "cases": cases, "alerted": alerted, "wrong": wrong}


EVERY_SAMPLE = (
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlGpmSampleGet",
    "nvmlGpmMigSampleGet",
    "nvmlGpmMetricsGet",
)


def forget_leaks() -> None:
    """A driver that will not take things back keeps them: not our fault, and not the next case's."""
    FAKE.fake_heal()
    FAKE.fake_forget()


def eight() -> dict[str, Any]:
    """Eight GPUs, the first divided into three."""
    FAKE.fake_gpus(8, 3)
    with Sampler("nvml") as sampler:
        sampler.sample()
        sample = sampler.sample()
    return {
        "backend": sample.backend,
        "devices": [[one.index, one.kind, one.uuid, one.parent] for one in sample.devices],
        "temperatures": [one.values["temperature"] for one in sample.devices if one.kind == "gpu"],
        "instance": {"values": sorted(sample.devices[1].values), "whole": sorted(OF_THE_WHOLE_GPU & {*DEVICE})},
        "alerts": len(sample.alerts),
        "leaks": FAKE.fake_leaks(),
    }


def unplug() -> dict[str, Any]:
    """GPU 3 of eight is pulled out, and comes back."""
    FAKE.fake_gpus(8, 0)
    devices = NvmlDevices()
    looks(devices, 3)
    FAKE.fake_unplug(3)
    gone, alerts = looks(devices, 1)
    said = [[alert.subject, alert.text] for alert in devices.alerts()]
    _, later = looks(devices, 30)  # over attempts to open the driver again
    still = len(devices.sample(time.monotonic()))
    FAKE.fake_heal()
    back, healed = looks(devices, 12)
    devices.close()
    return {
        "first": sorted(alerts[0]),
        "said": said,
        "values": gone[0][3].values,
        "others": len(gone[0][4].values),
        "always": all("gpu_lost" in one or "device_error" in one for one in later),
        "still": still,
        "healed": sorted(healed[-1]),
        "back": [len(back[-1]), back[-1][3].values.get("temperature")],
        "leaks": FAKE.fake_leaks(),
    }


def driver_gone() -> dict[str, Any]:
    """A container loses its GPUs: everything says "unknown error", starting NVML anew too."""
    FAKE.fake_gpus(2, 0)
    devices = NvmlDevices()
    looks(devices, 2)
    for function in pynvml._nvmlGetFunctionPointer_cache:
        fail(function, pynvml.NVML_ERROR_UNKNOWN)
    samples, alerts = looks(devices, 25)
    return {
        "intervals": 1 + next(i for i, one in enumerate(alerts) if "gpu_lost" in one),
        "always": all("gpu_lost" in one for one in alerts[1:]),
        "devices": [len(one) for one in samples],
        "text": [alert.text for alert in devices.alerts()],
    }


def xid() -> dict[str, Any]:
    """A critical error of GPU 1."""
    FAKE.fake_gpus(2, 0)
    with Sampler("nvml") as sampler:
        before = sampler.sample()
        FAKE.fake_xid(1, ctypes.c_ulonglong(79))
        after = sampler.sample()
    return {
        "before": [one.values["xid_errors"] for one in before.devices],
        "after": [one.values["xid_errors"] for one in after.devices],
        "last": [one.values.get("last_xid") for one in after.devices],
        "alerts": [[alert.subject, alert.text] for alert in after.alerts],
    }


def old_driver() -> dict[str, Any]:
    """A driver without the new functions and without the new kinds of answers."""
    FAKE.fake_gpus(1, 0)
    for name in OLD_FORMS:
        fail(name, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    fail("nvmlGpmQueryDeviceSupport", pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    with Sampler("nvml") as sampler:
        sampler.sample()
        before = FAKE.fake_calls()
        sample = sampler.sample()
        calls = FAKE.fake_calls() - before
    device = sample.devices[0]
    return {"values": device.values, "missing": device.missing, "calls": calls}


def ranks() -> dict[str, Any]:
    """The driver names a process that is a rank here: with the machine's process ids, and in a container."""
    FAKE.fake_gpus(1, 0)
    environment = {**os.environ, "TORCHELASTIC_RUN_ID": "none", "RANK": "5"}
    found: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(["cat"], env=environment, stdin=subprocess.PIPE) as rank,
    ):
        FAKE.fake_process(rank.pid)
        own = Path(folder, "pid")
        for place, number in (("machine", "4026531836"), ("container", "4026532999"), ("no /proc", None)):
            own.unlink(missing_ok=True)
            if number is not None:
                own.symlink_to(f"pid:[{number}]")
            training_processes.OWN_NAMESPACE = own
            with Sampler("nvml") as sampler:
                device = sampler.sample().devices[0]
            process = device.processes[0]
            found[place] = [process.pid == rank.pid, process.rank, device.missing.get("ranks")]
        rank.stdin.close()
    return found


def cost() -> dict[str, Any]:
    """Processor time of a sample of eight GPUs and the host."""
    FAKE.fake_gpus(8, 0)
    with Sampler("nvml") as sampler:
        sampler.sample()
        before, rounds = time.process_time(), 100
        for _ in range(rounds):
            sampler.sample()
        return {"seconds": (time.process_time() - before) / rounds}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]]()))
