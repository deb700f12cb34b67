"""Info pickles of the three common forms give the index of the tables back; nothing that they name is run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyquaternion import Quaternion

from benchmarks.nuscenes_tables import as_array, small_sizes, write_tables
from configs.errors import DataError, UsageError
from configs.nuscenes import CAMERAS, CLASSES
from launcher.main import run
from scenes.frame import Frame, LidarFrame
from scenes.index import SceneIndex, build_index, open_index
from scenes.info_pickles import import_infos, split_name
from scenes.restricted_pickle import read_pickle

VERSION = "v1.0-trainval"
PREFIX = "./data/nuscenes/"
KEY_FRAME = os.environ.get("BEVNEXT_SAM2_KEYFRAME")


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> SceneIndex:
    """The index of tables whose LiDAR leans by two degrees, as the real one does."""
    root = tmp_path_factory.mktemp("tables")
    directory = write_tables(root, VERSION, small_sizes(("scene-0001", "scene-0002"), instances=20))
    path = directory / "calibrated_sensor.json"
    records = json.loads(path.read_text())
    for record in records:
        lean = Quaternion(axis=(1, 1, 0), degrees=2.0)
        record["rotation"] = list((Quaternion(record["rotation"]) * lean).elements)
    path.write_text(as_array(records))
    build_index(root, VERSION, progress=False)
    return open_index(root, VERSION)


# --- the three forms, written from the true index ------------------------------------------------------------------


def posed(name: str, pose: np.ndarray) -> dict[str, Any]:
    return {
        f"{name}_translation": pose[:3, 3].tolist(),
        f"{name}_rotation": list(Quaternion(matrix=pose[:3, :3], rtol=1e-6, atol=1e-9).elements),
    }


def global_from_lidar(lidar: LidarFrame) -> np.ndarray:
    return lidar.global_from_ego @ lidar.ego_from_lidar


def boxes_in_lidar(frame: Frame) -> dict[str, Any]:
    """Boxes and velocities as mmdetection3d writes them: turned as the devkit turns a box."""
    boxes = frame.annotations
    lidar_from_global = np.linalg.inv(global_from_lidar(frame.lidar))
    turn = Quaternion(matrix=lidar_from_global[:3, :3], rtol=1e-6, atol=1e-9)
    centres = boxes.translation @ lidar_from_global[:3, :3].T + lidar_from_global[:3, 3]
    yaws = [(turn * Quaternion(rotation)).yaw_pitch_roll[0] for rotation in boxes.rotation]
    level = np.column_stack([boxes.velocity, np.zeros(len(boxes))])
    names = [CLASSES[i] if i >= 0 else name for i, name in zip(boxes.labels, boxes.categories, strict=True)]
    return {
        "gt_boxes": np.column_stack([centres, boxes.size[:, [1, 0, 2]], yaws]),
        "gt_names": np.array(names),
        "gt_velocity": (level @ lidar_from_global[:3, :3].T)[:, :2],
        "num_lidar_pts": boxes.num_lidar_pts,
        "num_radar_pts": boxes.num_radar_pts,
        "valid_flag": boxes.num_lidar_pts + boxes.num_radar_pts > 0,
    }


def frames(index: SceneIndex) -> Iterator[Frame]:
    return (index.frame(row) for row in range(len(index)))


def below(index: SceneIndex, path: Path) -> str:
    return PREFIX + str(path.relative_to(index.dataroot))


def bevdet(index: SceneIndex) -> dict[str, Any]:
    infos = []
    for frame in frames(index):
        cams = {
            camera: {
                "data_path": below(index, frame.image_paths[i]),
                "timestamp": int(frame.camera_timestamps_us[i]),
                "cam_intrinsic": frame.intrinsics[i],
                **posed("sensor2ego", frame.ego_from_cam[i]),
                **posed("ego2global", frame.global_from_ego_cam[i]),
            }
            for i, camera in enumerate(CAMERAS)
        }
        infos.append(
            {
                "token": frame.token,
                "scene_token": frame.scene_token,
                "timestamp": frame.timestamp_us,
                "lidar_path": below(index, frame.lidar.path),
                "sweeps": [],
                "cams": cams,
                **posed("lidar2ego", frame.lidar.ego_from_lidar),
                **posed("ego2global", frame.lidar.global_from_ego),
                **boxes_in_lidar(frame),
            }
        )
    return {"infos": infos, "metadata": {"version": VERSION}}


def sparsebev(index: SceneIndex) -> dict[str, Any]:
    content = bevdet(index)
    for frame, info in zip(frames(index), content["infos"], strict=True):
        del info["scene_token"]
        for i, camera in enumerate(info["cams"].values()):
            pose = frame.global_from_ego_cam[i] @ frame.ego_from_cam[i]
            for name in [name for name in camera if name.startswith(("sensor2ego", "ego2global"))]:
                del camera[name]
            camera |= {"sensor2global_rotation": pose[:3, :3].T, "sensor2global_translation": pose[:3, 3]}
        lists = [index.camera_sweeps(frame.row, camera, 5) for camera in CAMERAS]
        info["sweeps"] = [
            {
                camera: {
                    "data_path": below(index, sweep.path),
                    "timestamp": sweep.timestamp_us,
                    "cam_intrinsic": sweep.intrinsics,
                    "sensor2global_rotation": (sweep.global_from_ego @ sweep.ego_from_cam)[:3, :3].T,
                    "sensor2global_translation": (sweep.global_from_ego @ sweep.ego_from_cam)[:3, 3],
                }
                for camera, sweep in zip(CAMERAS, step, strict=True)
            }
            for step in zip(*lists, strict=True)
        ]
    return content


def mmdet3d(index: SceneIndex) -> dict[str, Any]:
    order = [*CLASSES[::-1]]
    data_list = []
    for frame in frames(index):
        boxes = boxes_in_lidar(frame)
        images = {
            camera: {
                "img_path": frame.image_paths[i].name,
                "timestamp": frame.camera_timestamps_us[i] / 1e6,
                "cam2img": frame.intrinsics[i].tolist(),
                "cam2ego": frame.ego_from_cam[i].tolist(),
                "lidar2cam": (
                    np.linalg.inv(frame.global_from_ego_cam[i] @ frame.ego_from_cam[i]) @ global_from_lidar(frame.lidar)
                ).tolist(),
            }
            for i, camera in enumerate(CAMERAS)
        }
        instances = [
            {
                "bbox_3d": box.tolist(),
                "bbox_label_3d": order.index(name) if name in order else -1,
                "velocity": velocity.tolist(),
                "num_lidar_pts": int(lidar_points),
                "num_radar_pts": int(radar_points),
            }
            for box, name, velocity, lidar_points, radar_points in zip(
                *(boxes[n] for n in ("gt_boxes", "gt_names", "gt_velocity", "num_lidar_pts", "num_radar_pts")),
                strict=True,
            )
        ]
        data_list.append(
            {
                "token": frame.token,
                "timestamp": frame.timestamp_us / 1e6,
                "ego2global": frame.lidar.global_from_ego.tolist(),
                "lidar_points": {
                    "lidar_path": frame.lidar.path.name,
                    "lidar2ego": frame.lidar.ego_from_lidar.tolist(),
                },
                "images": images,
                "instances": instances,
                "lidar_sweeps": [
                    {
                        "timestamp": sweep.timestamp_us / 1e6,
                        "ego2global": sweep.global_from_ego.tolist(),
                        "lidar_points": {
                            "lidar_path": below(index, sweep.path),
                            "lidar2ego": sweep.ego_from_lidar.tolist(),
                        },
                    }
                    for sweep in index.lidar_sweeps(frame.row, 12)
                ],
            }
        )
    categories = {name: i for i, name in enumerate(order)}
    return {"data_list": data_list, "metainfo": {"version": VERSION, "categories": categories}}


def imported(content: Any, root: Path) -> SceneIndex:
    file = root / "nuscenes_infos_train.pkl"
    file.write_bytes(pickle.dumps(content))
    version, directory = import_infos([file], root)
    assert (version, directory) == (VERSION, root / "index" / VERSION)
    return open_index(root, VERSION)


@pytest.mark.parametrize("form", [bevdet, mmdet3d, sparsebev])
def test_the_index_of_the_tables_comes_back(truth, tmp_path, form):
    index = imported(form(truth), tmp_path)
    assert index.header.splits == {"train": len(truth)}
    assert [index.token(row) for row in range(len(index))] == [truth.token(row) for row in range(len(truth))]
    np.testing.assert_array_equal(index.class_counts(range(len(index))), truth.class_counts(range(len(truth))))
    for frame, expected in zip(frames(index), frames(truth), strict=True):
        assert frame.timestamp_us == expected.timestamp_us
        assert [path.relative_to(tmp_path) for path in (*frame.image_paths, frame.lidar.path)] == [
            path.relative_to(truth.dataroot) for path in (*expected.image_paths, expected.lidar.path)
        ]
        np.testing.assert_allclose(frame.intrinsics, expected.intrinsics)
        np.testing.assert_allclose(
            frame.global_from_ego_cam @ frame.ego_from_cam,
            expected.global_from_ego_cam @ expected.ego_from_cam,
            atol=1e-8,
        )
        if form is not sparsebev:
            np.testing.assert_allclose(frame.global_from_ego_cam, expected.global_from_ego_cam, atol=1e-8)
        np.testing.assert_allclose(global_from_lidar(frame.lidar), global_from_lidar(expected.lidar), atol=1e-8)
        boxes, true = frame.annotations, expected.annotations
        np.testing.assert_array_equal(boxes.labels, true.labels)
        np.testing.assert_allclose(boxes.translation, true.translation, atol=1e-8)
        np.testing.assert_allclose(boxes.size, true.size)
        turns = np.abs((boxes.rotation * true.rotation).sum(axis=1))
        np.testing.assert_allclose(turns, 1, atol=1e-12)
        np.testing.assert_allclose(boxes.velocity, true.velocity, atol=1e-8)
        np.testing.assert_allclose(
            boxes.vertical_velocity, np.where(np.isnan(true.velocity[:, 0]), np.nan, 0), atol=1e-8
        )


@pytest.mark.parametrize("form", [bevdet, mmdet3d, sparsebev])
def test_scenes_are_found(truth, tmp_path, form):
    index = imported(form(truth), tmp_path)
    ours = {(index.scene_of(row).first_row, index.scene_of(row).last_row) for row in range(len(index))}
    assert ours == {(0, 3), (4, 7)}
    if form is bevdet:
        assert index.scene_of(5).token == truth.scene_of(5).token


def test_sweeps_are_kept_once(truth, tmp_path):
    row = 2
    lidar = imported(mmdet3d(truth), tmp_path)
    ours, expected = lidar.lidar_sweeps(row, 15), truth.lidar_sweeps(row, 15)
    assert [sweep.path.name for sweep in ours] == [sweep.path.name for sweep in expected]
    np.testing.assert_allclose(global_from_lidar(ours[4]), global_from_lidar(expected[4]), atol=1e-8)
    camera = imported(sparsebev(truth), tmp_path)
    steps, true_steps = camera.camera_sweeps(row, "CAM_BACK", 9), truth.camera_sweeps(row, "CAM_BACK", 9)
    assert [sweep.path.name for sweep in steps] == [sweep.path.name for sweep in true_steps]
    np.testing.assert_allclose(
        steps[3].global_from_ego @ steps[3].ego_from_cam,
        true_steps[3].global_from_ego @ true_steps[3].ego_from_cam,
        atol=1e-8,
    )


def test_without_sweeps_a_pause_ends_a_scene(truth, tmp_path):
    content = mmdet3d(truth)
    for info in content["data_list"]:
        del info["lidar_sweeps"]
    assert imported(content, tmp_path).header.counts.scenes == 2


def test_a_test_set_has_no_boxes(truth, tmp_path):
    content = bevdet(truth)
    for info in content["infos"]:
        for name in ("gt_boxes", "gt_names", "gt_velocity", "num_lidar_pts", "num_radar_pts", "valid_flag"):
            del info[name]
    assert len(imported(content, tmp_path).frame(0).annotations) == 0


@pytest.mark.parametrize(
    ("name", "version", "split"),
    [
        ("bevdetv2-nuscenes_infos_train.pkl", VERSION, "train"),
        ("nuscenes_infos_val_sweep.pkl", VERSION, "val"),
        ("nuscenes_infos_val_mini_sweep.pkl", "v1.0-mini", "mini_val"),
        ("nuscenes_infos_train.pkl", "v1.0-mini", "mini_train"),
        ("nuscenes_infos_test.pkl", "v1.0-test", "test"),
        ("demo.pkl", VERSION, "demo"),
    ],
)
def test_splits_are_named_after_the_files(name, version, split):
    assert split_name(Path(name), version) == split


def test_two_files_make_two_splits(truth, tmp_path):
    content = bevdet(truth)
    files = []
    for split, infos in (("train", content["infos"][:4]), ("val", content["infos"][4:])):
        files.append(tmp_path / f"bevdetv2-nuscenes_infos_{split}.pkl")
        files[-1].write_bytes(pickle.dumps({"infos": infos, "metadata": content["metadata"]}))
    import_infos(files, tmp_path)
    index = open_index(tmp_path, VERSION)
    assert index.rows_in("val").tolist() == [4, 5, 6, 7]
    files.append(shutil.copy(files[0], tmp_path / "again.pkl"))
    with pytest.raises(DataError, match="twice"):
        import_infos(files, tmp_path)


# --- refusals ------------------------------------------------------------------------------------------------------


class Attack:
    """A pickle that would leave a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_call_is_refused_and_named(tmp_path, protocol):
    file = tmp_path / "infos.pkl"
    file.write_bytes(pickle.dumps({"infos": [Attack(tmp_path / "mark")]}, protocol=protocol))
    with pytest.raises(DataError, match=r"asks for (posix|os)\.mkdir, which is not run"):
        read_pickle(file)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"c_codecs\nencode\n(Vtext\nVzip\ntR.",  # the real function would import a codec
        b"cbuiltins\neval\n(V1\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n(V/etc/passwd\ntR.",
        b"Pid\n.",
        b"cnumpy\nndarray\n(dVx\nI1\nsb.",  # would set an attribute of the class
        b"",
        b"\x80\x04\x95",
    ],
)
def test_other_tricks_are_refused(tmp_path, payload):
    file = tmp_path / "infos.pkl"
    file.write_bytes(payload)
    with pytest.raises(DataError):
        read_pickle(file)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_content_is_read(tmp_path, protocol):
    content = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": [np.float64(1.5), np.int64(3), True, None, (1, "x"), b"bytes"],
        "c": np.array(["car", "bus"]),
    }
    file = tmp_path / "infos.pkl"
    file.write_bytes(pickle.dumps(content, protocol=protocol))
    read = read_pickle(file)
    np.testing.assert_array_equal(read["a"], content["a"])
    np.testing.assert_array_equal(read["c"], content["c"])
    assert read["b"] == content["b"]


