"""torchrun's command line: every argument arrives byte for byte, and ours is what torchrun understands."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.plan_schema import DeviceFacts
from launcher.options import TrainRequest
from launcher.own_process import ROOT, shell_line
from launcher.planning import decide, plan_run
from launcher.torchrun import torchrun_environment
from monitoring.devices import Gpu, GpuSurvey

NO_GPU = GpuSurvey(problem="none", driver_missing=True)
TWO_GPUS = GpuSurvey(
    gpus=tuple(Gpu(i, "NVIDIA H200", f"GPU-{i}", 141 * 2**30, (9, 0)) for i in range(2)), driver="580.1"
)

# whatever a path may hold: anything but NUL, lone surrogates stand for bytes that are no UTF-8
path_parts = st.text(
    st.characters(exclude_characters="\0/", max_codepoint=0x1F9FF, exclude_categories=("Cs",)) | st.just("\udcff"),
    min_size=1,
    max_size=20,
).filter(lambda text: text not in (".", ".."))


def torchrun_reads(command: list[str]) -> tuple[Any, list[str]]:
    """What torchrun's own parser makes of a command: its options, and the worker's argument vector."""
    from torch.distributed.run import config_from_args, parse_args

    assert command[1:3] == ["-m", "torch.distributed.run"]
    options = parse_args(command[3:])
    config, _, worker = config_from_args(options)
    return config, worker


def planned(root: Path, survey: GpuSurvey = NO_GPU, **request: Any):
    return plan_run(decide(TrainRequest(data_root=root, version="v1.0-synthetic", **request), survey))


def _plan():
    from configs.plan import make_plan
    from configs.recipes import load_recipe

    return make_plan(load_recipe("synthetic/bevnext-tiny"), samples=24, devices=DeviceFacts(cpu_cores=2))


PLAN = _plan()


@settings(max_examples=50, deadline=None)
@given(run=path_parts.filter(lambda text: text.strip()), folder=path_parts)
def test_any_path_reaches_the_trainer(run: str, folder: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp()
    choices = decide(TrainRequest(output_dir=base / folder, run=run, index_dir=base / folder / "i"), NO_GPU)
    _, worker = torchrun_reads(plan_run(choices).command)
    arguments = dict(zip(worker[3::2], worker[4::2], strict=True))
    assert arguments["--run-dir"] == f"{base}/{folder}/{run}"
    assert arguments["--index-dir"] == f"{base}/{folder}/i"


def test_the_shown_line_is_the_command(root: Path) -> None:
    run = planned(root, output_dir=Path("my runs"), run="it's $HOME")
    words = shlex.split(shell_line(run.command, run.environment))
    assert words[:3] == ["cd", str(ROOT), "&&"]
    assert words[3 + len(run.environment) :] == run.command
    assert words[3 : 3 + len(run.environment)] == [f"{name}={value}" for name, value in run.environment.items()]


def test_paths_are_absolute_and_the_trainer_is_ours(root: Path, in_empty_folder: Path) -> None:
    run = planned(Path("../data"), resume="../checkpoint", run="new")
    assert run.command[run.command.index("-m", 3) + 1] == "training.train_bevnext_sam2_nuscenes"
    assert str(root) in run.command
    assert str(in_empty_folder.parent / "checkpoint") in run.command
    assert str(in_empty_folder / "outputs" / "new") in run.command


def test_the_other_entry_script(root: Path) -> None:
    assert "training.train_bevnext_sam2" in planned(root, basic_training=True).command


def test_workers_of_a_gpu_run(root: Path) -> None:
    run = planned(root, TWO_GPUS, num_gpus=2)
    assert run.environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert run.environment["OMP_NUM_THREADS"] == str(run.plan.threads)
    config, _ = torchrun_reads(run.command)
    assert config.nproc_per_node == 2
    assert set(config.signals_to_handle.split(",")) >= {"SIGTERM", "SIGINT", "SIGUSR1"}


def test_the_workers_have_the_grace_period_of_the_plan(root: Path) -> None:
    assert planned(root, grace_seconds=77).environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "77"
    assert torchrun_environment(PLAN)["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == str(PLAN.grace_seconds)


def test_one_machine_takes_a_free_port_or_the_named_one(root: Path) -> None:
    assert "--standalone" in planned(root).command
    config, _ = torchrun_reads(planned(root, master_port=43219).command)
    assert config.rdzv_endpoint == "127.0.0.1:43219"


@pytest.mark.parametrize(("rank", "backend"), [(None, "c10d"), (1, "static")])
def test_several_machines(rank: int | None, backend: str, root: Path) -> None:
    machines: dict[str, Any] = {"num_processes": 2, "nnodes": (2, 2), "node_rank": rank, "rdzv_endpoint": "host:29400"}
    run = planned(root, overrides=("optimizer.reference_batch=8",), **machines)
    assert run.plan.devices == 4
    assert run.plan.effective_batch == 4 * run.plan.device_batch * run.plan.accumulation
    config, _ = torchrun_reads(run.command)
    assert (config.min_nodes, config.nproc_per_node, config.rdzv_backend) == (2, 2, backend)
    assert config.rdzv_endpoint == "host:29400"


def test_a_plan_for_more_nodes_is_not_made_of_one_nodes_cores(root: Path) -> None:
    batch = {"overrides": ("optimizer.reference_batch=8",), "num_processes": 1}
    one, two = planned(root, **batch), planned(root, **batch, nnodes=(2, 2), rdzv_endpoint="h:1")
    assert (two.plan.threads, two.plan.workers) == (one.plan.threads, one.plan.workers)
