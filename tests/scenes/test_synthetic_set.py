"""One small synthetic set, looked at from every side: tables, devkit, pictures, masks, LiDAR, motion."""

import json
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
import simplejpeg

from configs.nuscenes import CAMERAS, CLASS_OF_CATEGORY, CLASSES, LIDAR, TABLES
from scenes.poses import transforms
from scenes.synthetic import make_synthetic
from scenes.synthetic.options import VERSION

matplotlib.use("Agg")

SIZE = (225, 400)
SAMPLES = 3

FIELDS = {
    "attribute": {"token", "name", "description"},
    "calibrated_sensor": {"token", "sensor_token", "translation", "rotation", "camera_intrinsic"},
    "category": {"token", "name", "description"},
    "ego_pose": {"token", "timestamp", "rotation", "translation"},
    "instance": {"token", "category_token", "nbr_annotations", "first_annotation_token", "last_annotation_token"},
    "log": {"token", "logfile", "vehicle", "date_captured", "location"},
    "map": {"token", "log_tokens", "category", "filename"},
    "sample": {"token", "timestamp", "prev", "next", "scene_token"},
    "sample_annotation": {
        "token", "sample_token", "instance_token", "visibility_token", "attribute_tokens", "translation", "size",
        "rotation", "prev", "next", "num_lidar_pts", "num_radar_pts",
    },
    "sample_data": {
        "token", "sample_token", "ego_pose_token", "calibrated_sensor_token", "timestamp", "fileformat",
        "is_key_frame", "height", "width", "filename", "prev", "next",
    },
    "scene": {
        "token", "log_token", "nbr_samples", "first_sample_token", "last_sample_token", "name", "description",
    },
    "sensor": {"token", "channel", "modality"},
    "visibility": {"token", "level", "description"},
}  # fmt: skip
FOREIGN = {
    "calibrated_sensor": {"sensor_token": "sensor"},
    "instance": {
        "category_token": "category",
        "first_annotation_token": "sample_annotation",
        "last_annotation_token": "sample_annotation",
    },
    "map": {"log_tokens": "log"},
    "sample": {"prev": "sample", "next": "sample", "scene_token": "scene"},
    "sample_annotation": {
        "sample_token": "sample", "instance_token": "instance", "visibility_token": "visibility",
        "attribute_tokens": "attribute", "prev": "sample_annotation", "next": "sample_annotation",
    },
    "sample_data": {
        "sample_token": "sample", "ego_pose_token": "ego_pose", "calibrated_sensor_token": "calibrated_sensor",
        "prev": "sample_data", "next": "sample_data",
    },
    "scene": {"log_token": "log", "first_sample_token": "sample", "last_sample_token": "sample"},
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set") / "synthetic"
    make_synthetic(
        folder,
        scenes=2,
        samples_per_scene=SAMPLES,
        image_size=SIZE,
        seed=3,
        workers=1,
        camera_sweeps=True,
        progress=False,
    )
    return folder


@pytest.fixture(scope="module")
def tables(root):
    return {name: json.loads((root / VERSION / f"{name}.json").read_text()) for name in TABLES}


@pytest.fixture(scope="module")
def nusc(root):
    from nuscenes.nuscenes import NuScenes

    return NuScenes(VERSION, str(root), verbose=False)


# --- tables ------------------------------------------------------------------------------------------------------


def test_every_row_has_every_field_and_a_token_of_its_own(tables):
    for name, rows in tables.items():
        assert rows, name
        assert all(set(row) == FIELDS[name] for row in rows), name
        assert len({row["token"] for row in rows}) == len(rows), name
    assert (len(tables["category"]), len(tables["attribute"]), len(tables["visibility"])) == (23, 8, 4)


def test_every_foreign_key_leads_somewhere(tables):
    tokens = {name: {row["token"] for row in rows} for name, rows in tables.items()}
    for name, keys in FOREIGN.items():
        for row in tables[name]:
            for key, target in keys.items():
                values = row[key] if isinstance(row[key], list) else [row[key]]
                may_end = key in ("prev", "next")
                assert all(value in tokens[target] or (may_end and value == "") for value in values), (name, key)


@pytest.mark.parametrize("name", ["sample", "sample_data", "sample_annotation"])
def test_chains_run_in_time_both_ways(tables, name):
    rows = {row["token"]: row for row in tables[name]}
    samples = {row["token"]: row["timestamp"] for row in tables["sample"]}

    def moment(row):
        return row["timestamp"] if "timestamp" in row else samples[row["sample_token"]]

    for row in rows.values():
        if row["next"]:
            assert rows[row["next"]]["prev"] == row["token"]
            assert moment(rows[row["next"]]) > moment(row)
        for key in ("calibrated_sensor_token", "instance_token", "scene_token"):
            if key in row and row["next"]:
                assert rows[row["next"]][key] == row[key]


def test_chains_are_whole(tables):
    def walk(rows, first):
        chain = [first]
        while rows[chain[-1]]["next"]:
            chain.append(rows[chain[-1]]["next"])
        return chain

    samples = {row["token"]: row for row in tables["sample"]}
    for scene in tables["scene"]:
        chain = walk(samples, scene["first_sample_token"])
        assert len(chain) == scene["nbr_samples"] == SAMPLES
        assert chain[-1] == scene["last_sample_token"]
    annotations = {row["token"]: row for row in tables["sample_annotation"]}
    for instance in tables["instance"]:
        chain = walk(annotations, instance["first_annotation_token"])
        assert len(chain) == instance["nbr_annotations"]
        assert chain[-1] == instance["last_annotation_token"]
        assert {annotations[token]["instance_token"] for token in chain} == {instance["token"]}


def test_sensors_fire_as_in_nuscenes(tables):
    channels = {row["token"]: row["channel"] for row in tables["sensor"]}
    of_calibration = {row["token"]: channels[row["sensor_token"]] for row in tables["calibrated_sensor"]}
    samples = {row["token"]: row["timestamp"] for row in tables["sample"]}
    keys = 0
    for row in tables["sample_data"]:
        channel, gap = of_calibration[row["calibrated_sensor_token"]], row["timestamp"] - samples[row["sample_token"]]
        if row["is_key_frame"]:
            keys += 1
            assert gap == 0 if channel == LIDAR else -60_000 < gap < 1_000
        else:
            assert -600_000 < gap < 0
        assert row["filename"].startswith("samples" if row["is_key_frame"] else "sweeps")
        assert channel in row["filename"]
    assert keys == 2 * SAMPLES * 7
    sweeps = [row for row in tables["sample_data"] if not row["is_key_frame"]]
    assert len(sweeps) == 2 * (SAMPLES - 1) * (9 + 6 * 5)


def test_splits_hold_out_the_last_scenes(root, tables):
    splits = json.loads((root / VERSION / "splits.json").read_text())
    names = [row["name"] for row in tables["scene"]]
    assert splits == {"synthetic_train": names[:1], "synthetic_val": names[1:]}


def test_every_file_is_there_and_whole(root, tables):
    for row in tables["sample_data"]:
        path = root / row["filename"]
        if row["fileformat"] == "pcd":
            points = np.fromfile(path, np.float32).reshape(-1, 5)
            assert 15_000 < len(points) <= 32 * 1084
            assert points[:, 4].min() >= 0
            assert points[:, 4].max() <= 31
            continue
        image = simplejpeg.decode_jpeg(path.read_bytes())
        assert image.shape == (row["height"], row["width"], 3) == (*SIZE, 3)
        assert image.std() > 0.2 * image.mean()  # contrast, which a dusk has too and a blank picture has not
    for row in tables["map"]:
        assert cv2.imread(str(root / row["filename"]), cv2.IMREAD_UNCHANGED).max() == 255


def test_all_ten_classes_are_in_every_scene(tables):
    categories = {row["token"]: row["name"] for row in tables["category"]}
    instances = {row["token"]: categories[row["category_token"]] for row in tables["instance"]}
    scene_of = {row["token"]: row["scene_token"] for row in tables["sample"]}
    seen = {}
    for row in tables["sample_annotation"]:
        found = CLASS_OF_CATEGORY.get(instances[row["instance_token"]])
        seen.setdefault(scene_of[row["sample_token"]], set()).add(found)
    assert all(set(CLASSES) <= classes for classes in seen.values())


# --- the devkit --------------------------------------------------------------------------------------------------


def test_the_devkit_draws_it(nusc, tmp_path):
    sample = nusc.sample[1]
    nusc.render_sample(sample["token"], out_path=str(tmp_path / "sample.png"), verbose=False)
    nusc.render_sample_data(sample["data"][LIDAR], nsweeps=3, out_path=str(tmp_path / "lidar.png"), verbose=False)
    nusc.render_annotation(sample["anns"][0], out_path=str(tmp_path / "box.png"))
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("sample.png", "lidar.png", "box.png"))


