"""The host, and what the sampler makes of a machine without accelerators."""

from __future__ import annotations

import time
from collections import namedtuple
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pynvml
import pytest

from monitoring import Sampler
from monitoring.fields import DEVICE, HOST, clock_reasons
from monitoring.host import Host
from monitoring.processor import GroupProcessor, group_memory, group_processor
from monitoring.rates import Rates
from monitoring.samples import Missing
from monitoring.training_processes import rank_of


def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(flags: int = 0) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fails)


def test_a_machine_without_accelerators_is_still_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    no_driver(monkeypatch)
    with Sampler() as sampler:
        first = sampler.sample()
        time.sleep(0.05)
        second = sampler.sample()
    assert first.host.missing["cpu"] == "a rate: there is one after the second sample"
    assert (second.backend, second.devices) == ("host only", ())
    assert "no NVIDIA driver here" in (second.problem or "")
    assert set(second.host.values) | set(second.host.missing) == set(HOST)
    assert second.host.values["memory_total"] > 2**28
    assert second.model_validate_json(second.model_dump_json()) == second


def test_asking_for_a_backend_that_is_not_there_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    no_driver(monkeypatch)
    with Sampler("nvml") as sampler:
        found = sampler.sample()
    assert (found.backend, found.devices, found.alerts) == ("NVML", (), ())
    assert found.problem == "NVML Shared Library Not Found"
    with Sampler("host") as sampler:
        assert sampler.sample().problem == "not asked for"
    with Sampler("npu-smi") as sampler:
        assert sampler.sample().problem == "there is no npu-smi here"


FUNCTIONS = ["cpu_times", "virtual_memory", "swap_memory", "disk_io_counters", "net_io_counters"]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("error", [PermissionError("no"), FileNotFoundError("/proc/stat"), RuntimeError("odd /proc")])
def test_what_the_kernel_hides_is_missing(function: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(psutil, function, fails)
    found = Host().sample(0.0)
    assert set(found.values) | set(found.missing) == set(HOST)
    assert sum(type(error).__name__ in reason for reason in found.missing.values()) >= 1


def test_a_folder_that_is_gone_is_missing() -> None:
    found = Host(Path("/no/such/folder")).sample(0.0)
    assert "FileNotFoundError" in found.missing["disk_used"]


def test_a_machine_without_disks_or_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "disk_io_counters", lambda perdisk: {})
    monkeypatch.setattr(psutil, "net_io_counters", lambda pernic: {"lo": None})
    found = Host().sample(0.0)
    assert found.missing["disk_busy"] == "the kernel shows no disks here"
    assert found.missing["network_sent"] == "there is no network but the loopback"


def test_bytes_of_a_disk_count_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("sda", "cciss!c0d0"):
        (tmp_path / name / "device").mkdir(parents=True)
    (tmp_path / "dm-0").mkdir()  # LVM upon sda
    monkeypatch.setattr("monitoring.host.BLOCK_DEVICES", tmp_path)
    read = 0

    def counters(perdisk: bool) -> dict[str, SimpleNamespace]:
        one = SimpleNamespace(read_bytes=read, write_bytes=2 * read, busy_time=0)
        return dict.fromkeys(("sda", "sda1", "dm-0", "loop0", "cciss/c0d0"), one)

    monkeypatch.setattr(psutil, "disk_io_counters", counters)
    host = Host()
    host.sample(0.0)
    read = 1000
    values = host.sample(2.0).values
    assert (values["disk_read"], values["disk_written"]) == (1000.0, 2000.0)  # of two disks
    monkeypatch.setattr("monitoring.host.BLOCK_DEVICES", tmp_path / "hidden")
    host = Host()
    host.sample(4.0)
    read = 2000
    assert host.sample(6.0).values["disk_read"] == 2000.0  # of four: which is part of which cannot be seen


def test_bytes_of_a_card_count_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "eth0" / "device").mkdir(parents=True)
    monkeypatch.setattr("monitoring.host.NETWORK_CARDS", tmp_path)
    one = SimpleNamespace(bytes_recv=0, bytes_sent=0)
    monkeypatch.setattr(
        psutil, "net_io_counters", lambda pernic: dict.fromkeys(("lo", "eth0", "docker0", "veth1"), one)
    )
    host = Host()
    host.sample(0.0)
    one.bytes_recv, one.bytes_sent = 600, 300
    values = host.sample(3.0).values
    assert (values["network_received"], values["network_sent"]) == (200.0, 100.0)
    monkeypatch.setattr("monitoring.host.NETWORK_CARDS", tmp_path / "hidden")
    host = Host()
    host.sample(3.0)
    one.bytes_recv = 900
    assert host.sample(4.0).values["network_received"] == 900.0  # of three, all but the loopback


