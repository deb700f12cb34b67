"""Detections to masks: one camera, several, none that sees anything; what is wrong is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.errors import UsageError
from integration import BEVSAMFusion
from integration.bev_sam_fusion import Limits
from integration.composition import share_pixels, tight_boxes
from integration.rle import decode_masks, encode_masks
from integration.sam2_package import NANO

pytest.importorskip("sam2", reason="the sam2 package is not installed (scripts/set_up.sh installs it)")

HEIGHT, WIDTH = 90, 160
INTRINSICS = torch.tensor([[127.0, 0.0, 80.0], [0.0, 127.0, 45.0], [0.0, 0.0, 1.0]])
FORWARD = torch.tensor([[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


def turned(degrees: float) -> Tensor:
    """The extrinsics of a camera turned to the left."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    back = torch.eye(4)
    back[:2, :2] = torch.tensor([[cos, sin], [-sin, cos]])
    return FORWARD @ back


RIG = {"intrinsics": INTRINSICS.expand(3, 3, 3), "extrinsics": torch.stack([FORWARD, turned(45), turned(180)])}
ONE = {"intrinsics": INTRINSICS, "extrinsics": FORWARD}


@pytest.fixture(scope="module")
def fusion() -> BEVSAMFusion:
    torch.manual_seed(0)
    return BEVSAMFusion(None, NANO, "cpu", network_size=(96, 160))


def images(*shape: int) -> Tensor:
    return torch.randint(0, 256, (*shape, 3, HEIGHT, WIDTH), dtype=torch.uint8)


def detections(*boxes: tuple[float, ...], scores: list[float] | None = None) -> dict[str, Tensor]:
    count = len(boxes)
    return {
        "boxes_3d": torch.tensor(boxes).reshape(count, -1) if boxes else torch.zeros(0, 7),
        "scores": torch.tensor(scores or [0.9 - 0.01 * i for i in range(count)]),
        "labels": torch.arange(count),
    }


AHEAD = (12.0, 0.0, 0.0, 4.0, 2.0, 1.5, 0.3)
LEFT = (10.0, 4.5, 0.0, 4.0, 2.0, 1.5, 0.0)
BEHIND_ALL = (0.0, -30.0, 0.0, 4.0, 2.0, 1.5, 0.0)


def test_one_camera_gives_one_row_for_each_object(fusion: BEVSAMFusion) -> None:
    found = fusion(images(1), detections(AHEAD, BEHIND_ALL), ONE)
    assert found["masks"].shape == (2, HEIGHT, WIDTH)
    assert found["masks"].dtype == torch.bool
    assert found["boxes_2d"].shape == (2, 4)
    assert found["seen"].tolist() == [True, False]
    assert found["boxes_2d"][1].tolist() == [0, 0, 0, 0]
    assert not found["masks"][1].any()
    assert torch.equal(found["scores"], detections(AHEAD, BEHIND_ALL)["scores"])
    for key in ("boxes_3d", "labels", "mask_scores", "object_presence", "truncation", "occlusion", "visible_fraction"):
        assert len(found[key]) == 2, key


def test_a_box_in_two_cameras_has_two_masks(fusion: BEVSAMFusion) -> None:
    found = fusion(images(1, 3), detections(LEFT), RIG)
    assert found["pair_object"].tolist() == [0, 0]
    assert found["pair_camera"].tolist() == [0, 1]
    assert found["masks"].shape == (2, HEIGHT, WIDTH)
    assert found["instance_maps"].shape == (3, HEIGHT, WIDTH)
    assert set(found["instance_maps"].unique().tolist()) <= {-1, 0}


@pytest.mark.parametrize("boxes", [(), (BEHIND_ALL,)])
def test_nothing_to_see_is_no_error(fusion: BEVSAMFusion, boxes: tuple[tuple[float, ...], ...]) -> None:
    found = fusion(images(1, 3), detections(*boxes), RIG)
    assert found["masks"].shape == (0, HEIGHT, WIDTH)
    assert len(found["boxes_3d"]) == len(boxes)
    assert (found["instance_maps"] == -1).all()


def test_masks_keep_to_the_box_and_do_not_overlap(fusion: BEVSAMFusion) -> None:
    near = (8.0, 0.5, 0.0, 4.0, 2.0, 1.5, 0.0)
    found = fusion(images(1, 1), detections(near, AHEAD), {k: v[:1] for k, v in RIG.items()})
    assert (found["masks"].sum(0) <= 1).all()
    for box, mask in zip(found["boxes_2d"], found["masks"], strict=True):
        if mask.any():
            tight = tight_boxes(mask[None])[0]
            margin = 0.3 * (box[2:] - box[:2]).max()
            assert (tight[:2] >= box[:2] - margin).all()
            assert (tight[2:] <= box[2:] + margin).all()
    assert found["occlusion"][1] > 0.3


def test_several_samples_give_a_list(fusion: BEVSAMFusion) -> None:
    found = fusion(images(2, 3), [detections(AHEAD), detections()], RIG)
    assert [len(one["pair_object"]) for one in found] == [1, 0]


