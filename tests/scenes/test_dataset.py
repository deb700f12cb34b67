"""Samples of a small synthetic set, against the devkit and against themselves."""

from __future__ import annotations

import json
import pickle
import re
import shutil

import numpy as np
import pytest
import torch
from nuscenes.nuscenes import NuScenes
from pyquaternion import Quaternion

from configs.errors import DataError, UsageError
from configs.nuscenes import CAMERAS, CLASS_OF_CATEGORY, CLASSES
from configs.schema import DataConfig
from scenes.dataset import SceneDataset
from scenes.index import SceneIndex, build_index, open_index
from scenes.loader import evaluation_batches, training_batches
from scenes.order import BatchLayout, EpochOrder, SampleKey
from scenes.sample import Sample, collate

VERSION = "v1.0-synthetic"
CONFIG = DataConfig(version=VERSION, source_size=(180, 320), image_size=(64, 176), class_balanced=False)


@pytest.fixture(scope="module")
def devkit(index: SceneIndex) -> NuScenes:
    return NuScenes(VERSION, str(index.dataroot), verbose=False)


def dataset(index: SceneIndex, training: bool, seed: int = 0, **changes) -> SceneDataset:
    return SceneDataset(index, np.arange(len(index)), CONFIG.model_copy(update=changes), training, seed)


def equal(first: Sample, second: Sample) -> bool:
    pairs = [(getattr(first, name), getattr(second, name)) for name in Sample.__slots__]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def published_boxes(devkit: NuScenes, token: str) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and labels as the published annotations are made, with the devkit's own box class."""
    sample = devkit.get("sample", token)
    pose = devkit.get("ego_pose", devkit.get("sample_data", sample["data"]["CAM_FRONT"])["ego_pose_token"])
    boxes, labels = [], []
    for annotation in sample["anns"]:
        record = devkit.get("sample_annotation", annotation)
        name = CLASS_OF_CATEGORY.get(record["category_name"])
        if name is None or record["num_lidar_pts"] + record["num_radar_pts"] == 0:
            continue
        box = devkit.get_box(annotation)
        velocity = devkit.box_velocity(annotation)
        box.velocity = np.zeros(3) if np.isnan(velocity).any() else velocity
        box.translate(-np.array(pose["translation"]))
        box.rotate(Quaternion(pose["rotation"]).inverse)
        yaw = box.orientation.yaw_pitch_roll[0]
        boxes.append([*box.center, *box.wlh[[1, 0, 2]], yaw, *box.velocity[:2]])
        labels.append(CLASSES.index(name))
    return np.array(boxes), np.array(labels)


def test_boxes_are_the_devkits_in_the_key_frames_ego_frame(index, devkit):
    for sample in dataset(index, training=False):
        boxes, labels = published_boxes(devkit, sample.token)
        difference = sample.boxes.numpy() - boxes
        difference[:, 6] = np.sin(difference[:, 6] / 2)  # -pi and pi are the same yaw
        np.testing.assert_allclose(difference, 0, atol=1e-4)
        np.testing.assert_array_equal(sample.labels.numpy(), labels)


def test_training_drops_boxes_outside_the_range_after_augmentation(index):
    config = {"image_augmentation": None, "bev_augmentation": None, "box_range": 25.0}
    for kept, every in zip(dataset(index, True, **config), dataset(index, False), strict=True):
        near = (every.boxes[:, :2].abs() < 25.0).all(dim=1)
        assert 0 < near.sum() < len(near)
        assert torch.equal(kept.boxes, every.boxes[near])
        assert torch.equal(kept.labels, every.labels[near])


def test_a_sample_without_boxes_stays(index):
    sample = dataset(index, True, box_range=0.01)[0]
    assert sample.boxes.shape == (0, 9)
    assert sample.labels.shape == (0,)


def test_cameras_and_images_are_those_of_the_frame(index):
    sample, frame = dataset(index, training=False)[1], index.frame(1)
    assert sample.images.shape == (1, 6, 3, 64, 176)
    assert sample.images.dtype == torch.uint8
    np.testing.assert_allclose(sample.img_from_cam[0, :, :3, :3], frame.intrinsics, rtol=1e-6)
    for camera in range(6):
        world = frame.global_from_ego_cam[camera] @ frame.ego_from_cam[camera]
        ours = sample.global_from_ego.numpy() @ sample.ego_from_cam[0, camera].double().numpy()
        np.testing.assert_allclose(ours, world, atol=1e-5)
    np.testing.assert_allclose(sample.canvas_from_img[0, 0].diagonal(), [0.55, 0.55, 1, 1])
    np.testing.assert_allclose(sample.canvas_from_img[0, 0, :2, 3], [0, -(99 - 64)])
    assert torch.equal(sample.bev_from_ego, torch.eye(4))


