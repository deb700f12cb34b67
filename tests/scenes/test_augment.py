"""Augmentation: the published numbers, and matrices that say what was done to pixels and boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pipeline_golden import box_labels, read_golden, source_image

from configs.schema import BevAugmentation, DataConfig, ImageAugmentation
from scenes.augment import (
    BevTransform,
    ImageTransform,
    draw_bev_transform,
    draw_image_transform,
    plain_image_transform,
)
from scenes.boxes import inside, wrap_yaw
from scenes.loading import ImageLoader

CONFIG = DataConfig()


def canvas_of(transform: ImageTransform, image: np.ndarray, size: tuple[int, int] = (256, 704)) -> np.ndarray:
    out = torch.empty(*size, 3, dtype=torch.uint8)
    transform.apply(torch.from_numpy(image.copy()), ImageLoader(), out)
    return out.numpy()


@pytest.mark.parity
@pytest.mark.parametrize("case", [0, 1, 2])
def test_canvas_and_matrix_of_the_golden_cases(case):
    golden = read_golden()
    factor, *crop, flip, angle = golden[f"img{case}/params"].tolist()
    width, height = golden[f"img{case}/resize_dims"].tolist()
    transform = ImageTransform(factor, (height, width), tuple(int(edge) for edge in crop), bool(flip), angle)
    matrix = transform.canvas_from_img()
    np.testing.assert_allclose(matrix[:2, :2], golden[f"img{case}/post_rot"], atol=1e-6)
    np.testing.assert_allclose(matrix[:2, 3], golden[f"img{case}/post_tran"], atol=1e-4)

    canvas = canvas_of(transform, source_image())
    key = f"img{case}/canvas_uint8"
    assert canvas.shape == tuple(golden[f"{key}__shape"])
    sampled = canvas.reshape(-1)[:: int(golden[f"{key}__step"])].astype(int)
    assert np.abs(sampled - golden[key].astype(int)).max() <= 1
    mean, deviation = golden[f"{key}__stats"][:2]
    assert canvas.mean() == pytest.approx(mean, abs=0.01)
    assert canvas.std() == pytest.approx(deviation, abs=0.01)


@pytest.mark.parity
def test_the_legacy_stream_draws_the_published_augmentations():
    rng = np.random.RandomState(0)
    for factor, width, height, *crop, flip, angle in read_golden()["sample_aug_seed0"].tolist():
        drawn = draw_image_transform(CONFIG, rng)
        assert drawn.factor == pytest.approx(factor, abs=1e-12)
        assert (drawn.resized, drawn.crop, drawn.flip) == ((height, width), tuple(crop), bool(flip))
        assert drawn.rotate_degrees == pytest.approx(angle, abs=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize("case", range(5))
def test_bev_transform_of_the_golden_cases(case):
    golden = read_golden()
    angle, scale, flip_x, flip_y = golden[f"bda{case}/params"].tolist()
    transform = BevTransform(angle, scale, bool(flip_x), bool(flip_y))
    np.testing.assert_allclose(transform.bev_from_ego()[:3, :3], golden[f"bda{case}/mat"], atol=1e-6)
    moved = transform.apply(golden["bda/gt"].astype(np.float64))
    np.testing.assert_allclose(moved, golden[f"bda{case}/boxes"], atol=2e-5)


@pytest.mark.parity
def test_range_filter_and_yaw_of_the_golden_boxes():
    golden = read_golden()
    boxes = golden["bda4/boxes"].astype(np.float64)
    kept = inside(boxes, CONFIG.box_range)
    bottom_centred = wrap_yaw(boxes[kept])
    bottom_centred[:, 2] -= bottom_centred[:, 5] / 2
    np.testing.assert_allclose(bottom_centred, golden["filtered/boxes_bottom_center"], atol=1e-5)
    np.testing.assert_array_equal(box_labels()[kept], golden["filtered/labels"])


def test_evaluation_keeps_the_bottom_of_the_image():
    transform = plain_image_transform(CONFIG)
    assert transform == ImageTransform(0.44, (396, 704), (0, 140, 704, 396))


@pytest.mark.parametrize("factor", [0.41, 0.44, 0.53])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("angle", [0.0, 4.0, -5.4])
def test_the_matrix_leads_to_where_a_spot_went(factor, flip, angle):
    resized = int(900 * factor), int(1600 * factor)
    transform = ImageTransform(factor, resized, (10, resized[0] - 256, 714, resized[0]), flip, angle)
    image = np.zeros((900, 1600, 3), np.uint8)
    image[595:606, 895:906] = 255  # centre (900.5, 600.5): pixel i covers [i, i + 1)
    rows, columns = np.nonzero(canvas_of(transform, image)[..., 0] > 128)
    u, v, depth, one = transform.canvas_from_img() @ [900.5, 600.5, 12.0, 1.0]
    # The published matrix uses the factor itself, not the ratio of the rounded sizes: up to one pixel of difference.
    assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((u, v), abs=1.5)
    assert (depth, one) == (12.0, 1.0)


def test_drawn_augmentations_stay_in_the_recipes_bounds():
    rng = np.random.default_rng(0)
    drawn = [draw_image_transform(CONFIG, rng) for _ in range(300)]
    assert all(0.38 <= one.factor <= 0.55 and abs(one.rotate_degrees) <= 5.4 for one in drawn)
    assert all(one.crop[3] == one.resized[0] and one.crop[0] >= 0 for one in drawn)
    assert all(one.crop[2] <= max(704, one.resized[1]) for one in drawn)
    assert 100 < sum(one.flip for one in drawn) < 200

    bev = [draw_bev_transform(CONFIG.bev_augmentation, rng) for _ in range(300)]
    assert all(0.95 <= one.scale <= 1.05 and abs(one.rotate_degrees) <= 22.5 for one in bev)
    assert {(one.flip_x, one.flip_y) for one in bev} == {(a, b) for a in (True, False) for b in (True, False)}


def test_augmentation_can_be_switched_off():
    rng = np.random.default_rng(0)
    still = DataConfig(image_augmentation=None, bev_augmentation=None)
    assert draw_image_transform(still, rng) == plain_image_transform(still)
    assert draw_bev_transform(None, rng) == BevTransform()
    unflipped = DataConfig(image_augmentation=ImageAugmentation(flip=False))
    assert not any(draw_image_transform(unflipped, rng).flip for _ in range(20))
    upright = BevAugmentation(flip_x=False, flip_y=False)
    assert not any(one.flip_x or one.flip_y for one in (draw_bev_transform(upright, rng) for _ in range(20)))


def test_boxes_move_with_their_frame():
    rng = np.random.default_rng(1)
    transform = BevTransform(13.0, 1.04, True, False)
    boxes = rng.uniform(-20, 20, (6, 9))
    boxes[:, 3:6] = np.abs(boxes[:, 3:6]) + 1
    moved = transform.apply(boxes)
    linear = transform.bev_from_ego()[:2, :2]
    heading = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6])], axis=1) @ linear.T / 1.04
    np.testing.assert_allclose(np.stack([np.cos(moved[:, 6]), np.sin(moved[:, 6])], axis=1), heading, atol=1e-12)
    np.testing.assert_allclose(moved[:, 7:], boxes[:, 7:] @ linear.T)
    np.testing.assert_allclose(moved[:, 3:6], boxes[:, 3:6] * 1.04)


def test_yaw_is_wrapped_to_a_half_open_turn():
    boxes = np.zeros((4, 9))
    boxes[:, 6] = [np.pi, -np.pi, 7.0, -10.0]
    np.testing.assert_allclose(wrap_yaw(boxes)[:, 6], [-np.pi, -np.pi, 7.0 - 2 * np.pi, -10.0 + 4 * np.pi])