def test_ground_truth_as_results_scores_full_marks(nusc, tmp_path):
    from nuscenes.eval.detection.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval

    results = {
        sample["token"]: [
            _as_result(nusc, nusc.get("sample_annotation", token), rank) for rank, token in enumerate(sample["anns"])
        ]
        for sample in nusc.sample
        if nusc.get("scene", sample["scene_token"])["name"] == "scene-0001"
    }
    results = {token: [box for box in boxes if box] for token, boxes in results.items()}
    meta = {f"use_{kind}": kind == "camera" for kind in ("camera", "lidar", "radar", "map", "external")}
    (tmp_path / "results.json").write_text(json.dumps({"meta": meta, "results": results}))
    evaluation = DetectionEval(
        nusc,
        config_factory("detection_cvpr_2019"),
        str(tmp_path / "results.json"),
        "synthetic_val",
        str(tmp_path),
        False,
    )
    metrics = evaluation.evaluate()[0]
    assert metrics.mean_ap > 0.99
    assert metrics.nd_score > 0.99


def _as_result(nusc, row, rank):
    name = CLASS_OF_CATEGORY.get(row["category_name"])
    if name is None:
        return None
    attributes = [nusc.get("attribute", token)["name"] for token in row["attribute_tokens"]]
    return {
        "sample_token": row["sample_token"],
        "translation": row["translation"],
        "size": row["size"],
        "rotation": row["rotation"],
        "velocity": np.nan_to_num(nusc.box_velocity(row["token"])[:2]).tolist(),
        "detection_name": name,
        "detection_score": 1.0 - rank * 1e-4,
        "attribute_name": attributes[0] if attributes else "",
    }


