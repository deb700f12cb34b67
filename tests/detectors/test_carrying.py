"""BEV maps that are carried on along a scene: where they come to lie, who remembers them, what learns from them."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from small_model import DATA_2, MODEL_2, random_batch, sample_of
from torch import Tensor

from configs.schema import StreamingConfig
from detectors import build_detector
from detectors.bevnext.carrying import CarriedMap, SlotMemory, into_rasters_of_key_frames, maps_of
from detectors.bevnext.grid import BevGrid
from detectors.bevnext.model import BEVNeXt, BEVNeXtOutputs
from detectors.bevnext.streaming import MapStream

GRID = BevGrid.of(MODEL_2.bev)
DATA = DATA_2.model_copy(update={"class_balanced": False, "streaming": StreamingConfig()})
FRAMES = DATA.frames


def detector(precision: torch.dtype = torch.float32) -> BEVNeXt:
    torch.manual_seed(0)
    model = build_detector(MODEL_2, DATA).to(precision).eval()
    assert isinstance(model, BEVNeXt)
    return model


def moved(x: float, y: float, degrees: float = 0.0, scale: float = 1.0) -> Tensor:
    """float64 `[4, 4]`: rotation and scaling, then a shift."""
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    out = torch.eye(4, dtype=torch.float64)
    out[:2, :2] = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    out[:3, :3] *= scale
    out[:2, 3] = torch.tensor([x, y])
    return out


def drive(steps: int, slots: int = 1) -> list[SimpleNamespace]:
    """Batches of key frames: `slots` cars that drive on, three metres a step, on walks that begin with step 0."""
    batches = []
    for step in range(steps):
        batch = random_batch(slots, seed=step, data=DATA)
        batch.images = batch.images[:, :1]
        batch.global_from_ego = torch.stack([moved(3.0 * step, 10.0 * slot, 5.0 * step) for slot in range(slots)])
        batch.walk = [(slot, step) for slot in range(slots)]
        batches.append(batch)
    return batches


def part(batch: SimpleNamespace, i: int) -> SimpleNamespace:
    return sample_of(batch, i)


def assert_same(ours: BEVNeXtOutputs, theirs: BEVNeXtOutputs, tolerance: float) -> None:
    for one, other in zip(ours.heatmaps + ours.boxes, theirs.heatmaps + theirs.boxes, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


# --- alignment -----------------------------------------------------------------------------------------------------


def test_a_drive_of_two_cells_moves_the_map_by_two_cells():
    bev = torch.rand(3, GRID.y.cells, GRID.x.cells)
    eye = torch.eye(4, dtype=torch.float64)
    earlier = CarriedMap(bev, eye)
    key = CarriedMap(torch.zeros_like(bev), torch.linalg.inv(moved(2 * GRID.x.step, -GRID.y.step)))
    (warped,) = into_rasters_of_key_frames([[key, earlier]], GRID)
    torch.testing.assert_close(warped[:, 1:, :-2], bev[:, :-1, 2:])
    assert not warped[:, :, -2:].any()
    assert not warped[:, 0].any()


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_the_world_stays_where_it_is(precision):
    """A map that is linear in the world's x and y: bilinear sampling must give it exactly in any other raster."""
    ego_then, ego_now = moved(100.0, 50.0, 80.0), moved(104.0, 51.0, 95.0)
    bev_then, bev_now = moved(0.0, 0.0, 20.0, 1.05), torch.diag(torch.tensor([-1.0, 1, 1, 1], dtype=torch.float64))
    places = [bev @ torch.linalg.inv(ego) for bev, ego in ((bev_now, ego_now), (bev_then, ego_then))]
    now, then = (CarriedMap(world_coordinates(place).to(precision), place) for place in places)
    (warped,) = into_rasters_of_key_frames([[now, then]], GRID)
    inside = (warped - now.bev).abs().amax(0) < 1e-3
    middle = slice(GRID.x.cells // 4, -GRID.x.cells // 4)
    assert inside[middle, middle].all()
    assert not inside.all()  # the corners of one raster lie outside the other


def world_coordinates(bev_from_global: Tensor) -> Tensor:
    """`[2, Y, X]`: x and y in the world of each cell's centre."""
    y, x = (axis.lower + axis.step * (torch.arange(axis.cells).double() + 0.5) for axis in (GRID.y, GRID.x))
    y, x = torch.meshgrid(y, x, indexing="ij")
    points = torch.stack([x, y, torch.zeros_like(x), torch.ones_like(x)], -1)
    return (points @ torch.linalg.inv(bev_from_global).T)[..., :2].permute(2, 0, 1)


def test_a_map_leaves_gradient_and_memory_order_behind():
    bev = torch.rand(2, 3, 4, 4, requires_grad=True).to(memory_format=torch.channels_last)
    batch = random_batch(2)
    maps = maps_of(bev, batch)
    for one, expected in zip(maps, bev, strict=True):
        assert not one.bev.requires_grad
        assert one.bev.is_contiguous()
        assert torch.equal(one.bev, expected)


# --- along a walk --------------------------------------------------------------------------------------------------


def test_a_walk_begins_as_a_scene_does():
    """The key frame stands in for the frames before it, as in the published sliding window."""
    model = detector()
    (batch,) = drive(1)
    whole = random_batch(1, seed=0, data=DATA)
    whole.images = batch.images.expand_as(whole.images)
    for name in ("img_from_cam", "ego_from_cam", "canvas_from_img"):
        setattr(whole, name, getattr(batch, name)[:, :1].expand_as(getattr(whole, name)))
    assert_same(model(batch), model(whole), 1e-5)


def test_every_frame_of_the_walk_matters_and_no_other():
    model = detector(torch.float64)
    steps = FRAMES + 1
    plain = [model(batch) for batch in drive(steps)][-1]
    for changed in range(steps - 1):
        model.memory.forget()
        batches = drive(steps)
        batches[changed].images = 255 - batches[changed].images
        last = [model(batch) for batch in batches][-1]
        same = torch.allclose(last.heatmaps[0], plain.heatmaps[0], atol=1e-9)
        assert same == (changed < steps - FRAMES)


def test_slots_are_independent_however_a_step_is_split():
    together, apart = detector(torch.float64), detector(torch.float64)
    for batch in drive(3, slots=3):
        whole = together(batch)
        for slot in (2, 0, 1):
            alone = apart(part(batch, slot))
            for ours, theirs in zip(whole.heatmaps + whole.boxes, alone.heatmaps + alone.boxes, strict=True):
                torch.testing.assert_close(ours[slot : slot + 1], theirs, rtol=1e-9, atol=1e-9)


def test_a_new_walk_and_a_faulty_step_leave_nothing_of_the_past():
    model = detector(torch.float64)
    first, second = drive(2)
    begun = model(first)
    model(second)
    assert_same(model(first), begun, 0.0)
    model(second)
    model.memory.forget()
    forgotten = model(second)
    second.walk = [(0, 0)]
    assert_same(model(second), forgotten, 0.0)


def test_what_is_remembered_can_be_taken_up_bit_by_bit():
    model, other = detector(), detector()
    *before, last = drive(FRAMES + 2, slots=2)
    for batch in before:
        model(batch)
    state = model.memory.state()
    assert {name.partition(".")[0] for name in state} == {"0", "1"}
    assert state["0.bev"].shape[0] == FRAMES
    other.memory.take_up(state, torch.device("cpu"))
    assert_same(other(last), model(last), 0.0)


def test_memory_holds_no_more_than_a_sample_uses():
    memory = SlotMemory(frames=3)
    for age in range(5):
        own = CarriedMap(torch.full((1, 2, 2), float(age)), torch.eye(4, dtype=torch.float64))
        ((key, *earlier),) = memory.frames_of([(7, age)], [own])
        assert key is own
        assert [float(one.bev[0, 0, 0]) for one in earlier] == [age - 1 if age else 0, age - 2 if age > 1 else age]
    assert memory.state()["7.ages"].tolist() == [2, 3, 4]


def test_nothing_learns_through_carried_maps():
    """Gradients are those of a network that was given the maps as constants."""
    model = detector(torch.float64)
    twin = copy.deepcopy(model)
    first, second, last = drive(3)
    model(first)
    model(second)
    twin.memory.take_up(model.memory.state(), torch.device("cpu"))
    sum(model.loss(model(last), model.targets(last)).values()).backward()
    sum(twin.loss(twin(last), twin.targets(last)).values()).backward()
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("batches", [[[0], [1], [2], [3], [4]], [[0, 1, 2], [3, 4]], [[0, 1], [2, 3, 4]]])
def test_evaluation_carries_the_same_maps(batches):
    model = detector()
    frames = drive(5)
    alone = [model(batch) for batch in frames]
    stream = model.stream()
    assert isinstance(stream, MapStream)
    for rows in batches:
        parts = [vars(frames[row]) for row in rows]
        batch = SimpleNamespace(**{name: joined([own[name] for own in parts]) for name in parts[0]})
        numbers = [[max(row - age, 0) if row >= age else row for age in range(FRAMES)] for row in rows]
        found = stream.detect(batch, numbers)
        for i, row in enumerate(rows):
            for ours, theirs in zip(found.heatmaps + found.boxes, alone[row].heatmaps + alone[row].boxes, strict=True):
                torch.testing.assert_close(ours[i : i + 1], theirs, rtol=1e-4, atol=1e-4)


def joined(values: list[Tensor] | list[list[Tensor]]) -> Tensor | list[Tensor]:
    if isinstance(values[0], Tensor):
        return torch.cat(values)
    return [item for value in values for item in value]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_every_parameter_learns_along_a_walk(precision):
    model = detector().train()
    for batch in drive(2, slots=2):
        with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
            outputs = model(batch)
        model.zero_grad()
        sum(model.loss(outputs, model.targets(batch)).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_published_recipes_carry_nothing():
    model = build_detector(MODEL_2, DATA_2)
    assert model.memory is None
    assert not isinstance(model.stream(), MapStream)