def test_processor_time_that_goes_backwards_is_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    times = namedtuple("times", "user idle iowait guest")
    found = [times(10, 10, 0, 0), times(11, 12, 1, 0), times(5, 5, 0, 0)]
    monkeypatch.setattr(psutil, "cpu_times", lambda: found.pop(0))
    host = Host()
    host.sample(0.0)
    values = host.sample(1.0).values
    assert (values["cpu"], values["iowait"]) == (25.0, 25.0)
    assert "cpu" in host.sample(2.0).missing


def test_a_full_disk_is_an_alert(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_driver(monkeypatch)
    full = SimpleNamespace(f_bavail=4, f_bfree=4, f_blocks=100, f_frsize=2**20)
    monkeypatch.setattr("os.statvfs", lambda path: full)
    with Sampler(disk=tmp_path) as sampler:
        (alert,) = sampler.sample().alerts
    assert (alert.kind, alert.text) == ("disk", "disk 96% full, 0.0 GiB left")


def test_rates_need_two_counts_and_survive_counters_that_begin_anew() -> None:
    rates = Rates()
    assert isinstance(rates.of("a", 100, 10.0), Missing)
    assert rates.of("a", 150, 12.0) == 25.0
    assert isinstance(rates.of("a", 200, 12.0), Missing)  # no time went by
    assert rates.of("a", 10, 13.0) == Missing("the counter began anew")
    assert rates.of("a", Missing("gone"), 14.0) == Missing("gone")
    assert isinstance(rates.of("a", 20, 15.0), Missing)


def test_figures_know_what_cannot_be() -> None:
    assert DEVICE["power"].checked(700) == 700.0
    for name, wrong in (("power", 2**32 / 1e3), ("utilisation", 101), ("temperature", float("nan")), ("power", -1)):
        assert isinstance(DEVICE[name].checked(wrong), Missing)
    assert clock_reasons(4 + 64) == ["power cap", "heat (hardware)"]
    assert clock_reasons(0) == []
    assert all(figure.what for figure in (*DEVICE.values(), *HOST.values()))


def test_memory_of_the_container(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/pod\n")
    pod = tmp_path / "cgroup/pod"
    pod.mkdir(parents=True)
    assert group_memory(tmp_path / "cgroup", own) is None
    (pod / "memory.max").write_text("max\n")
    (pod / "memory.current").write_text("1000\n")
    assert group_memory(tmp_path / "cgroup", own) is None
    (pod / "memory.max").write_text("4000\n")
    assert group_memory(tmp_path / "cgroup", own) == (1000, 4000)


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_of_", ".")).write_text(text)


def quota_of(folder: Path) -> Callable[[], GroupProcessor | None]:
    own = folder / "own"
    own.write_text("0::/pod/box\n")
    return partial(group_processor, folder / "cgroup", own)


def test_processor_time_against_the_quota(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    look = quota_of(tmp_path)
    monkeypatch.setattr("monitoring.host.group_processor", look)
    box, stat = tmp_path / "cgroup/pod/box", "usage_usec {}\nuser_usec 1\nnr_periods {}\nnr_throttled {}\n"
    host, names = Host(), ("container_cpu", "container_cpu_held", "container_cpu_limit")
    assert host.sample(0.0).missing["container_cpu"] == "no quota on the processor time of this container"
    write(box, cpu_of_max="max 100000\n", cpu_of_stat=stat.format(10_000_000, 0, 0))
    assert look() is None
    write(box, cpu_of_max="800000 100000\n")
    write(box.parent, cpu_of_max="400000 100000\n", cpu_of_stat=stat.format(10_000_000, 100, 5))
    assert look() == GroupProcessor(quota=4.0, used=10.0, periods=100, held=5)  # the tightest counts
    first = host.sample(1.0)
    assert (first.values["container_cpu_limit"], "container_cpu" in first.missing) == (4.0, True)
    write(box.parent, cpu_of_stat=stat.format(16_000_000, 120, 20))
    values = host.sample(3.0).values
    assert [values[name] for name in names] == [75.0, 75.0, 4.0]  # 6 s in 2 s of 4 processors; 15 of 20 periods
    idle = host.sample(4.0)
    assert idle.values["container_cpu"] == 0.0
    assert idle.missing["container_cpu_held"] == "no period of the quota since the last look"
    write(box, cpu_of_stat="")
    write(box.parent, cpu_of_stat="")  # a kernel that does not count
    assert set(names) <= set(host.sample(5.0).missing)


def test_the_quota_of_version_1(tmp_path: Path) -> None:
    look = quota_of(tmp_path)
    cpu = tmp_path / "cgroup/cpu"
    write(cpu, cpu_of_cfs_quota_us="-1", cpu_of_cfs_period_us="100000", cpu_of_stat="nr_periods 9\nnr_throttled 3\n")
    write(tmp_path / "cgroup/cpuacct", cpuacct_of_usage="2500000000")
    assert look() is None
    write(cpu, cpu_of_cfs_quota_us="150000")
    assert look() == GroupProcessor(quota=1.5, used=2.5, periods=9, held=3)


def test_processes_that_are_not_ours_have_no_rank() -> None:
    assert rank_of(1) is None
    assert rank_of(2**22 + 1) is None
