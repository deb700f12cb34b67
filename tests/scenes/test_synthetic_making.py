"""Making a synthetic set: same bytes whatever the workers, reuse, refusals, and nothing half-made left behind."""

import errno
import hashlib
import json
import subprocess
import sys
import time

import psutil
import pytest
from click.testing import CliRunner

from configs.errors import BevnextError, ExitCode, UsageError
from scenes.synthetic import driver, make_synthetic, render
from scenes.synthetic.command import synth
from scenes.synthetic.options import SyntheticOptions

TINY = {"scenes": 2, "samples_per_scene": 2, "image_size": (90, 160), "progress": False}


def _bytes(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "set"
    return root, make_synthetic(root, workers=1, **TINY)


def test_same_seed_same_bytes_whatever_the_workers(made, tmp_path, monkeypatch):
    root, _ = made
    make_synthetic(tmp_path / "again", workers=2, **TINY)
    assert _bytes(tmp_path / "again") == _bytes(root)


def test_blocks_of_samples_join_without_a_seam(tmp_path, monkeypatch):
    """What is rendered in a later block does not depend on the blocks before it."""
    options = SyntheticOptions(
        scenes=1, samples_per_scene=3, image_size=(90, 160), seed=5, lidar_sweeps=False, camera_sweeps=False, reach=60.0
    )
    parts = render.scene_parts(options, 0)
    late = [shot.filename for shot in parts.schedule.shots if shot.sample == 2 and "CAM" in shot.channel]
    contents = []
    for block in (10, 2):
        monkeypatch.setattr(render, "BLOCK", block)
        root = tmp_path / str(block)
        driver._make_folders(root)
        for scene, first in render.blocks(options):
            render.render_block(options, root, scene, first, lambda: False)
        contents.append(
            [(root / name.replace(".jpg", ".png").replace("samples", "labels/samples")).read_bytes() for name in late]
        )
    assert contents[0] == contents[1]


def test_another_seed_gives_another_world(made, tmp_path):
    root, _ = made
    make_synthetic(tmp_path / "other", workers=1, seed=1, **TINY)
    here = json.loads((root / "v1.0-synthetic/sample_annotation.json").read_text())
    there = json.loads((tmp_path / "other/v1.0-synthetic/sample_annotation.json").read_text())
    assert {row["token"] for row in here}.isdisjoint(row["token"] for row in there)
    assert [row["translation"] for row in here] != [row["translation"] for row in there]


def test_a_complete_set_is_left_as_it_is(made):
    root, first = made
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    again = make_synthetic(root, workers=1, **TINY)
    assert again.reused
    assert not first.reused
    assert (again.annotations, again.images) == (first.annotations, first.images) == (first.annotations, 24)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_set_with_other_options_is_refused_then_replaced_on_request(tmp_path):
    small = {**TINY, "scenes": 1, "samples_per_scene": 1}
    make_synthetic(tmp_path / "set", workers=1, **small)
    with pytest.raises(UsageError, match=r"seed 0 -> 4.*") as caught:
        make_synthetic(tmp_path / "set", workers=1, seed=4, **small)
    assert "--overwrite" in caught.value.fix
    summary = make_synthetic(tmp_path / "set", workers=1, seed=4, overwrite=True, **small)
    assert not summary.reused
    assert json.loads((tmp_path / "set/synthetic.json").read_text())["seed"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_foreign_files_are_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="not a synthetic set"):
        make_synthetic(tmp_path, workers=1, overwrite=True, **TINY)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(errno.ENOSPC, "No space left on device"), BevnextError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_an_interrupted_making_leaves_nothing(tmp_path, monkeypatch, error, raised):
    written = []

    def fail(path, sweep):
        written.append(path)
        raise error

    monkeypatch.setattr(render, "write_point_labels", fail)
    with pytest.raises(raised) as caught:
        make_synthetic(tmp_path / "set", workers=1, **TINY)
    assert written
    assert list(tmp_path.iterdir()) == []
    if isinstance(caught.value, BevnextError):
        assert caught.value.exit_code is ExitCode.CRASHED
        assert "--out" in caught.value.fix


def test_an_interrupted_replacement_keeps_the_old_set(tmp_path, monkeypatch):
    small = {**TINY, "scenes": 1, "samples_per_scene": 1}
    make_synthetic(tmp_path / "set", workers=1, **small)
    before = _bytes(tmp_path / "set")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(render, "write_mask", fail)
    with pytest.raises(KeyboardInterrupt):
        make_synthetic(tmp_path / "set", workers=1, seed=9, overwrite=True, **small)
    assert _bytes(tmp_path / "set") == before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells processes of their parent's death")
def test_a_killed_making_takes_its_processes_along(tmp_path):
    command = [sys.executable, "-m", "launcher", "data", "synth", "--out", str(tmp_path / "set"), "--workers", "2"]
    with subprocess.Popen([*command, "--scenes", "50"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as making:
        parent = psutil.Process(making.pid)
        workers = wait_for(lambda: [one for one in parent.children(recursive=True) if one.cpu_times().user > 0.2])
        making.terminate()
    assert wait_for(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in workers))


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found
    return found


def test_what_a_killed_making_left_is_swept_up(tmp_path):
    (tmp_path / ".set.partial-999999999").mkdir()
    make_synthetic(tmp_path / "set", workers=1, **{**TINY, "scenes": 1, "samples_per_scene": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_place_that_cannot_hold_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--out .*file/set cannot be written"):
        make_synthetic(tmp_path / "file" / "set", workers=1, **TINY)


def test_a_full_disk_is_told_before_the_work(tmp_path):
    with pytest.raises(UsageError, match=r"GB free, the set needs about"):
        make_synthetic(tmp_path / "set", scenes=50_000, samples_per_scene=40, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scenes", "0"], "--scenes 0"),
        (["--samples", "-1"], "--samples -1"),
        (["--image-size", "huge"], "--image-size 'huge'"),
        (["--image-size", "16x9"], "--image-size 16x9"),
        (["--seed", "-2"], "--seed -2"),
    ],
)
def test_impossible_options_are_named(tmp_path, options, message):
    result = CliRunner().invoke(synth, ["--out", str(tmp_path / "set"), *options])
    assert isinstance(result.exception, UsageError)
    assert message in result.exception.message
    assert result.exception.fix
    assert not (tmp_path / "set").exists()


def test_the_command_says_that_it_is_synthetic_and_what_it_made(tmp_path):
    arguments = [
        "--out",
        str(tmp_path / "set"),
        "--scenes",
        "1",
        "--samples",
        "1",
        "--image-size",
        "160x90",
        "--workers",
        "1",
    ]
    result = CliRunner().invoke(synth, arguments, catch_exceptions=False)
    assert "Synthetic data (nothing here was recorded)" in result.output
    assert "1 samples, 6 images" in result.output
    again = CliRunner().invoke(synth, arguments, catch_exceptions=False)
    assert "nothing was made" in again.output
