"""`data check`: a whole data set has no fault, and each thing that is spoilt is found and named."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg

from benchmarks.nuscenes_tables import as_array, small_sizes, write_tables
from configs.errors import UsageError
from launcher.main import run
from scenes.checks.downloads import CAMERA_SWEEPS, KEY_CAMERAS, KEY_LIDAR, LIDAR_SWEEPS, MAPS, downloads_for
from scenes.checks.report import CheckReport
from scenes.dataset_check import check_dataset

VERSION = "v1.0-own"
SCENES = ("scene-0001", "scene-0002")
RADAR_HEADER = b"# .PCD v0.7\nVERSION 0.7\nFIELDS x y\nSIZE 4 4\nTYPE F F\nCOUNT 1 1\nPOINTS 3\nDATA binary\n"
POINTS = RADAR_HEADER + bytes(24)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Two scenes with every file."""
    root = tmp_path_factory.mktemp("whole")
    directory = write_tables(root, VERSION, small_sizes(SCENES, samples=3))
    (directory / "splits.json").write_text(json.dumps({"own_train": SCENES[:1], "own_val": SCENES[1:]}))
    content = {
        ".jpg": simplejpeg.encode_jpeg(np.zeros((900, 1600, 3), np.uint8)),
        ".bin": np.ones(50, np.float32).tobytes(),
        ".pcd": POINTS,
    }
    for record in json.loads((directory / "sample_data.json").read_text()):
        path = root / record["filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[path.suffix])
    (root / "maps").mkdir()
    (root / "maps" / "map.png").write_bytes(b"png")
    return root


@pytest.fixture
def root(whole, tmp_path) -> Path:
    """A copy that a test may spoil; files are links, so replace them instead of changing them."""
    return shutil.copytree(whole, tmp_path / "copy", copy_function=os.link)


def edit(root: Path, table: str, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    path = root / VERSION / f"{table}.json"
    records = json.loads(path.read_text())
    change(records)
    path.unlink()
    path.write_text(as_array(records))


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def first(root: Path, folder: str) -> Path:
    return min((root / folder).iterdir())


def found(report: CheckReport) -> set[tuple[str, str]]:
    return {(fault.kind, fault.where) for fault in report.faults}


def check(root: Path, **options: Any) -> CheckReport:
    return check_dataset(root, VERSION, **options)


def test_a_whole_set_has_no_fault(whole):
    report = check(whole, deep=True)
    assert report.faults == ()
    assert report.exit_code == 0
    assert report.splits == {"own_train": 3, "own_val": 3}
    assert report.counts["sample_data"] == 456
    assert report.files_checked == 457
    assert [need.get for need in report.needs] == [(), (), ()]


@pytest.mark.parametrize(
    ("table", "change", "fault"),
    [
        ("sample", lambda r: r[0].pop("timestamp"), ("missing-field", "sample.timestamp")),
        ("log", lambda r: r[0].pop("location"), ("missing-field", "log.location")),
        ("sample", lambda r: r[0].update(token="abc"), ("malformed-field", "sample.token")),
        ("ego_pose", lambda r: r[3].update(rotation=[1, 1, 0, 0]), ("malformed-field", "ego_pose.rotation")),
        ("ego_pose", lambda r: r[3].update(translation=[1, 1]), ("malformed-field", "ego_pose.translation")),
        ("sample_annotation", lambda r: r[0].update(size=[0, 1, 1]), ("malformed-field", "sample_annotation.size")),
        ("ego_pose", lambda r: r.append(r[0]), ("repeated-token", "ego_pose")),
        ("sample_data", lambda r: r[7].update(next=r[3]["token"]), ("broken-chain", "sample_data.next")),
        ("sample_data", lambda r: r[7].update(prev=""), ("broken-chain", "sample_data.prev")),
        ("sample", lambda r: r[1].update(timestamp=5), ("broken-chain", "sample.next")),
        ("sample_annotation", lambda r: r[0].update(next=""), ("broken-chain", "sample_annotation.prev")),
        ("scene", lambda r: r[0].update(nbr_samples=7), ("wrong-count", "scene.nbr_samples")),
        ("instance", lambda r: r[0].update(nbr_annotations=7), ("wrong-count", "instance.nbr_annotations")),
        (
            "scene",
            lambda r: r[0].update(first_sample_token=r[1]["first_sample_token"]),
            ("broken-chain", "scene.first_sample_token"),
        ),
        ("sensor", lambda r: r[6].update(channel="LIDAR_X"), ("missing-sensor", "sensor.json")),
        ("sample_data", lambda r: r[0].update(is_key_frame=False), ("missing-key-frame", "sample_data CAM_FRONT_LEFT")),
        ("sample_data", lambda r: r[0].update(height=0), ("bad-value", "sample_data.height")),
        (
            "calibrated_sensor",
            lambda r: r[0].update(camera_intrinsic=[]),
            ("bad-value", "calibrated_sensor.camera_intrinsic"),
        ),
        ("scene", lambda r: r[0].update(name="scene-0009"), ("missing-scene", "split own_train")),
        ("scene", lambda r: r[0].update(name="scene-0009"), ("unused-scene", "scene.json")),
    ],
)
def test_faults_of_tables(root, table, change, fault):
    edit(root, table, change)
    report = check(root)
    assert fault in found(report)
    assert report.exit_code == 1


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ("calibrated_sensor", "sensor_token"),
        ("instance", "category_token"),
        ("instance", "last_annotation_token"),
        ("map", "log_tokens"),
        ("sample", "scene_token"),
        ("sample", "next"),
        ("sample_annotation", "sample_token"),
        ("sample_annotation", "attribute_tokens"),
        ("sample_annotation", "visibility_token"),
        ("sample_data", "ego_pose_token"),
        ("sample_data", "prev"),
        ("scene", "log_token"),
        ("scene", "last_sample_token"),
    ],
)
def test_dangling_tokens(root, table, field):
    lost = "f" * 32
    edit(root, table, lambda records: records[0].update({field: [lost] if field.endswith("tokens") else lost}))
    faults = {(fault.kind, fault.where): fault for fault in check(root).faults}
    fault = faults["dangling-token", f"{table}.{field}"]
    assert fault.count == 1
    assert len(fault.examples) == 1


