"""A data set on S3: a real server on loopback (moto), our commands on it, and what happens when it is not there."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.errors import DamagedFileError, DataError, UsageError
from configs.remote_location import MARKER, mirror_folder, remote_address
from launcher.main import run
from scenes import SceneIndex, build_index, open_index, remote_root
from scenes.loading import ImageLoader

VERSION = "v1.0-synthetic"
ADDRESS = "s3://drives/sets/small"


@pytest.fixture(scope="module")
def local_set(index: SceneIndex) -> Path:
    """Two scenes on this machine."""
    return index.dataroot


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of an S3 server."""
    moto = pytest.importorskip("moto.server", reason="extra `dev` is not installed")
    pytest.importorskip("s3fs", reason="extra `s3` is not installed")
    started = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    yield f"http://{host}:{port}"
    started.stop()


@pytest.fixture(autouse=True)
def store(server: str, local_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The set lies in the store; the mirror of every test is new."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("BEVNEXT_SAM2_REMOTE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    remote_root._store.cache_clear()
    files = remote_root._store(0)
    if not files.exists("drives"):
        files.mkdir("drives")
        files.put(str(local_set), ADDRESS, recursive=True)
    remote_root._store.cache_clear()


def sensor_files() -> list[Path]:
    return [path for path in mirror_folder(ADDRESS).rglob("*") if path.suffix in (".jpg", ".bin")]


def test_tables_come_at_once_and_images_when_they_are_read(local_set: Path) -> None:
    build_index(ADDRESS, VERSION, progress=False)
    index = open_index(ADDRESS, VERSION)
    assert len(index) == 6
    assert index.dataroot == mirror_folder(ADDRESS)
    assert sensor_files() == []
    name = next(iter(sorted((local_set / "samples" / "CAM_FRONT").iterdir()))).relative_to(local_set)
    there = ImageLoader().read(index.dataroot / name, (180, 320)).clone()
    assert (there == ImageLoader().read(local_set / name, (180, 320))).all()
    assert sensor_files() == [index.dataroot / name]


def test_a_file_is_fetched_once(local_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = remote_root.local_root(ADDRESS)
    path = next(iter((local_set / "samples" / "LIDAR_TOP").iterdir()))
    mirrored = root / path.relative_to(local_set)
    assert remote_root.sensor_bytes(mirrored) == path.read_bytes()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    remote_root._store.cache_clear()
    assert remote_root.sensor_bytes(mirrored) == path.read_bytes()
    assert [path.name for path in mirrored.parent.iterdir()] == [mirrored.name]  # nothing half-fetched beside it


def test_a_file_that_the_store_does_not_have() -> None:
    root = remote_root.local_root(ADDRESS)
    with pytest.raises(DamagedFileError, match="No such file"):
        ImageLoader().read(root / "samples" / "CAM_FRONT" / "no.jpg", (180, 320))


def test_commands_take_the_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--data-root", ADDRESS, "--no-gpu"]) == 3
    assert f"bevnext-sam2 data index --data-root {mirror_folder(ADDRESS)}" in capsys.readouterr().err
    assert run(["data", "mirror", ADDRESS]) == 0
    assert run(["data", "index", "--data-root", ADDRESS, "--version", VERSION]) == 0
    capsys.readouterr()
    assert run(["plan", "--data-root", ADDRESS, "--no-gpu", "--effective-batch", "2", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["data"]["root"] == str(mirror_folder(ADDRESS))
    assert plan["first"] == []


def test_check_asks_the_store_instead_of_fetching(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["data", "check", "--data-root", ADDRESS, "--version", VERSION, "--json"]
    assert run(line) == 0
    assert json.loads(capsys.readouterr().out)["faults"] == []
    assert sensor_files() == []
    lost = "drives/sets/small/samples/CAM_BACK"
    files = remote_root._store(0)
    name = files.ls(lost)[0]
    content = files.cat(name)
    files.rm(name)
    try:
        assert run(line) == 1
        (fault,) = json.loads(capsys.readouterr().out)["faults"]
        assert (fault["kind"], fault["count"]) == ("missing-file", 1)
    finally:
        files.pipe(name, content)


def test_masks_are_measured_and_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`sam2 eval` finds the exact masks of a set on S3, and `sam2 label` its images."""
    pytest.importorskip("sam2", reason="the sam2 package is not installed (scripts/set_up.sh installs it)")
    from integration.sam2_package import NANO
    from integration.sam2_weights import load_segmenter, save_segmenter

    weights = tmp_path / "sam2.safetensors"
    save_segmenter(load_segmenter(NANO, None, network_size=(64, 96), wants_outline=True), weights)
    build_index(ADDRESS, VERSION, progress=False)
    options = ["--data-root", ADDRESS, "--split", "synthetic_train", "--weights", str(weights), "--device", "cpu"]
    assert run(["sam2", "eval", *options, "--every", "9", "--json"]) == 0
    assert "boundary_f" in capsys.readouterr().out
    assert list((mirror_folder(ADDRESS) / "labels").rglob("*.png"))
    assert run(["sam2", "label", *options, "--out", str(tmp_path / "labels")]) == 0
    assert (tmp_path / "labels/coco/instances.json").is_file()


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_place_without_tables_leaves_no_mirror_behind(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "mirror", "s3://drives/sets"]) == 3
    assert "holds no tables" in capsys.readouterr().err
    assert not (mirror_folder("s3://drives/sets") / MARKER).exists()


def test_a_store_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    remote_root._store.cache_clear()
    with pytest.raises(DataError, match="AWS_ENDPOINT_URL"):
        remote_root.local_root(ADDRESS)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    remote_root._store.cache_clear()
    with pytest.raises(UsageError, match="extra `s3`"):
        remote_root.local_root(ADDRESS)


def test_addresses(tmp_path: Path) -> None:
    assert remote_address("s3://b/some/where/") == "s3://b/some/where"
    assert remote_address(Path("s3://b/x")) == "s3://b/x"
    assert remote_address(mirror_folder("s3://b/x")) == "s3://b/x"
    assert remote_address(tmp_path) is None
    for wrong in ("s3://", "s3:///x", "s3://b/../x"):
        with pytest.raises(UsageError, match="BUCKET"):
            remote_address(wrong)
