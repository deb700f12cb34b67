"""Several frames: what the past contributes, that batching it changes nothing, and what learns from it."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from goldens import STAGE_2, published_state
from small_model import DATA_2, MODEL_2, random_batch, sample_of
from torch import Tensor

from configs.schema import DataConfig
from detectors import build_detector
from detectors.bevnext.model import BEVNeXt
from detectors.geometry import CameraGeometry
from detectors.layers.batch_statistics import frames_apart


def detector() -> BEVNeXt:
    torch.manual_seed(0)
    model = build_detector(MODEL_2, DATA_2)
    assert isinstance(model, BEVNeXt)
    model.img_view_transformer.depth_net.depth_conv[3].dropout.p = 0.0
    return model


def frame_of(batch: SimpleNamespace, t: int) -> SimpleNamespace:
    """The batch with frame `t` alone."""
    per_frame = ("images", "img_from_cam", "ego_from_cam", "canvas_from_img")
    return SimpleNamespace(**(vars(batch) | {name: getattr(batch, name)[:, t : t + 1] for name in per_frame}))


def test_published_names_and_shapes():
    own = {name: tuple(v.shape) for name, v in build_detector(STAGE_2, DataConfig(frames=9)).state_dict().items()}
    assert list(own.items()) == list(published_state(2).items())


def test_every_frame_matters_and_its_order_does():
    model, batch = detector().eval(), random_batch(1, data=DATA_2)
    plain = model(batch).heatmaps[0]
    for t in range(DATA_2.frames):
        changed = copy.deepcopy(batch)
        changed.images[:, t] = 255 - changed.images[:, t]
        assert not torch.allclose(model(changed).heatmaps[0], plain, atol=1e-4)
    swapped = copy.deepcopy(batch)
    swapped.images[:, [1, 5]] = batch.images[:, [5, 1]]
    assert not torch.allclose(model(swapped).heatmaps[0], plain, atol=1e-4)


def test_earlier_frames_are_lifted_from_where_the_car_was():
    """A frame whose camera stood elsewhere gives another map, with the same images."""
    model, batch = detector().eval(), random_batch(1, data=DATA_2)
    batch.images = batch.images[:, :1].expand_as(batch.images)
    moved = model(batch).heatmaps[0]
    batch.ego_from_cam = batch.ego_from_cam[:, :1].expand_as(batch.ego_from_cam)
    assert not torch.allclose(model(batch).heatmaps[0], moved, atol=1e-4)


def test_micro_batches_of_samples_are_independent():
    model, batch = detector().double().eval(), random_batch(3, data=DATA_2)
    together = model(batch)
    for i in range(3):
        alone = model(sample_of(batch, i))
        for ours, theirs in zip(together.heatmaps + together.boxes, alone.heatmaps + alone.boxes, strict=True):
            torch.testing.assert_close(ours[i : i + 1], theirs, rtol=1e-9, atol=1e-9)


def one_frame_after_the_other(model: BEVNeXt, batch: SimpleNamespace) -> list[Tensor]:
    """BEV maps of all frames as the published code makes them, with the running statistics that it leaves."""
    maps = []
    canvas = batch.images[:, 0].flatten(0, 1)
    key = CameraGeometry.of_key_frame(batch)
    for t in range(DATA_2.frames):
        geometry = replace(CameraGeometry.of_key_frame(frame_of(batch, t)), mounting=key.mounting)
        images = model.normalise(batch.images[:, t].flatten(0, 1))
        with torch.set_grad_enabled(t == 0):
            lifted = model.img_view_transformer(model.image_features(images), canvas, geometry)
            maps += model.pre_process_net(lifted.bev)
    return maps


def test_batched_frames_equal_one_pass_each_statistics_included():
    plain = detector().double().train()
    batched = copy.deepcopy(plain)
    batch = random_batch(2, data=DATA_2)
    seen: list[Tensor] = []
    batched.img_bev_encoder_backbone.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    batched(batch)
    expected = torch.cat(one_frame_after_the_other(plain, batch), 1)
    torch.testing.assert_close(seen[0], expected, rtol=1e-9, atol=1e-9)
    ours = dict(batched.named_buffers())
    for name, value in plain.named_buffers():
        if name.startswith(("img_backbone", "img_view_transformer", "pre_process_net")):
            torch.testing.assert_close(ours[name], value, rtol=1e-9, atol=1e-9, msg=name)
            assert not name.endswith("tracked") or int(value) == DATA_2.frames


def test_parts_of_a_batch_are_normalised_apart_within_the_context_only():
    norm, twin = torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    x = torch.randn(6, 3, 4, 4) * torch.arange(1.0, 7.0)[:, None, None, None]
    with frames_apart(norm, 3):
        ours = norm(x)
    expected = torch.cat([twin(part) for part in x.split(2)])
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(norm.running_var, twin.running_var)
    assert int(norm.num_batches_tracked) == 3
    torch.testing.assert_close(norm(x), twin(x))
    assert int(norm.num_batches_tracked) == 4
    norm.eval()
    with frames_apart(norm, 3):
        torch.testing.assert_close(norm(x), twin.eval()(x))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_every_parameter_learns_from_the_key_frame(precision):
    model, batch = detector().train(), random_batch(2, data=DATA_2)
    with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        outputs = model(batch)
    sum(model.loss(outputs, model.targets(batch)).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert model.img_backbone.conv1.weight.grad.abs().max() > 0


def test_no_gradient_reaches_earlier_frames():
    """Their pixels count for the result, but the image branch learns from the key frame alone (published)."""
    model, batch = detector().double().eval(), random_batch(1, data=DATA_2)
    features: list[Tensor] = []
    model.img_neck.register_forward_hook(lambda _module, _args, out: features.append(out))
    sum(model.loss(model(batch), model.targets(batch)).values()).backward()
    assert [one.requires_grad for one in features] == [True, False]