def test_thousands_of_boxes_are_bounded(fusion: BEVSAMFusion) -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(3000, 7, generator=generator) * torch.tensor([40.0, 20.0, 1.0, 4.0, 2.0, 2.0, 3.0])
    boxes = boxes + torch.tensor([5.0, -10.0, -1.0, 1.0, 1.0, 1.0, 0.0])
    many = {"boxes_3d": boxes, "scores": torch.rand(3000, generator=generator), "labels": torch.zeros(3000).long()}
    fusion.limits = Limits(objects=12, per_camera=5)
    found = fusion(images(1, 3), many, RIG)
    fusion.limits = Limits()
    assert len(found["kept"]) == 12
    assert found["pair_camera"].bincount().max() <= 5
    assert found["scores"].min() >= many["scores"].topk(12).values.min()


def test_low_scores_are_left_out(fusion: BEVSAMFusion) -> None:
    found = fusion(images(1), detections(AHEAD, AHEAD, scores=[0.05, 0.5]), ONE)
    assert found["kept"].tolist() == [1]


def test_sizes_in_the_other_order(fusion: BEVSAMFusion) -> None:
    swapped = (*AHEAD[:3], AHEAD[4], AHEAD[3], *AHEAD[5:])
    expected = fusion.project_3d_to_2d(torch.tensor([AHEAD]), INTRINSICS, FORWARD)
    fusion.box_format = "wlh"
    found = fusion.project_3d_to_2d(torch.tensor([swapped]), INTRINSICS, FORWARD)
    fusion.box_format = "lwh"
    assert torch.equal(found, expected)
    assert (expected[0, 2:] > expected[0, :2]).all()


def test_resized_images_are_segmented_where_they_show_the_object(fusion: BEVSAMFusion) -> None:
    """Calibration of an image of twice the size, with the matrix that halved it."""
    canvas = torch.diag(torch.tensor([0.5, 0.5, 1.0, 1.0]))[None]
    double = INTRINSICS.clone()
    double[:2] *= 2
    calibration = {
        "intrinsics": double,
        "extrinsics": FORWARD,
        "canvas_from_img": canvas,
        "source_size": torch.tensor([180, 320]),
    }
    plain, halved = (fusion(images(1), detections(AHEAD), one)["boxes_2d"] for one in (ONE, calibration))
    torch.testing.assert_close(plain, halved)


def test_masks_as_run_lengths(fusion: BEVSAMFusion) -> None:
    masks = torch.rand(3, 20, 30) > 0.5
    assert torch.equal(decode_masks(encode_masks(masks), (20, 30)), masks)
    assert decode_masks([], (20, 30)).shape == (0, 20, 30)
    fusion.mask_format = "rle"
    found = fusion(images(1), detections(AHEAD, BEHIND_ALL), ONE)
    fusion.mask_format = "bool"
    assert decode_masks(found["masks"], (HEIGHT, WIDTH)).shape == (2, HEIGHT, WIDTH)


def test_the_surest_object_gets_the_pixel() -> None:
    shared = share_pixels(torch.tensor([[[1.0, 2.0, -1.0]], [[3.0, 2.0, -2.0]]]), torch.tensor([1, 0]))
    assert shared.owner.tolist() == [[1, 1, -1]]
    assert ((shared.logits > 0).sum(0) <= 1).all()


CASES: list[tuple[str, Any, Any, Any]] = [
    ("not uint8", images(1).float(), detections(AHEAD), ONE),
    (r"give uint8 \[B", images(1)[0], detections(AHEAD), ONE),
    ("no number", images(1), detections((math.nan, *AHEAD[1:])), ONE),
    ("score that is no number", images(1), detections(AHEAD, scores=[math.nan]), ONE),
    (r"delay is \[0.0, 0.5\], not 1 numbers", images(1), detections(AHEAD), {**ONE, "delay": torch.tensor([0, 0.5])}),
    (r"delay is \[nan\]", images(1), detections(AHEAD), {**ONE, "delay": torch.tensor([math.nan])}),
    ("no scores, labels", images(1), {"boxes_3d": torch.zeros(1, 7)}, ONE),
    ("no extrinsics", images(1), detections(AHEAD), {"intrinsics": INTRINSICS}),
    ("3 intrinsics", images(1), detections(AHEAD), RIG),
    ("2 sets of detections", images(1), [detections(AHEAD)] * 2, ONE),
    (r"not \[N, 7\]", images(1), {**detections(AHEAD), "boxes_3d": torch.zeros(1, 5)}, ONE),
    ("no source_size", images(1), detections(AHEAD), {**ONE, "canvas_from_img": torch.eye(4)[None]}),
]


@pytest.mark.parametrize(("said", "image", "found", "cameras"), CASES, ids=[case[0] for case in CASES])
def test_wrong_input_is_refused(fusion: BEVSAMFusion, said: str, image: Any, found: Any, cameras: Any) -> None:
    with pytest.raises(UsageError, match=said):
        fusion(image, found, cameras)


def test_missing_weights_are_never_replaced() -> None:
    with pytest.raises(UsageError, match="weights file not found"):
        BEVSAMFusion("nowhere.pt", NANO)
