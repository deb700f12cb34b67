"""What the engine relies on: losses of a whole step, precision, recomputation, decoding, and named mistakes."""

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from goldens import published_state
from small_model import DATA, DATA_2, MODEL, MODEL_2, random_batch, sample_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from configs.errors import UsageError
from configs.schema import BEVNeXtConfig, DataConfig
from detectors import build_detector
from detectors.bevnext.model import BEVNeXt
from detectors.interface import Detector


def gradients(model: Detector, losses: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    model.zero_grad()
    sum(value for terms in losses for value in terms.values()).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


class Waits(TorchDispatchMode):
    """Counts operators that an accelerator makes its host wait for: sizes and numbers that the host needs."""

    WAITING = ("aten::nonzero", "aten::_local_scalar_dense", "aten::masked_select", "aten::lift_fresh")

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        of_a_mask = name in ("aten::index", "aten::index_put", "aten::index_put_") and any(
            one is not None and one.dtype == torch.bool for one in args[1]
        )
        if of_a_mask or name in self.WAITING:
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


def test_a_step_waits_for_the_device_where_cells_are_counted_and_nowhere_else():
    """Coupled cells (CRF: key frame, earlier frames) and seen cells (refinement), as docs/bevnext.md says."""
    model, batch = build_detector(MODEL_2, DATA_2).train(), random_batch(2, data=DATA_2)
    with Waits() as waits:
        targets = model.targets(batch)
        sum(model.loss(model(batch), targets).values()).backward()
    assert waits.seen == {"aten::nonzero": 3, "aten::_local_scalar_dense": 1}


def test_published_names_and_shapes():
    own = {
        name: tuple(value.shape) for name, value in build_detector(BEVNeXtConfig(), DataConfig()).state_dict().items()
    }
    assert list(own.items()) == list(published_state().items())


def test_micro_batches_add_up_to_the_whole_step():
    """One optimiser step is the same however it is cut: losses and gradients, float64, statistics frozen."""
    torch.manual_seed(0)
    model = build_detector(MODEL, DATA).double().eval()
    batch = random_batch(4)
    batch.depth[2] = 0.0
    batch.boxes[1], batch.labels[1] = batch.boxes[1][:0], batch.labels[1][:0]
    parts = [sample_of(batch, i) for i in range(4)]
    counts = model.targets(batch).counts
    assert counts.dtype == torch.float32
    torch.testing.assert_close(sum(model.targets(part).counts for part in parts), counts)

    whole = [model.loss(model(batch), model.targets(batch))]
    cut = [model.loss(model(part), model.targets(part), counts) for part in parts]
    for name, value in whole[0].items():
        torch.testing.assert_close(sum(terms[name] for terms in cut), value, rtol=1e-12, atol=1e-12)
    expected, ours = gradients(model, whole), gradients(model, cut)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


def test_every_parameter_gets_a_gradient_even_without_objects():
    model = build_detector(MODEL, DATA).train()
    batch = random_batch(2, objects=0)
    batch.depth.zero_()
    terms = model.loss(model(batch), model.targets(batch))
    assert len(terms) == 1 + 6 + 30
    assert all(value.isfinite() for value in terms.values())
    assert all(gradient.isfinite().all() for gradient in gradients(model, [terms]).values())


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("double", [False, True])
def test_recomputation_changes_memory_only_and_statistics_count_as_the_recipe_says(recompute, double):
    torch.manual_seed(0)
    plain = build_detector(MODEL, DATA).train()
    plain.img_view_transformer.depth_net.depth_conv[3].dropout.p = 0.0
    other = copy.deepcopy(plain)
    for part in (other.img_backbone, other.img_view_transformer.depth_net):
        part.recompute, part.double_statistics = recompute, double
    batch = random_batch(2)
    results = [gradients(model, [model.loss(model(batch), model.targets(batch))]) for model in (plain, other)]
    torch.testing.assert_close(results[0], results[1])
    ours = dict(other.named_buffers())
    for name, value in plain.named_buffers():
        twice = double and ("img_backbone.layer" in name or "depth_conv" in name)
        if name.endswith("num_batches_tracked"):
            assert (int(value), int(ours[name])) == (1, 2 if twice else 1), name
        else:  # both start from the values of a new module; one pass moves them by a tenth, two by 0.19
            start = 1.0 if name.endswith("var") else 0.0
            expected = start + (1.9 if twice else 1.0) * (value - start)
            torch.testing.assert_close(ours[name], expected, rtol=1e-4, atol=1e-5, msg=name)


def test_normalisation_swaps_channels_but_not_their_statistics():
    model = build_detector(MODEL, DATA)
    assert isinstance(model, BEVNeXt)
    red = torch.zeros(1, 3, 64, 128, dtype=torch.uint8)
    red[:, 0] = 255
    expected = [(0 - 123.675) / 58.395, (0 - 116.28) / 57.12, (255 - 103.53) / 57.375]
    torch.testing.assert_close(model.normalise(red)[0, :, 5, 7], torch.tensor(expected))
    plain = build_detector(MODEL.model_copy(update={"bgr_input": False}), DATA)
    assert isinstance(plain, BEVNeXt)
    torch.testing.assert_close(plain.normalise(red)[0, 0, 5, 7], torch.tensor((255 - 123.675) / 58.395))


def test_autocast_trains_and_decodes():
    model = build_detector(MODEL, DATA).train()
    batch = random_batch(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(batch)
        terms = model.loss(outputs, model.targets(batch))
    assert outputs.heatmaps[0].dtype == torch.bfloat16
    assert outputs.depth.dtype == torch.float32
    assert {value.dtype for value in terms.values()} == {torch.float32}
    assert all(gradient.isfinite().all() for gradient in gradients(model, [terms]).values())
    exact = model.loss(model(batch), model.targets(batch))
    assert sum(terms.values()).item() == pytest.approx(sum(exact.values()).item(), rel=0.1)
    for found in model.decode(outputs):
        assert found.boxes.dtype == torch.float32
        assert not found.boxes.requires_grad


def test_a_few_steps_overfit_one_sample():
    torch.manual_seed(0)
    model = build_detector(MODEL, DATA).train()
    batch = random_batch(1, objects=4)
    batch.boxes[0][:, 3:5] = batch.boxes[0][:, 3:5].clamp(min=4)
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    losses = []
    for _ in range(40):
        loss = sum(model.loss(model(batch), model.targets(batch)).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.35 * losses[0]


def test_a_camera_that_sees_nothing_is_no_mistake():
    """All cameras look straight up: no anchor is visible, nothing is lifted into the raster's height."""
    model = build_detector(MODEL, DATA).eval()
    batch = random_batch(1)
    up = torch.eye(4)
    up[2, 3] = 20.0
    batch.ego_from_cam = up.expand(1, 1, 6, 4, 4)
    outputs = model(batch)
    assert all(maps.isfinite().all() for maps in outputs.boxes)


@pytest.mark.parametrize(
    ("model", "data", "words"),
    [
        (MODEL, {"frames": 2}, "data.frames = 2"),
        (MODEL_2, {"frames": 1}, "fusion.groups = 3"),
        (MODEL_2, {"frames": 7}, "fusion.groups = 3"),
        (MODEL, {"depth_stride": 16}, "data.depth_stride = 16"),
        (MODEL, {"image_size": (60, 128)}, "height 60"),
        (MODEL.model_copy(update={"bev": MODEL.bev.model_copy(update={"channels": 18})}), {}, "refinement.heads = 4"),
    ],
)
def test_sizes_that_do_not_fit_are_named(model, data, words):
    with pytest.raises(UsageError, match=words):
        build_detector(model, DATA.model_copy(update=data))
