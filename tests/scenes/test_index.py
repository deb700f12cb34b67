"""The index against the nuScenes devkit, and against everything that can be wrong with its tables or its files."""

from __future__ import annotations

import json
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.nuscenes_tables import as_array, small_sizes, write_tables
from configs.errors import BevnextError, DataError, UsageError
from configs.index_location import HEADER, index_directory
from configs.nuscenes import CAMERAS
from scenes.index import build_index, open_index
from scenes.index_files import IndexHeader
from scenes.splits import official_splits

VERSION = "v1.0-mini"
SCENES = ("scene-0061", "scene-0553", "scene-0103")  # two of mini_train, one of mini_val


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("nuscenes")
    write_tables(root, VERSION, small_sizes(SCENES))
    (root / "maps").mkdir()
    (root / "maps" / "map.png").touch()
    build_index(root, VERSION, progress=False)
    return root


@pytest.fixture
def root(tmp_path) -> Path:
    """Tables that a test may spoil."""
    write_tables(tmp_path, VERSION, small_sizes(SCENES[:2]))
    return tmp_path


def records(root: Path, table: str) -> list[dict[str, Any]]:
    return json.loads((root / VERSION / f"{table}.json").read_text())


def rewrite(root: Path, table: str, content: list[dict[str, Any]]) -> None:
    (root / VERSION / f"{table}.json").write_text(as_array(content))


# --- content -------------------------------------------------------------------------------------------------------


def test_frames_equal_the_devkit(tables):
    from nuscenes.nuscenes import NuScenes
    from nuscenes.utils.geometry_utils import transform_matrix
    from pyquaternion import Quaternion

    devkit = NuScenes(VERSION, str(tables), verbose=False)
    index = open_index(tables, VERSION)
    assert len(index) == len(devkit.sample)

    def pose(table: str, token: str) -> np.ndarray:
        record = devkit.get(table, token)
        return transform_matrix(record["translation"], Quaternion(record["rotation"]))

    for row in range(len(index)):
        frame = index.frame(row)
        sample = devkit.get("sample", frame.token)
        assert frame.timestamp_us == sample["timestamp"]
        assert frame.scene_token == sample["scene_token"]
        for i, camera in enumerate(CAMERAS):
            data = devkit.get("sample_data", sample["data"][camera])
            calibration = devkit.get("calibrated_sensor", data["calibrated_sensor_token"])
            assert frame.image_paths[i] == tables / data["filename"]
            assert frame.image_size == (data["height"], data["width"])
            assert frame.camera_timestamps_us[i] == data["timestamp"]
            np.testing.assert_array_equal(frame.intrinsics[i], calibration["camera_intrinsic"])
            np.testing.assert_allclose(
                frame.ego_from_cam[i], pose("calibrated_sensor", data["calibrated_sensor_token"]), atol=1e-12
            )
            np.testing.assert_allclose(
                frame.global_from_ego_cam[i], pose("ego_pose", data["ego_pose_token"]), atol=1e-12
            )
        np.testing.assert_array_equal(frame.global_from_ego, frame.global_from_ego_cam[1])

        boxes = frame.annotations
        assert sorted(boxes.tokens) == sorted(sample["anns"])
        for i, token in enumerate(boxes.tokens):
            box = devkit.get("sample_annotation", token)
            velocity = devkit.box_velocity(token)
            np.testing.assert_array_equal(boxes.velocity[i], velocity[:2])
            np.testing.assert_array_equal(boxes.vertical_velocity[i], velocity[2])
            np.testing.assert_array_equal(boxes.translation[i], box["translation"])
            np.testing.assert_array_equal(boxes.size[i], box["size"])
            np.testing.assert_array_equal(boxes.rotation[i], box["rotation"])
            attributes = [devkit.get("attribute", a)["name"] for a in box["attribute_tokens"]]
            assert [boxes.attributes[i]] == (attributes or [""])
            assert boxes.instance_tokens[i] == box["instance_token"]
            assert boxes.categories[i] == box["category_name"]
            assert boxes.visibility[i] == int(box["visibility_token"])
            assert (boxes.num_lidar_pts[i], boxes.num_radar_pts[i]) == (box["num_lidar_pts"], box["num_radar_pts"])


