"""Depth of a LiDAR sweep in the cameras."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pipeline_golden import infos, lidar_points, read_golden

from configs.errors import DataError
from configs.nuscenes import CAMERAS
from scenes.depth_map import depth_maps, read_points
from scenes.poses import transforms

SIZE, RANGE = (256, 704), (1.0, 60.0)
PINHOLE = np.array([[500.0, 0, 352, 0], [0, 500.0, 128, 0], [0, 0, 1, 0], [0, 0, 0, 1]])[None]


def poses(info, of: str) -> np.ndarray:
    records = [info["cams"][camera] for camera in CAMERAS]
    return transforms(*(np.array([one[f"{of}_{part}"] for one in records]) for part in ("translation", "rotation")))


def golden_map(golden) -> np.ndarray:
    depth = np.zeros((6, *SIZE), np.float32)
    depth[tuple(golden["depthmap/idx"].astype(int).T)] = golden["depthmap/val"]
    return depth


def golden_projection(golden, dtype: torch.dtype) -> np.ndarray:
    """img_from_lidar, composed in the order and the precision of the reference."""
    key, _ = infos(golden)
    intrinsics = np.tile(np.eye(4), (6, 1, 1))
    intrinsics[:, :3, :3] = [key["cams"][camera]["cam_intrinsic"] for camera in CAMERAS]
    ego_from_lidar = transforms(np.array(key["lidar2ego_translation"]), np.array(key["lidar2ego_rotation"]))
    global_from_ego = transforms(np.array(key["ego2global_translation"]), np.array(key["ego2global_rotation"]))
    parts = (intrinsics, poses(key, "ego2global"), poses(key, "sensor2ego"), global_from_ego, ego_from_lidar)
    k, global_from_ego_cam, ego_from_cam, pose, mount = (torch.from_numpy(part).to(dtype) for part in parts)
    projections = [
        k[camera] @ (torch.inverse(global_from_ego_cam[camera] @ ego_from_cam[camera]) @ (pose @ mount))
        for camera in range(6)
    ]
    return torch.stack(projections).numpy()


def golden_augmentation(golden) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:2, :2], matrix[:2, 3] = golden["img1/post_rot"], golden["img1/post_tran"]
    return np.tile(matrix, (6, 1, 1))


@pytest.mark.parity
def test_sensor_poses_of_the_golden_frames():
    golden = read_golden()
    key, adjacent = infos(golden)
    ego_from_global = np.linalg.inv(poses(key, "ego2global")[CAMERAS.index("CAM_FRONT")])
    for name, info in (("cur", key), ("adj", adjacent)):
        ego_from_cam = ego_from_global @ poses(info, "ego2global") @ poses(info, "sensor2ego")
        # The reference composes global positions of a kilometre in float32.
        np.testing.assert_allclose(ego_from_cam, golden[f"sensor2keyego/{name}"], atol=1e-3)


@pytest.mark.parity
def test_depth_map_of_the_golden_frame():
    golden = read_golden()
    projection, augmentation = golden_projection(golden, torch.float32), golden_augmentation(golden)
    ours, stored = depth_maps(lidar_points(), projection, augmentation, SIZE, RANGE), golden_map(golden)
    # The reference keeps the nearest of several points only as far as a float32 sort key resolves it.
    assert ((ours > 0) != (stored > 0)).sum() == 0
    assert (np.abs(ours - stored) > 1e-4).sum() <= 3


@pytest.mark.parity
def test_exact_poses_move_few_points_to_a_neighbour_pixel():
    golden = read_golden()
    projection, augmentation = golden_projection(golden, torch.float64), golden_augmentation(golden)
    ours, stored = depth_maps(lidar_points(), projection, augmentation, SIZE, RANGE), golden_map(golden)
    assert abs(int((ours > 0).sum()) - int((stored > 0).sum())) <= 6
    assert ((ours > 0) != (stored > 0)).sum() < 0.01 * (stored > 0).sum()


def test_patches_hold_their_nearest_point():
    golden = read_golden()
    projection, augmentation = golden_projection(golden, torch.float64), golden_augmentation(golden)
    pixels = depth_maps(lidar_points(), projection, augmentation, SIZE, RANGE)
    patches = depth_maps(lidar_points(), projection, augmentation, SIZE, RANGE, stride=8)
    nearest = np.where(pixels > 0, pixels, np.inf).reshape(6, 32, 8, 88, 8).min((2, 4))
    np.testing.assert_array_equal(patches, np.where(np.isinf(nearest), 0, nearest))


def test_the_nearest_of_two_points_counts_and_pixels_are_rounded():
    points = np.array([[0, 0, 20], [0, 0, 10], [0, 0, 30], [0.0049, 0, 5]], np.float32)  # the last at u = 352.49
    depth = depth_maps(points, PINHOLE, np.eye(4)[None], SIZE, RANGE)[0]
    assert depth[128, 352] == 5
    assert (depth > 0).sum() == 1


def test_points_outside_range_or_image_do_not_count():
    points = np.array([[0, 0, 0.99], [0, 0, 60], [0, 0, -5], [8, 0, 10], [0, 0, 0]], np.float32)
    assert depth_maps(points, PINHOLE, np.eye(4)[None], SIZE, RANGE).max() == 0
    assert depth_maps(points[:0], PINHOLE, np.eye(4)[None], SIZE, RANGE).max() == 0


def test_points_are_read_from_whole_records(tmp_path):
    path = tmp_path / "sweep.pcd.bin"
    np.arange(20, dtype=np.float32).tofile(path)
    np.testing.assert_array_equal(read_points(path)[:, 0], [0, 5, 10, 15])
    assert read_points(path).shape == (4, 3)


@pytest.mark.parametrize("content", [b"", b"\0" * 36], ids=["empty", "cut off"])
def test_a_damaged_sweep_is_named(content, tmp_path):
    path = tmp_path / "sweep.pcd.bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"sweep\.pcd\.bin"):
        read_points(path)


def test_a_missing_sweep_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.bin: No such file"):
        read_points(tmp_path / "absent.bin")