# --- LiDAR, masks and motion -------------------------------------------------------------------------------------


def test_lidar_points_are_counted_as_the_devkit_counts(nusc):
    from nuscenes.utils.data_classes import LidarPointCloud
    from nuscenes.utils.geometry_utils import points_in_box

    counted = 0
    for sample in nusc.sample:
        path, boxes, _ = nusc.get_sample_data(sample["data"][LIDAR])
        points = LidarPointCloud.from_file(path).points[:3]
        for box in boxes:
            inside = int(points_in_box(box, points).sum())
            assert inside == nusc.get("sample_annotation", box.token)["num_lidar_pts"] > 0
            counted += inside
    assert counted > 1000


def test_point_labels_agree_with_boxes(root, nusc):
    from nuscenes.utils.data_classes import LidarPointCloud
    from nuscenes.utils.geometry_utils import points_in_box

    sample = nusc.sample[1]
    path, boxes, _ = nusc.get_sample_data(sample["data"][LIDAR])
    points = LidarPointCloud.from_file(path).points[:3]
    labels = np.load(
        root / "labels" / Path(path).relative_to(root).parent / Path(path).name.replace(".pcd.bin", ".npy")
    )
    assert labels.shape == (points.shape[1], 2)
    assert labels.dtype == np.uint16
    numbers = _numbers(root, nusc, sample)
    inside_own = total = 0
    for box in boxes:
        own = labels[:, 1] == numbers[nusc.get("sample_annotation", box.token)["instance_token"]]
        inside_own += int((points_in_box(box, points, wlh_factor=1.05) & own).sum())
        total += int(own.sum())
    assert inside_own > 0.97 * total > 300
    ground = np.isin(labels[:, 0], (24, 25, 26, 27))
    assert 0.3 < ground.mean() < 0.95
    assert np.abs(_in_ego(nusc, sample["data"][LIDAR], points[:, ground].T)[:, 2]).max() < 0.1


def test_masks_show_what_the_lidar_sees(root, nusc):
    """Points on things that stand still, projected into the images, fall on the mask of the same object."""
    sample = nusc.sample[1]
    lidar = nusc.get("sample_data", sample["data"][LIDAR])
    points = np.fromfile(root / lidar["filename"], np.float32).reshape(-1, 5)[:, :3].astype(np.float64)
    labels = np.load(root / "labels" / lidar["filename"].replace(".pcd.bin", ".npy"))[:, 1]
    still = list(_numbers(root, nusc, sample, still_only=True).values())
    points = _global_from_ego(nusc, lidar) @ np.vstack([_in_ego(nusc, lidar["token"], points).T, np.ones(len(points))])
    agree = total = 0
    for channel in CAMERAS:
        data = nusc.get("sample_data", sample["data"][channel])
        uv, depth = _project(nusc, data, points[:3].T)
        mask = _mask(root, data)
        cells = np.rint(uv).astype(int)
        shown = (depth > 1) & ((cells >= 0) & (cells < mask.shape[::-1])).all(axis=1) & np.isin(labels, still)
        agree += int((mask[cells[shown, 1], cells[shown, 0]] == labels[shown]).sum())
        total += int(shown.sum())
    assert total > 100
    assert agree / total > 0.85  # the LiDAR looks over and past things from where no camera is


