"""Two processes started by torchrun: stopped, taken up again, and bit-equal to a run that was never stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from evaluation.checkpoint_files import read_manifest
from training import train_bevnext_sam2

SCRIPT = Path(train_bevnext_sam2.__file__)
PATIENCE = 240.0


def torchrun(driving_set: Path, run_dir: Path, *arguments: str) -> subprocess.Popen[str]:
    """Twelve epochs of two steps of two samples each, by path as a user would type it: time to stop it on the way."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    data = ["--data-root", str(driving_set), "--run-dir", str(run_dir), "--set", "data.source_size=[90, 160]"]
    small = ["--config", "synthetic/bevnext-smoke", "--epochs", "12", "--workers", "1", "--threads", "1"]
    step = ["--set", "optimizer.reference_batch=2"]
    return subprocess.Popen(
        [*command, *data, *small, *step, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def outcome(run_dir: Path) -> int:
    return int(json.loads((run_dir / "outcome.json").read_bytes())["exit_code"])


@pytest.mark.slow
def test_two_processes_go_on_bit_by_bit(driving_set: Path, tmp_path: Path) -> None:
    straight = torchrun(driving_set, tmp_path / "straight")
    stopped = torchrun(driving_set, tmp_path / "stopped", "--set", "engine.checkpoint_every=100")
    metrics = tmp_path / "stopped" / "metrics.jsonl"
    deadline = time.monotonic() + PATIENCE
    while not (metrics.is_file() and metrics.read_text().count("\n") >= 2):  # two steps are done
        assert time.monotonic() < deadline
        assert stopped.poll() is None, stopped.communicate()[0]
        time.sleep(0.02)
    stopped.send_signal(signal.SIGTERM)
    said, _ = stopped.communicate(timeout=PATIENCE)
    assert outcome(tmp_path / "stopped") == 75, said
    manifest = read_manifest(tmp_path / "stopped" / "checkpoints" / "latest")
    assert 2 <= manifest.step < 24

    again = torchrun(driving_set, tmp_path / "stopped", "--set", "engine.checkpoint_every=100")
    said, _ = again.communicate(timeout=PATIENCE)
    assert (again.returncode, outcome(tmp_path / "stopped")) == (0, 0), said
    assert f"goes on after step {manifest.step}" in said
    said, _ = straight.communicate(timeout=PATIENCE)
    assert (straight.returncode, outcome(tmp_path / "straight")) == (0, 0), said
    assert "NDS" in said
    assert said.count("bevnext-smoke on v1.0-synthetic (synthetic data)") == 1  # one process speaks
    for name in ("model.safetensors", "ema.safetensors"):
        ours, theirs = (load_file(tmp_path / run / "checkpoints" / "latest" / name) for run in ("stopped", "straight"))
        for key, value in theirs.items():
            assert torch.equal(ours[key], value), key


@pytest.mark.slow
def test_a_fault_in_one_process_ends_all_with_one_message(driving_set: Path, tmp_path: Path) -> None:
    ended = torchrun(driving_set, tmp_path, "--set", "engine.sed=1")
    said, _ = ended.communicate(timeout=PATIENCE)
    assert ended.returncode == 1  # torchrun's word for any failure
    assert outcome(tmp_path) == 2
    assert said.count("did you mean 'seed'") == 1
    missing = torchrun(driving_set / "nowhere", tmp_path)
    said, _ = missing.communicate(timeout=PATIENCE)
    assert outcome(tmp_path) == 3
    assert said.count("error: there is no index") == 1