def test_missing_and_unreadable_tables_do_not_hide_other_faults(root):
    (root / VERSION / "ego_pose.json").unlink()
    path = root / VERSION / "instance.json"
    replace(path, path.read_bytes()[:-40])
    (root / VERSION / "log.json").unlink()
    (root / VERSION / "log.json").write_text('[{"token": 3}]')
    edit(root, "sample", lambda records: records[0].update(scene_token="f" * 32))
    report = check(root)
    assert {
        ("missing-table", "ego_pose.json"),
        ("unreadable-table", "instance.json"),
        ("unreadable-table", "log.json"),
        ("dangling-token", "sample.scene_token"),
    } <= found(report)
    assert report.files_checked == 457


def test_a_missing_version_is_one_fault(root):
    report = check_dataset(root, "v1.0-trainval")
    assert found(report) == {("missing-version", "v1.0-trainval")}
    assert VERSION in report.faults[0].message
    assert report.needs[0].get == ("v1.0-trainval_meta.tgz", "v1.0-trainval{01..10}_keyframes.tgz")


def test_splits(root):
    path = root / VERSION / "splits.json"
    path.unlink()
    assert ("missing-splits", VERSION) in found(check(root))
    path.write_text('{"own_train": 3}')
    assert ("bad-splits", "splits.json") in found(check(root))


def test_sizes_other_than_published(tmp_path):
    write_tables(tmp_path, "v1.0-mini", small_sizes(("scene-0061", "scene-0103")))
    report = check_dataset(tmp_path, "v1.0-mini")
    assert {
        ("wrong-count", "scene.json"),
        ("wrong-count", "split mini_train"),
        ("missing-scene", "split mini_val"),
    } <= (found(report))
    assert report.splits == {"mini_train": 4, "mini_val": 4}


@pytest.mark.parametrize(
    ("folder", "content", "deep", "fault"),
    [
        ("samples/CAM_FRONT", None, False, ("missing-file", KEY_CAMERAS)),
        ("sweeps/CAM_BACK", b"", False, ("empty-file", CAMERA_SWEEPS)),
        ("samples/CAM_FRONT", b"\xff\xd8 half", False, ("truncated-file", KEY_CAMERAS)),
        ("samples/LIDAR_TOP", bytes(119), False, ("truncated-file", KEY_LIDAR)),
        ("sweeps/LIDAR_TOP", np.full(5, np.nan, np.float32).tobytes(), True, ("undecodable-file", LIDAR_SWEEPS)),
        ("samples/CAM_BACK", b"\xff\xd8 no image \xff\xd9", True, ("undecodable-file", KEY_CAMERAS)),
        (
            "samples/CAM_BACK",
            simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8)),
            True,
            ("wrong-size", KEY_CAMERAS),
        ),
        ("samples/RADAR_FRONT", POINTS[:-1], True, ("undecodable-file", "samples/RADAR_*")),
        ("samples/RADAR_FRONT", b"no header", True, ("undecodable-file", "samples/RADAR_*")),
        ("maps", None, False, ("missing-file", MAPS)),
    ],
)
def test_faults_of_files(root, folder, content, deep, fault):
    path = first(root, folder)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    report = check(root, deep=deep)
    assert found(report) == {fault}
    assert report.faults[0].examples == (str(path.relative_to(root)),)