def test_masks_fill_the_projected_boxes(root, nusc):
    """An object that nothing hides fills the rectangle around its projected box, to the pixel."""
    overlaps = []
    for sample in nusc.sample:
        numbers = _numbers(root, nusc, sample, still_only=True)
        for channel in CAMERAS:
            data = nusc.get("sample_data", sample["data"][channel])
            mask = _mask(root, data)
            for token in sample["anns"]:
                row = nusc.get("sample_annotation", token)
                number = numbers.get(row["instance_token"])
                if number is None:
                    continue
                uv, depth = _project(nusc, data, nusc.get_box(token).corners().T)
                rows, cols = np.nonzero(mask == number)
                if depth.min() < 1 or len(rows) == 0:
                    continue
                low, high = uv.min(axis=0), uv.max(axis=0)
                assert cols.min() > low[0] - 1.5
                assert cols.max() < high[0] + 1.5
                assert rows.min() > low[1] - 1.5
                assert rows.max() < high[1] + 1.5
                whole = (low > 2).all() and (high < np.array(mask.shape[::-1]) - 3).all()
                if whole and row["visibility_token"] == "4" and (high - low).min() > 12:
                    box = (cols.max() - cols.min() + 1) * (rows.max() - rows.min() + 1)
                    overlaps.append(box / np.prod(high - low))
    assert len(overlaps) >= 5
    assert np.median(overlaps) > 0.85


def test_visibility_is_the_visible_share(tables):
    levels = [row["visibility_token"] for row in tables["sample_annotation"]]
    assert set(levels) == {"1", "2", "3", "4"}


def test_things_move_the_way_they_face(nusc):
    moving = 0
    for row in nusc.sample_annotation:
        if not row["next"] or row["category_name"].split(".")[0] not in ("vehicle", "human"):
            continue
        after = nusc.get("sample_annotation", row["next"])
        seconds = (
            nusc.get("sample", after["sample_token"])["timestamp"]
            - nusc.get("sample", row["sample_token"])["timestamp"]
        ) / 1e6
        velocity = (np.array(after["translation"]) - row["translation"])[:2] / seconds
        speed = np.hypot(*velocity)
        names = [nusc.get("attribute", token)["name"] for token in row["attribute_tokens"]]
        if speed > 0.5:
            heading = nusc.get_box(row["token"]).orientation.rotation_matrix[:2, 0]
            assert velocity @ heading / speed > 0.97
            assert names[0] in ("vehicle.moving", "cycle.with_rider", "pedestrian.moving")
            moving += 1
        elif names:
            assert names[0] not in ("vehicle.moving", "pedestrian.moving")
    assert moving > 20


def _numbers(root, nusc, sample, still_only=False):
    """Object number of each instance annotated in the sample's scene."""
    scene = nusc.get("scene", sample["scene_token"])["name"]
    entries = json.loads((root / "labels" / "instances.json").read_text())[scene]
    numbers = {entry["instance_token"]: entry["number"] for entry in entries if entry["instance_token"]}
    if not still_only:
        return numbers
    here = [nusc.get("sample_annotation", token) for token in sample["anns"]]
    still = {
        row["instance_token"]
        for row in here
        if np.nan_to_num(np.abs(nusc.box_velocity(row["token"])), nan=9).max() < 0.01
    }
    return {token: number for token, number in numbers.items() if token in still}


def _mask(root, data):
    path = root / "labels" / data["filename"].replace(".jpg", ".png")
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert mask.dtype == np.uint16
    return mask


def _pose(row):
    return transforms(np.array(row["translation"], dtype=float), np.array(row["rotation"], dtype=float))


def _global_from_ego(nusc, data):
    return _pose(nusc.get("ego_pose", data["ego_pose_token"]))


def _in_ego(nusc, token, points):
    data = nusc.get("sample_data", token)
    pose = _pose(nusc.get("calibrated_sensor", data["calibrated_sensor_token"]))
    return points @ pose[:3, :3].T + pose[:3, 3]


def _project(nusc, data, points):
    """Pixels and depths of global points in an image."""
    calibration = nusc.get("calibrated_sensor", data["calibrated_sensor_token"])
    cam_from_global = np.linalg.inv(_global_from_ego(nusc, data) @ _pose(calibration))
    in_cam = points @ cam_from_global[:3, :3].T + cam_from_global[:3, 3]
    depth = in_cam[:, 2]
    uvw = in_cam @ np.array(calibration["camera_intrinsic"]).T
    return uvw[:, :2] / np.where(np.abs(depth) < 1e-6, 1e-6, depth)[:, None], depth
