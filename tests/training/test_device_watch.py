"""The hardware beside a run: means over a while, in the log and as curves."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_reporter import PLAN, report

from monitoring.samples import Alert, DeviceSample, HostSample, MachineSample
from monitoring.window import Hardware
from training.device_watch import DeviceWatch
from training.reporter import Reporter


def look(utilisation: float | None, reasons: int, **host: float) -> MachineSample:
    values = {"clock_reasons": float(reasons), "energy": 1.0}
    if utilisation is not None:
        values["utilisation"] = utilisation
    gpu = DeviceSample(index=0, uuid="GPU-a", name="H200", values=values)
    return MachineSample(
        time=0.0, backend="NVML", devices=(gpu,), host=HostSample(name="here", values=host),
        alerts=(Alert(kind="disk", subject="/data", text="full"),),
    )  # fmt: skip


def test_means_over_a_while_leave_out_what_was_missing() -> None:
    hardware = Hardware((look(80, 4, cpu=10), look(None, 0, cpu=20), look(90, 0x24, cpu=30)))
    line = hardware.line()
    assert line["devices"] == [
        {
            "index": 0,
            "uuid": "GPU-a",
            "name": "H200",
            "kind": "gpu",
            "values": pytest.approx({"utilisation": 85.0, "held_by_power": 200 / 3, "held_by_heat": 100 / 3}),
        }
    ]
    assert (line["host"], line["looks"], line["alerts"]) == ({"cpu": 20.0}, 3, ["/data: full"])
    assert hardware.curves()["device0/utilisation"] == 85.0


def test_a_run_keeps_what_the_hardware_did(tmp_path: Path) -> None:
    watch = DeviceWatch(tmp_path, every=0.02, line_every=0.0)
    reporter = Reporter(tmp_path, PLAN, log_every=1, first_step=0, devices=watch)
    deadline = time.monotonic() + 240
    while not watch._samples:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    reporter.step(1, report(9.0), waited=0.0)
    reporter.close()
    found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["event"] for line in found] == ["train", "devices"]
    assert found[1]["host"]["memory_total"] > 2**28
    curves = EventAccumulator(str(tmp_path / "tensorboard"))
    curves.Reload()
    assert "host/cpu" in curves.Tags()["scalars"]


def test_lines_are_apart(tmp_path: Path) -> None:
    watch = DeviceWatch(tmp_path, every=0.01, line_every=1000)
    deadline = time.monotonic() + 240
    while (first := watch.take()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.05)
    assert first.samples
    assert watch.take() is None
    watch.close()