def test_damage_inside_a_picture_needs_a_deep_look(root):
    path = first(root, "samples/CAM_FRONT")
    data = bytearray(path.read_bytes())
    del data[len(data) // 2 : -2]
    replace(path, bytes(data))
    assert not check(root).faults
    assert found(check(root, deep=True)) == {("undecodable-file", KEY_CAMERAS)}


def test_many_faults_are_counted_and_a_few_shown(root):
    shutil.rmtree(root / "sweeps" / "CAM_BACK")
    (fault,) = check(root).faults
    assert (fault.count, len(fault.examples)) == (30, 5)


def test_a_recipe_limits_the_files_and_asks_for_its_splits(root):
    shutil.rmtree(root / "sweeps")
    shutil.rmtree(root / "samples" / "RADAR_FRONT")
    needs = {need.family: need for need in check(root).needs}
    assert needs["bevnext"].get == ()
    assert needs["bevfusion"].missing_files == 54
    assert needs["bevfusion"].scenes_with_gaps == 2
    recipe = root / "own.yaml"
    recipe.write_text(f"name: own\ndata: {{version: {VERSION}, train_split: own_train, val_split: own_val}}\n")
    report = check(root, recipe=str(recipe))
    assert report.faults == ()
    assert report.files_checked == 43
    assert [need.family for need in report.needs] == ["bevnext"]
    recipe.write_text(f"name: own\ndata: {{version: {VERSION}, train_split: own_train, val_split: other}}\n")
    (fault,) = check(root, recipe=str(recipe)).faults
    assert (fault.kind, fault.examples) == ("missing-splits", ("other",))


def test_groups_of_files_that_the_tables_do_not_name(root):
    edit(
        root,
        "sample_data",
        lambda records: records.__setitem__(slice(None), [r for r in records if "LIDAR" not in r["filename"]]),
    )
    report = check(root)
    assert {need.family: need.absent for need in report.needs} == {
        "bevnext": (KEY_LIDAR,),
        "sparsebev": (),
        "bevfusion": (KEY_LIDAR, LIDAR_SWEEPS),
    }
    recipe = root / "own.yaml"
    recipe.write_text(f"name: own\ndata: {{version: {VERSION}, train_split: own_train, val_split: own_val}}\n")
    assert ("missing-group", "recipe") in found(check(root, recipe=str(recipe)))


@pytest.mark.parametrize(
    ("version", "missing", "archives"),
    [
        ("v1.0-mini", {KEY_CAMERAS}, ("v1.0-mini.tgz",)),
        ("v1.0-trainval", {KEY_CAMERAS, KEY_LIDAR}, ("v1.0-trainval{01..10}_keyframes.tgz",)),
        ("v1.0-trainval", {MAPS}, ("v1.0-trainval_meta.tgz",)),
        ("v1.0-trainval", {KEY_CAMERAS, CAMERA_SWEEPS}, ("v1.0-trainval{01..10}_blobs_camera.tgz",)),
        (
            "v1.0-trainval",
            {KEY_CAMERAS, LIDAR_SWEEPS},
            ("v1.0-trainval{01..10}_keyframes.tgz", "v1.0-trainval{01..10}_blobs_lidar.tgz"),
        ),
        ("v1.0-test", {KEY_CAMERAS, MAPS}, ("v1.0-test_meta.tgz", "v1.0-test_blobs.tgz")),
        ("v1.0-synthetic", {CAMERA_SWEEPS}, ("bevnext-sam2 data synth --camera-sweeps",)),
        ("v1.0-own", {KEY_LIDAR}, ("the files of v1.0-own from whoever made it",)),
        ("v1.0-trainval", set(), ()),
    ],
)
def test_what_to_download(version, missing, archives):
    assert downloads_for(version, frozenset(missing)) == archives


def test_command_line(whole, root, capsys):
    arguments = ["data", "check", "--version", VERSION, "--data-root"]
    assert run([*arguments, str(whole)]) == 0
    assert "no fault found" in capsys.readouterr().out
    first(root, "samples/CAM_FRONT").unlink()
    assert run([*arguments, str(root)]) == 1
    assert re.search(r"missing-file .* 1 ", capsys.readouterr().out)
    assert run([*arguments, str(root), "--json"]) == 1
    report = CheckReport.model_validate_json(capsys.readouterr().out)
    assert report.faults[0].kind == "missing-file"
    assert run([*arguments, str(root / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert run([*arguments, str(root), "--recipe", "nosuch"]) == 2


def test_an_unknown_data_root_is_a_wrong_option(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        check_dataset(tmp_path / "nowhere", VERSION)