def test_cameras_can_be_chosen(index):
    chosen = dataset(index, False, cameras=("CAM_BACK", "CAM_FRONT"))[0]
    every = dataset(index, False)[0]
    picked = [CAMERAS.index("CAM_BACK"), CAMERAS.index("CAM_FRONT")]
    assert torch.equal(chosen.images, every.images[:, picked])
    assert torch.equal(chosen.ego_from_cam, every.ego_from_cam[:, picked])


def test_lidar_depth_agrees_with_the_geometry_of_the_sample(index):
    """Points of the sweep, led through the sample's own matrices, fall where its depth says."""
    sample, frame = dataset(index, training=True, depth_stride=1)[0], index.frame(0)
    points = np.fromfile(frame.lidar.path, np.float32).reshape(-1, 5)[:, :3]
    world = frame.lidar.global_from_ego @ frame.lidar.ego_from_lidar
    ego = np.linalg.inv(sample.global_from_ego.numpy()) @ world @ np.c_[points, np.ones(len(points))].T
    for camera in range(6):
        u, v, z, _ = np.linalg.inv(sample.ego_from_cam[0, camera].double().numpy()) @ ego
        u, v, _, _ = sample.img_from_cam[0, camera].double().numpy() @ [u, v, z, np.ones_like(z)]
        seen = (z >= 1) & (z < 60)
        place = np.stack([u / z, v / z, z, np.ones_like(z)])[:, seen]
        u, v, z, _ = sample.canvas_from_img[0, camera].double().numpy() @ place
        inside = (u > 0) & (u < 175) & (v > 0) & (v < 63)
        columns, rows = np.rint(u[inside]).astype(int), np.rint(v[inside]).astype(int)
        stored = sample.depth[camera].numpy()[rows, columns]
        assert inside.sum() > 20
        hit = stored > 0
        assert hit.mean() > 0.97  # float32 may round a point to the next pixel
        assert (stored[hit] <= z[inside][hit] + 1e-2).mean() > 0.97


def test_evaluation_does_not_read_the_lidar(index):
    assert dataset(index, training=False)[0].depth.abs().sum() == 0
    assert dataset(index, training=True)[0].depth.shape == (6, 8, 22)


def test_frames_before_the_key_frame(index):
    three = dataset(index, False, frames=3)
    assert three[0].images.shape == (3, 6, 3, 64, 176)
    assert torch.equal(three[2].images[1], three[1].images[0])
    assert torch.equal(three[2].images[2], three[0].images[0])
    assert not torch.allclose(three[2].ego_from_cam[1], three[2].ego_from_cam[0])
    static = np.linalg.inv(index.frame(2).global_from_ego) @ index.frame(1).global_from_ego_cam
    expected = static @ index.frame(1).ego_from_cam
    np.testing.assert_allclose(three[2].ego_from_cam[1], expected, atol=1e-4)


def test_history_may_be_longer_than_the_scene(index):
    nine = dataset(index, False, frames=9)
    assert nine.frame_rows(2) == [2, 1, 0, 2, 2, 2, 2, 2, 2]
    assert nine.frame_rows(3) == [3] * 9
    assert nine[2].images.shape == (9, 6, 3, 64, 176)
    assert torch.equal(nine[2].images[8], nine[2].images[0])


def test_a_frame_missing_in_a_scene_is_named(index, tmp_path):
    """History is read for the sample it belongs to; a lost image of the frame before is that sample's fault, too."""
    copy = tmp_path / "set"
    shutil.copytree(index.dataroot, copy)
    damaged = open_index(copy, VERSION)
    lost = damaged.frame(1).image_paths[2]
    lost.unlink()
    with pytest.raises(DataError, match=re.escape(lost.name)):
        dataset(damaged, False, frames=2)[2]


def test_a_key_frame_that_the_tables_leave_out_is_passed_over(index, tmp_path):
    """The one before it takes its place in the history, with the pose it has."""
    root, left_out = tmp_path / "set", index.token(1)
    shutil.copytree(index.dataroot, root)
    for table, key in (("sample", "token"), ("sample_data", "sample_token"), ("sample_annotation", "sample_token")):
        path = root / VERSION / f"{table}.json"
        records = json.loads(path.read_text())
        gone = {record["token"] for record in records if record[key] == left_out}
        kept = [record for record in records if record["token"] not in gone]
        for record in kept:
            record |= {side: "" for side in ("prev", "next") if record[side] in gone}
        path.write_text(json.dumps(kept))
    build_index(root, VERSION, progress=False)
    ours, whole = dataset(open_index(root, VERSION), False, frames=2), dataset(index, False, frames=3)
    assert ours.frame_rows(1) == [1, 0]
    assert ours[1].token == whole[2].token
    assert torch.equal(ours[1].images[1], whole[2].images[2])
    assert torch.equal(ours[1].ego_from_cam[1], whole[2].ego_from_cam[2])


