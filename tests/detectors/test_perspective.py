"""Perspective supervision: which class an image cell is taught, and the image branch alone."""

import math
from types import SimpleNamespace

import pytest
import torch
from goldens import affine
from hypothesis import given, settings
from hypothesis import strategies as st
from small_model import DATA, MODEL, random_batch, sample_of

from configs.errors import UsageError
from configs.schema import BevGridConfig, PerspectiveConfig
from detectors import build_detector
from detectors.bevnext.grid import BevGrid, DepthBins
from detectors.bevnext.perspective import BACKGROUND, UNKNOWN, classes_in_perspective, perspective_loss

BINS = DepthBins(1.0, 1.0, 59)
GRID = BevGrid.of(BevGridConfig(x=(-100.0, 100.0, 1.0), y=(-100.0, 100.0, 1.0)))
TAUGHT = MODEL.model_copy(update={"perspective": PerspectiveConfig()})
ALONE = MODEL.model_copy(update={"perspective": PerspectiveConfig(only=True)})
BUS, AHEAD = 3, 20.0


def bus_ahead() -> SimpleNamespace:
    """One bus 20 m ahead of the front camera (camera 0, 1.6 m high), and no LiDAR points yet."""
    batch = random_batch(1, objects=1)
    batch.boxes = [torch.tensor([[AHEAD + 1.0, 0.0, 1.6, 12.0, 3.0, 3.2, math.pi / 2, 0.0, 0.0]])]
    batch.labels = [torch.tensor([BUS])]
    batch.depth = torch.zeros_like(batch.depth)
    return batch


def test_points_on_a_box_name_its_class_and_others_the_background():
    batch = bus_ahead()
    middle = (batch.depth.shape[2] // 2, batch.depth.shape[3] // 2)
    batch.depth[0, 0][middle] = AHEAD - 1.4
    batch.depth[0, 0, middle[0], 0] = AHEAD  # at the left edge of the image, beside the bus
    batch.depth[0, 3][middle] = AHEAD  # behind the car
    batch.depth[0, 1][middle] = 60.5  # beyond the last bin
    classes = classes_in_perspective(batch, BINS, GRID).view(6, *batch.depth.shape[2:])
    assert classes[0][middle] == BUS
    assert classes[0, middle[0], 0] == BACKGROUND
    assert classes[3][middle] == BACKGROUND
    assert (classes != UNKNOWN).sum() == 3


def test_the_ground_in_front_of_a_box_is_background():
    batch = bus_ahead()
    rows = batch.depth.shape[2]
    below = rows - 1
    ray = (8 * below + 3.5 - DATA.image_size[0] / 2) / (0.6 * DATA.image_size[1])
    batch.depth[0, 0, below, batch.depth.shape[3] // 2] = 1.6 / ray
    assert set(classes_in_perspective(batch, BINS, GRID).flatten().tolist()) == {UNKNOWN, BACKGROUND}


@pytest.mark.parametrize(("metres", "known"), [(16.0, {BUS}), (24.0, {BUS, BACKGROUND})])
def test_beyond_the_raster_there_is_no_background(metres, known):
    """What stands there may well be an object, whose box is not among the targets."""
    batch = bus_ahead()
    row, column = batch.depth.shape[2] // 2, batch.depth.shape[3] // 2
    batch.depth[0, 0, row, column] = AHEAD - 1.4
    batch.depth[0, 0, row, 0] = AHEAD
    grid = BevGrid.of(BevGridConfig(x=(-metres, metres, 1.0), y=(-metres, metres, 1.0)))
    assert set(classes_in_perspective(batch, BINS, grid).flatten().tolist()) == {UNKNOWN, *known}


@settings(max_examples=50, deadline=None)
@given(
    scale=st.floats(0.8, 1.25),
    shift=st.floats(-10, 10),
    turn=st.floats(-3.1, 3.1),
    mirrored=st.booleans(),
)
def test_augmentation_of_the_frame_does_not_change_what_is_seen(scale, shift, turn, mirrored):
    """Boxes move with the BEV frame; the point is at the augmented pixel of the same place."""
    batch = bus_ahead()
    cos, sin, sign = math.cos(turn), math.sin(turn), -1.0 if mirrored else 1.0
    rotation = scale * torch.tensor([[cos, -sin * sign, 0], [sin, cos * sign, 0], [0, 0, 1]])
    batch.bev_from_ego = affine(rotation).expand(1, 4, 4)
    box = batch.boxes[0]
    box[:, :3] = box[:, :3] @ rotation.T
    box[:, 3:6] *= scale
    box[:, 6] = turn + sign * box[:, 6]
    batch.canvas_from_img = batch.canvas_from_img.clone()
    batch.canvas_from_img[:, :, 0, 0, 3] = shift
    middle = (batch.depth.shape[2] // 2, batch.depth.shape[3] // 2)
    batch.depth[0, 0][middle] = AHEAD - 1.2
    assert classes_in_perspective(batch, BINS, GRID).view(6, *batch.depth.shape[2:])[0][middle] == BUS


def test_without_boxes_everything_known_is_background():
    batch = random_batch(2, objects=0)
    classes = classes_in_perspective(batch, BINS, GRID)
    known = (batch.depth.flatten(0, 1) >= 1.0) & (batch.depth.flatten(0, 1) < 60.0)
    assert torch.equal(classes == BACKGROUND, known)


def test_the_loss_is_the_weighted_mean_over_known_cells():
    context = torch.zeros(1, BACKGROUND + 3, 1, 3)
    classes = torch.tensor([[[BACKGROUND, BUS, UNKNOWN]]])
    weights = [3.0] * BACKGROUND + [1.0]
    found = perspective_loss(context, classes, weights, count=torch.tensor(2.0))
    assert found == pytest.approx((1 + 3) * math.log(BACKGROUND + 1) / 2)
    assert perspective_loss(context, classes.fill_(UNKNOWN), weights, torch.tensor(0.0)) == 0


def test_micro_batches_add_up():
    torch.manual_seed(0)
    model = build_detector(TAUGHT, DATA).double().eval()
    batch = random_batch(3)
    batch.boxes[1], batch.labels[1] = batch.boxes[1][:0], batch.labels[1][:0]
    parts = [sample_of(batch, i) for i in range(3)]
    whole, counts = model.loss(model(batch), model.targets(batch)), model.targets(batch).counts
    cut = [model.loss(model(part), model.targets(part), counts)["loss_perspective"] for part in parts]
    torch.testing.assert_close(sum(cut), whole["loss_perspective"], rtol=1e-12, atol=1e-12)


def test_the_image_branch_alone_trains_nothing_else_and_finds_no_boxes():
    model, batch = build_detector(ALONE, DATA).train(), random_batch(2)
    outputs = model(batch)
    terms = model.loss(outputs, model.targets(batch))
    assert terms.keys() == {"loss_depth", "loss_perspective"}
    sum(terms.values()).backward()
    trained = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"img_backbone", "img_neck", "img_view_transformer"}
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    with pytest.raises(UsageError, match=r"image branch alone"):
        model.decode(outputs)


def test_too_few_channels_for_the_classes():
    narrow = TAUGHT.model_copy(update={"bev": MODEL.bev.model_copy(update={"channels": 8})})
    with pytest.raises(UsageError, match=r"model\.bev\.channels = 8"):
        build_detector(narrow, DATA)
