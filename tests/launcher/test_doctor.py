"""The doctor: each failure is provoked by facts, recognised, and answered with a fix."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.dataset import choose_data
from launcher.doctor import diagnosis
from launcher.doctor.containers import check_compose, check_docker, check_docker_disk, check_image, check_toolkit
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
from launcher.doctor.project import check_data, check_links, check_packages, check_versions, package_files
from launcher.doctor.settings import (
    check_device,
    check_environment,
    check_owner,
    check_ports,
    check_proxy,
    read_settings,
)
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
    check_versions({"base": "a==1.0 \\\n", "torch": 'b==2 ; python_version < "3.11"\n'}, {"a": "1.0"}),
    check_versions({"torch": "torch==2.14.1 \\\n"}, {"torch": "2.14.1+cpu"}),
    check_versions({"base": "a==1\n", "notebook": "b==2\n"}, {"a": "1"}),
    check_versions({}, {}),
    check_docker(lambda _: (0, "28.0"), installed=True),
    check_docker(lambda _: (1, ""), installed=False),
    check_compose(lambda _: (0, "2.40.1"), installed=True),
    check_toolkit(lambda _: (0, '{"nvidia":{}}'), installed=True, gpus=1),
    check_toolkit(lambda _: (0, "{}"), installed=True, gpus=1, specifications=[Path("/etc/cdi/nvidia.yaml")]),
    check_image(lambda _: (0, "sha256:1"), installed=True, image="i"),
    check_docker_disk(lambda _: (0, "/"), installed=True, free=lambda _: 2**40),
    check_environment({"NCCL_IB_DISABLE": "0"}),
    check_proxy({}),
    check_proxy({"http_proxy": "http://p", "no_proxy": "localhost"}),
    check_device({}, containers_get_gpus=True),
    check_device({"BEVNEXT_SAM2_DEVICE": "cpu"}, containers_get_gpus=False),
    check_owner(Path("/no/such/folder"), {}, 1000),
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
    "drift": (check_versions({"dev": "a==1 \\\n"}, {"a": "2"}), Level.WARN, "a 2 (locked 1)", "set_up.sh"),
    "missing": (check_versions({"base": "A_b==1\n"}, {}), Level.WARN, "a-b is missing", "set_up.sh"),
    "docker down": (check_docker(lambda _: (1, "Cannot connect"), installed=True), Level.WARN, "Cannot", "systemctl"),
    "docker rights": (
        check_docker(lambda _: (1, "permission denied while trying"), installed=True),
        Level.FAIL,
        "may not",
        "usermod",
    ),
    "no compose": (check_compose(lambda _: (1, "unknown"), installed=True), Level.WARN, "no Compose", "install"),
    "no container toolkit": (
        check_toolkit(lambda _: (0, '{"runc":{}}'), installed=True, gpus=2),
        Level.FAIL,
        "no NVIDIA container toolkit",
        "setup_gpu.sh --install",
    ),
    "no image": (
        check_image(lambda command: (int(command[1] == "image"), ""), installed=True, image="i"),
        Level.WARN,
        "i is not built",
        "build.sh",
    ),
    "no room for images": (
        check_docker_disk(lambda _: (0, "/"), installed=True, free=lambda _: 2**30),
        Level.WARN,
        "1 GiB free",
        "system df",
    ),
    "left over from debugging": (
        check_environment({"CUDA_LAUNCH_BLOCKING": "1"}),
        Level.WARN,
        "waits for every kernel",
        "unset CUDA_LAUNCH_BLOCKING",
    ),
    "proxy": (check_proxy({"HTTP_PROXY": "http://p"}), Level.WARN, "http://p", "no_proxy"),
    "gpus that compose cannot have": (
        check_device({}, containers_get_gpus=False),
        Level.WARN,
        "asks for",
        "--write-env",
    ),
    "gpus left alone": (
        check_device({"BEVNEXT_SAM2_DEVICE": "cpu"}, containers_get_gpus=True),
        Level.WARN,
        "unused",
        "--write-env",
    ),
    "misspelt device": (check_device({"BEVNEXT_SAM2_DEVICE": "tpu"}, True), Level.FAIL, "tpu", "--write-env"),
    "outputs of root": (check_owner(Path("/usr"), {}, 1000), Level.WARN, "belongs to root", "chown -R 1000"),
    "misspelt port": (
        only([*check_ports({"BEVNEXT_SAM2_JUPYTER_PORT": "x", "BEVNEXT_SAM2_TENSORBOARD_PORT": "1"})][:1]),
        Level.FAIL,
        "is no port",
        "BEVNEXT_SAM2_JUPYTER_PORT",
    ),
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


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        found = next(check_ports({"BEVNEXT_SAM2_JUPYTER_PORT": port}))
        assert (found.level, "in use" in found.detail, "JUPYTER_PORT" in found.fix) == (Level.WARN, True, True)
    assert next(check_ports({"BEVNEXT_SAM2_JUPYTER_PORT": port})).level is Level.OK


def test_outputs_of_another_user(tmp_path: Path) -> None:
    user = os.getuid() or 1234
    if os.getuid() == 0:
        os.chown(tmp_path, user, user)
    assert check_owner(tmp_path, {"BEVNEXT_SAM2_UID": str(user)}, user).level is Level.OK
    found = check_owner(tmp_path, {"BEVNEXT_SAM2_UID": str(user + 1)}, user)
    assert (found.level, f"belongs to {user}" in found.detail) == (Level.WARN, True)


def test_links_to_a_disk_that_is_not_mounted(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "samples").symlink_to(tmp_path / "disk")
    assert check_links(tmp_path).level is Level.OK
    (tmp_path / "disk").rmdir()
    found = check_links(tmp_path)
    assert (found.level, "samples ->" in found.detail, "mount" in found.fix) == (Level.FAIL, True, True)
    assert check_links(tmp_path / "none").level is Level.OK


def test_settings_of_the_shell_come_before_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# BEVNEXT_SAM2_UID=1\nBEVNEXT_SAM2_UID='7'\nOTHER=2\nBEVNEXT_SAM2_GID=8\n")
    found = read_settings(tmp_path / ".env", {"BEVNEXT_SAM2_GID": "9", "HOME": "/"})
    assert found == {"BEVNEXT_SAM2_UID": "7", "BEVNEXT_SAM2_GID": "9"}
    assert read_settings(tmp_path / "none", {}) == {}


def test_nothing_is_said_about_containers_that_cannot_be_asked() -> None:
    assert check_toolkit(lambda _: (0, "{}"), installed=False, gpus=1) is None
    assert check_toolkit(lambda _: (0, "{}"), installed=True, gpus=0) is None
    assert check_toolkit(lambda _: (1, ""), installed=True, gpus=1) is None
    assert check_image(lambda _: (1, ""), installed=True, image="i") is None
    assert check_docker_disk(lambda _: (1, ""), installed=True) is None
    assert check_docker_disk(lambda _: (0, ""), installed=False) is None


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
