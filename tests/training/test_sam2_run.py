"""A detector with SAM 2, trained by the whole engine: two processes, stopped before the unfreezing, and taken up."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_two_processes import PATIENCE, outcome, torchrun

from evaluation.checkpoint_files import read_manifest
from evaluation.trained import load_trained
from integration import SAMEnhancedBEVDetector
from integration.sam_features import TRAINED_LATER

pytest.importorskip("sam2", reason="the sam2 package is not installed (scripts/set_up.sh installs it)")

SETTINGS = (
    "sam2.config=sam2_hiera_nano",
    "sam2.random=true",
    "sam2.adapter_channels=8",
    "sam2.mode=native",
    "sam2.unfreeze_at_epoch=2",
    "data.whole_size=[64, 128]",
    "engine.checkpoint_every=3",
)
SAM2 = [part for setting in SETTINGS for part in ("--set", setting)]


def stop_after(run_dir: Path, driving_set: Path, steps: int) -> None:
    """Start a run, and ask it to stop once so many steps are done."""
    run = torchrun(driving_set, run_dir, *SAM2)
    metrics = run_dir / "metrics.jsonl"
    deadline = time.monotonic() + PATIENCE
    while not (metrics.is_file() and metrics.read_text().count('"train"') >= steps):
        assert time.monotonic() < deadline
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.02)
    run.send_signal(signal.SIGTERM)
    said, _ = run.communicate(timeout=PATIENCE)
    assert outcome(run_dir) == 75, said


@pytest.mark.slow
def test_two_processes_go_on_over_the_unfreezing_bit_by_bit(driving_set: Path, tmp_path: Path) -> None:
    """SAM 2's last stage trains from the fifth step on."""
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    run = torchrun(driving_set, straight, *SAM2)
    stop_after(stopped, driving_set, 2)
    again = torchrun(driving_set, stopped, *SAM2)
    for directory, one in ((stopped, again), (straight, run)):
        said, _ = one.communicate(timeout=PATIENCE)
        assert (one.returncode, outcome(directory)) == (0, 0), said
    assert "NDS" in said

    for name in ("model.safetensors", "ema.safetensors"):
        ours, theirs = (load_file(run_dir / "checkpoints" / "latest" / name) for run_dir in (stopped, straight))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], value) for key, value in theirs.items())
        frozen = {key for key in ours if key.startswith("sam.trunk.") and not key.startswith(TRAINED_LATER)}
        assert frozen == {"sam.trunk.sha256"}

    detector = load_trained(straight).detector
    assert isinstance(detector, SAMEnhancedBEVDetector)
    saved = load_file(straight / "checkpoints" / "latest" / "ema.safetensors")
    later = f"{TRAINED_LATER}blocks-5-norm1-weight"
    assert torch.equal(detector.state_dict()[later], saved[later])
    assert not torch.equal(saved[later], torch.ones_like(saved[later]))  # as a norm begins: it was trained
    assert read_manifest(straight / "checkpoints" / "latest").step == 24
