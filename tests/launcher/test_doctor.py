"""The doctor: each failure is provoked by facts, recognised, and answered with a fix."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.dataset import choose_data
from launcher.doctor import diagnosis
from launcher.doctor.containers import check_compose, check_docker
from launcher.doctor.finding import Finding, Level, fail, ok, warn
from launcher.doctor.gpus import check_driver, check_gpus, check_torch
from launcher.doctor.machine import (
    addresses_of,
    check_folder,
    check_host_name,
    check_locale,
    check_memory,
    check_open_files,
    check_processor,
    check_python,
    check_shared_memory,
)
from launcher.doctor.project import check_data, check_packages, check_versions, package_files
from launcher.doctor.torch_probe import TorchFacts, probe_torch
from launcher.main import run
from launcher.own_process import ROOT
from monitoring.devices import Gpu, GpuSurvey

H200 = Gpu(0, "NVIDIA H200", "GPU-0", 141 * 2**30, (9, 0))
ONE_GPU = GpuSurvey(gpus=(H200,), driver="580.95")
NO_GPU = GpuSurvey(problem="NVML Shared Library Not Found", driver_missing=True)
GOOD_TORCH = TorchFacts(
    version="2.14.1",
    cuda="13.0",
    devices=1,
    architectures=("sm_80", "sm_90"),
    gloo=True,
    nccl="2.30",
    torchvision="0.29",
)

HEALTHY = [
    check_python((3, 10, 0)),
    check_python((3, 12, 9)),
    check_locale("UTF-8"),
    check_locale("utf8"),
    check_processor(16, None, "EPYC"),
    check_processor(16, 16.0, "EPYC"),
    check_memory(16 * 2**30),
    check_shared_memory(8 * 2**30),
    check_open_files(65536),
    check_open_files(-1),
    check_host_name("node1", ["10.0.0.1"]),
    check_driver(ONE_GPU, device_files=True),
    check_driver(NO_GPU, device_files=False),
    *check_gpus(ONE_GPU, None),
    *check_torch(GOOD_TORCH, ONE_GPU),
    *check_torch(replace(GOOD_TORCH, cuda=None, devices=0, nccl=""), NO_GPU),
    check_packages({name: str(ROOT / name / "__init__.py") for name in ("training", "scenes")}),
    check_versions(["a==1.0 \\\n", 'b==2 ; python_version < "3.11"\n'], {"a": "1.0"}),
    check_versions(["torch==2.14.1 \\\n"], {"torch": "2.14.1+cpu"}),
    check_versions([], {}),
    check_docker(lambda _: (0, "28.0"), installed=True),
    check_docker(lambda _: (1, ""), installed=False),
    check_compose(lambda _: (0, "2.40.1"), installed=True),
]


@pytest.mark.parametrize("finding", HEALTHY, ids=lambda finding: finding.check)
def test_a_healthy_machine_is_left_alone(finding: Finding) -> None:
    assert (finding.level, finding.fix) == (Level.OK, "")


def only(findings: Sequence[Finding]) -> Finding:
    """The one that is not fine."""
    (found,) = [finding for finding in findings if finding.level is not Level.OK]
    return found


SICK = {
    "old python": (check_python((3, 9, 1)), Level.FAIL, "3.9.1", "set_up.sh"),
    "new python": (check_python((3, 13, 0)), Level.FAIL, "3.13.0", "set_up.sh"),
    "ascii": (check_locale("ANSI_X3.4-1968"), Level.WARN, "not UTF-8", "LC_ALL"),
    "quota": (check_processor(64, 2.5, "EPYC"), Level.WARN, "2.5", "--cpus"),
    "little memory": (check_memory(2**30), Level.WARN, "1 GiB", "--workers 0"),
    "docker's shared memory": (check_shared_memory(64 * 2**20), Level.WARN, "64 MiB", "--shm-size"),
    "no shared memory": (check_shared_memory(None), Level.FAIL, "/dev/shm", "--workers 0"),
    "few files": (check_open_files(1024), Level.WARN, "1024", "ulimit"),
    "host name": (check_host_name("box", []), Level.FAIL, "box", "GLOO_SOCKET_IFNAME"),
    "no toolkit": (check_driver(NO_GPU, device_files=True), Level.FAIL, "NVML is missing", "--gpus all"),
    "driver updated": (
        check_driver(GpuSurvey(problem="Driver/library version mismatch"), device_files=True),
        Level.FAIL,
        "mismatch",
        "reboot",
    ),
    "gpus lost": (
        check_driver(GpuSurvey(problem="Unknown Error"), device_files=True),
        Level.FAIL,
        "Unknown Error",
        "daemon-reload",
    ),
    "no gpu seen": (only([*check_gpus(GpuSurvey(driver="580"), None)]), Level.FAIL, "sees none", "--gpus all"),
    "gpu hidden": (only([*check_gpus(ONE_GPU, "")]), Level.WARN, "0 of 1", "unset"),
    "no torch": (only([*check_torch(TorchFacts(error="no module"), ONE_GPU)]), Level.FAIL, "no module", "set_up.sh"),
    "torchvision of another build": (
        only([*check_torch(replace(GOOD_TORCH, torchvision_error="nms does not exist"), ONE_GPU)]),
        Level.FAIL,
        "nms",
        "one build",
    ),
    "no gloo": (only([*check_torch(replace(GOOD_TORCH, gloo=False), ONE_GPU)]), Level.FAIL, "gloo", "set_up.sh"),
    "no nccl": (only([*check_torch(replace(GOOD_TORCH, nccl=""), ONE_GPU)]), Level.FAIL, "NCCL", "set_up.sh"),
    "cpu build": (only([*check_torch(replace(GOOD_TORCH, cuda=None), ONE_GPU)]), Level.FAIL, "CPU only", "--torch"),
    "old driver": (
        only([*check_torch(GOOD_TORCH, replace(ONE_GPU, driver="550.54"))]),
        Level.FAIL,
        "needs driver 580",
        "cu126",
    ),
    "torch sees fewer": (
        only([*check_torch(replace(GOOD_TORCH, devices=0, cuda_error="(ECC error)"), ONE_GPU)]),
        Level.FAIL,
        "0 of 1 GPUs (ECC error)",
        "restart",
    ),
    "old gpu": (
        only([*check_torch(GOOD_TORCH, replace(ONE_GPU, gpus=(replace(H200, capability=(6, 1)),)))]),
        Level.FAIL,
        "6.1",
        "cu126",
    ),
    "shadowed": (
        check_packages({"training": "/venv/training/__init__.py", "scenes": None}),
        Level.FAIL,
        "`training` is /venv/training",
        "pip install",
    ),
    "drift": (check_versions(["a==1 \\\n"], {"a": "2"}), Level.WARN, "a 2 (locked 1)", "set_up.sh"),
    "missing": (check_versions(["A_b==1\n"], {}), Level.WARN, "a-b is missing", "set_up.sh"),
    "docker down": (check_docker(lambda _: (1, "Cannot connect"), installed=True), Level.WARN, "Cannot", "systemctl"),
    "docker rights": (
        check_docker(lambda _: (1, "permission denied while trying"), installed=True),
        Level.FAIL,
        "may not",
        "usermod",
    ),
    "no compose": (check_compose(lambda _: (1, "unknown"), installed=True), Level.WARN, "no Compose", "install"),
    "old compose": (check_compose(lambda _: (0, "v2.10.0"), installed=True), Level.WARN, "2.10.0", "2.24"),
}


@pytest.mark.parametrize("name", SICK)
def test_a_fault_is_recognised_and_has_a_fix(name: str) -> None:
    finding, level, words, fix = SICK[name]
    assert finding is not None
    assert finding.level is level
    assert words in finding.detail
    assert fix in finding.fix


# --- facts of this machine -------------------------------------------------------------------------------------------


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_folder("outputs", tmp_path / "new" / "deep", needs_writing=True).level is not Level.FAIL
    assert "to be made in" in check_folder("outputs", tmp_path / "new", needs_writing=True).detail
    (tmp_path / "file").touch()
    assert "is a file" in check_folder("outputs", tmp_path / "file", needs_writing=True).detail
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "not writable" in check_folder("outputs", tmp_path, needs_writing=True).detail
    assert check_folder("data", tmp_path, needs_writing=False).level is not Level.FAIL


@pytest.mark.parametrize(("free", "level"), [(2**20, Level.FAIL), (5 * 2**30, Level.WARN), (2**40, Level.OK)])
def test_disk_space(free: int, level: Level, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": free}))
    assert check_folder("outputs", tmp_path, needs_writing=True).level is level


def test_host_names() -> None:
    assert addresses_of("localhost")
    assert addresses_of("no-such-host.invalid") == []


def test_packages_of_this_checkout_are_ours() -> None:
    assert check_packages(package_files()).level is Level.OK


def test_the_data_set(root: Path, tmp_path: Path) -> None:
    there = choose_data(root, "v1.0-synthetic", None, "")
    assert check_data(there).level is Level.OK
    there.header.write_text("{}")
    assert check_data(there).level is Level.FAIL  # neither an index nor the tables to make one
    default = check_data(choose_data(None, None, None, ""))
    assert (default.level, "data synth" in default.fix) == (Level.WARN, True)
    assert check_data(choose_data(tmp_path / "no", None, None, "v1.0-mini")).level is Level.FAIL


def test_a_torch_that_hangs_or_dies() -> None:
    assert "more than" in probe_torch("import time; time.sleep(60)", timeout=0.5).error
    assert probe_torch("raise ImportError('libcudart.so.13')").error.endswith("ImportError: libcudart.so.13")


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("findings", "code"), [([ok("a", "b"), warn("c", "d", "e")], 0), ([fail("a", "b", "c")], 1)])
def test_exit_code_and_json(
    findings: list[Finding], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(diagnosis, "diagnose", lambda *_, **__: iter(findings))
    assert run(["doctor", "--json"]) == code
    assert [one["level"] for one in json.loads(capsys.readouterr().out)] == [one.level.value for one in findings]


def test_table_shows_the_fix(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(diagnosis, "diagnose", lambda *_, **__: iter([fail("disk", "[full]", "make room")]))
    assert run(["doctor"]) == 1
    output = capsys.readouterr().out
    assert "[full]" in output
    assert "fix: make room" in output
    assert "0 ok, 0 warn, 1 fail" in output


def test_quick_leaves_torch_and_docker_out(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "probe_torch", lambda: pytest.fail("torch was asked"))
    run(["doctor", "--quick", "--json"])
    checks = {one["check"] for one in json.loads(capsys.readouterr().out)}
    assert {"python", "shared memory", "driver", "packages", "versions", "data"} <= checks
    assert not {"torch", "docker"} & checks