def test_arrays_of_numpy_2_are_read(tmp_path):
    file = tmp_path / "infos.pkl"
    # protocol 2 writes module names as text, so the name that NumPy 2 uses can be put in
    payload = pickle.dumps(np.arange(3.0), protocol=2)
    file.write_bytes(payload.replace(b"numpy.core.multiarray", b"numpy._core.multiarray"))
    np.testing.assert_array_equal(read_pickle(file), np.arange(3.0))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "neither 'infos' nor 'data_list'"),
        (None, "not the form"),
        ({"other": 1}, "neither 'infos' nor 'data_list'"),
        ({"infos": []}, "no key frames"),
        ({"infos": [{"token": "x"}]}, "lacks the field"),
    ],
)
def test_other_forms_are_refused(tmp_path, content, message):
    file = tmp_path / "infos.pkl"
    file.write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=message):
        import_infos([file], tmp_path, VERSION)
    assert not (tmp_path / "index").exists()


def test_a_cut_or_missing_file_is_refused(truth, tmp_path):
    file = tmp_path / "infos.pkl"
    file.write_bytes(pickle.dumps(bevdet(truth))[:-100])
    with pytest.raises(DataError, match="not a whole pickle"):
        read_pickle(file)
    with pytest.raises(DataError, match="missing"):
        read_pickle(tmp_path / "nowhere.pkl")