def test_sweeps_follow_the_chain_of_the_devkit(tables):
    index = open_index(tables, VERSION)
    data = {record["token"]: record for record in records(tables, "sample_data")}
    by_name = {record["filename"]: record for record in data.values()}
    row = index.scene_named(SCENES[1]).first_row + 1
    frame = index.frame(row)
    channels = {"LIDAR_TOP": frame.lidar.path, "CAM_BACK": frame.image_paths[4]}
    for channel, path in channels.items():
        chain, token = [], by_name[str(path.relative_to(tables))]["prev"]
        while token:
            chain.append(tables / data[token]["filename"])
            token = data[token]["prev"]
        sweeps = index.lidar_sweeps(row, 99) if channel == "LIDAR_TOP" else index.camera_sweeps(row, channel, 99)
        assert [sweep.path for sweep in sweeps] == chain
        assert [sweep.timestamp_us for sweep in sweeps] == sorted((s.timestamp_us for s in sweeps), reverse=True)
    assert len(index.lidar_sweeps(row, 3)) == 3
    assert index.lidar_sweeps(index.scene_of(row).first_row, 5) == []


def test_rows_tokens_and_scenes(tables):
    index = open_index(tables, VERSION)
    assert [index.row_of(index.token(row)) for row in range(len(index))] == list(range(len(index)))
    scene = index.scene_named(SCENES[1])
    assert index.scene_named(scene.token) == scene
    assert index.scene_of(scene.last_row) == scene
    assert scene.rows.tolist() == list(range(scene.first_row, scene.last_row + 1))
    times = [index.frame(row).timestamp_us for row in scene.rows]
    assert times == sorted(times)
    for wrong in ("0" * 32, "no token"):
        with pytest.raises(UsageError, match="no sample"):
            index.row_of(wrong)
    with pytest.raises(UsageError, match="no scene"):
        index.scene_named("scene-9999")


def test_official_splits(tables):
    index = open_index(tables, VERSION)
    assert index.splits() == ("mini_train", "mini_val")
    assert index.rows_in("mini_train").tolist() == list(range(8))
    assert index.rows_in("mini_val").tolist() == list(range(8, 12))
    assert index.header.splits == {"mini_train": 8, "mini_val": 4}
    with pytest.raises(UsageError, match="mini_train, mini_val"):
        index.rows_in("train")


def test_official_splits_are_those_of_the_devkit():
    from nuscenes.utils.splits import create_splits_scenes

    ours = official_splits()
    for name, scenes in create_splits_scenes().items():
        assert ours[name] == scenes


def test_custom_splits(root):
    (root / VERSION / "splits.json").write_text(json.dumps({"mine": [SCENES[1], "scene-0000"]}))
    build_index(root, VERSION, progress=False)
    assert open_index(root, VERSION).rows_in("mine").tolist() == [4, 5, 6, 7]
    (root / VERSION / "splits.json").write_text(json.dumps({"mine": SCENES[1]}))
    with pytest.raises(DataError, match="list of scene names"):
        build_index(root, VERSION, progress=False)


def test_training_boxes_per_class(tables):
    index = open_index(tables, VERSION)
    counts = index.class_counts(range(len(index)))
    for row in range(len(index)):
        boxes = index.frame(row).annotations
        valid = boxes.select((boxes.labels >= 0) & (boxes.num_lidar_pts + boxes.num_radar_pts > 0))
        np.testing.assert_array_equal(counts[row], np.bincount(valid.labels, minlength=10))
    frames = (counts[index.rows_in("mini_train")] > 0).sum(axis=0)
    assert index.header.class_frames["mini_train"] == frames.tolist()


def test_an_index_survives_pickling(tables):
    index = open_index(tables, VERSION)
    payload = pickle.dumps(index)
    assert len(payload) < 10_000  # the files are named, not their content
    assert pickle.loads(payload).frame(5).image_paths == index.frame(5).image_paths


def test_a_test_set_has_no_annotations(tmp_path):
    directory = write_tables(tmp_path, "v1.0-test", small_sizes(official_splits()["test"][:2]))
    for table in ("sample_annotation", "instance"):
        (directory / f"{table}.json").write_text("[]")
    build_index(tmp_path, "v1.0-test", progress=False)
    index = open_index(tmp_path, "v1.0-test")
    assert index.splits() == ("test",)
    assert len(index.frame(0).annotations) == 0
    assert index.class_counts(index.rows_in("test")).sum() == 0


