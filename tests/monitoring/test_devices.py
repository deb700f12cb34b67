"""Devices as NVML and the kernel tell them, with a pretended NVML: this machine may have no GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import UsageError
from monitoring.devices import Gpu, GpuSurvey, device_facts, explain_absence, survey_gpus, visible_gpus
from monitoring.processor import (
    cpu_quota,
    free_shared_memory,
    memory_limit,
    processor_name,
    usable_cores,
    usable_memory,
)

FOUR = tuple(Gpu(i, "NVIDIA H200", f"GPU-{i}abc", 2**37, (9, 0)) for i in range(4))


class PretendedNvml:
    """Answers of NVML; `faults` are error codes by function."""

    def __init__(self, gpus: int = 2, instances: int = 0, **faults: int) -> None:
        self.gpus, self.instances, self.faults = gpus, instances, faults
        self.open = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> PretendedNvml:
        for name in dir(self):
            if name.startswith("nvml"):
                monkeypatch.setattr(pynvml, name, self._faulty(name, getattr(self, name)))
        return self

    def _faulty(self, name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            if name in self.faults:
                raise pynvml.NVMLError(self.faults[name])
            return function(*arguments)

        return call

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.95.05"

    def nvmlDeviceGetCount(self) -> int:
        return self.gpus

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"GPU-{index}"

    def nvmlDeviceGetCudaComputeCapability(self, handle: str) -> tuple[int, int]:
        return (9, 0)

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:
        return [int(self.instances > 0)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: str) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, number: int) -> str:
        if number >= self.instances:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return f"MIG-{handle}-{number}"

    def nvmlDeviceGetName(self, handle: str) -> str:
        return "NVIDIA H200"

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return handle

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:
        return SimpleNamespace(total=2**37)


# --- what NVML says --------------------------------------------------------------------------------------------------


def test_gpus_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = PretendedNvml(gpus=2).install(monkeypatch)
    survey = survey_gpus()
    assert [gpu.uuid for gpu in survey.gpus] == ["GPU-0", "GPU-1"]
    assert (survey.driver, survey.problem, nvml.open) == ("580.95.05", None, 0)


def test_instances_stand_for_a_divided_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    PretendedNvml(gpus=1, instances=3).install(monkeypatch)
    survey = survey_gpus()
    assert [gpu.uuid for gpu in survey.gpus] == ["MIG-GPU-0-0", "MIG-GPU-0-1", "MIG-GPU-0-2"]
    assert len(survey.visible({})) == 1  # a process of CUDA sees one
    assert survey.visible({"CUDA_VISIBLE_DEVICES": "MIG-GPU-0-2"}) == survey.gpus[2:]


def test_gpus_that_cannot_be_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    PretendedNvml(gpus=1, nvmlDeviceGetMigMode=pynvml.NVML_ERROR_NOT_SUPPORTED).install(monkeypatch)
    assert [gpu.instance for gpu in survey_gpus().gpus] == [False]


ERRORS = sorted({code for name, code in vars(pynvml).items() if name.startswith("NVML_ERROR_") and code})


@pytest.mark.parametrize("function", [name for name in dir(PretendedNvml) if name.startswith("nvml")])
def test_every_error_of_every_call_is_an_answer(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if function == "nvmlShutdown":
        pytest.skip("called when all is known")
    for code in ERRORS:
        with monkeypatch.context() as patch:
            nvml = PretendedNvml(gpus=1, instances=1, **{function: code}).install(patch)
            survey = survey_gpus()
            assert survey.problem or survey.gpus
            assert nvml.open == 0


@pytest.mark.parametrize(
    ("code", "missing"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, True),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, True),
        (pynvml.NVML_ERROR_UNKNOWN, False),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, False),
    ],
)
def test_no_driver_is_something_else_than_a_broken_one(
    code: int, missing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    PretendedNvml(nvmlInit=code).install(monkeypatch)
    survey = survey_gpus()
    assert survey.driver_missing is missing
    if missing:
        assert device_facts("auto", survey).kind == "cpu"
    else:
        with pytest.raises(UsageError, match="does not answer"):
            device_facts("auto", survey)


# --- which of them are visible ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "indices"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("-1", []),
        ("2", [2]),
        ("3,1", [3, 1]),
        (" 0 , 2 ", [0, 2]),
        ("0,9,1", [0]),
        ("0,-1,1", [0]),
        ("1,1", [1]),
        ("GPU-2abc", [2]),
        ("GPU-3,0", [3, 0]),
        ("GPU-", []),
        ("GPU-x,0", []),
        ("cuda0", []),
    ],
)
def test_the_rules_of_cuda(value: str | None, indices: list[int]) -> None:
    assert [gpu.index for gpu in visible_gpus(FOUR, value)] == indices


@given(st.text(alphabet="0123456789,-GPUMIabc ", max_size=12))
def test_any_value_gives_some_of_the_gpus_each_once(value: str) -> None:
    chosen = visible_gpus(FOUR, value)
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(FOUR)


def test_facts_of_visible_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    facts = device_facts("auto", GpuSurvey(gpus=FOUR, driver="580"))
    assert (facts.kind, len(facts.names), facts.memory_bytes, facts.bf16) == ("cuda", 2, 2**37, True)


def test_old_gpus_have_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    mixed = (*FOUR, Gpu(4, "Tesla T4", "GPU-t4", 2**34, (7, 5)))
    facts = device_facts("cuda", GpuSurvey(gpus=mixed, driver="580"))
    assert (facts.bf16, facts.memory_bytes) == (False, 2**34)


def test_hidden_gpus_are_the_reason_for_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    survey = GpuSurvey(gpus=FOUR, driver="580")
    assert "hides the 4 GPU" in explain_absence(survey)
    with pytest.raises(UsageError, match="--num-gpus 2: CUDA_VISIBLE_DEVICES"):
        device_facts("cuda", survey, "--num-gpus 2")
    assert device_facts("auto", survey).kind == "cpu"  # hiding them is a wish
    assert explain_absence(GpuSurvey(driver="580")) == "the NVIDIA driver sees no GPU"


# --- processor and memory --------------------------------------------------------------------------------------------


def group(root: Path, place: str, **files: str) -> None:
    (root / place).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / place / name.replace("__", ".")).write_text(text + "\n")


def test_limits_of_control_groups_version_2(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/pod/container\n")
    root = tmp_path / "cgroup"
    group(root, "pod/container", cpu__max="max 100000", memory__max="max")
    assert (cpu_quota(root, own), memory_limit(root, own)) == (None, None)
    group(root, "pod", cpu__max="250000 100000", memory__max=str(2**30))
    group(root, "pod/container", cpu__max="400000 100000", memory__max=str(2**31))
    assert (cpu_quota(root, own), memory_limit(root, own)) == (2.5, 2**30)  # the tighter one around it


def test_limits_of_control_groups_version_1(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("5:cpu:/x\n")
    group(tmp_path, "cpu", **{"cpu__cfs_quota_us": "150000", "cpu__cfs_period_us": "100000"})
    group(tmp_path, "memory", memory__limit_in_bytes=str(2**63 - 4096))
    assert (cpu_quota(tmp_path, own), memory_limit(tmp_path, own)) == (1.5, None)
    group(tmp_path, "cpu", **{"cpu__cfs_quota_us": "-1"})
    assert cpu_quota(tmp_path, own) is None


def test_a_machine_without_control_groups(tmp_path: Path) -> None:
    assert (cpu_quota(tmp_path / "no", tmp_path / "own"), memory_limit(tmp_path / "no", tmp_path / "own")) == (
        None,
        None,
    )


def test_a_quota_below_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr("monitoring.processor.cpu_quota", lambda: 2.9)
    assert usable_cores() == 2
    monkeypatch.setattr("monitoring.processor.cpu_quota", lambda: 0.5)
    assert usable_cores() == 1


def test_this_machine() -> None:
    assert processor_name()
    assert usable_cores() >= 1
    assert usable_memory() > 2**28
    assert free_shared_memory(Path("/no/such/place")) is None