def test_an_index_of_tables_is_not_replaced(truth, tmp_path):
    file = tmp_path / "infos.pkl"
    file.write_bytes(pickle.dumps(bevdet(truth)))
    with pytest.raises(UsageError, match="made from the tables"):
        import_infos([file], truth.dataroot)
    import_infos([file], truth.dataroot, "v1.0-imported")
    assert len(open_index(truth.dataroot, "v1.0-imported")) == len(truth)


def test_versions_must_agree(truth, tmp_path):
    file = tmp_path / "infos.pkl"
    content = bevdet(truth)
    del content["metadata"]
    file.write_bytes(pickle.dumps(content))
    with pytest.raises(UsageError, match="do not name one version"):
        import_infos([file], tmp_path)


def test_command_line(truth, tmp_path, capsys):
    file = tmp_path / "nuscenes_infos_val.pkl"
    file.write_bytes(pickle.dumps(bevdet(truth)))
    assert run(["data", "import", "--info", str(file), "--data-root", str(tmp_path), "--image-size", "160x90"]) == 0
    assert "split val" in capsys.readouterr().out
    assert open_index(tmp_path, VERSION).frame(0).image_size == (90, 160)
    assert run(["data", "import", "--info", str(file), "--image-size", "90"]) == 2
    assert "WIDTHxHEIGHT" in capsys.readouterr().err
    file.write_bytes(pickle.dumps(Attack(tmp_path / "mark")))
    assert run(["data", "import", "--info", str(file), "--data-root", str(tmp_path)]) == 3
    assert "mkdir" in capsys.readouterr().err


@pytest.mark.skipif(KEY_FRAME is None, reason="BEVNEXT_SAM2_KEYFRAME is not set")
def test_a_real_key_frame(tmp_path):
    root = Path(str(KEY_FRAME))
    (file,) = root.glob("*.pkl")
    version, _ = import_infos([file], root, index_dir=tmp_path)
    index = open_index(root, version, tmp_path)
    frame = index.frame(0)
    assert all(path.is_file() for path in (*frame.image_paths, frame.lidar.path))
    boxes = frame.annotations
    assert len(boxes) == 69
    assert np.isnan(boxes.velocity).any(axis=1).sum() == 2
    # the tables hold millimetres: centres turned back into the global frame are whole ones again
    np.testing.assert_allclose(boxes.translation, boxes.translation.round(3), atol=2e-6)
    info = read_pickle(file)["data_list"][0]
    for i, camera in enumerate(CAMERAS):
        cam_from_global = np.linalg.inv(frame.global_from_ego_cam[i] @ frame.ego_from_cam[i])
        cam_from_lidar = cam_from_global @ global_from_lidar(frame.lidar)
        np.testing.assert_allclose(cam_from_lidar, info["images"][camera]["lidar2cam"], atol=1e-6)
