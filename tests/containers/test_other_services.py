"""`eval`, `inference`, `shell`, `download` and the tours, started for real by a user whom the image does not know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from containers import OWNER, ROOT, Project, docker, wait_until

pytestmark = [pytest.mark.container, pytest.mark.timeout(2700)]


def up(project: Project, service: str, **settings: str) -> None:
    """`docker compose up SERVICE` to its end; anything but 0 fails."""
    project.compose("up", "--no-build", "--exit-code-from", service, service, **settings)


def test_eval_scores_the_run(trained: Project) -> None:
    up(trained, "eval", BEVNEXT_SAM2_EVAL_OPTIONS="--workers 0 --pictures 1")
    (scores,) = (trained.outputs / "smoke/results").rglob("metrics.json")
    assert "nds" in json.loads(scores.read_text())
    assert scores.stat().st_uid == OWNER


def test_inference_draws_a_sample(trained: Project, small_set: Path) -> None:
    token = json.loads((small_set / "synthetic/v1.0-synthetic/sample.json").read_text())[0]["token"]
    before = {*trained.outputs.rglob("*")}
    up(trained, "inference", BEVNEXT_SAM2_INFER_OPTIONS=f"--sample {token} --workers 0")
    drawn = {*trained.outputs.rglob("*")} - before
    assert any(path.suffix in (".png", ".jpg") and path.stat().st_size > 1000 for path in drawn)


def test_shell_has_the_users_rights_and_no_more(project: Project) -> None:
    project.compose("up", "--no-build", "--detach", "shell")
    inside = project.compose(
        *("exec", "--no-TTY", "shell", "bash", "-c"),
        "id -u; touch /workspace/outputs/mine; touch /opt/x || touch /data/x || bevnext-sam2 --version",
    ).stdout.split()
    assert inside[0] == str(OWNER)
    assert inside[-1].count(".") == 2
    assert (project.outputs / "mine").stat().st_uid == OWNER


def test_download_fetches_converts_and_records_weights(project: Project, tmp_path: Path) -> None:
    shapes = json.loads((ROOT / "tests/golden/bevnext/bevnext_stage1_state.json").read_text())
    (tmp_path / "site").mkdir()
    one = torch.tensor(0.5, dtype=torch.float16)  # every element of an entry is the same number in memory
    torch.save({name: one.expand(shape) for name, shape in shapes.items()}, tmp_path / "site/weights.pth")
    site = f"{project.name}-site"
    project.compose("create", "--no-build", "download")
    try:
        docker(
            *("run", "--detach", "--name", site, "--network", f"{project.name}_default", "--read-only"),
            *("--volume", f"{tmp_path / 'site'}:/site:ro", project.settings["BEVNEXT_SAM2_IMAGE"]),
            *("python3", "-m", "http.server", "8000", "--directory", "/site"),
        )
        address = f"http://{site}:8000/weights.pth"
        up(project, "download", BEVNEXT_SAM2_WEIGHTS=f"bevnext-stage1 --address {address}")
    finally:
        docker("rm", "--force", site, check=False)
    ready = tmp_path / "checkpoints/bevnext-stage1.safetensors"
    assert ready.stat().st_uid == OWNER
    assert ready.with_name(f"{ready.name}.sha256").is_file()


@pytest.mark.parametrize("service", ["bevnext-sam2", "demo"])
def test_tours_begin_with_nothing_and_end_when_asked_to(empty_project: Project, service: str) -> None:
    cache = Path(empty_project.settings["BEVNEXT_SAM2_CACHE_DIR"])
    empty_project.compose("up", "--no-build", "--detach", service)
    wait_until("a set in the making", lambda: any(cache.iterdir()))
    assert {path.stat().st_uid for path in cache.iterdir()} == {OWNER}
    empty_project.compose("stop", service)
    state = docker("inspect", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}", empty_project.container(service))
    code, out_of_memory = state.stdout.split()
    assert code not in ("0", "1", "2", "3", "137")
    assert out_of_memory == "false"