@pytest.mark.parametrize("layout", [{"separators": (",", ":")}, {"indent": 4}, {}])
def test_every_layout_of_json_is_read(tables, tmp_path, layout):
    directory = tmp_path / VERSION
    directory.mkdir()
    for path in (tables / VERSION).glob("*.json"):
        (directory / path.name).write_text(json.dumps(json.loads(path.read_text()), **layout) + "\n")
    build_index(tmp_path, VERSION, progress=False)
    ours, expected = open_index(tmp_path, VERSION), open_index(tables, VERSION)
    for row in range(len(expected)):
        frame, other = ours.frame(row), expected.frame(row)
        np.testing.assert_array_equal(frame.global_from_ego_cam, other.global_from_ego_cam)
        np.testing.assert_array_equal(frame.annotations.velocity, other.annotations.velocity)
        assert [p.name for p in frame.image_paths] == [p.name for p in other.image_paths]


def test_records_across_block_borders(tables, tmp_path, monkeypatch):
    monkeypatch.setattr("scenes.tables.BLOCK_BYTES", 1500)  # a few records a block
    build_index(tables, VERSION, tmp_path, progress=False)
    ours, expected = open_index(tables, VERSION, tmp_path), open_index(tables, VERSION)
    assert ours.header.counts == expected.header.counts
    for row in range(len(expected)):
        np.testing.assert_array_equal(ours.frame(row).global_from_ego_cam, expected.frame(row).global_from_ego_cam)
        assert ours.frame(row).annotations.tokens.tolist() == expected.frame(row).annotations.tokens.tolist()


# --- where it lies, and when it is refused -------------------------------------------------------------------------


def test_place_of_the_index(root, tmp_path, monkeypatch):
    assert build_index(root, VERSION, progress=False) == root / "index" / VERSION
    assert build_index(root, VERSION, tmp_path / "given", progress=False) == tmp_path / "given" / VERSION
    monkeypatch.setenv("BEVNEXT_SAM2_INDEX_DIR", str(tmp_path / "named"))
    assert build_index(root, VERSION, progress=False) == tmp_path / "named" / VERSION
    header = json.loads((index_directory(root, VERSION) / HEADER).read_text())
    assert header["counts"] == {"scenes": 2, "samples": 8, "sample_data": 608, "annotations": 36}
    assert str(root) not in json.dumps(header)


def test_no_index_names_the_command(root):
    with pytest.raises(DataError, match="no index") as caught:
        open_index(root, VERSION)
    assert caught.value.fix == f"bevnext-sam2 data index --data-root {root} --version {VERSION}"


def test_changed_tables_make_it_stale(root):
    build_index(root, VERSION, progress=False)
    os.utime(root / VERSION / "sample.json", (1, 1))
    with pytest.raises(DataError, match=r"stale: sample\.json changed"):
        open_index(root, VERSION)
    build_index(root, VERSION, progress=False)
    (root / VERSION / "splits.json").write_text("{}")
    with pytest.raises(DataError, match=r"stale: splits\.json changed"):
        open_index(root, VERSION)
    build_index(root, VERSION, progress=False)
    (root / VERSION / "map.json").unlink()
    with pytest.raises(DataError, match=r"stale: map\.json gone"):
        open_index(root, VERSION)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / HEADER).write_text("{"), "damaged index header"),
        (lambda d: (d / HEADER).write_text("{}"), "damaged index header"),
        (lambda d: (d / HEADER).write_text('{"schema_version": 99}'), "index schema 99"),
        (lambda d: next(d.glob("sensors-*")).unlink(), "missing or cut off"),
        (lambda d: next(d.glob("sensors-*")).write_bytes(b"ARROW1"), "missing or cut off"),
        (lambda d: (d / HEADER).write_text((d / HEADER).read_text().replace(VERSION, "v0")), "index of v0"),
    ],
)
def test_a_damaged_index_is_refused(root, spoil, message):
    spoil(build_index(root, VERSION, progress=False))
    with pytest.raises(DataError, match=message) as caught:
        open_index(root, VERSION)
    assert "data index" in caught.value.fix


