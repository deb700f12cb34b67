"""What SAM 2 is asked for each object: its box, points on what hides it, and in a second pass the first one's mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from integration import BEVSAMFusion
from integration.composition import keep_to_outlines
from integration.object_prompts import decode_pairs
from integration.projection import ALL_VISIBLE, CameraRig, Pairs, project_boxes
from integration.rays import outline_coverage, pixel_rays, ray_depths
from integration.sam2_package import NANO
from integration.segmenter import BOX_END, BOX_START, NEGATIVE, NO_POINT, ImageFeatures, MaskOutputs, Prompts

SIZE = (1080, 1918)
RASTER = (24, 40)
"""Its cells are 47.95 pixels wide, which bfloat16 cannot say."""
AHEAD = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
RIG = CameraRig(torch.tensor([[[1524.0, 0, 959], [0, 1524, 540], [0, 0, 1]]]), AHEAD[None], SIZE)
NEAR_BOX, HIDDEN_BOX = [8.0, 0, 0, 4, 2, 1.5, 0], [16.0, 1.6, 0, 4, 2, 1.5, 0]
ROWS, COLUMNS = slice(10, 14), slice(15, 25)
"""Of the mask that every object gets; it lies in the outline of `NEAR_BOX`."""


class Recorder:
    """Stands for a segmenter: keeps what it is asked, and answers with one mask."""

    wants_outline = False
    device = torch.device("cpu")
    channels = 4

    def __init__(self, precision: torch.dtype = torch.float32) -> None:
        self.precision = precision
        self.asked: list[Prompts] = []

    def decode(self, features: ImageFeatures, prompts: Prompts, chunk: int) -> MaskOutputs:
        del features, chunk
        self.asked.append(prompts)
        logits = torch.full((len(prompts), 1, *RASTER), -5.0, dtype=self.precision)
        logits[:, :, ROWS, COLUMNS] = 5.0
        one = torch.ones(len(prompts), 1)
        return MaskOutputs(logits, one, one.expand(-1, self.channels), one[:, 0])


def ask(recorder: Any, passes: int) -> tuple[Pairs, Tensor]:
    """The pairs of both boxes, and their outlines."""
    pairs = project_boxes(torch.tensor([NEAR_BOX, HIDDEN_BOX]), RIG, ALL_VISIBLE)
    outline, open_outline = outline_coverage(pairs, RIG.cam_from_pixel, SIZE, RASTER)
    empty = torch.zeros(0)
    features = ImageFeatures(empty, empty, empty, SIZE, (96, 160))
    decode_pairs(recorder, features, pairs, pairs, RIG, outline, open_outline, passes, chunk=32)
    return pairs, outline


def test_a_hidden_object_gets_points_on_what_hides_it() -> None:
    recorder = Recorder()
    pairs, _ = ask(recorder, 1)
    (asked,) = recorder.asked
    assert asked.labels.tolist() == [
        [BOX_START, BOX_END, NO_POINT, NO_POINT],
        [BOX_START, BOX_END, NEGATIVE, NEGATIVE],
    ]
    torch.testing.assert_close(asked.points[:, :2].flatten(1), pairs.box.float())
    points = asked.points[1, 2:]
    assert (points >= pairs.box[1, :2]).all()
    assert (points <= pairs.box[1, 2:]).all()
    rays = pixel_rays(points.double(), RIG.cam_from_pixel[0])
    near, hidden = ray_depths(pairs.corners, rays)[0]
    assert (near < hidden).all()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_second_pass_starts_from_the_first_ones_mask_and_its_tight_box(precision: torch.dtype) -> None:
    recorder = Recorder(precision)
    pairs, outline = ask(recorder, 2)
    first, second = recorder.asked
    assert first.masks is None
    assert second.masks is not None
    assert torch.equal(second.labels, first.labels)
    expected = torch.tensor([15 * 47.95, 10 * 45, 25 * 47.95, 14 * 45])
    torch.testing.assert_close(second.points[0, :2].flatten(), expected)
    logits = torch.full((2, 1, *RASTER), -5.0)
    logits[:, :, ROWS, COLUMNS] = 5.0
    cells = pairs.box * pairs.box.new_tensor([1 / 47.95, 1 / 45] * 2)
    assert torch.equal(second.masks.float(), keep_to_outlines(logits, cells, outline))
    assert second.masks[1].amin() < -5  # the mask is not let out of the hidden object's outline


def test_masks_in_half_precision_are_those_of_single_precision() -> None:
    pytest.importorskip("sam2", reason="the sam2 package is not installed (scripts/set_up.sh installs it)")
    torch.manual_seed(0)
    fusion = BEVSAMFusion(None, NANO, "cpu", network_size=(64, 96))
    images = torch.randint(0, 256, (1, 3, 90, 160), dtype=torch.uint8)
    boxes = torch.tensor([NEAR_BOX, HIDDEN_BOX])
    found = {"boxes_3d": boxes, "scores": torch.tensor([0.9, 0.8]), "labels": torch.tensor([0, 1])}
    camera = {"intrinsics": torch.tensor([[127.0, 0, 80], [0, 127, 45], [0, 0, 1]]), "extrinsics": AHEAD}
    single = fusion(images, found, camera)
    with torch.autocast("cpu", torch.bfloat16):
        half = fusion(images, found, camera)
    assert torch.equal(half["boxes_2d"], single["boxes_2d"])
    for name, bound in (("mask_logits_lowres", 0.5), ("mask_scores", 0.1), ("object_presence", 0.05)):
        torch.testing.assert_close(half[name], single[name], atol=bound, rtol=0.05)