def test_the_key_frame_stands_in_where_the_scene_begins(index):
    three = dataset(index, False, frames=3)
    for row in (0, 3):
        assert torch.equal(three[row].images[1], three[row].images[0])
        assert torch.equal(three[row].ego_from_cam[2], three[row].ego_from_cam[0])
    assert torch.equal(three[4].images[1], three[3].images[0])
    assert torch.equal(three[4].images[2], three[4].images[0])


def test_augmentation_depends_on_seed_epoch_and_position_alone(index):
    ours = dataset(index, True)
    first = ours[SampleKey(2, 1, 5)]
    assert equal(first, ours[SampleKey(2, 1, 5)])
    assert equal(first, SceneDataset(index, [2], ours.config, True, 0)[SampleKey(2, 1, 5)])
    for other in (ours[SampleKey(2, 1, 6)], ours[SampleKey(2, 2, 5)], dataset(index, True, seed=1)[SampleKey(2, 1, 5)]):
        assert not torch.equal(first.canvas_from_img, other.canvas_from_img)
        assert not torch.equal(first.bev_from_ego, other.bev_from_ego)


def test_all_frames_of_a_camera_share_its_augmentation(index):
    sample = dataset(index, True, frames=2)[2]
    assert torch.equal(sample.canvas_from_img[0], sample.canvas_from_img[1])
    assert not torch.equal(sample.canvas_from_img[0, 0], sample.canvas_from_img[0, 1])


def test_boxes_move_with_the_bev_frame(index):
    augmented, plain = dataset(index, True, box_range=1e9)[4], dataset(index, False)[4]
    ego = torch.cat([plain.boxes[:, :3], torch.ones(len(plain.boxes), 1)], dim=1)
    assert torch.allclose(augmented.boxes[:, :3], (ego @ augmented.bev_from_ego.T)[:, :3], atol=1e-4)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_deliver_the_stream_of_one_process(index, workers):
    ours = dataset(index, True)
    order, layout = EpochOrder(ours.rows, seed=0), BatchLayout(rank=1, world=2, micro_batch=1, accumulation=2)
    batches = training_batches(ours, order, layout, first_step=1, stop_step=4, workers=workers)
    assert len(batches) == 6
    offsets = [4 + 1, 4 + 3, 1, 3, 4 + 1, 4 + 3]  # step 1 of epoch 0, then both steps of epoch 1
    epochs = [0, 0, 1, 1, 1, 1]
    for batch, epoch, position in zip(batches, epochs, offsets, strict=True):
        row = int(order.shuffled(epoch)[position % 6])
        expected = collate([ours[SampleKey(row, epoch, position)]])
        assert batch.tokens == expected.tokens
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.boxes[0], expected.boxes[0])


def test_evaluation_reads_each_sample_once(index):
    tokens = []
    for rank in range(2):
        for batch in evaluation_batches(dataset(index, False), rank=rank, world=2, batch_size=2):
            tokens += batch.tokens
    assert sorted(tokens) == sorted(index.token(row) for row in range(len(index)))


def test_batches_keep_colours_innermost(index):
    batch = collate([dataset(index, False)[row] for row in (0, 1)])
    assert batch.images.shape == (2, 1, 6, 3, 64, 176)
    assert batch.images.flatten(0, 2).is_contiguous(memory_format=torch.channels_last)


def test_a_dataset_travels_to_spawned_workers(index):
    ours = dataset(index, True)
    assert equal(pickle.loads(pickle.dumps(ours))[3], ours[3])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_ends_the_iteration_with_its_name(index, workers, tmp_path):
    shutil.copytree(index.dataroot, tmp_path / "set")
    damaged = open_index(tmp_path / "set", VERSION)
    path = damaged.frame(4).image_paths[2]
    path.write_bytes(path.read_bytes()[:5000])
    batches = evaluation_batches(dataset(damaged, False), workers=workers)
    with pytest.raises(DataError) as caught:
        list(batches)
    assert str(path) in caught.value.message
    assert "data check" in caught.value.fix
    assert "Traceback" not in str(caught.value)


def test_a_data_set_of_another_image_size_is_refused(index):
    with pytest.raises(DataError, match=r"\(180, 320\).*source_size is \(900, 1600\)"):
        dataset(index, False, source_size=(900, 1600))[0]


def test_settings_that_cannot_work_are_refused(index):
    with pytest.raises(UsageError, match="multiple"):
        dataset(index, False, image_size=(60, 176))
    with pytest.raises(UsageError, match="CAM_TOP"):
        dataset(index, False, cameras=("CAM_FRONT", "CAM_TOP"))