# --- bad tables ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "spoil", "message"),
    [
        ("sample_data", lambda text: text[: len(text) // 2], "cut off at byte"),
        ("sample_data", lambda text: "", "the file is empty"),
        ("sample_data", lambda text: '{"a": 1}', "not a JSON array"),
        ("sample_data", lambda text: text.replace('"timestamp": 1', '"timestamp": x1', 1), "not valid JSON"),
        ("sample_data", lambda text: text.replace('"timestamp": 1532', '"timestamp": "1532"', 1), "not valid JSON"),
        ("sample_data", lambda text: text.replace('"height": 900', '"height": "tall"', 1), "from number to string"),
        ("sample_data", lambda text: text.replace("},\n{", "}\n{", 1), "one comma"),
        ("sample_data", lambda text: text.replace('"height": 900', '"height": {}', 1), "flat records"),
        ("sample_data", lambda text: text.replace('"filename"', '"file"', 1), "lack the field 'filename'"),
        ("ego_pose", lambda text: text.replace(",\n0.0\n]", "\n]", 1), "does not have 3 numbers"),
        ("sample", lambda text: "[]", "there are no samples"),
        ("sample", lambda text: text.replace('"token": "', '"token": "x', 1), "not a token"),
        ("scene", lambda text: text[:-1], "not valid JSON"),
        ("scene", lambda text: text.replace('"name"', '"title"'), "lacks the field 'name'"),
        ("calibrated_sensor", lambda text: "{}", "not a JSON array"),
        ("visibility", lambda text: text.replace("v0-40", "most"), "unknown level 'most'"),
    ],
)
def test_a_damaged_table_is_named(root, table, spoil, message):
    path = root / VERSION / f"{table}.json"
    path.write_text(spoil(path.read_text()))
    with pytest.raises(DataError, match=message) as caught:
        build_index(root, VERSION, progress=False)
    assert table in caught.value.message
    assert caught.value.fix
    assert not (root / "index").exists()


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ("sample", "scene_token"),
        ("sample_data", "sample_token"),
        ("sample_data", "ego_pose_token"),
        ("sample_data", "calibrated_sensor_token"),
        ("calibrated_sensor", "sensor_token"),
        ("instance", "category_token"),
        ("sample_annotation", "sample_token"),
        ("sample_annotation", "instance_token"),
        ("sample_annotation", "attribute_tokens"),
        ("sample_annotation", "next"),
        ("sample_annotation", "visibility_token"),
    ],
)
def test_a_dangling_token_is_named(root, table, field):
    content = records(root, table)
    lost = "f" * 32
    content[0][field] = [lost] if field.endswith("tokens") else lost
    rewrite(root, table, content)
    with pytest.raises(DataError, match=lost) as caught:
        build_index(root, VERSION, progress=False)
    assert f"{table}.{field}" in caught.value.message


def test_a_key_frame_without_a_camera_is_named(root):
    content = records(root, "sample_data")
    at = next(i for i, r in enumerate(content) if r["is_key_frame"] and "CAM_BACK__" in r["filename"])
    rewrite(root, "sample_data", content[:at] + content[at + 1 :])
    with pytest.raises(DataError, match=f"{content[at]['sample_token']} has 0 key-frame records of CAM_BACK,"):
        build_index(root, VERSION, progress=False)
    rewrite(root, "sample_data", [*content, content[at]])
    with pytest.raises(DataError, match="2 key-frame records of CAM_BACK"):
        build_index(root, VERSION, progress=False)


def test_cameras_of_different_size_are_refused(root):
    content = records(root, "sample_data")
    at = next(i for i, r in enumerate(content) if r["is_key_frame"] and "CAM_BACK__" in r["filename"])
    content[at]["height"] = 450
    rewrite(root, "sample_data", content)
    with pytest.raises(DataError, match=f"images of sample {content[at]['sample_token']} differ in size"):
        build_index(root, VERSION, progress=False)


def test_two_attributes_are_refused(root):
    content = records(root, "sample_annotation")
    content[0]["attribute_tokens"] = [r["token"] for r in records(root, "attribute")[:2]]
    rewrite(root, "sample_annotation", content)
    with pytest.raises(DataError, match="more than one attribute"):
        build_index(root, VERSION, progress=False)


