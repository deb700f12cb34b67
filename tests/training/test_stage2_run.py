"""A recipe of several frames trains, is evaluated along scenes, and goes on from its own checkpoint."""

from __future__ import annotations

from pathlib import Path

from runs import run_exit_code
from safetensors.torch import load_file

from evaluation.checkpoint_files import read_manifest

STAGE_2 = ("--config", "synthetic/bevnext-smoke-stage2")


def test_stage_2_trains_and_is_scored(driving_set: Path, tmp_path: Path) -> None:
    assert run_exit_code(driving_set, tmp_path / "run", *STAGE_2) == 0
    best = tmp_path / "run" / "checkpoints" / "best"
    manifest = read_manifest(best)
    assert (manifest.step, manifest.recipe) == (4, "bevnext-smoke-stage2")
    assert manifest.metrics is not None and "NDS" in manifest.metrics
    state = load_file(best / "model.safetensors")
    assert state["img_bev_encoder_backbone.fusion_layer.conv1.weight"].shape == (12, 16, 1, 1)
    frames, steps = 3, 4
    assert int(state["img_backbone.bn1.num_batches_tracked"]) == frames * steps
    assert int(state["img_bev_encoder_neck.conv.1.num_batches_tracked"]) == steps
