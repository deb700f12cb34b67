"""The largest batch that fits: found by trying, the same on all ranks, and running out of memory does no harm."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import run_ranks

from configs import run_directory
from configs.errors import BevnextError
from configs.recipes import load_recipe, save_recipe
from detectors.bevnext.model import BEVNeXt
from training import batch_size
from training.batch_size import Probe, Search, find_batch_size
from training.world import World


@given(candidates=st.sets(st.integers(1, 500), min_size=1, max_size=300), limit=st.integers(0, 600))
@settings(max_examples=1000, deadline=None)
def test_the_search_finds_the_largest_that_fits_in_few_trials(candidates: set[int], limit: int) -> None:
    search = Search(lambda number: number <= limit)
    fitting = [number for number in candidates if number <= limit]
    assert search.largest(sorted(candidates)) == max(fitting, default=None)
    assert len(search.tried) <= 2 * math.log2(len(candidates)) + 2
    too_large = [number for number, fits in search.tried.items() if not fits]
    assert len(too_large) <= math.log2(len(candidates)) + 1


class _Limited(Probe):
    """Device memory as a number of samples, another one on each rank."""

    def _train(self, device_batch: int) -> None:
        limit = (7, 3)[self.world.rank]
        if device_batch > limit:
            raise torch.OutOfMemoryError(f"CUDA out of memory on rank {self.world.rank}")


def _two_ranks(world: World, folder: Path) -> None:
    batch_size.share_left = lambda device: 1.0
    recipe = load_recipe("synthetic/bevnext-smoke")
    search = Search(_Limited(recipe, None, world, ()).fits_everywhere)  # type: ignore[arg-type]
    (folder / f"found{world.rank}").write_text(str(search.largest((1, 2, 3, 4, 6, 8, 12, 24))))


def test_the_ranks_agree_on_what_fits_on_all_of_them(tmp_path: Path) -> None:
    run_ranks(_two_ranks, 2, tmp_path)
    assert [(tmp_path / f"found{rank}").read_text() for rank in range(2)] == ["3", "3"]


@pytest.fixture
def run_dir(driving_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose plan leaves the batch to trying, on a device of which a tenth is always free."""
    from configs.plan import DeviceFacts, PlanOptions, make_plan

    recipe = load_recipe("synthetic/bevnext-smoke", ("optimizer.reference_batch=8", "data.source_size=[90, 160]"))
    gpu = DeviceFacts(kind="cuda", names=("small GPU",), cpu_cores=1)
    plan = make_plan(recipe, samples=4, devices=gpu, options=PlanOptions(batch_size="auto"))
    save_recipe(recipe, tmp_path / run_directory.RECIPE)
    on_cpu = plan.model_copy(update={"device_kind": "cpu"})
    (tmp_path / run_directory.PLAN).write_text(on_cpu.model_dump_json())
    monkeypatch.setattr(batch_size, "share_left", lambda device: 0.1)
    return tmp_path


def limit_memory(monkeypatch: pytest.MonkeyPatch, samples: int, error: type[RuntimeError], text: str) -> None:
    forward = BEVNeXt.forward

    def limited(self: BEVNeXt, batch):  # type: ignore[no-untyped-def]
        if len(batch.images) > samples:
            raise error(text)
        return forward(self, batch)

    monkeypatch.setattr(BEVNeXt, "forward", limited)


def test_whole_steps_are_tried_and_the_answer_is_written(
    run_dir: Path, driving_set: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limit_memory(monkeypatch, 2, torch.OutOfMemoryError, "CUDA out of memory")
    find_batch_size(run_dir, driving_set, None)
    answer = json.loads((run_dir / "batch_size.json").read_text())
    assert (answer["device_batch"], answer["tried"]) == (2, {"1": True, "2": True, "4": False})
    assert "1 fits, 2 fits, 4 does not fit" in capsys.readouterr().out


def test_what_leaves_too_little_memory_does_not_fit(
    run_dir: Path, driving_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_size, "share_left", lambda device: 0.04)
    with pytest.raises(BevnextError, match="not even a micro-batch of 1 fits into the memory of small GPU"):
        find_batch_size(run_dir, driving_set, None)


def test_another_error_is_no_lack_of_memory(run_dir: Path, driving_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_memory(monkeypatch, 0, RuntimeError, "shape mismatch")
    with pytest.raises(RuntimeError, match="shape mismatch"):
        find_batch_size(run_dir, driving_set, None)


def test_the_process_tells_the_launcher_how_it_ended(
    run_dir: Path, driving_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--run-dir", str(run_dir), "--data-root", str(driving_set)]
    limit_memory(monkeypatch, 1, torch.OutOfMemoryError, "CUDA out of memory")
    assert CliRunner().invoke(batch_size.command, arguments).exit_code == 0
    assert json.loads((run_dir / "outcome.json").read_text())["exit_code"] == 0
    (run_dir / "outcome.json").unlink()
    limit_memory(monkeypatch, 0, RuntimeError, "CUDNN_STATUS_ALLOC_FAILED")
    done = CliRunner().invoke(batch_size.command, arguments)
    assert done.exit_code == 1
    assert "not even a micro-batch of 1" in json.loads((run_dir / "outcome.json").read_text())["error"]