def test_velocity_is_unknown_without_neighbours_or_after_a_long_pause(root):
    content = records(root, "sample_annotation")
    first = next(r for r in content if not r["prev"] and r["next"])
    alone = dict(first, token="e" * 32, prev="", next="")
    rewrite(root, "sample_annotation", [*content, alone])
    samples = records(root, "sample")
    for sample in samples[1:4]:
        sample["timestamp"] += 2_000_000
    rewrite(root, "sample", samples)
    build_index(root, VERSION, progress=False)
    index = open_index(root, VERSION)
    boxes = index.frame(index.row_of(first["sample_token"])).annotations
    assert np.isnan(boxes.velocity[boxes.tokens.tolist().index("e" * 32)]).all()
    early = index.frame(0).annotations
    assert len(early)
    assert np.isnan(early.velocity).all()  # the next key frame is 2.5 s later


# --- data root, version, disk --------------------------------------------------------------------------------------


def test_a_missing_data_root_or_version_is_named(root, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        build_index(tmp_path / "nowhere", VERSION, progress=False)
    with pytest.raises(DataError, match=r"versions there: v1\.0-mini") as caught:
        build_index(root, "v1.0-trainval", progress=False)
    assert caught.value.fix == "use --version v1.0-mini"
    (root / VERSION / "sample_data.json").unlink()
    with pytest.raises(DataError, match=r"sample_data\.json: the table is missing"):
        build_index(root, VERSION, progress=False)


def test_a_full_disk_leaves_the_earlier_index_whole(root):
    directory = build_index(root, VERSION, progress=False)
    before = sorted(path.name for path in directory.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(BevnextError, match="cannot write the index") as caught:
            build_index(root, VERSION, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.exit_code == 1
    assert "--index-dir" in caught.value.fix
    assert sorted(path.name for path in directory.iterdir()) == before
    assert len(open_index(root, VERSION)) == 8


def test_a_rebuild_replaces_the_files_and_keeps_open_readers_alive(root):
    directory = build_index(root, VERSION, progress=False)
    reader = open_index(root, VERSION)
    names = {path.name for path in directory.glob("*.arrow")}
    build_index(root, VERSION, progress=False)
    assert not names & {path.name for path in directory.glob("*.arrow")}
    assert len(list(directory.glob("*.arrow"))) == len(names)
    assert reader.frame(3).token == open_index(root, VERSION).frame(3).token


BUILDER = """
import sys
from scenes.index import build_index
for _ in range(5):
    build_index(sys.argv[1], sys.argv[2], progress=False)
"""


def test_two_builds_at_once_and_a_reader(root):
    directory = build_index(root, VERSION, progress=False)
    tokens = [open_index(root, VERSION).token(row) for row in range(8)]
    builders = [subprocess.Popen([sys.executable, "-c", BUILDER, str(root), VERSION]) for _ in range(2)]
    while any(builder.poll() is None for builder in builders):
        index = open_index(root, VERSION)
        assert [index.token(row) for row in range(8)] == tokens
    assert [builder.returncode for builder in builders] == [0, 0]
    header = json.loads((directory / HEADER).read_text())
    named = {file["name"] for file in header["files"].values()}
    assert {path.name for path in directory.iterdir()} == {HEADER, ".lock", *named}


@pytest.mark.parametrize("moment", ["files are looked for", "files are mapped"])
def test_a_build_that_ends_while_an_index_is_opened(root, monkeypatch, moment):
    build_index(root, VERSION, progress=False)
    again = [lambda: build_index(root, VERSION, progress=False)]
    name = "scenes.index._refuse_stale" if moment == "files are mapped" else "scenes.index_files.IndexHeader"

    def rebuild(*arguments):
        if again:
            again.pop()()

    class Header(IndexHeader):
        @classmethod
        def model_validate(cls, content):
            rebuild()
            return IndexHeader.model_validate(content)

    monkeypatch.setattr(name, rebuild if moment == "files are mapped" else Header)
    assert len(open_index(root, VERSION)) == 8
    assert not again


# --- the table writer ----------------------------------------------------------------------------------------------


def test_written_tables_are_formatted_as_nuscenes_ships_them(root):
    for path in (root / VERSION).glob("*.json"):
        text = path.read_text()
        assert text == as_array(json.loads(text))


def test_command_line(root, capsys):
    from launcher.main import run

    assert run(["data", "index", "--data-root", str(root), "--version", VERSION]) == 0
    assert "8" in capsys.readouterr().out
    assert run(["data", "index", "--data-root", str(root)]) == 3
    assert "use --version v1.0-mini" in capsys.readouterr().err
